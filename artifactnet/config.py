"""Reading a configuration: the schema's defaults, files, overrides, and what is wrong in them.

The dataclasses of `artifactnet.schema` are the one list of keys. A YAML file holds differences from
them (and may name another file as its ``base``); dotted overrides come last. `load` answers any
mistake with one `ConfigError` line that names the key, the place and the nearest valid key. What
the characters of a value are is in `artifactnet.values`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from artifactnet.rules import problems
from artifactnet.schema import (
    AlignmentConfig,
    AttentionConfig,
    AugmentConfig,
    Config,
    ContextConfig,
    DataConfig,
    DistillConfig,
    GrpoConfig,
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
from artifactnet.values import Scalar, convert, free_value, parse_written, parse_yaml, without_none

__all__ = [
    "AlignmentConfig",
    "AttentionConfig",
    "AugmentConfig",
    "Config",
    "ConfigError",
    "ContextConfig",
    "DataConfig",
    "DistillConfig",
    "GrpoConfig",
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
_Entry = tuple[str, Any, str]  # dotted key, value as written, the place it was written in
_WORDS = {
    int: "an integer (decimal digits, no leading zero)",
    float: "a number",
    str: "text",
    bool: "true or false",
}
_LONGEST_KEY = 100  # characters of an unknown key that are compared and shown
_PLURALS = {int: "integers", float: "numbers", str: "texts"}
_REFERENCE = re.compile(r"\$\{(\.*)([^${}:\s]+)\}")  # ${key}, or ${.key} of the same group


def load(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration: schema defaults, then ``base`` files, the file, the overrides.

    Args:
        source: a YAML file, or a bare name (``dinov2_align``, ``paper/xaigd_dinov2_align``)
            looked up in ``./configs`` and then among the configurations of the package.
        overrides: ``dotted.key=value`` strings; text is taken as it stands, other values are YAML.

    Returns:
        The checked configuration. ``name``, unless the file itself or an override sets it,
        is the file's stem (a base's name is not inherited: that would be another run).

    Raises:
        ConfigError: missing or unreadable file, unknown key, wrong type, impossible value.
    """
    path = find(source)
    types = schema()
    entries = _read_file(path, (), types)
    for text in overrides:
        entries += _parse_override(text, types)
    config = Config(name=path.stem)
    places: dict[str, str] = {}
    for key, value, place in entries:
        _check_known(key, place, types)
        dictionary = key not in types or get_origin(types[key]) is dict
        if dictionary or not _has_reference(value):
            value = _typed(value, key, place, types)
        else:
            value = _characters(value)  # the type of ${key} is known when all keys are read
        _assign(config, key, value)
        places = {k: p for k, p in places.items() if not k.startswith(f"{key}.")} | {key: place}
    _resolve(config, places, types)
    for key, problem in problems(config):
        raise ConfigError(f"{_blamed(key, problem, places, str(path))}: {key} {problem:.600}")
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


