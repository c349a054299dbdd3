from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifactnet import config as cfg
from artifactnet.config import Config, ConfigError, load, to_dict
from artifactnet.rules import RULES

CONFIGS = Path(__file__).parent.parent / "configs"


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def message(*arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_empty_file_is_the_defaults(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, ""))
    assert loaded == Config(name="run")
    assert isinstance(loaded.model.attention, cfg.AttentionConfig)


def test_file_base_and_overrides_in_order(tmp_path: Path) -> None:
    write(tmp_path, "name: not inherited\noptim: {lr: 1e-4, warmup: 0.2}\nseed: 3", "a.yaml")
    (tmp_path / "sub").mkdir()
    path = write(tmp_path / "sub", "base: ../a.yaml\noptim:\n  lr: 2e-4\nmodel:\n", "b.yaml")
    loaded = load(path, ["optim.betas=[0.8, 0.9]", "seed=5", "seed=6"])
    assert loaded.name == "b"
    assert (loaded.optim.lr, loaded.optim.warmup) == (2e-4, 0.2)
    assert loaded.optim.betas == [0.8, 0.9]
    assert loaded.seed == 6
    assert load(path, ["name=mine"]).name == "mine"


def test_words_stay_words(tmp_path: Path) -> None:
    path = write(tmp_path, "data: {check: off}\nmodel: {pretrained: false}\nname: 2024-05-01")
    loaded = load(path)
    assert loaded.data.check == "off"
    assert loaded.model.pretrained == "false"
    assert loaded.name == "2024-05-01"
    for text, value in [("true", "true"), ("True", "true"), ("auto", "auto")]:
        assert load(path, [f"model.pretrained={text}"]).model.pretrained == value
    assert load(path, ["train.precision=32"]).train.precision == "32"
    assert load(path, ["data.balance=yes"]).data.balance is True


def test_text_that_looks_like_something_else_survives_a_saved_config(tmp_path: Path) -> None:
    words = ["1e5", "0E0", "off", "null", "2024-05-01", "0x1F", "1_000", "=", "a: b", "# c", "\x85"]
    config = Config(name="1e5")
    config.data.generators = words
    path = write(tmp_path, yaml.safe_dump(to_dict(config)))
    assert load(path) == config


TEXTS = [
    *("010", "1.10", "1_000", "0x10", "12:30", "0o17", "1e5", "+1", "-0", ".5", "1.", "007.500"),
    *("yes", "no", "on", "off", "true", "True", "null", "Null", "~", "None", "nan", ".inf", "="),
    *(
        "a # b",
        "#1",
        "a: b: c",
        "a=b=c",
        "- a",
        "[a",
        "a]",
        "{a}",
        "*a",
        "&a",
        "!a",
        "%a",
        "@a",
        "`a",
    ),
    *(
        "it's",
        "'a",
        'a"',
        "a, b",
        " spaces at both ends ",
        "2024-05-01",
        "12:30:45",
        "<<",
        "|",
        ">",
    ),
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_keeps_the_characters_that_were_typed(tmp_path: Path, text: str) -> None:
    loaded = load(write(tmp_path, ""), [f"name={text}", f"out=/a/{text}", f"init_from=x {text}"])
    assert (loaded.name, loaded.out, loaded.init_from) == (text, f"/a/{text}", f"x {text}")
    assert load(write(tmp_path, yaml.safe_dump(to_dict(loaded)))) == loaded


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="$'\""), min_size=1))
def test_any_text_is_taken_as_it_stands(tmp_path: Path, text: str) -> None:
    assert load(write(tmp_path, ""), [f"model.backbone={text}"]).model.backbone == text


