"""Fine-tuning on Q-Real: what is learned, two steps on tiny models, adapters trained further."""

import json
import shutil
from pathlib import Path

import pytest
import tiny_qreal
import torch
from safetensors.torch import load_file

tiny_mllm = pytest.importorskip("tiny_mllm")
pytest.importorskip("trl", reason="needs the extra mllm-train")

from artifactnet import api  # noqa: E402
from artifactnet.api import train  # noqa: E402
from artifactnet.cli import main  # noqa: E402
from artifactnet.config import ConfigError, load  # noqa: E402
from artifactnet.data.qreal import QUESTIONS  # noqa: E402
from artifactnet.types import ArtifactNetError  # noqa: E402
from artifactnet.vlm import sft  # noqa: E402
from artifactnet.vlm.base import adapter_state  # noqa: E402
from artifactnet.vlm.image_chat import ImageChat, load_image_chat  # noqa: E402
from artifactnet.vlm.qreal.benchmark import run_benchmark  # noqa: E402
from artifactnet.vlm.qreal.prompts import list_question  # noqa: E402
from artifactnet.vlm.qreal.rows import STAGES, QRealData, QRealExamples  # noqa: E402
from artifactnet.vlm.qreal.score import score_qreal  # noqa: E402
from artifactnet.vlm.questions import LocalAnswerer, load_answerer  # noqa: E402
from artifactnet.vlm.tuned import WEIGHTS  # noqa: E402
from artifactnet.vlm.tuned_chat import load_tuned_chat  # noqa: E402

