"""The benchmark of Q-Real: a tiny local model and a stub of an endpoint, from question to table."""

import json

import pytest
import tiny_qreal
from PIL import Image

tiny_mllm = pytest.importorskip("tiny_mllm")
pytest.importorskip("peft", reason="needs the extra mllm")

from artifactnet.cli import main  # noqa: E402
from artifactnet.data.qreal import QUESTIONS, read_qreal  # noqa: E402
from artifactnet.types import ArtifactNetError  # noqa: E402
from artifactnet.vlm.qreal.benchmark import run_benchmark  # noqa: E402
from artifactnet.vlm.qreal.prompts import list_question  # noqa: E402
from artifactnet.vlm.qreal.score import score_qreal  # noqa: E402
from artifactnet.vlm.questions import Answerer, Written, load_answerer  # noqa: E402

TEXTS = [list_question(d, p) for d in ("realism", "plausibility") for p in (True, False)]
CORPUS = (*tiny_mllm.GRAMMAR, *[text.text for text in QUESTIONS.values()] * 2, *TEXTS * 2)
CORPUS += ("Answer with Yes or No.",) * 2


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_mllm.save_qwen(tmp_path_factory.mktemp("qwen"), corpus=CORPUS)


class Knows(Answerer):
    """Knows the truth about entities, and lists what it is told to."""

    name, batch_size, counts_pixels, notices = "knows", 4, True, ("a notice",)

    def __init__(self, stop_after=None, taught=None):
        self.left, self.asked, self.taught_context = stop_after, 0, taught
        self.shown = []  # pixels of questions about entities, and their texts

    def input_size(self, image_size):
        return image_size[0] * 2, image_size[1] * 2

    def fingerprint(self):
        return "knows"

    def ask(self, questions):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        self.asked += len(questions)
        return [self._one(question) for question in questions]

    def _one(self, question):
        if question.yes_no:
            assert question.pixels.shape[0] >= 56
            assert question.pixels.shape[1] >= 56
            self.shown.append((question.pixels.shape[:2], question.text))
            return Written("Yes", yes=0.75)
        box = '{"label": "violin", "bbox_2d": [0, 0, 20, 10], "description": "odd"}'
        return Written(box if "realism" in question.text else "none")


def test_figures_of_the_model_and_of_its_files_are_equal(tmp_path):
    truth, out = tiny_qreal.save(tmp_path), tmp_path / "out"
    found = run_benchmark(truth, Knows(), out)
    figures = found["figures"]
    assert figures["object"]["questions"]["realism_1"]["accuracy"] == 1
    assert figures["object"]["questions"]["plausibility_1"]["accuracy"] == 0
    assert figures["object"]["questions"]["realism_2"]["auc"] == 0.5
    # b.png's violin at [0, 0, 10, 5] is half of the model's coordinates
    assert figures["image"]["realism"]["iou"] == 1
    assert figures["image"]["realism"]["detection_rate"] == pytest.approx(1 / 3)
    assert figures["image"]["plausibility"]["silent"] == 1
    assert figures["warnings"][-1] == "a notice"
    files = [out / "object.jsonl", out / "image.jsonl"]
    again = score_qreal(truth, files)["figures"]
    assert {**again, "warnings": 0} == {**figures, "warnings": 0}