@pytest.mark.parametrize(
    ("written", "text"),
    [
        *((text, text) for text in ("010", "1.10", "12:30", "1_000", "no", "null", "1e3", "a#b")),
        *(("a b-c=d:e", "a b-c=d:e"), ("a # b", "a"), ("'a # b'", "a # b")),
        *(("!!str 0x1F", "0x1F"), ("!!int 08", "08")),
    ],
)
def test_text_in_files_keeps_its_characters(tmp_path: Path, written: str, text: str) -> None:
    lines = f"model: {{backbone: {written}, stem_width: 8}}\n".replace("# b,", "# b\n,")
    loaded = load(write(tmp_path, f"name: {written}\n{lines}data: {{generators: [{written}\n]}}"))
    assert (loaded.name, loaded.model.backbone, loaded.data.generators) == (text, text, [text])


@pytest.mark.parametrize(
    ("written", "items"),
    [
        ("[007,1.50]", ["007", "1.50"]),
        ("[ 1_000 , 12:30,yes ]", ["1_000", "12:30", "yes"]),
        ("[a b, c # d, e=f]", ["a b", "c # d", "e=f"]),
        ("['a, b', \"c\\td\", 'it''s',]", ["a, b", "c\td", "it's"]),
        ("[it's, 5\" wide, null, {x}, [y]]", ["it's", '5" wide', "null", "{x}", "[y]"]),
        ("['010', ~, -, *a, &b]", ["010", "~", "-", "*a", "&b"]),
        ("[]", []),
    ],
)
def test_lists_of_text(tmp_path: Path, written: str, items: list[str]) -> None:
    assert load(write(tmp_path, ""), [f"data.generators={written}"]).data.generators == items


@pytest.mark.parametrize(
    ("written", "text"),
    [
        *(("null", None), ("~", None), ("", None), ("Null", None)),
        *(
            ("'null'", "null"),
            ("None", "None"),
            ('""', ""),
            ("nullable", "nullable"),
            ("010", "010"),
        ),
    ],
)
def test_optional_text(tmp_path: Path, written: str, text: str | None) -> None:
    path = write(tmp_path, "data: {real_root: before}")
    assert load(path, [f"data.real_root={written}"]).data.real_root == text
    file = write(tmp_path, f"base: run.yaml\ndata:\n  real_root: {written}", "own.yaml")
    assert load(file).data.real_root == text


def test_numbers_that_yaml_would_misread(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    for key in ("train.epochs", "seed", "data.limit", "loss.bce"):
        for text in ("1:30", "010", "-017", "1:30:00", "1__0", "1 0", "٣", "1,5", "ten", "''"):
            assert f"{key} must be a" in message(path, [f"{key}={text}"])
            group, _, name = key.rpartition(".")
            lines = f"{group}:\n  {name}: {text}" if group else f"{name}: {text}"
            assert f"{key} must be a" in message(write(tmp_path, lines, "own.yaml"))
    for text, number in [("16", 16), ("1_000", 1000), ("0x10", 16), ("'8'", 8), ("0", 0)]:
        loaded = load(path, [f"seed={text}", f"loss.bce={text}", f"data.augment.hflip={0}"])
        assert (loaded.seed, loaded.loss.bce) == (number, float(number))
        assert type(loaded.loss.bce) is float
    assert "model.image_size must be" in message(path, ["model.image_size=[0224, 224]"])
    assert "optim.betas must be" in message(path, ["optim.betas=[0.9, 1:30]"])


def test_numbers_with_an_exponent(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, "optim: {lr: 1e-5, betas: [1e-1, 0.5]}"), ["optim.ema=9e-1"])
    assert (loaded.optim.lr, loaded.optim.betas, loaded.optim.ema) == (1e-5, [0.1, 0.5], 0.9)


def test_free_keys_of_the_backbone(tmp_path: Path) -> None:
    path = write(tmp_path, "model: {backbone_kwargs: {depth: 2, init_values: 1e-5}}")
    loaded = load(path, ["model.backbone_kwargs.num_heads=2", "model.backbone_kwargs.depth=4"])
    assert loaded.model.backbone_kwargs == {"depth": 4, "init_values": 1e-5, "num_heads": 2}