FAMILIES = ("qwen", "internvl")
TEXTS = [list_question(d, p) for d in ("realism", "plausibility") for p in (True, False)]
CORPUS = (*tiny_mllm.GRAMMAR, *[text.text for text in QUESTIONS.values()] * 2, *TEXTS * 2)
CORPUS += ("Yes", "No", "none", '{"label": "violin-1", "description": "violin-1 is bent"}') * 2
FAST = (
    *("train.device=cpu", "train.precision=32", "train.tensorboard=false", "train.log_every=1"),
    *("mllm.lora_rank=4", "mllm.gradient_checkpointing=false", "mllm.max_new_tokens=72"),
    *("mllm.save_every=1", "data.workers=0", "train.max_steps=2"),
)


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> Path:
    return tiny_qreal.save(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    qwen = tiny_mllm.save_qwen(folder / "qwen", corpus=CORPUS)
    return {"qwen": qwen, "internvl": tiny_mllm.save_base(folder / "internvl", corpus=CORPUS)}


def config(task, base, truth, out, *more):
    own = [f"mllm.base={base}", f"data.root={truth}", f"out={out}", f"name={task}"]
    return load(f"paper/qreal_{task}qa", [*own, *FAST, *more])


def rows(task, base, truth, *more):
    found = config(task, base, truth, "runs", *more)
    return QRealData(found).rows("train", load_image_chat(found.mllm))


def test_what_is_learned(bases, truth):
    found = rows("object", bases["qwen"], truth)
    assert len(found) == 12
    image = found[0].image
    for row, (entity, key) in zip(
        found, [(e, k) for e in image.entities for k in QUESTIONS], strict=True
    ):
        assert row.entity == entity
        assert row.question == QUESTIONS[key].text
        assert row.answer == ("Yes" if entity.answers[key] else "No")
    pixels, messages, _ = QRealExamples(found).example(6)
    assert pixels.shape == (56, 67, 3)  # 60 x 50 pixels, enlarged
    assert messages[0]["content"][1] == {"type": "text", "text": found[6].question}
    whole = rows("object", bases["qwen"], truth, "mllm.context=image")
    assert whole[0].entity is None
    assert whole[0].question.startswith('This is about "violin" at [10, 10, 50, 40]. ')
    realism, plausibility = rows("image", bases["qwen"], truth)
    # 84 x 112 pixels are what Qwen sees
    assert json.loads(realism.answer) == {
        "label": "violin",
        "bbox_2d": [10, 10, 50, 40],
        "description": "violin-1 shines like wax",
    }
    assert json.loads(plausibility.answer)["label"] == "cello"


def test_silence_is_learned_unless_told_otherwise(bases, tmp_path):
    clean = {"entities": [tiny_qreal.entity("cat-1", [10, 10, 50, 40], False, True)]}
    truth = tiny_qreal.save(tmp_path, clean)
    assert rows("image", bases["qwen"], truth)[0].answer == "none"
    assert len(rows("image", bases["qwen"], truth, "mllm.negatives=false")) == 1


@pytest.fixture(scope="module")
def runs(bases, truth, tmp_path_factory) -> dict[tuple[str, str], Path]:
    """Two steps of each task on each family."""
    out = tmp_path_factory.mktemp("runs")
    return {
        (task, name): train(config(task, bases[name], truth, out / name)).run_dir
        for name in FAMILIES
        for task in ("object", "image")
    }


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", ["object", "image"])
def test_two_steps_leave_adapters_that_moved_and_figures(runs, truth, task, family, tmp_path):
    run = runs[task, family]
    state = load_file(run / WEIGHTS)
    assert any(bool(v.abs().sum() > 0) for k, v in state.items() if "lora_B" in k)
    assert all(".language_model.layers." in name for name in state)
    results = json.loads((run / "results.json").read_text())
    assert results["training"]["steps"] == 2
    assert results["images"] == 3
    figures = results["benchmark"]["figures"]
    assert (figures["object"] is None) == (task == "image")
    # the saved answers, and the saved model, give the same figures
    file = run / "benchmark" / f"{task}.jsonl"
    assert score_qreal(truth, [file])["figures"]["object"] == figures["object"]
    assert score_qreal(truth, [file])["figures"]["image"] == figures["image"]
    if task == "object":
        model = load_answerer(run, "cpu")
        again = run_benchmark(truth, model, tmp_path / "again", tasks=[task])["figures"]["object"]
        for mine, theirs in zip(
            *(one["questions"].values() for one in (again, figures["object"])), strict=True
        ):
            assert mine == pytest.approx(theirs)
        assert again["questions"]["realism_2"]["auc"] is not None  # both answers are in the truth


def test_files_of_predictions_give_the_figures_of_the_model(runs, truth, tmp_path, monkeypatch):
    """Random weights say nothing that can be read: words and boxes are made of what they write."""
    decode, size = ImageChat.decode, {"b.png": (84, 112), "c.png": (96, 80), "d.png": (96, 80)}

    def spoken(chat, ids):
        far = sum(map(int, ids)) % 3
        boxes = [[far, 0, 10 + far, 5], [22, 20, 32, 30 + far], [5, 5, 60, 70]]
        rows = [{"label": "cat", "bbox_2d": box, "description": decode(chat, ids)} for box in boxes]
        return "\n".join(map(json.dumps, rows))

    monkeypatch.setattr(ImageChat, "decode", spoken)
    model = load_answerer(runs["image", "qwen"], "cpu", 8)
    direct = run_benchmark(truth, model, tmp_path, tasks=["image"])["figures"]["image"]
    for dimension in ("realism", "plausibility"):
        for figure in ("iou", "detection_rate", "auc", "recall", "boxes"):
            assert direct[dimension][figure] > 0, figure
    assert direct["portraits"]["iou"] > 0
    texts = tmp_path / "image.jsonl"
    assert score_qreal(truth, [texts])["figures"]["image"] == direct

    monkeypatch.setattr(
        ImageChat, "decode", lambda _, ids: "Yes" if sum(map(int, ids)) % 2 else "No"
    )
    model = load_answerer(runs["object", "qwen"], "cpu", 8)
    figures = run_benchmark(truth, model, tmp_path, tasks=["object"])["figures"]["object"]
    assert 0 < figures["mean"]["accuracy"] < 1
    assert figures["questions"]["realism_2"]["auc"] is not None
    assert score_qreal(truth, [tmp_path / "object.jsonl"])["figures"]["object"] == figures

    # boxes in pixels, converted here
    lines = []
    for row in map(json.loads, texts.read_text().splitlines()):
        (width, height), (wide, high) = size[row["image"]], row["input_size"]
        boxes = []
        for one in map(json.loads, row["answer"].split("\n")):
            x1, y1, x2, y2 = one.pop("bbox_2d")
            box = [x1 * width / wide, y1 * height / high, x2 * width / wide, y2 * height / high]
            boxes.append({**one, "bbox": box})
        lines.append({"image": row["image"], "dimension": row["dimension"], "boxes": boxes})
    (tmp_path / "boxes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    scored = score_qreal(truth, [tmp_path / "boxes.jsonl"])["figures"]["image"]
    for group, figures in direct.items():
        for figure in ("iou", "detection_rate", "auc", "recall", "boxes"):
            assert scored[group][figure] == pytest.approx(figures[figure]), (group, figure)


@pytest.mark.parametrize("family", FAMILIES)
def test_lists_are_learned_from_the_adapters_of_the_questions(
    runs, bases, truth, family, tmp_path, monkeypatch
):
    first, started = runs["object", family], {}
    learn = sft.learn_answers

    def watched(run, model, *rest):
        started.update({k: v.detach().clone() for k, v in adapter_state(model).items()})
        return learn(run, model, *rest)

    monkeypatch.setattr(sft, "learn_answers", watched)
    more = (f"mllm.adapters={first}",)
    train(config("image", bases[family], truth, tmp_path, *more))
    saved = load_file(first / WEIGHTS)
    assert started.keys() == saved.keys()
    assert all(torch.equal(started[name], saved[name]) for name in saved)
    last = load_file(tmp_path / "image" / WEIGHTS)
    assert any(not torch.equal(last[name], saved[name]) for name in saved)


def test_adapters_are_loaded_bit_for_bit(runs, bases, truth):
    from artifactnet.vlm.tuned import build_tuned

    first = runs["object", "qwen"]
    chat, _, mllm = load_tuned_chat(first, merge=False)
    model, _ = build_tuned(mllm, len(chat.processor.tokenizer), "cpu", first)
    saved = load_file(first / WEIGHTS)
    found = adapter_state(model)
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[name], saved[name]) for name in saved)