def test_a_killed_benchmark_goes_on(tmp_path):
    truth = tiny_qreal.save(tmp_path)
    whole = run_benchmark(truth, Knows(), tmp_path / "whole")
    part = tmp_path / "part"
    for after in (3, 4, 1):
        with pytest.raises(KeyboardInterrupt):
            run_benchmark(truth, Knows(after), part)
    last = Knows()
    assert run_benchmark(truth, last, part) == whole
    assert 0 < last.asked < 36
    for name in ("object.jsonl", "image.jsonl", "results.json", "results.md"):
        assert (part / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("taught", "asked", "context", "tuned", "warned"),
    [
        (None, {}, "crop", False, 0),
        (None, {"tuned": True, "context": "image"}, "image", True, 0),
        ("crop", {}, "crop", True, 0),
        ("image", {}, "image", True, 0),
        ("image", {"context": "image", "tuned": True}, "image", True, 0),
        ("image", {"context": "crop"}, "crop", True, 1),
        ("crop", {"context": "image", "tuned": False}, "image", False, 2),
    ],
)
def test_a_model_is_asked_as_it_was_taught(tmp_path, taught, asked, context, tuned, warned):
    truth, model = tiny_qreal.save(tmp_path), Knows(taught=taught)
    found = run_benchmark(truth, model, tmp_path / "out", tasks=["object"], **asked)
    assert (found["context"], found["tuned"]) == (context, tuned)
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == found
    assert all(text.endswith("Answer with Yes or No.") != tuned for _, text in model.shown)
    sizes = {(112, 84), (80, 96)}  # of the images
    assert all((size in sizes) == (context == "image") for size, _ in model.shown)
    said = [text for text in found["figures"]["warnings"] if "the model was taught" in text]
    assert len(said) == warned
    page = (tmp_path / "out" / "results.md").read_text()
    assert f'"Answer with Yes or No." was {"left out" if tuned else "added"}' in page
    # of lists nothing was taught
    lists = run_benchmark(truth, Knows(taught=taught), tmp_path / "l", tasks=["image"], **asked)
    assert not any("the model was taught" in text for text in lists["figures"]["warnings"])


def test_a_label_cannot_leave_the_chat(base, tmp_path):
    """It is refused before anything is asked."""
    rows, out = tiny_qreal.lines(), tmp_path / "out"
    model = load_answerer(base, "cpu", 4)
    end = model.chat.processor.tokenizer.eos_token
    rows[1]["entities"][0]["label"] = f"cat{end}"
    truth = tiny_qreal.save(tmp_path, {}, {"entities": rows[1]["entities"]})
    with pytest.raises(ArtifactNetError) as error:
        run_benchmark(truth, model, out, tasks=["object"], context="image")
    assert str(error.value).startswith(f"{truth}:2: entity 'violin-2': 'label': holds ")
    assert not out.exists()


def test_an_image_too_narrow_for_the_model_costs_its_own_answers_alone(base, tmp_path):
    """An image of 602 x 2 pixels, whose entity is as narrow."""
    entity = tiny_qreal.entity("cat-4", [0, 0, 602, 2], False, False)
    truth = tiny_qreal.save(tmp_path, {}, {"split": "val"}, {}, {"entities": [entity]})
    Image.new("RGB", (602, 2)).save(tmp_path / "d.png")
    answerer = load_answerer(base, "cpu", 4)
    for context in ("crop", "image"):
        figures = run_benchmark(truth, answerer, tmp_path / context, context=context)["figures"]
        assert figures["object"]["missing"] == 6
        assert figures["image"]["realism"]["missing"] == 1
        said = next(text for text in figures["warnings"] if "8 questions have no answer" in text)
        assert "cat-4 realism_1: an image of" in said
        assert "too narrow" in said