def _read_yaml(read: Callable[..., Any], place: str, *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark and not place.startswith(COMMAND_LINE) else ""
        reason = " ".join((getattr(error, "problem", None) or str(error)).split("\n"))
        raise ConfigError(f"{place}{line}: not readable as YAML: {reason:.300}") from None


def _read_file(path: Path, parents: tuple[Path, ...], types: Mapping[str, Any]) -> list[_Entry]:
    """Entries of a file, those of its bases first."""
    if path.resolve() in parents:
        raise ConfigError(f"{path}: base leads back to the file itself")
    try:
        data = _read_yaml(parse_yaml, str(path), path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file: {error}") from None
    data = {} if data is None else data
    if not isinstance(data, dict):
        found = "text" if isinstance(data, str) else type(data).__name__
        raise ConfigError(f"{path}: expected 'key: value' lines, found {found}")
    base = data.pop("base", None)
    inherited: list[_Entry] = []
    if base is not None:
        parent = path.parent / str(base)
        if not os.path.isfile(parent):  # False also for what no file can be called
            raise ConfigError(f"{path}: base {str(base)!r:.200} does not exist ({parent!s:.300})")
        inherited = _read_file(parent, (*parents, path.resolve()), types)
    own = [(key, value, str(path)) for key, value in _flatten(data, "", types)]
    return [entry for entry in inherited if entry[0] != "name"] + own


def _flatten(data: Mapping[Any, Any], prefix: str, types: Mapping[str, Any]) -> Iterator[Any]:
    """Dotted keys with their values. A group without any key, ``model:``, says nothing."""
    for name, value in data.items():
        key = f"{prefix}{name}"
        group = is_dataclass(types.get(key))
        if group and isinstance(value, dict) and value:
            yield from _flatten(value, f"{key}.", types)
        elif not (group and value == "" and isinstance(value, Scalar) and not value.quoted):
            yield key, value


def _parse_override(text: str, types: Mapping[str, Any]) -> list[_Entry]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"{COMMAND_LINE}: expected key=value, got {text!r:.200}")
    _check_known(key, COMMAND_LINE, types)
    read = _read_yaml(parse_written, f"{COMMAND_LINE}: {key}", value, types.get(key))
    if is_dataclass(types.get(key)) and isinstance(read, dict):
        return [(*pair, COMMAND_LINE) for pair in _flatten({key: read}, "", types)]
    return [(key, read, COMMAND_LINE)]


def _dictionary_of(key: str, types: Mapping[str, Any]) -> str | None:
    """The dictionary that holds a key of the user's own, say ``model.backbone_kwargs``."""
    parts = key.split(".")
    above = (".".join(parts[:end]) for end in range(1, len(parts)) if all(parts))
    return next((name for name in above if get_origin(types.get(name)) is dict), None)


def _check_known(key: str, place: str, types: Mapping[str, Any]) -> None:
    if key not in types and _dictionary_of(key, types) is None:
        begin = key[:_LONGEST_KEY]
        nearest = max(types, key=lambda known: _likeness(begin, known))
        raise ConfigError(f"{place}: unknown key {begin!r}; the nearest valid key is {nearest!r}")


def _typed(value: Any, key: str, place: str, types: Mapping[str, Any]) -> Any:
    """The value as the type of its (known) key."""
    hint = types.get(key)
    try:
        if hint is None:
            return free_value(value)
        if is_dataclass(hint):
            raise ValueError("a group has no value")
        value = convert(value, hint)
        # to YAML true, True and TRUE are one word
        return value.lower() if key == "model.pretrained" else value
    except ValueError:
        raise ConfigError(
            f"{place}: {key} must be {_expected(key, hint)}, not {value!r:.200}"
        ) from None
    except RecursionError:
        raise ConfigError(f"{place}: {key} is nested too deeply") from None


def _expected(key: str, hint: Any) -> str:
    """What the value of a key must be, in words."""
    if is_dataclass(hint):
        return f"a group of keys, such as {key}.{fields(hint)[0].name}"
    wanted, optional = without_none(hint)
    if get_origin(wanted) is dict:
        words = "a mapping" + (" of texts to numbers" if get_args(wanted)[1] is float else "")
    elif get_origin(wanted) is list:
        words = f"a list of {_PLURALS[get_args(wanted)[0]]} in brackets"
    else:
        words = _WORDS[wanted]
    return f"{words}, or null" if optional else words


def _assign(config: Config, key: str, value: Any) -> None:
    """Set a known key; in a dictionary what is above it becomes a dictionary, too."""
    owner: Any = config
    *above, name = key.split(".")
    for part in above:
        if not isinstance(owner, dict):
            owner = getattr(owner, part)
        else:
            if not isinstance(owner.get(part), dict):
                owner[part] = {}
            owner = owner[part]
    if isinstance(owner, dict):
        owner[name] = value
    else:
        setattr(owner, name, value)


def _characters(value: Any) -> Any:
    """Plain strings of a value that waits for the keys that it refers to."""
    if isinstance(value, list):
        return [_characters(item) for item in value]
    return {k: _characters(v) for k, v in value.items()} if isinstance(value, dict) else str(value)


def _has_reference(value: Any) -> bool:
    """Whether a value, or one inside it, refers to another key or to the environment."""
    if isinstance(value, dict | list):
        return any(map(_has_reference, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and "${" in value


def _resolve(config: Config, places: Mapping[str, str], types: Mapping[str, Any]) -> None:
    """Put values in the place of ``${key}`` and ``${oc.env:NAME}``.

    Raises:
        ConfigError: one leads nowhere, or to a value of another type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    written = {key: value for key in places if _has_reference(value := _value_of(config, key))}
    if not written:
        return
    found, failed = {}, {}
    for key, value in written.items():
        try:
            OmegaConf.create([value])
        except OmegaConfBaseException as error:  # ${ without }
            raise ConfigError(f"{places[key]}: {key}: {str(error).splitlines()[0]}") from None
    tree = OmegaConf.create(to_dict(config))
    for key in written:
        try:
            value = OmegaConf.select(tree, key)
            is_tree = OmegaConf.is_config(value)
            found[key] = OmegaConf.to_container(value, resolve=True) if is_tree else value
        except (OmegaConfBaseException, RecursionError) as error:
            failed[key] = str(error).splitlines()[0]
    if failed:
        key = _origin(next(iter(failed)), failed, written)
        raise ConfigError(f"{places[key]}: {key}: {failed[key]}")
    for key, value in found.items():
        _assign(config, key, _typed(value, key, places[key], types))


def _value_of(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def _origin(key: str, failed: Mapping[str, str], written: Mapping[str, Any]) -> str:
    """The key where a chain of references that begins with ``key`` leads nowhere."""
    chain = [key]
    while True:
        parts = chain[-1].split(".")
        targets = [
            ".".join((*parts[: -len(dots)], name) if dots else (name,))
            for dots, name in _REFERENCE.findall(str(written[chain[-1]]))
        ]
        inside = [k for k in failed if k.startswith(f"{chain[-1]}.")]
        nearer = [k for k in (*inside, *targets) if k in failed and k not in chain]
        if not nearer:
            return chain[-1]
        chain.append(nearer[0])


def _blamed(key: str, problem: str, places: Mapping[str, str], path: str) -> str:
    """Where an impossible value was written: on the command line, if a key of the problem was."""
    named = {key, *re.findall(r"[a-z_]+(?:\.[a-z_]+)+", problem)}
    involved = [k for k in places if k in named or k.startswith(f"{key}.")]
    if any(places[k] == COMMAND_LINE for k in involved):
        return COMMAND_LINE
    return places.get(key) or (places[involved[-1]] if involved else path)


def _likeness(key: str, known: str) -> float:
    """Similarity of two dotted keys, counting a right last name under a wrong section."""
    names = [text.rpartition(".")[2] for text in (key, known)]
    whole = difflib.SequenceMatcher(None, key, known).ratio()
    last = difflib.SequenceMatcher(None, names[0], names[1]).ratio()
    return max(whole, 0.9 * last)