@pytest.mark.parametrize(("taught", "expected"), [(8, 1024), (1536, 1536)])
def test_a_run_may_write_as_much_as_it_learned(runs, tmp_path, taught, expected):
    """Its own benchmark lets it; a run of ObjectQA is asked for lists, too."""
    run = shutil.copytree(runs["object", "qwen"], tmp_path / "run")
    facts = json.loads((run / "qreal.json").read_text())
    facts["mllm"]["max_new_tokens"] = taught
    (run / "qreal.json").write_text(json.dumps(facts))
    assert load_answerer(run, "cpu").max_new_tokens == expected
    assert load_answerer(run, "cpu", 9).max_new_tokens == 9


def test_what_three_models_of_a_chain_learn(bases, truth):
    def learned(task):
        keys = [f"mllm.base={bases['qwen']}", f"data.root={truth}", *FAST]
        found = load(f"paper/qreal_{task}", keys)
        return QRealData(found).rows("train", load_image_chat(found.mllm))

    (found,) = learned("detect")
    assert found.entity is None
    assert [json.loads(line) for line in found.answer.split("\n")] == [
        {"label": "violin", "bbox_2d": [10, 10, 50, 40]},
        {"label": "cello", "bbox_2d": [20, 50, 80, 100]},
    ]
    told = [(row.entity.label, row.question, row.answer) for row in learned("filter")]
    realism = "realism (whether its color, material and lighting differ from the real world)"
    assert told[0] == (
        "violin",
        f'This shows "violin". Does it have a problem of {realism}?',
        "Yes",
    )
    assert [(label, answer) for label, _, answer in told] == [
        *(("violin", "Yes"), ("violin", "No"), ("cello", "No"), ("cello", "Yes"))
    ]
    told = [(row.entity.label, row.question, row.answer) for row in learned("describe")]
    question = f'This shows "violin". Explain its problem of {realism}.'
    assert told[0] == ("violin", question, "violin-1 shines like wax")
    assert [(label, answer) for label, _, answer in told[1:]] == [("cello", "cello-1 is bent")]