KWARGS = "model.backbone_kwargs"


@pytest.mark.parametrize(
    ("overrides", "left"),
    [
        ([f"{KWARGS}={{}}"], {}),
        ([f"{KWARGS}=null"], {}),
        ([f"{KWARGS}="], {}),
        ([f"{KWARGS}={{a: 1}}"], {"a": 1}),
        (["model={backbone_kwargs: {}}"], {}),
        ([f"{KWARGS}.depth=4"], {"depth": 4, "heads": 3}),
        ([f"{KWARGS}.depth=null"], {"depth": None, "heads": 3}),
        ([f"{KWARGS}.depth=4", f"{KWARGS}={{b: 1}}", f"{KWARGS}.c=2"], {"b": 1, "c": 2}),
        ([f"{KWARGS}={{}}", f"{KWARGS}.a.b=[1, x]"], {"a": {"b": [1, "x"]}}),
        ([f"{KWARGS}.depth={{x: 1}}"], {"depth": {"x": 1}, "heads": 3}),
    ],
)
def test_dictionaries_are_replaced_and_their_keys_set(
    tmp_path: Path, overrides: list[str], left: dict[str, Any]
) -> None:
    path = write(tmp_path, "model: {backbone_kwargs: {depth: 2, heads: 3}}")
    assert load(path, overrides).model.backbone_kwargs == left


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ("model: {backbone_kwargs: {}}", {}),
        ("model: {backbone_kwargs: null}", {}),
        ("model:\n  backbone_kwargs:\n", {}),
        ("model: {backbone_kwargs: {a: 1}}", {"a": 1}),
        ("model: {backbone_kwargs.heads: 4}", {"depth": 2, "heads": 4}),
        ("model.backbone_kwargs.b: x", {"depth": 2, "heads": 3, "b": "x"}),
        ("model:", {"depth": 2, "heads": 3}),
    ],
)
def test_dictionaries_of_a_base(tmp_path: Path, lines: str, left: dict[str, Any]) -> None:
    write(tmp_path, "model: {backbone_kwargs: {depth: 2, heads: 3}}", "base.yaml")
    path = write(tmp_path, f"base: base.yaml\n{lines}")
    assert load(path).model.backbone_kwargs == left


def test_values_without_a_type(tmp_path: Path) -> None:
    written = "{a: 1, b: 1e-5, c: true, d: null, e: 1:30, f: 010, g: '2', h: off, i: [1, .5]}"
    assert load(write(tmp_path, ""), [f"{KWARGS}={written}"]).model.backbone_kwargs == {
        **{"a": 1, "b": 1e-5, "c": True, "d": None, "e": "1:30", "f": "010", "g": "2"},
        **{"h": "off", "i": [1, 0.5]},
    }


def test_references_to_other_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOS", "/photos #1")
    path = write(tmp_path, "name: ${data.root}\ndata: {root: b, real_root: '${.root}/${seed}'}")
    loaded = load(path, ["seed=7", "data.limit=${seed}", "data.generators=[x, ${data.root}]"])
    assert (loaded.name, loaded.data.root, loaded.data.real_root) == ("b", "b", "b/7")
    assert (loaded.data.limit, loaded.data.generators) == (7, ["x", "b"])
    loaded = load(path, ["data.root=${oc.env:PHOTOS}", "name=${seed}", f"{KWARGS}.x=${{seed}}"])
    assert (loaded.data.root, loaded.name) == ("/photos #1", "0")
    assert loaded.model.backbone_kwargs == {"x": 0}


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.root=${nothing}", "data.root"),
        ("data.root=${oc.env:NOT_SET_ANYWHERE}", "data.root"),
        ("data.root=${out}", "data.root"),  # a circle: out is ${data.root}
        ("model.backbone_kwargs.a=${nothing}", "model.backbone_kwargs.a"),
        ("data.real_root=${nothing}", "data.real_root"),
    ],
)
def test_a_reference_that_leads_nowhere_names_where_it_was_written(
    tmp_path: Path, override: str, key: str
) -> None:
    lines = "out: ${data.root}\ndata: {root: '${.real_root}', real_root: x}"
    path = write(tmp_path, f"{lines}\nmodel: {{backbone_kwargs: {{b: '${{out}}'}}}}")
    assert load(path).out == "x"
    assert message(path, [override]).startswith(f"command line: {key}: ")
    own = write(tmp_path, f"base: run.yaml\n{override.replace('=', ': ', 1)}", "own.yaml")
    assert message(own).startswith(f"{own}: {key}: ")
    broken = write(tmp_path, "out: ${nothing}", "broken.yaml")
    assert message(broken, ["seed=1"]).startswith(f"{broken}: out: ")


