"""Reading a configuration: the schema's defaults, files, overrides, and what is wrong in them.

The dataclasses of `artifactnet.schema` are the one list of keys. A YAML file holds differences from
them (and may name another file as its ``base``); dotted overrides come last. `load` answers any
mistake with one `ConfigError` line that names the key, the place and the nearest valid key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from artifactnet.rules import problems
from artifactnet.schema import (
    AlignmentConfig,
    AttentionConfig,
    AugmentConfig,
    Config,
    DataConfig,
    DistillConfig,
    HeatmapConfig,
    HeatmapLossConfig,
    LoraConfig,
    LossConfig,
    MllmConfig,
    ModelConfig,
    OptimConfig,
    SegmentationConfig,
    SegmentationLossConfig,
    TrainConfig,
)
from artifactnet.types import ArtifactNetError

__all__ = [
    "AlignmentConfig",
    "AttentionConfig",
    "AugmentConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "DistillConfig",
    "HeatmapConfig",
    "HeatmapLossConfig",
    "LoraConfig",
    "LossConfig",
    "MllmConfig",
    "ModelConfig",
    "OptimConfig",
    "SegmentationConfig",
    "SegmentationLossConfig",
    "TrainConfig",
    "find",
    "load",
    "schema",
    "to_dict",
]


def to_dict(config: Any) -> dict[str, Any]:
    """Plain dictionary of a config dataclass (JSON and YAML ready)."""
    return asdict(config)


class ConfigError(ArtifactNetError):
    """A mistake in a configuration; its one line names the key, the place and the remedy."""


COMMAND_LINE = "command line"
_FREE = "model.backbone_kwargs."  # below it stands whatever timm.create_model takes
_Entry = tuple[str, Any, str]  # dotted key, value, the place it was written in


def load(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration: schema defaults, then ``base`` files, the file, the overrides.

    Args:
        source: a YAML file, or a bare name (``dinov2_align``, ``paper/xaigd_dinov2_align``)
            looked up in ``./configs`` and then among the configurations of the package.
        overrides: ``dotted.key=value`` strings; the value is read as YAML.

    Returns:
        The checked configuration. ``name``, unless the file itself or an override sets it,
        is the file's stem (a base's name is not inherited: that would be another run).

    Raises:
        ConfigError: missing or unreadable file, unknown key, wrong type, impossible value.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = find(source)
    types = schema()
    entries = _read_file(path, ())
    for text in overrides:
        entries += _parse_override(text, types)
    tree = OmegaConf.structured(Config(name=path.stem))
    places: dict[str, str] = {}
    for key, value, place in entries:
        expected = _expected(key, place, types)
        value = _as_written(value, key, types.get(key))
        places[key] = place
        try:
            if types.get(key) is bool and not isinstance(value, (bool, str)):
                raise TypeError(value)  # OmegaConf would take 3 for true
            OmegaConf.update(tree, key, value, force_add=True)
        except (OmegaConfBaseException, TypeError):
            raise ConfigError(f"{place}: {key} must be {expected}, not {value!r}") from None
    try:
        config: Config = OmegaConf.to_object(tree)  # type: ignore[assignment]
    except OmegaConfBaseException as error:  # an interpolation that leads nowhere
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None
    for key, problem in problems(config):
        raise ConfigError(f"{places.get(key, path)}: {key} {problem}")
    return config


def find(source: str | Path) -> Path:
    """Path of a configuration given as a file or as a bare name (see `load`).

    Raises:
        ConfigError: there is none; the message lists the names there are.
    """
    packaged = Path(__file__).parent / "configs"  # where a wheel puts them
    if not packaged.is_dir():
        packaged = Path(__file__).parent.parent / "configs"  # a source checkout
    folders = [Path("configs"), packaged]
    candidates = [Path(source), *(folder / f"{source}.yaml" for folder in folders)]
    for path in candidates:
        if path.is_file():
            return path
    known = sorted(
        {p.relative_to(f).with_suffix("").as_posix() for f in folders for p in f.rglob("*.yaml")}
    )
    raise ConfigError(f"no configuration {str(source)!r}; known: {', '.join(known) or 'none'}")


def schema(section: type = Config, prefix: str = "") -> dict[str, Any]:
    """Every dotted key of the schema with its type; sections map to their dataclass."""
    found: dict[str, Any] = {}
    hints = get_type_hints(section)
    for item in fields(section):
        key, hint = prefix + item.name, hints[item.name]
        found[key] = hint
        if is_dataclass(hint):
            found.update(schema(hint, f"{key}."))  # type: ignore[arg-type]
    return found


class _Loader(yaml.SafeLoader):
    """YAML's safe loader without two surprises: keys given twice, and ``off`` read as false."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                problem = f"key {key.value!r} occurs twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    letter: [pair for pair in pairs if not pair[0].endswith((":bool", ":timestamp"))]
    for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_EXPONENT = re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+")  # a number to all but YAML 1.1