def test_three_models_answer_in_a_chain(bases, truth, tmp_path, monkeypatch, capsys):
    keys = [f"mllm.base={bases['internvl']}", f"data.root={truth}", f"out={tmp_path}", *FAST]
    runs = [train(load(f"paper/qreal_{stage}", keys)).run_dir for stage in STAGES]
    for run in runs:
        assert json.loads((run / "results.json").read_text())["training"]["steps"] == 2
    # a model of random weights lists nothing, so the first one gets words put into its mouth
    decode = ImageChat.decode

    def spoken(chat, ids):
        text = decode(chat, ids)
        where = [sum(map(int, ids)) % 400, 100, 700, 800]
        return f"{json.dumps({'label': 'cat', 'bbox_2d': where})}\nYes {text}"

    monkeypatch.setattr(ImageChat, "decode", spoken)
    out = tmp_path / "chain"
    command = ["benchmark-qreal", str(truth), "--chain", *map(str, runs), "--out", str(out)]
    assert main([*command, "--device", "cpu", "--max-tokens", "8"]) == 0
    figures = json.loads((out / "results.json").read_text())["figures"]
    assert figures["image"]["realism"]["predicted"] == 3
    assert figures["image"]["realism"]["iou"] > 0
    scored = score_qreal(truth, [out / "image.jsonl"])["figures"]
    assert scored["image"] == figures["image"]
    assert "## ImageQA" in capsys.readouterr().out
    assert main([*command, "--model", "x"]) == 2
    assert "--model does not go with --chain" in capsys.readouterr().err
    assert main([*command[:3], *map(str, runs[::-1]), "--out", str(out)]) == 2
    assert "was trained with mllm.task=qreal_describe, not detect" in capsys.readouterr().err


@pytest.mark.slow
def test_strategies_of_table_4(runs, bases, truth, tmp_path, capsys, monkeypatch):
    keys = [f"mllm.base={bases['qwen']}", f"data.root={truth}", *FAST]
    out = ["--seeds", "0", "--out", str(tmp_path)]
    command = ["experiment", "qreal-strategies", *keys, *out]
    first, second, base = (
        tmp_path / f"qreal_{name}_s0" for name in ("objectqa", "imageqa_2", "imageqa_3")
    )
    for task, run in (("object", first), ("image", base)):  # these two have been trained before
        shutil.copytree(runs[task, "qwen"], run)
    assert main(command) == 0
    # equal but for what they start from
    mllm = [json.loads((run / "qreal.json").read_text())["mllm"] for run in (second, base)]
    assert [one.pop("adapters") for one in mllm] == [str(first), None]
    assert mllm[0] == mllm[1]
    learned = [load_file(run / WEIGHTS) for run in (second, base)]
    assert any(not torch.equal(learned[0][name], learned[1][name]) for name in learned[0])
    table = json.loads((tmp_path / "qreal-strategies.json").read_text())
    assert [row["key"] for row in table["rows"]] == [
        *("1_realism", "2_realism", "3_realism"),
        *("1_plausibility", "2_plausibility", "3_plausibility"),
    ]
    for row in table["rows"]:
        key, dimension = row["key"].split("_")
        run = "qreal_chain_s0" if key == "1" else f"qreal_imageqa_{key}_s0"
        results = json.loads((tmp_path / run / "benchmark" / "results.json").read_text())
        figures = results["figures"]["image"][dimension]
        found = row["seeds"]["0"]
        assert (found["IoU"], found["AUC"]) == (figures["iou"], figures["auc"])
        assert (found["recall"], found["boxes"]) == (figures["recall"], figures["boxes"])
    page = (tmp_path / "qreal-strategies.md").read_text()
    assert page in capsys.readouterr().out

    # the same command trains what is not finished, and nothing else
    (base / "finished.json").unlink()
    trained = []
    monkeypatch.setattr(api, "train", lambda config: trained.append((config.name, config.resume)))
    assert main(command) == 0
    assert trained == [("qreal_imageqa_3_s0", True)]


def test_a_stopped_training_goes_on_bit_for_bit(runs, bases, truth, tmp_path, monkeypatch):
    from artifactnet.vlm import tuning_callbacks as callbacks

    log = callbacks.MetricsLog.on_log

    def stop(self, args, state, control, logs=None, **more):
        log(self, args, state, control, logs, **more)
        if state.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.MetricsLog, "on_log", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config("object", bases["qwen"], truth, tmp_path))
    resumed = train(config("object", bases["qwen"], truth, tmp_path, "resume=true")).run_dir
    whole, found = (load_file(run / WEIGHTS) for run in (runs["object", "qwen"], resumed))
    assert all(torch.equal(whole[name], found[name]) for name in whole)