def test_problems_of_several_keys_blame_the_one_on_the_command_line(tmp_path: Path) -> None:
    path = write(tmp_path, "data: {pairs: true}\nloss: {alignment: {weight: 0}}")
    assert message(path, ["data.balance=true"]).startswith("command line: data.pairs")
    assert message(path, ["loss.heatmap.focal=1"]).startswith("command line: loss.heatmap")
    assert message(path, ["data.name=folder"]).startswith("command line: data.root")
    assert message(write(tmp_path, "data: {name: folder}"), ["seed=1"]).startswith(str(path))


def test_optional_values_can_be_unset(tmp_path: Path) -> None:
    path = write(tmp_path, "data: {limit: 3}\noptim: {head_lr: 1}")
    loaded = load(path, ["data.limit=null", "optim.head_lr="])
    assert loaded.data.limit is None
    assert loaded.optim.head_lr is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("loss.alignmnt.weight=1", ["loss.alignmnt.weight", "'loss.alignment.weight'"]),
        ("lr=1", ["'lr'", "'optim.lr'"]),
        ("modle.backbone=x", ["modle.backbone", "'model.backbone'"]),
        ("model.attention={methd: max}", ["methd", "'model.attention.method'"]),
        ("model=3", ["model must be a group of keys"]),
        ("optim.lr=fast", ["optim.lr must be a number", "'fast'"]),
        ("optim.lr=-1", ["optim.lr must be", "-1"]),
        ("optim.lr=.nan", ["optim.lr must be"]),
        ("train.epochs=1.5", ["train.epochs must be an integer"]),
        ("train.epochs=true", ["train.epochs must be an integer"]),
        ("data.balance=3", ["data.balance must be true or false"]),
        ("model.image_size=112", ["model.image_size must be a list"]),
        ("model.image_size=[112]", ["model.image_size must be two integers"]),
        ("model.image_size=[0, 112]", ["model.image_size must be two integers"]),
        ("model.threshold=1", ["model.threshold must be between 0 and 1"]),
        ("optim.betas=[0.9, 1]", ["optim.betas must be two numbers"]),
        ("optim.warmup=1.5", ["optim.warmup must be from 0 to 1"]),
        ("data.batch_size=0", ["data.batch_size must be at least 1"]),
        ("data.augment.jpeg_quality=[90, 60]", ["jpeg_quality must be [lowest, highest]"]),
        ("data.augment.jpeg_quality=[0, 60]", ["jpeg_quality must be"]),
        ("loss.alignment.benign_weight=2", ["benign_weight must be from 0 to 1"]),
        ("model.attention.method=rolout", ["one of rollout, gradient_rollout"]),
        ("model.stem_width=0", ["model.stem_width must be at least 1"]),
        ("data.augment.rotate=2", ["data.augment.rotate must be from 0 to 1"]),
        ("data.augment.color=-0.1", ["data.augment.color must be from 0 to 1"]),
        ("model.std=[1, 0, 1]", ["model.std must be three numbers above 0"]),
        ("mllm.temperature=-1", ["mllm.temperature must be"]),
        ("mllm.sequence_bias={a: .inf}", ["mllm.sequence_bias must be texts with finite"]),
        ("mllm.sequence_bias={a: 1e39}", ["mllm.sequence_bias must be texts with finite"]),
        ("mllm.sequence_bias.a=b", ["mllm.sequence_bias must be texts with finite"]),
        ("mllm.sequence_bias={a: b}", ["mllm.sequence_bias must be a mapping of texts to numb"]),
        (f"mllm.sequence_bias={{a: {'9' * 400}}}", ["mllm.sequence_bias must be texts with"]),
        ("mllm.sequence_bias=3", ["mllm.sequence_bias must be a mapping of texts to numbers"]),
        ('mllm.sequence_bias={"": 1}', ["mllm.sequence_bias must be texts with finite"]),
        ("data.name=folder", ["data.root is required"]),
        ("name=a/b", ["name must be a plain folder name"]),
        ("name=..", ["name must be a plain folder name"]),
        ("name=", ["name must be a plain folder name"]),
        ("model.backbone_kwargs=3", ["model.backbone_kwargs must be a mapping"]),
        ("data.generators=sdxl", ["data.generators must be a list"]),
        ('name="\\d"', ["name", "not readable as YAML"]),
        ("name=${nothing}", ["name: Interpolation key 'nothing' not found"]),
        ("name=a${", ["name: "]),
        ("optim.lr=${out}", ["optim.lr must be a number", "'runs'"]),
        ("model.backbone_kwargs.depth=${no.depth}", ["model.backbone_kwargs.depth", "no.depth"]),
        ("data.generators=[a,,b]", ["data.generators", "empty"]),
        ("data.generators=null", ["data.generators must be a list"]),
        ("data.generators=[a, b", ["data.generators", "not readable as YAML"]),
        ("model.attention={}", ["model.attention must be a group of keys"]),
        ("loss.alignment=null", ["loss.alignment must be a group of keys"]),
        ("model=", ["model must be a group of keys"]),
        ("model.backbone_kwargs..a=1", ["unknown key 'model.backbone_kwargs..a'"]),
        ("model.backbone_kwargs.=1", ["unknown key 'model.backbone_kwargs.'"]),
        ("model.image_size=" + "[" * 1200, ["model.image_size", "nested too deeply"]),
        ("model.backbone_kwargs=&a {x: *a}", ["model.backbone_kwargs"]),
        ("model.image_size=[1", ["model.image_size", "not readable as YAML"]),
        ("nonsense", ["expected key=value", "'nonsense'"]),
        ("=3", ["expected key=value"]),
        ("base=other", ["unknown key 'base'"]),
    ],
)
def test_one_line_for_a_mistake(tmp_path: Path, override: str, words: list[str]) -> None:
    text = message(write(tmp_path, ""), [override])
    for word in words:
        assert word in text
    assert text.startswith("command line")


