"""Three models in a chain: what each is shown and asked, what comes out, kills at any question."""

import json
import re
from dataclasses import replace

import pytest
import tiny_qreal

from artifactnet.data.crops import crop_entity
from artifactnet.data.images import decode_image
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.coordinates import THOUSANDTHS
from artifactnet.vlm.qreal.chain import run_chain
from artifactnet.vlm.qreal.score import score_qreal
from artifactnet.vlm.questions import Answerer, Written

VIOLIN, CELLO, CHAIR = [0, 0, 10, 5], [22, 20, 32, 30], [50, 50, 60, 60]
WOMAN = [5, 5, 70, 40]


def listed(*things, size):
    """Entities in thousandths, as a model would write them."""
    width, height = size
    rows = []
    for label, (x1, y1, x2, y2) in things:
        box = [x1 * 1000 / width, y1 * 1000 / height, x2 * 1000 / width, y2 * 1000 / height]
        rows.append(json.dumps({"label": label, "bbox_2d": box}))
    return "\n".join(rows)


class Scripted(Answerer):
    """Answers by rule; ``left`` questions at most, then the process is stopped."""

    batch_size = 2
    notices = ()
    left = None

    def __init__(self, name, rule):
        self.name, self.rule, self.asked = name, rule, []

    @property
    def counts_pixels(self):
        return False

    def input_size(self, image_size):
        return THOUSANDTHS

    def fingerprint(self):
        return self.name

    def ask(self, questions):
        for question in questions:
            if Scripted.left == 0:
                raise KeyboardInterrupt
            if Scripted.left is not None:
                Scripted.left -= 1
            self.asked.append(question)
        return [Written(self.rule(question)) for question in questions]


@pytest.fixture
def truth(tmp_path):
    return tiny_qreal.save(tmp_path)


@pytest.fixture
def scripted(truth):
    """A detector that sees all of b.png and half of c.png, is silent about d.png."""
    seen = {
        name: decode_image(truth.parent / f"{name}.png", name).tobytes() for name in ("b", "c", "d")
    }
    answers = {
        "b": listed(("violin", VIOLIN), ("cello", CELLO), ("chair", CHAIR), size=(84, 112)),
        "c": listed(("woman", WOMAN), size=(96, 80)),
        "d": "none",
    }

    def detect(question):
        (name,) = (name for name, pixels in seen.items() if pixels == question.pixels.tobytes())
        return answers[name]

    def has_problem(question):
        label = re.search(r'This shows "(\w+)"', question.text)[1]
        assert question.yes_no
        if label == "cello":
            return "hard to say"
        wanted = {"violin": "realism", "woman": "plausibility", "chair": "nothing"}[label]
        return f"{'Yes' if f'problem of {wanted}' in question.text else 'No'}."

    def describe(question):
        label = re.search(r'This shows "(\w+)"', question.text)[1]
        return f"<think>hm</think> {label} is odd\n"

    models = {"detect": detect, "filter": has_problem, "describe": describe}
    return {stage: Scripted(stage, rule) for stage, rule in models.items()}


def run(truth, scripted, out, **more):
    return run_chain(truth, {k: lambda m=m: m for k, m in scripted.items()}, out, **more)


def test_what_passes_the_filter_is_the_answer(truth, scripted, tmp_path):
    out = tmp_path / "out"
    found = run(truth, scripted, out)
    lines = [json.loads(line) for line in (out / "image.jsonl").read_text().splitlines()]
    answers = {
        (line["image"], line["dimension"]): [(b["label"], b["description"]) for b in line["boxes"]]
        for line in lines
    }
    assert answers == {
        ("b.png", "realism"): [("violin", "violin is odd")],
        ("b.png", "plausibility"): [],
        ("c.png", "realism"): [],
        ("c.png", "plausibility"): [("woman", "woman is odd")],
        ("d.png", "realism"): [],
        ("d.png", "plausibility"): [],
    }
    (box,) = (b["bbox"] for line in lines for b in line["boxes"] if b["label"] == "violin")
    assert box == pytest.approx(VIOLIN, abs=1e-3)
    realism, plausibility = (found["figures"]["image"][d] for d in ("realism", "plausibility"))
    # of two true boxes one is found exactly
    assert (realism["iou"], realism["recall"], realism["silent"]) == (
        *(pytest.approx(1, abs=1e-3), 0.5, pytest.approx(2 / 3)),
    )
    # [5, 5, 70, 40] in [5, 5, 70, 70]; the violin and cello of b.png are missed
    assert plausibility["iou"] == pytest.approx(35 / 65, abs=1e-3)
    assert plausibility["recall"] == pytest.approx(1 / 3)
    assert found["model"] == "detect -> filter -> describe"
    # the file of predictions gives the same figures
    figures = found["figures"]
    assert score_qreal(truth, [out / "image.jsonl"])["figures"]["image"] == figures["image"]
    assert "filter: 2 answers are neither Yes nor No, and count as No" in figures["warnings"]
    assert [len(scripted[stage].asked) for stage in ("detect", "filter", "describe")] == [3, 8, 2]