def test_a_run_that_ends_with_other_weights_asks_anew(bases, tmp_path, monkeypatch):
    truth = tiny_qreal.save(tmp_path, *[{"split": "train"}] * 4)
    ask, asked = LocalAnswerer.ask, []

    def stop(self, questions):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(questions)
        return ask(self, questions)

    with monkeypatch.context() as patch:
        patch.setattr(LocalAnswerer, "ask", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config("object", bases["qwen"], truth, tmp_path))
    answers = tmp_path / "object" / "benchmark"
    assert len((answers / "object.partial.jsonl").read_text().splitlines()) == 8
    more = ("resume=true", "train.max_steps=3")
    run = train(config("object", bases["qwen"], truth, tmp_path, *more)).run_dir
    fresh = load_answerer(run, "cpu")
    run_benchmark(truth, fresh, tmp_path / "fresh", tasks=["object"], tuned=True, batch_size=4)
    found = (answers / "object.jsonl").read_bytes()
    assert found == (tmp_path / "fresh" / "object.jsonl").read_bytes()
    assert not (answers / "object.partial.jsonl").exists()
    # every page says of which images its figures are
    for page in (run / "results.md", answers / "results.md"):
        assert "WARNING: no test split: these figures are of train\n" in page.read_text()
    # elsewhere they are refused
    other = load_answerer(bases["qwen"], "cpu")
    with pytest.raises(ArtifactNetError, match="choose another folder"):
        run_benchmark(truth, other, tmp_path / "fresh", tasks=["object"], tuned=True)


def test_what_cannot_be_trained(bases, truth, tmp_path, runs):
    base = bases["qwen"]
    with pytest.raises(ConfigError, match="data.name"):
        config("object", base, truth, tmp_path, "data.name=manifest")
    with pytest.raises(ConfigError, match="mllm.stage"):
        config("object", base, truth, tmp_path, "mllm.stage=grpo")
    with pytest.raises(ArtifactNetError, match=r"more than mllm.max_new_tokens=4: raise"):
        train(config("image", base, truth, tmp_path, "mllm.max_new_tokens=4"))
    other = tmp_path / "other"
    shutil.copytree(truth.parent, other)
    text = (other / "qreal.jsonl").read_text().replace('"train"', '"val"')
    (other / "qreal.jsonl").write_text(text)
    with pytest.raises(ArtifactNetError, match="no image is in the split train$"):
        train(config("image", base, other / "qreal.jsonl", tmp_path))
    undivided = text.replace('"val"', "null").replace('"test"', "null")
    (other / "qreal.jsonl").write_text(undivided)
    with pytest.raises(ArtifactNetError, match="`artifactnet qreal split` divides them"):
        train(config("image", base, other / "qreal.jsonl", tmp_path))
    (other / "qreal.jsonl").write_text(undivided.replace("null", '"train"', 1))
    with pytest.raises(ArtifactNetError, match=r"qreal.jsonl:4: has no 'split', but .*:1 is in"):
        train(config("image", base, other / "qreal.jsonl", tmp_path))
    adapters = f"mllm.adapters={runs['object', 'qwen']}"
    with pytest.raises(ArtifactNetError, match=r"was trained with mllm.lora_rank=4, not 2"):
        train(config("image", base, truth, tmp_path, adapters, "mllm.lora_rank=2"))
    with pytest.raises(ArtifactNetError, match=r"was trained with mllm.tune=language, not all"):
        train(config("image", base, truth, tmp_path, adapters, "mllm.tune=all"))
    with pytest.raises(
        ConfigError, match=r"mllm.tune must be all or projector with mllm.lora_rank=0"
    ):
        config("image", base, truth, tmp_path, "mllm.lora_rank=0")
    with pytest.raises(ArtifactNetError, match="no qreal.json there, so no finished run"):
        train(config("image", base, truth, tmp_path, f"mllm.adapters={tmp_path}"))
    assert not (tmp_path / "image").exists()