def test_contradictions(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    assert "exclude each other" in message(path, ["resume=true", "overwrite=true"])
    assert "data.pairs and data.balance exclude each other" in message(
        path, ["data.pairs=true", "data.balance=true"]
    )
    for alone in ("data.pairs", "data.balance"):
        assert load(path, [f"{alone}=true"])
    assert "nothing to learn" in message(path, ["loss.bce=0", "loss.alignment.weight=0"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\nseed: 2", ["line 2", "'seed' occurs twice"]),
        ("model:\n  stem: conv\n  stem: patch", ["line 3", "'stem' occurs twice"]),
        ("model: [1", ["line", "not readable as YAML"]),
        ("\tmodel: 1", ["line 1", "not readable as YAML"]),
        ("- 1", ["found list"]),
        ("optim: {learning_rte: 1}", ["optim.learning_rte", "nearest"]),
        ("data: {augment: {scale: [2, 1]}}", ["data.augment.scale must be"]),
        ("1: 2", ["unknown key '1'"]),
        ("[1, 2]: 3", ["not readable as YAML"]),
        ("text", ["found text"]),
        ("name: [a]", ["name must be text"]),
        ("name: {a: 1}", ["name must be text"]),
        ("model: {attention: {}}", ["model.attention must be a group of keys"]),
        ("model: null", ["model must be a group of keys"]),
        ("name: !!timestamp 2024-05-01", ["not readable as YAML"]),
        ("model: {backbone_kwargs: &a {x: *a}}", ["line 1", "an alias"]),
        ("x: " + "[" * 1200, ["nested too deeply"]),
        ("base: missing.yaml", ["base 'missing.yaml' does not exist"]),
        ("base: run.yaml", ["base leads back"]),
        ("model: !!python/object:os.system {}", ["not readable as YAML"]),
    ],
)
def test_mistakes_in_files_name_the_file(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, text)
    found = message(path)
    assert found.startswith(str(path))
    for word in words:
        assert word in found


def test_a_circle_of_bases(tmp_path: Path) -> None:
    write(tmp_path, "base: b.yaml", "a.yaml")
    assert "base leads back" in message(write(tmp_path, "base: a.yaml", "b.yaml"))


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "text file" in message(path)


def test_mistake_in_the_base_names_the_base(tmp_path: Path) -> None:
    base = write(tmp_path, "seed: x", "base.yaml")
    assert message(write(tmp_path, "base: base.yaml")).startswith(str(base))


def test_bare_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("dinov2_align").name == "dinov2_align"  # the package's
    (tmp_path / "configs").mkdir()
    write(tmp_path / "configs", "seed: 7", "dinov2_align.yaml")
    assert load("dinov2_align").seed == 7  # one's own goes first
    text = message("dinov2_alin")
    assert "dinov2_align" in text
    assert "paper/xaigd_dinov2_lora" in text


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_loads(path: Path) -> None:
    assert load(path).name == path.stem


def test_baseline_differs_in_alignment_alone() -> None:
    aligned, baseline = (to_dict(load(CONFIGS / f"dinov2_{n}.yaml")) for n in ("align", "baseline"))
    assert aligned["loss"]["alignment"].pop("weight") > 0
    assert baseline["loss"]["alignment"].pop("weight") == 0
    aligned.pop("name"), baseline.pop("name")
    assert aligned == baseline


def test_paper_recipes() -> None:
    full = load(CONFIGS / "paper" / "xaigd_dinov2_align.yaml")
    assert full.model.backbone == "vit_base_patch14_dinov2"
    assert (full.model.image_size, full.model.pretrained) == ([518, 518], "true")
    assert full.model.attention.method == "gradient_rollout"
    assert (full.data.batch_size, full.train.epochs, full.optim.lr) == (8, 20, 1e-5)
    assert full.loss.alignment.weight == 0.1
    assert (full.data.augment.jpeg_quality, full.data.augment.jpeg_on) == ([60, 100], "fake")
    assert full.data.augment.scale == [1.0, 1.0]
    lora = load(CONFIGS / "paper" / "xaigd_dinov2_lora.yaml")
    assert (lora.model.lora.rank, lora.optim.lr, lora.optim.schedule) == (8, 1e-4, "cosine")
    assert lora.data.batch_size * lora.train.accumulate == 32
    assert lora.model.attention.method == "rollout"
    assert lora.loss.alignment == cfg.AlignmentConfig(weight=1.0, benign_weight=0.4)


def test_rules_are_about_keys_that_exist() -> None:
    assert set(RULES) <= set(cfg.schema())
    assert list(cfg.problems(Config())) == []


def test_schema_lists_every_field() -> None:
    def count(kind: type) -> int:
        hints = cfg.get_type_hints(kind)
        return sum(
            1 + (count(hints[item.name]) if is_dataclass(hints[item.name]) else 0)
            for item in fields(kind)
        )

    assert len(cfg.schema()) == count(Config)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15
)
@given(
    seed=st.integers(0, 2**32 - 1),
    lr=st.floats(1e-9, 1e3),
    size=st.tuples(st.integers(1, 4096), st.integers(1, 4096)),
    generators=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="$"), max_size=8)),
    limit=st.none() | st.integers(1, 10**6),
    stem=st.sampled_from(["patch", "conv"]),
)
def test_round_trip_through_yaml_and_overrides(
    tmp_path: Path,
    seed: int,
    lr: float,
    size: tuple[int, int],
    generators: list[str],
    limit: int | None,
    stem: str,
) -> None:
    config = Config(name="trip", seed=seed)
    config.optim.lr = lr
    config.model.image_size = list(size)
    config.model.stem = stem
    config.data.generators = generators
    config.data.limit = limit
    text = yaml.safe_dump(to_dict(config))
    assert load(write(tmp_path, text, "trip.yaml")) == config
    overrides = [
        f"seed={seed}",
        f"optim.lr={lr!r}",
        f"model.image_size={list(size)}",
        f"model.stem={stem}",
        f"data.limit={'null' if limit is None else limit}",
        f"data.generators={yaml.safe_dump(generators, default_flow_style=True, width=10**6)}",
    ]
    assert load(write(tmp_path, "", "trip.yaml"), overrides) == config


