"""The benchmark of Q-Real: a tiny local model and a stub of an endpoint, from question to table."""

import json

import pytest
import tiny_qreal

tiny_mllm = pytest.importorskip("tiny_mllm")
pytest.importorskip("peft", reason="needs the extra mllm")

from artifactnet.cli import main  # noqa: E402
from artifactnet.data.qreal import QUESTIONS, read_qreal  # noqa: E402
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

    def __init__(self, stop_after=None):
        self.left, self.asked = stop_after, 0

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


def test_a_tiny_model(base, tmp_path, capsys):
    truth, out = tiny_qreal.save(tmp_path), tmp_path / "out"
    command = ["benchmark-qreal", str(truth), "--model", str(base), "--out", str(out),
               "--device", "cpu", "--max-tokens", "4", "--batch-size", "4"]  # fmt: skip
    assert main(command) == 0
    lines = [json.loads(line) for line in (out / "object.jsonl").read_text().splitlines()]
    assert len(lines) == 30
    assert all(0 < line["score"] < 1 for line in lines)
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
