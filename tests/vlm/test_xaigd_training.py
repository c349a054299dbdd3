"""GRPO on X-AIGD with a tiny model: what it leaves, kill and resume, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

tiny_mllm = pytest.importorskip("tiny_mllm")
pytest.importorskip("trl", reason="needs the extra mllm-train")

from tiny_fakexplainer import FAST  # noqa: E402

from artifactnet.api import train  # noqa: E402
from artifactnet.cli import main  # noqa: E402
from artifactnet.config import ConfigError, load  # noqa: E402
from artifactnet.data.images import encode_png  # noqa: E402
from artifactnet.data.shards import SCHEMA  # noqa: E402
from artifactnet.types import ArtifactNetError  # noqa: E402
from artifactnet.vlm.questions import Answerer, Written  # noqa: E402
from artifactnet.vlm.rows import TaskData  # noqa: E402
from artifactnet.vlm.tuned import WEIGHTS  # noqa: E402
from artifactnet.vlm.tuning_callbacks import WholeCheckpoints  # noqa: E402
from artifactnet.vlm.xaigd import rewards  # noqa: E402
from artifactnet.vlm.xaigd.baselines import run_instances  # noqa: E402
from artifactnet.vlm.xaigd.processing import load_pad_processing  # noqa: E402
from artifactnet.vlm.xaigd.prompts import instances_question  # noqa: E402

WIDTH, HEIGHT = 96, 80  # 84 x 84 as Qwen sees it
ASKED = instances_question(pixels=True)
SYMBOL = "low-level-symbol"
SQUARE = {"label": SYMBOL, "points": [[10.0, 10.0], [39.0, 10.0], [39.0, 29.0], [10.0, 29.0]]}


def image(uid: str) -> np.ndarray:
    return np.random.default_rng(list(uid.encode())).integers(0, 60, (HEIGHT, WIDTH, 3), np.uint8)


def row(uid, *labels, generator="sdxl"):
    pixels = image(uid + generator)
    pixels[10:30, 10:40] = 230
    known = {"generator": generator, "uid": uid, "labels": list(labels)}
    known |= {"image": {"bytes": encode_png(pixels), "path": None}, "width": WIDTH}
    return dict.fromkeys(SCHEMA.names) | known | {"height": HEIGHT}


def save(root: Path, trained, tested) -> Path:
    """Shards of both parts and a photograph of every uid; v is for validation."""
    trained = [*trained, row("v")]
    (root / "data").mkdir(parents=True)
    (root / "real").mkdir()
    (root / "uid_splits.csv").write_text("uid,split\nv,val\n")
    for part, rows in (("train", trained), ("test", tested)):
        path = root / "data" / f"labeled_{part}-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
        for one in rows:
            Image.fromarray(image(one["uid"])).save(root / "real" / f"{one['uid']}.png")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    trained = [row("a", SQUARE), row("b", SQUARE, SQUARE | {"label": "low-level-color"}), row("c")]
    tested = [row("t", SQUARE), row("u", SQUARE)]
    return save(tmp_path_factory.mktemp("xaigd") / "data", trained, tested)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    corpus = (*tiny_mllm.GRAMMAR, *[instances_question(True)] * 2)
    return tiny_mllm.save_qwen(tmp_path_factory.mktemp("base"), corpus=corpus)


def config(base, root, out, *more):
    own = [f"mllm.base={base}", f"data.root={root}", f"out={out}", "name=pad"]
    few = ["train.max_steps=2", "train.accumulate=2", "mllm.grpo.generations=2"]
    return load("paper/xaigd_grpo", [*own, *FAST, *few, "mllm.max_new_tokens=80", *more])


@pytest.fixture(scope="module", autouse=True)
def graded_form():
    """Random answers all lack the form: a share of it gives GRPO something to learn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewards, "is_strict", lambda text, *_: len(set(text)) / 256)
        yield


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """Folder for the run of `whole` as a kill would leave it."""
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def whole(base, root, killed, tmp_path_factory) -> Path:
    """A run of two steps; what is there while its second checkpoint is written is in ``killed``."""
    out, on_save = tmp_path_factory.mktemp("runs"), WholeCheckpoints.on_save

    def watched(self, args, state, control, **more):
        if state.global_step == 2:
            shutil.copytree(out / "pad", killed / "pad")
        on_save(self, args, state, control, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WholeCheckpoints, "on_save", watched)
        return train(config(base, root, out)).run_dir


def test_what_is_asked_and_rewarded(base, root, tmp_path):
    one = config(base, root, tmp_path, "data.balance=false")
    chat = load_pad_processing(one.mllm)
    rows = TaskData(one).rows("train", chat, clean_fakes=True)
    assert [each.is_fake for each in rows] == [True] * 3 + [False] * 3
    second = rows[1]
    assert (second.size, second.input_size) == ((96, 80), (84, 84))
    # x 10 / 96 x 84 = 8.75, x 40 -> 35; y 10 / 80 x 84 = 10.5, y 30 -> 31.5
    line = '{"bbox_2d": [9, 11, 35, 32], "category": "symbols"}'
    boxes = [line, line.replace("symbols", "color")]
    verdict = "</think>\n<verdict>generated</verdict>"
    assert second.answer == "\n".join(["<think>", *boxes, verdict])
    assert rows[2].regions == ()  # annotated as clean
    assert chat.messages == [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ASKED}]}
    ]