LAUGHS = "[&a0 [x, x]" + "".join(f", &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"name: {LAUGHS}]", "aliases stand for more than 100,000 values"),
        (f"model: {{backbone_kwargs: {{a: {LAUGHS}]}}}}", "aliases stand for more than"),
        ("name: &a [*a]", "line 1: .* an alias stands inside"),
        ("train: &a {epochs: 3, <<: *a}", "an alias stands inside"),
        ("x" * 300_000, "more than 200,000 characters"),
        ('name: "\\UFFFFFFFF"', "not readable as YAML"),
        ("model: !!map [a]", "not readable as YAML"),
        ("train: " + "[" * 3000, "not readable as YAML"),
        (f"base: {'a' * 5000}", "does not exist"),
        (f"? {'k' * 90_000}\n: 1", "unknown key 'kkk"),
        (f"train: {{epochs: {'a' * 90_000}}}", "train.epochs must be an integer"),
    ],
)
def test_recipes_made_to_break_the_reader_are_refused_in_one_short_line(tmp_path, text, problem):
    path = tmp_path / "train.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_aliases_stand_for_what_they_name(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text(
        "model: {image_size: &s [56, 56]}\ndata: {augment: {<<: {crop: true}, crop_size: *s}}"
    )
    config = load(path)
    assert config.model.image_size == config.data.augment.crop_size == [56, 56]
    assert config.data.augment.crop


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.temperature=0"], "model.temperature must be a finite number above 0"),
        (["model.temperature=.inf"], "model.temperature must be a finite number above 0"),
        (["model.fake_from=0.8"], "model.fake_from and model.real_below come together"),
        (["model.real_below=0.2"], "model.fake_from and model.real_below come together"),
        (["model.fake_from=1.5", "model.real_below=0.2"], "model.fake_from must be between"),
        (["model.fake_from=0.2", "model.real_below=0.8"], "model.real_below must be at most"),
        (["model.fake_from=0.4", "model.real_below=0.2"], "model.threshold must be from"),
        (["model.fake_from=0.8", "model.real_below=0.6"], "model.threshold must be from"),
    ],
)
def test_limits_of_verdicts_lie_around_the_threshold(overrides: list[str], words: str) -> None:
    assert words in message("dinov2_align", overrides)
    loaded = load("dinov2_align", ["model.fake_from=0.8", "model.real_below=0.2"])
    assert loaded.model.limits == (0.2, 0.8)
    assert load("dinov2_align").model.limits is None