def test_crops_of_found_boxes_are_shown(truth, scripted, tmp_path):
    run(truth, scripted, tmp_path / "out")
    pixels = decode_image(truth.parent / "b.png", "b")
    (cello, *_) = (one for one in scripted["filter"].asked if '"cello"' in one.text)
    # thousandths do not hit whole pixels: the crop is rounded outwards
    shown = [crop_entity(pixels, CELLO).tobytes()]
    shown += [crop_entity(pixels, [21.9, 19.9, 32.1, 30.1]).tobytes()]
    assert cello.pixels.tobytes() in shown


def test_an_unreadable_list_is_not_silence(truth, scripted, tmp_path):
    scripted["detect"].rule = lambda question: "I would rather not"
    figures = run(truth, scripted, tmp_path / "out")["figures"]["image"]["realism"]
    assert (figures["unreadable"], figures["silent"], figures["missing"]) == (3, 0, 0)


def test_killed_at_any_question_it_goes_on(truth, scripted, tmp_path, monkeypatch):
    run(truth, scripted, tmp_path / "whole")
    whole = {p.name: p.read_bytes() for p in (tmp_path / "whole").glob("*.json*")}
    assert {"detect.jsonl", "filter.jsonl", "describe.jsonl", "image.jsonl"} < set(whole)
    total = 3 + 8 + 2
    for stop in range(total):
        out = tmp_path / str(stop)
        for model in scripted.values():
            model.asked = []
        monkeypatch.setattr(Scripted, "left", stop)
        with pytest.raises(KeyboardInterrupt):
            run(truth, scripted, out)
        monkeypatch.setattr(Scripted, "left", None)
        run(truth, scripted, out)
        assert {p.name: p.read_bytes() for p in out.glob("*.json*")} == whole
        # only what was asked together with the question of the kill is asked again
        asked = sum(len(model.asked) for model in scripted.values())
        assert total <= asked <= total + 1
        asked_before = asked
        run(truth, scripted, out)
        assert sum(len(model.asked) for model in scripted.values()) == asked_before


def test_what_was_cut_off_is_told(truth, scripted, tmp_path):
    ask = scripted["describe"].ask
    scripted["describe"].ask = lambda questions: [
        replace(written, cut_off=True) for written in ask(questions)
    ]
    warnings = run(truth, scripted, tmp_path / "out")["figures"]["warnings"]
    assert "describe: 2 answers reached the limit of their length" in warnings


def test_answers_of_another_model_are_refused_or_replaced(truth, scripted, tmp_path):
    out = tmp_path / "out"
    run(truth, scripted, out)
    scripted["filter"] = Scripted("other", lambda question: "Yes")
    with pytest.raises(ArtifactNetError, match="choose another folder"):
        run(truth, scripted, out)
    found = run(truth, scripted, out, replace=True)
    assert found["figures"]["image"]["realism"]["predicted"] == 4
    assert len(scripted["detect"].asked) == 3  # its answers were kept


def test_a_label_with_half_a_character_is_asked_about(truth, scripted, tmp_path):
    scripted["detect"].rule = lambda _: '{"label": "vio\\ud83d", "bbox_2d": [0, 0, 500, 500]}'
    scripted["filter"].rule = lambda _: "Yes"
    scripted["describe"].rule = lambda question: "odd"
    run(truth, scripted, tmp_path / "out")
    assert {json.loads(one.text.split(". ")[0][11:]) for one in scripted["describe"].asked} == {
        "vio?"
    }