def test_a_tiny_model(base, tmp_path, capsys):
    truth, out = tiny_qreal.save(tmp_path), tmp_path / "out"
    command = ["benchmark-qreal", str(truth), "--model", str(base), "--out", str(out),
               "--device", "cpu", "--max-tokens", "4", "--batch-size", "4"]  # fmt: skip
    assert main(command) == 0
    lines = [json.loads(line) for line in (out / "object.jsonl").read_text().splitlines()]
    assert len(lines) == 30
    assert all(0 < line["score"] < 1 for line in lines)
    cut_off = sum(line.get("cut_off", False) for line in lines)
    assert cut_off > 0  # a random model seldom ends its answer
    assert results_of(out)["figures"]["object"]["cut_off"] == cut_off
    images = [json.loads(line) for line in (out / "image.jsonl").read_text().splitlines()]
    assert [line["input_size"] for line in images[:2]] == [[84, 112]] * 2
    out_text, _ = capsys.readouterr()
    assert "## ObjectQA" in out_text
    results = json.loads((out / "results.json").read_text())
    assert results["figures"]["object"]["questions"]["realism_2"]["scored"] == 5
    # one question at a time gives the same
    single = run_benchmark(truth, load_answerer(base, "cpu", 4), tmp_path / "single")
    for key in QUESTIONS:
        mine = results["figures"]["object"]["questions"][key]
        assert mine == single["figures"]["object"]["questions"][key]


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("answered", [0, 30])
def test_a_server_that_refuses_everything(tmp_path, monkeypatch, capsys, answered):
    """From the start, or all lists after the questions about entities: no table of zeros."""
    pytest.importorskip("openai", reason="needs the extra endpoint")
    from chat_server import Reply, serving

    monkeypatch.setenv("OPENAI_API_KEY", "key")
    truth, out = tiny_qreal.save(tmp_path), tmp_path / "out"

    def plan(request):
        # a server may cut off what is asked for in a word
        return Reply("no images", status=400) if not answered or "Yes or No" not in request.text \
            else Reply("Yes, it", finish="length")  # fmt: skip

    with serving(plan) as server:
        command = ["benchmark-qreal", str(truth), "--vlm-url", server.url, "--vlm-model", "big",
                   "--out", str(out), "--batch-size", "4"]  # fmt: skip
        assert main(command) == 2
        assert "the server has refused every request so far" in capsys.readouterr().err
        assert len(server.requests) <= answered + 4
        assert not (out / "results.json").exists()
        assert (out / "object.jsonl").exists() == bool(answered)
        server.requests.clear()
        server.plan = lambda request: Reply("Yes" if "Yes or No" in request.text else "none")
        assert main(command) == 0
        assert len(server.requests) == 36 - answered
    assert results_of(out)["figures"]["object"]["cut_off"] == answered


def test_an_endpoint_that_fails_sometimes_loses_nothing(tmp_path, monkeypatch, capsys):
    pytest.importorskip("openai", reason="needs the extra endpoint")
    from chat_server import Reply, serving

    monkeypatch.setenv("OPENAI_API_KEY", "key")
    truth = tiny_qreal.save(tmp_path)
    refused = []

    def plan(request):
        if "garbled" in request.text and len(refused) < 2:
            refused.append(request)
            return Reply("too large", status=400)
        return Reply("Yes" if "Yes or No" in request.text else "none")

    with serving(plan) as server:
        command = ["benchmark-qreal", str(truth), "--vlm-url", server.url, "--vlm-model", "big",
                   "--out", str(tmp_path / "out")]  # fmt: skip
        assert main(command) == 0
        first = len(server.requests)
        assert "2 questions have no answer, e.g. " in capsys.readouterr().err
        assert main(command) == 0
    assert len(server.requests) == first + 2
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["model"] == "big"
    assert results["figures"]["object"]["missing"] == 0
    assert results["figures"]["object"]["questions"]["realism_1"]["auc"] is None
    assert results["figures"]["image"]["realism"]["silent"] == 1


def test_one_model_must_be_named(tmp_path, capsys):
    truth = tiny_qreal.save(tmp_path)
    assert main(["benchmark-qreal", str(truth), "--out", str(tmp_path / "o")]) == 2
    assert "name one model" in capsys.readouterr().err
    assert len(read_qreal(truth)) == 4
    for given, said in (
        (["--model", "x", "--vlm-url", "http://x/v1"], "name one model"),
        (["--model", "x", "--tasks", "image", "--tuned"], "--tuned is of questions about entities"),
        (["--model", "x", "--vlm-family", "internvl"], "--vlm-family belongs to --vlm-url, not"),
        (["--vlm-url", "http://x/v1", "--vlm-model", "m", "--device", "cpu"],
         "--device belongs to --model, not"),
        (["--vlm-url", "http://x/v1", "--vlm-model", "m", "--revision", "main"],
         "--revision belongs to --model, not"),
        (["--model", str(tmp_path), "--revision", "main", "--device", "cpu"],
         "is a folder, which has no revision main"),
    ):  # fmt: skip
        assert main(["benchmark-qreal", str(truth), "--out", str(tmp_path / "o"), *given]) == 2
        assert said in capsys.readouterr().err
