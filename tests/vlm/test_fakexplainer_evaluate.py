"""Evaluation of a saved FakeXplainer on data: files, resuming, other data, bad input."""

import json
import shutil

import pytest

tiny_mllm = pytest.importorskip("tiny_mllm")
pytest.importorskip("peft", reason="needs the extra mllm")

from tiny_fakexplainer import FAST, save_images  # noqa: E402

from artifactnet import api  # noqa: E402
from artifactnet.cli import main  # noqa: E402
from artifactnet.config import load, to_dict  # noqa: E402
from artifactnet.inference.inputs import Failure  # noqa: E402
from artifactnet.types import ArtifactNetError  # noqa: E402
from artifactnet.vlm.fakexplainer import evaluate as evaluation  # noqa: E402
from artifactnet.vlm.fakexplainer.predictor import FakexplainerPredictor  # noqa: E402
from artifactnet.vlm.fakexplainer.saving import (  # noqa: E402
    build_fakexplainer,
    save_fakexplainer,
)

REAL = "<think>\n<tag>none</tag>\n</think>\n<verdict>real</verdict>"
BOX = '{"bbox_2d": [10, 10, 50, 40], "label": "hand with six fingers"}'
FAKE = f"<think>\n{BOX}\n<tag>none</tag>\n</think>\n<verdict>generated</verdict>"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that was never trained: its folder, with config and model."""
    import yaml

    root = tmp_path_factory.mktemp("evaluated")
    manifest = save_images(root)
    base = tiny_mllm.save_qwen(root / "base")
    overrides = [f"mllm.base={base}", f"data.root={manifest}", *FAST, "mllm.max_new_tokens=16"]
    config = load("paper/fakexplainer_sft", [*overrides, f"out={root}", "name=run"])
    trained = build_fakexplainer(config.mllm, "cpu")
    save_fakexplainer(trained, root / "run", {"epoch": 2, "notices": ["never trained"]})
    (root / "run" / "config.yaml").write_text(yaml.safe_dump(to_dict(config)))
    return root


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def asked(monkeypatch):
    """Images are answered by their brightness; the list holds the sizes of those asked about."""
    seen = []

    def write(self, images):
        seen.extend(image.shape[:2] for image in images)
        return [FAKE if image.max() > 200 else REAL for image in images], [False] * len(images)

    monkeypatch.setattr(FakexplainerPredictor, "_write", write)
    return seen


def test_results_have_the_form_of_all_others(run, asked, capsys):
    results = api.evaluate(run)
    shown = capsys.readouterr().out
    saved = json.loads((run / "results.json").read_text())
    assert saved == results
    assert results["data"]["split"] == "test"
    assert results["images"] == len(asked) == 4
    assert results["model"]["epoch"] == 2
    assert results["notices"] == ["never trained"]
    row = results["fakexplainer"]["all"]
    assert (row["accuracy"], row["strict"], row["failed"]) == (1, 1, 0)
    assert set(results["fakexplainer"]["generators"]) == {"draw", "paint"}
    # fake 0 has the box [10, 10, 50, 40] in a 96 x 80 image, which is 84 x 84 to the model
    assert row["iou"] > 0.6
    assert "WARNING: never trained" in shown
    assert "images of" in shown
    lines = [json.loads(text) for text in (run / "answers.jsonl").open()]
    assert [line["label"] for line in lines] == [0, 1, 0, 1]
    assert (
        evaluation.score_answers(run / "answers.jsonl")["fakexplainer"] == results["fakexplainer"]
    )


def test_a_killed_evaluation_goes_on_where_it_stopped(run, asked, monkeypatch):
    whole = api.evaluate(run)["fakexplainer"]
    answers = (run / "answers.jsonl").read_bytes()
    asked.clear()
    answer = evaluation._answer
    calls = []

    def killed(outcome):
        calls.append(outcome)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answer(outcome)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "_answer", killed)
        with pytest.raises(KeyboardInterrupt):
            api.evaluate(run)
    assert len((run / "answers.partial.jsonl").read_bytes().splitlines()) == 2
    with (run / "answers.partial.jsonl").open("ab") as file:
        file.write(b'{"path": "half')
    asked.clear()
    assert api.evaluate(run)["fakexplainer"] == whole
    assert len(asked) == 2  # the others were answered before the kill
    assert (run / "answers.jsonl").read_bytes() == answers
    assert not (run / "answers.partial.jsonl").exists()
    asked.clear()
    api.evaluate(run)
    assert len(asked) == 4  # a finished evaluation is made anew


def test_an_image_that_failed_is_asked_about_again(run, asked, monkeypatch):
    answer = FakexplainerPredictor._answer_batch
    outcomes = ["fail", "stop"]

    def failing(self, batch, options):
        if outcomes.pop(0) == "stop":
            raise KeyboardInterrupt
        return [Failure(each.name, "the server is busy") for each in batch]

    with monkeypatch.context() as patch:
        patch.setattr(FakexplainerPredictor, "_answer_batch", failing)
        with pytest.raises(KeyboardInterrupt):
            api.evaluate(run)
    assert b"the server is busy" in (run / "answers.partial.jsonl").read_bytes()
    assert FakexplainerPredictor._answer_batch is answer
    results = api.evaluate(run)
    assert (len(asked), results["images"]) == (4, 4)
    assert results["fakexplainer"]["all"]["failed"] == 0
    assert b"the server is busy" not in (run / "answers.jsonl").read_bytes()


def test_answers_of_another_model_are_not_kept(run, asked, monkeypatch):
    def killed(outcome):
        raise KeyboardInterrupt

    answer = evaluation._answer
    outcomes = [answer, killed]
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "_answer", lambda outcome: outcomes.pop(0)(outcome))
        with pytest.raises(KeyboardInterrupt):
            api.evaluate(run)
    asked.clear()
    facts = json.loads((run / "fakexplainer.json").read_text())
    facts["mllm"]["max_new_tokens"] = 17
    (run / "fakexplainer.json").write_text(json.dumps(facts))
    api.evaluate(run, ["mllm.max_new_tokens=17"])
    assert len(asked) == 4


def test_other_data_and_groups_go_to_a_folder_of_their_own(run, asked, made, tmp_path):
    lines = [json.loads(text) for text in (made / "images.jsonl").open()]
    kept = [line for line in lines if line["label"] and line["split"] == "test"]
    for one in kept:
        one["image"] = str(made / one["image"])
    (tmp_path / "fakes.jsonl").write_text("".join(json.dumps(one) + "\n" for one in kept))
    (tmp_path / "groups.json").write_text('{"draw": "Others", "paint": "Others"}')
    overrides = [f"data.root={tmp_path / 'fakes.jsonl'}", f"mllm.groups={tmp_path / 'groups.json'}"]
    results = api.evaluate(run, overrides)
    assert not (run / "results.json").exists()
    (page,) = run.glob("evaluations/*/results.md")
    assert "| Others | 2 |" in page.read_text()
    assert results["fakexplainer"]["real"] is None
    assert results["fakexplainer"]["all"]["balanced_accuracy"] is None


def test_sampled_answers_say_so_and_go_to_a_folder_of_their_own(run, asked):
    results = api.evaluate(run, ["mllm.temperature=0.5"])
    assert "answers are sampled at temperature 0.5" in results["notices"]
    assert not (run / "results.json").exists()
    (page,) = run.glob("evaluations/*/results.md")
    assert "sampled at temperature 0.5" in page.read_text()


def test_masks_are_boxes_without_captions(run, asked, made, tmp_path):
    import numpy as np
    from PIL import Image

    lines = [json.loads(text) for text in (made / "images.jsonl").open()]
    (fake,) = [one for one in lines if one["image"] == "test_0_1.png"]
    mask = np.zeros((80, 96), np.uint8)
    mask[10:40, 10:50] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    fake |= {"image": str(made / fake["image"]), "mask": str(tmp_path / "mask.png")}
    del fake["regions"], fake["tags"]
    (tmp_path / "one.jsonl").write_text(json.dumps(fake) + "\n")
    row = api.evaluate(run, [f"data.root={tmp_path / 'one.jsonl'}"])["fakexplainer"]["all"]
    assert row["iou"] > 0.6
    assert (row["texts"], row["bleu_2"]) == (0, None)


def test_images_without_an_answer_are_counted(run, monkeypatch):
    def fail(self, batch, options):
        return [Failure(each.name, "broken") for each in batch]

    monkeypatch.setattr(FakexplainerPredictor, "_answer_batch", fail)
    results = api.evaluate(run)
    row = results["fakexplainer"]["all"]
    assert (row["failed"], row["accuracy"], row["unparsable"]) == (4, 0, 0)
    assert any("4 images have no answer" in text for text in results["data_warnings"])
    assert any("broken" in text for text in results["data_warnings"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mllm.layout=system"], "mllm.layout cannot be changed"),
        (["data.root=nowhere.jsonl"], "no such file"),
        (["mllm.groups=nowhere.json"], "nowhere.json: cannot be read"),
    ],
)
def test_bad_input_is_one_line(run, asked, capsys, overrides, message):
    assert main(["evaluate", str(run), *overrides]) == 2
    lines = capsys.readouterr().err.splitlines()
    (line,) = [one for one in lines if one.startswith("artifactnet: error")]
    assert message in line


def test_an_unfinished_run_and_heie_options_are_refused(run, capsys):
    assert main(["evaluate", str(run), "--text", "template"]) == 2
    assert "HEIE" in capsys.readouterr().err
    (run / "fakexplainer.json").unlink()
    with pytest.raises(ArtifactNetError, match="has no fakexplainer.json yet"):
        evaluation.evaluate_fakexplainer(run)
    assert main(["evaluate", str(run)]) == 2