def test_two_steps_leave_adapters_rewards_and_figures(whole):
    state = load_file(whole / WEIGHTS)
    assert not any("ref" in name for name in state)
    assert any(bool(v.abs().sum() > 0) for k, v in state.items() if "lora_B" in k)
    steps = [json.loads(line) for line in (whole / "logs" / "metrics.jsonl").open()]
    steps = [line for line in steps if "reward" in line]
    assert len(steps) == 2
    for line in steps:
        parts = [line[f"reward_{name}"] for name in ("classification", "format", "detection")]
        assert all(0 <= part <= 1 for part in parts)
        assert line["reward"] == pytest.approx(sum(parts))
    answers = [json.loads(line) for line in (whole / "logs" / "answers.jsonl").open()]
    assert {"image", "answer", "reward", "detection"} <= answers[0].keys()
    results = json.loads((whole / "results.json").read_text())
    assert (results["images"], results["data"]["split"]) == (2, "test")
    assert results["training"]["images"] == 6
    assert "Table 12" in (whole / "results.md").read_text()


def test_the_benchmark_asks_a_run_the_same(whole, root, tmp_path):
    labels = str(root / "data" / "labeled_test-00000-of-00001.parquet")
    command = ["benchmark-xaigd", "instances", "--labels", labels, "--model", str(whole)]
    more = ["--device", "cpu", "--max-tokens", "80", "--out", str(tmp_path)]
    assert main([*command, *more]) == 0
    again = (tmp_path / "answers.jsonl").read_text()
    assert again == (whole / "benchmark" / "answers.jsonl").read_text()
    found = json.loads((tmp_path / "results.json").read_text())
    saved = json.loads((whole / "benchmark" / "results.json").read_text())
    assert found["figures"] == saved["figures"]


class Truthful(Answerer):
    """Answers about every image that the rectangle of `row` is a symbol."""

    name, batch_size, counts_pixels = "truthful", 1, True

    def input_size(self, image_size):
        return 84, 84

    def fingerprint(self):
        return "truthful"

    def ask(self, questions):
        assert [question.text for question in questions] == [ASKED]
        line = '{"bbox_2d": [9, 11, 35, 32], "category": "symbols"}'
        return [Written(f"<think>\n{line}\n</think>\n<verdict>generated</verdict>")]


def test_some_images_alone_are_asked_about(root, tmp_path):
    labels = [str(root / "data" / "labeled_*.parquet")]
    only = {("sdxl", "t"), ("sdxl", "c")}
    found = run_instances(labels, tmp_path, Truthful(), only=only)
    figures = found["figures"]
    assert (figures["images"], figures["boxes"], figures["missing"]) == (2, 2, 0)
    symbol = figures["categories"][SYMBOL]
    assert (symbol["TP"], symbol["FP"], symbol["FN"]) == (1, 1, 0)  # c is clean
    assert symbol["F1@0.5"] == pytest.approx(2 / 3)


def test_a_killed_run_resumes_bit_for_bit(whole, killed, base, root):
    assert (killed / "pad" / "checkpoints" / "checkpoint-2").is_dir()  # but not whole
    resumed = train(config(base, root, killed, "resume=true")).run_dir
    expected, found = load_file(whole / WEIGHTS), load_file(resumed / WEIGHTS)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    logs = [(run / "logs" / "answers.jsonl").read_text() for run in (whole, resumed)]
    assert logs[0] == logs[1]
    answers = [(run / "benchmark" / "answers.jsonl").read_text() for run in (whole, resumed)]
    assert answers[0] == answers[1]


@pytest.fixture
def no_base(monkeypatch):
    """What is refused must be refused before the base is loaded."""

    def load_base(*_, **__):
        raise AssertionError("the base was loaded")

    monkeypatch.setattr("artifactnet.vlm.tuned.load_base", load_base)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["mllm.stage=sft"], "mllm.stage must be grpo"),
        (["data.name=folder"], "data.name must be xaigd"),
        (["data.pairs=true", "data.balance=false"], "data.pairs must be false"),
        (["mllm.grpo.generations=3"], "mllm.grpo.generations must divide"),
        (["mllm.adapters=nowhere"], "mllm.adapters=nowhere: no xaigd.json there"),
        (["mllm.max_new_tokens=20"], "more than mllm.max_new_tokens=20"),
    ],
)
def test_bad_settings_are_refused_in_one_line(base, root, tmp_path, keys, message, no_base):
    with pytest.raises((ConfigError, ArtifactNetError)) as error:
        train(config(base, root, tmp_path, *keys))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("trained", "tested", "message"),
    [
        ([row("a", SQUARE | {"label": "mood"})], [row("t")], "#0 (sdxl/a): unknown artifact"),
        ([row("a", SQUARE)], [row("t", SQUARE | {"label": "mood"})], "#0 (sdxl/t): unknown"),
        ([row("a", SQUARE | {"points": [[1.0, 2.0]]})], [row("t")], "has 1 points; at least 3"),
        ([row("a", SQUARE) | {"width": 64}], [row("t")], "its annotation is for 64x80"),
        ([row("a"), row("b")], [row("t", SQUARE)], "no image of the train split has a polygon"),
    ],
)
def test_bad_data_are_refused_by_name(base, tmp_path, trained, tested, message, no_base):
    data = save(tmp_path / "data", trained, tested)
    with pytest.raises(ArtifactNetError) as error:
        train(config(base, data, tmp_path / "out"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "pad").exists()