def _parse_yaml(text: str, place: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark and not place.startswith(COMMAND_LINE) else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{place}{line}: not readable as YAML: {reason}") from None


def _read_file(path: Path, parents: tuple[Path, ...]) -> list[_Entry]:
    """Entries of a file, those of its bases first."""
    if path.resolve() in parents:
        raise ConfigError(f"{path}: base leads back to the file itself")
    try:
        data = _parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file: {error}") from None
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected 'key: value' lines, found {type(data).__name__}")
    base = data.pop("base", None)
    inherited: list[_Entry] = []
    if base is not None:
        parent = path.parent / str(base)
        if not parent.is_file():
            raise ConfigError(f"{path}: base {str(base)!r} does not exist ({parent})")
        inherited = _read_file(parent, (*parents, path.resolve()))
    own = [(key, value, str(path)) for key, value in _flatten(data, "", schema())]
    return [entry for entry in inherited if entry[0] != "name"] + own


def _flatten(data: Mapping[Any, Any], prefix: str, types: dict[str, Any]) -> Iterator[Any]:
    for name, value in data.items():
        key = f"{prefix}{name}"
        section = is_dataclass(types.get(key)) or f"{key}." == _FREE
        if section and (value is None or isinstance(value, dict)):  # an empty section is no error
            yield from _flatten(value or {}, f"{key}.", types)
        else:
            yield key, value


def _parse_override(text: str, types: dict[str, Any]) -> list[_Entry]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"{COMMAND_LINE}: expected key=value, got {text!r}")
    read = _parse_yaml(value, f"{COMMAND_LINE}: {key}")
    return [(*pair, COMMAND_LINE) for pair in _flatten({key: read}, "", types)]


def _expected(key: str, place: str, types: dict[str, Any]) -> str:
    """What the value of a key must be, in words; an unknown key is an error."""
    if key.startswith(_FREE):
        return "a plain value"
    if key not in types:
        nearest = max(types, key=lambda known: _likeness(key, known))
        raise ConfigError(f"{place}: unknown key {key!r}; the nearest valid key is {nearest!r}")
    words = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    hint = types[key]
    if is_dataclass(hint):
        return "a group of keys"
    plain = str(hint).replace("dict[str, typing.Any]", "a mapping").replace("list[", "a list of [")
    return words.get(hint, plain.replace("None", "null"))


def _likeness(key: str, known: str) -> float:
    """Similarity of two dotted keys, counting a right last name under a wrong section."""
    names = [text.rpartition(".")[2] for text in (key, known)]
    whole = difflib.SequenceMatcher(None, key, known).ratio()
    last = difflib.SequenceMatcher(None, names[0], names[1]).ratio()
    return max(whole, 0.9 * last)


def _as_written(value: Any, key: str, hint: Any) -> Any:
    """Undo what YAML 1.1 makes of words and numbers where the schema knows better."""
    if isinstance(value, bool) and hint in (str, str | None):
        return str(value).lower()  # true and false are words here
    if key.startswith(_FREE) and isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)  # 1e-5; typed keys convert it themselves
    return value
