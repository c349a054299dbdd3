"""Every key a run can have, its type, its default, and the rules its values obey.

The dataclasses are the one list of keys. A YAML file holds differences from them (and may
name another file as its ``base``); dotted overrides come last. `load` answers any mistake
with one `ConfigError` line that names the key, the place and the nearest valid key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from artifactnet.rules import RULES
from artifactnet.types import ArtifactNetError


@dataclass
class LoraConfig:
    """Low-rank adapters on the backbone (paper D.4). ``rank: 0`` trains all weights."""

    rank: int = 0
    alpha: int = 16
    dropout: float = 0.0
    target_modules: list[str] = field(default_factory=lambda: ["qkv", "proj", "fc1", "fc2"])


@dataclass
class AttentionConfig:
    """How the class token's attention becomes a map (Abnar & Zuidema 2020; Gildenblat 2020)."""

    method: str = "rollout"  # rollout | gradient_rollout
    head_fusion: str = "mean"  # mean | max | min
    discard_ratio: float = 0.0  # share of the weakest weights dropped per layer and image
    start_layer: int = 0  # first block that takes part
    second_order: bool = True  # gradient_rollout: differentiate through the gradient too
    normalization: str = "saturate"  # saturate | max | minmax | none


@dataclass
class ModelConfig:
    """The network and its preprocessing; saved inside every checkpoint."""

    backbone: str = "vit_small_patch14_dinov2"
    backbone_kwargs: dict[str, Any] = field(default_factory=dict)  # passed to timm.create_model
    stem: str = "patch"  # patch: timm's own embedding | conv: convolutional stem, same grid
    stem_width: int = 32  # conv stem: channels after the first convolution
    pretrained: str = "auto"  # auto | true | false
    weights: str | None = None  # local backbone weights (.safetensors or a tensors-only .pth)
    image_size: list[int] = field(default_factory=lambda: [224, 224])  # height, width
    resize: str = "stretch"  # stretch | crop | pad
    mean: list[float] | None = None  # None: the backbone's own
    std: list[float] | None = None
    threshold: float = 0.5  # fake if probability >= threshold
    map_threshold: float = 0.5  # artifact if heatmap > map_threshold
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass
class AlignmentConfig:
    """Attention alignment (X-AIGD Sec. 6.1)."""

    weight: float = 0.1  # beta; 0 is the baseline
    benign_weight: float = 0.4  # lambda: weight of patches without artifact


@dataclass
class LossConfig:
    """Weights of the loss terms."""

    bce: float = 1.0
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)


@dataclass
class AugmentConfig:
    """Training augmentation; evaluation uses the model's preprocessing alone."""

    jpeg_quality: list[int] = field(default_factory=lambda: [60, 100])  # [] switches it off
    jpeg_on: str = "fake"  # fake | both | none
    align_compression: bool = False  # re-encode a fake like its real twin (xaigd columns)
    hflip: float = 0.5
    vflip: float = 0.0
    rotate: float = 0.0  # probability of a quarter turn
    color: float = 0.0  # strength 0..1 of random brightness, contrast, saturation and gamma
    scale: list[float] = field(default_factory=lambda: [1.0, 1.0])  # random resize, before crop
    crop: bool = False  # random crop at model size instead of the model's resize policy
    max_category_ratio: float = 0.75  # of one class in a crop (mmseg's cat_max_ratio)


@dataclass
class DataConfig:
    """Where images come from."""

    name: str = "demo"  # demo | folder | xaigd
    root: str | None = None
    real_root: str | None = None  # xaigd: folder of real images, file stem = uid
    extra_real: bool = False  # xaigd: also use real images of unlabelled uids
    unlabeled: bool = False  # xaigd: also use the unlabeled_* shards
    generators: list[str] = field(default_factory=list)  # keep only these; [] keeps all
    val_fraction: float = 0.1  # of the training uids, where the data has no val split
    limit: int | None = None  # keep at most this many uids per split (for a quick try)
    batch_size: int = 8
    eval_batch_size: int | None = None  # None: batch_size
    workers: int = 0
    balance: bool = False  # as many real as fake images per epoch (repeats the rarer class)
    pairs: bool = False  # a photograph and its fakes (one uid) in the same batch
    on_error: str = "raise"  # raise | skip
    check: str = "full"  # full | counts | off
    demo_train: int = 400  # demo: fakes per split
    demo_val: int = 60
    demo_test: int = 120
    demo_size: int = 192  # demo: side of the square crops, pixels
    demo_seed: int = 0
    demo_categories: list[str] = field(default_factory=list)  # X-AIGD labels; [] is all seven
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    lr: float = 1e-5  # backbone
    head_lr: float | None = None  # None: lr
    weight_decay: float = 0.05  # not on norms, biases, positions and tokens
    layer_decay: float = 1.0  # multiplies lr once per block below the last
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    warmup: float = 0.05  # share of all steps
    schedule: str = "cosine"  # cosine | constant
    min_lr_ratio: float = 0.01
    clip_norm: float = 1.0  # 0 switches clipping off
    ema: float = 0.0  # decay of the weight average; 0 switches it off


@dataclass
class TrainConfig:
    """How long, where, and what is written meanwhile."""

    epochs: int = 20
    max_steps: int | None = None  # optimizer steps; ends the run earlier
    accumulate: int = 1
    precision: str = "auto"  # auto: bf16-mixed where the device has it | 32 | bf16 | 16
    device: str = "auto"  # auto | cpu | gpu
    devices: int = 1
    strategy: str = "auto"  # auto | ddp
    eval_every: int = 1  # epochs
    picture_every: int = 5  # epochs; 0 switches the picture grids off
    pictures: int = 6
    log_every: int = 10  # steps
    tensorboard: bool = True
    deterministic: bool = True
    monitor: str = "balanced_accuracy"  # balanced_accuracy | map_iou | loss


@dataclass
class Config:
    """A run."""

    name: str = "run"
    out: str = "runs"  # the run lives in out/name
    seed: int = 0
    resume: bool = False  # go on with the same run
    init_from: str | None = None  # start from the weights of another run, nothing else
    overwrite: bool = False  # replace a finished run
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


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


def problems(config: Config) -> Iterator[tuple[str, str]]:
    """Impossible values of a configuration, as (dotted key, what it must be)."""
    for key, (wanted, holds) in RULES.items():
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        if value is not None and not holds(value):
            yield key, f"must be {wanted}, not {value!r}"
    if config.data.name != "demo" and not config.data.root:
        yield "data.root", f"is required when data.name is {config.data.name!r}"
    if config.data.pairs and config.data.balance:
        yield "data.pairs", "and data.balance exclude each other"
    if config.resume and config.overwrite:
        yield "overwrite", "and resume exclude each other: go on with the run, or replace it"
    if config.loss.bce == 0 and config.loss.alignment.weight == 0:
        yield "loss.bce", "and loss.alignment.weight are both 0: there is nothing to learn"


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
