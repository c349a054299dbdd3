"""Figures of files of predictions: tables, warnings, the judge, the command."""

import json

import pytest
import tiny_qreal

from artifactnet.cli import main
from artifactnet.data.qreal import QUESTIONS, read_qreal
from artifactnet.llm.judge import JudgeResult
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.qreal.figures import chosen_images, compute_figures
from artifactnet.vlm.qreal.predictions import read_predictions
from artifactnet.vlm.qreal.score import score_qreal


def boxes(image, dimension, *found):
    rows = [{"bbox": box, "label": "x", "description": text} for box, text in found]
    return {"image": image, "dimension": dimension, "boxes": rows}


# the worked example H3 in plausibility: H1, an image without an answer, one without a true box
PLAUSIBILITY = [
    boxes(
        "b.png",
        "plausibility",
        ([0, 0, 10, 10], "is bent"),
        ([20, 20, 30, 30], ""),
        ([50, 50, 60, 60], "is bent"),
    ),
    boxes("c.png", "plausibility"),
    boxes("d.png", "plausibility", ([0, 0, 5, 5], "is bent")),
]


def write(folder, *rows):
    path = folder / "predictions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def every_answer(images, said):
    return [
        {"entity": entity.id, "question": key, **said(entity, key)}
        for image in images
        for entity in image.entities
        for key in QUESTIONS
    ]


def test_lists_of_entities(tmp_path):
    truth = tiny_qreal.save(tmp_path)
    found = score_qreal(truth, [write(tmp_path, *PLAUSIBILITY)], tmp_path / "out")
    figures = found["figures"]
    assert found["split"] == "test"
    assert (figures["images"], figures["entities"], figures["object"]) == (3, 5, None)
    one = figures["image"]["plausibility"]
    assert one["iou"] == pytest.approx(0.583333, abs=1e-6)
    assert one["detection_rate"] == pytest.approx(0.25)
    assert one["auc"] == pytest.approx(0.291667, abs=1e-6)
    assert one["recall"] == pytest.approx(1 / 3)
    assert one["llm"] is None
    # c.png alone is a portrait
    assert figures["image"]["portraits"]["images"] == 1
    assert figures["image"]["portraits"]["silent"] == 1
    # b.png and d.png have boxes
    assert one["silent"] == pytest.approx(1 / 3)
    assert figures["image"]["realism"]["missing"] == 3
    assert figures["image"]["realism"]["silent"] == 0
    assert "realism: 3 images have no answer" in figures["warnings"]
    assert any(text.startswith("realism: no box was predicted") for text in figures["warnings"])
    page = (tmp_path / "out" / "results.md").read_text()
    assert "| plausibility | 0.5833 | 0.2500 | 0.2917 | - | - | 0.3333 |" in page
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == found


def test_only_an_answer_that_says_so_is_silence(tmp_path):
    """Three images: one answer is none, one cannot be read, one is missing."""
    truth = tiny_qreal.save(tmp_path)
    lines = [
        {"image": "b.png", "dimension": "realism", "answer": "None."},
        {"image": "c.png", "dimension": "realism", "answer": "I would rather not say"},
    ]
    one = score_qreal(truth, [write(tmp_path, *lines)])["figures"]["image"]["realism"]
    assert (one["silent"], one["unreadable"], one["missing"]) == (pytest.approx(1 / 3), 1, 1)


def test_answers_that_were_cut_off_are_counted(tmp_path):
    """Of a question about an entity only where nothing could be read before the end."""
    truth = tiny_qreal.save(tmp_path)
    asked = {"entity": "cat-4", "cut_off": True}
    box = '{"label": "x", "bbox_2d": [0, 0, 5, 5]}\n{"label": "y", "bbox'
    lines = [
        {**asked, "question": "realism_1", "answer": "Yes, it looks like a photo of"},
        {**asked, "question": "realism_2", "answer": "The picture looks as if it were"},
        {"image": "b.png", "dimension": "realism", "answer": box, "cut_off": True},
    ]
    found = score_qreal(truth, [write(tmp_path, *lines)], unit="thousandths")["figures"]
    assert found["object"]["cut_off"] == 2
    assert found["image"]["realism"]["cut_off"] == 1
    warned = [text for text in found["warnings"] if "cut off" in text]
    assert warned == [
        "1 answers about entities were cut off before a Yes or No",
        "realism: 1 answers were cut off: they reached the limit of their length",
    ]
    lines[0]["cut_off"] = "yes"
    with pytest.raises(ArtifactNetError, match=r"jsonl:1: 'cut_off' must be true or false"):
        score_qreal(truth, [write(tmp_path, *lines)])


def test_questions_about_entities(tmp_path):
    truth = tiny_qreal.save(tmp_path)
    images = read_qreal(truth)
    rows = every_answer(
        images[1:],
        lambda entity, key: {"score": 0.9 if entity.answers[key] else 0.1},
    )
    figures = score_qreal(truth, [write(tmp_path, *rows)])["figures"]
    for key in QUESTIONS:
        one = figures["object"]["questions"][key]
        assert one["accuracy"] == 1
        assert one["answers"] == 5
    # only these two questions have answers of both kinds
    assert figures["object"]["questions"]["realism_2"]["auc"] == 1
    assert figures["object"]["questions"]["plausibility_2"]["auc"] == 1
    assert figures["object"]["questions"]["plausibility_4"]["auc"] is None
    assert figures["object"]["mean"]["auc"] is None
    assert figures["warnings"] == []


def test_a_missing_answer_is_wrong_and_said(tmp_path):
    truth = tiny_qreal.save(tmp_path)
    rows = every_answer(
        read_qreal(truth)[1:],
        lambda entity, key: {"answer": "Yes" if entity.answers[key] else "No"},
    )
    figures = score_qreal(truth, [write(tmp_path, *rows[1:])])["figures"]
    assert figures["object"]["missing"] == 1
    assert figures["object"]["questions"]["realism_1"]["accuracy"] == pytest.approx(0.8)
    assert figures["warnings"] == ["1 of 30 questions about entities have no answer: wrong"]


def test_unverified_annotations_are_marked_in_every_table(tmp_path):
    truth = tiny_qreal.save(tmp_path, {}, {"verified": False})
    found = score_qreal(truth, [write(tmp_path, *PLAUSIBILITY)], tmp_path / "out")
    assert found["figures"]["unverified"] == 1
    assert "1 of 3 images were annotated by models alone" in found["figures"]["warnings"][0]
    assert "Not verified by people" in (tmp_path / "out" / "results.md").read_text()


def judged(similarity):
    asked = []

    def judge(pairs):
        asked.extend(pairs)
        each = tuple(similarity(*pair) for pair in pairs)
        failed = sum(one is None for one in each)
        problems = {k: "broken" for k, one in enumerate(each) if one is None}
        return JudgeResult(None, each, failed, len(each), 0, problems)

    return judge, asked


def test_the_judge_compares_descriptions_of_pairs_that_overlap(tmp_path):
    images, _ = chosen_images(read_qreal(tiny_qreal.save(tmp_path)))
    predictions = read_predictions([write(tmp_path, *PLAUSIBILITY)], images)
    judge, asked = judged(lambda truth, said: 0.8)
    found = compute_figures(images, predictions, ["image"], judge=judge)
    # the empty description of the second pair is worth nothing and is not asked about
    assert asked == [("violin-2 is bent", "is bent")]
    llm = found["image"]["plausibility"]["llm"]
    assert llm == {"score": pytest.approx(0.4), "all": pytest.approx(0.8 / 3), "pairs": 2,
                   "failed": 0, "undescribed": 0}  # fmt: skip
    assert found["image"]["realism"]["llm"]["score"] is None
    judge, _ = judged(lambda truth, said: None)
    found = compute_figures(images, predictions, ["image"], judge=judge)
    llm = found["image"]["plausibility"]["llm"]
    assert llm == {"score": 0.0, "all": 0.0, "pairs": 1, "failed": 1, "undescribed": 0}
    assert "the judge failed on 1 pairs of texts, e.g.: broken" in found["warnings"]


def test_a_true_entity_without_a_description_is_left_out_of_the_score(tmp_path):
    """Of three problems one has no description: nothing could be compared with it."""
    changes = tiny_qreal.lines()
    entities = changes[1]["entities"]
    entities[1]["plausibility"] = None
    truth = tiny_qreal.save(tmp_path, {}, {"entities": entities})
    images, _ = chosen_images(read_qreal(truth, allow_missing=True))
    predictions = read_predictions([write(tmp_path, *PLAUSIBILITY)], images)
    judge, _ = judged(lambda truth, said: 0.8)
    found = compute_figures(images, predictions, ["image"], judge=judge)
    llm = found["image"]["plausibility"]["llm"]
    assert llm == {"score": pytest.approx(0.8), "all": pytest.approx(0.8 / 2), "pairs": 1,
                   "failed": 0, "undescribed": 1}  # fmt: skip
    assert found["image"]["portraits"]["llm"]["undescribed"] == 0
    said = "plausibility: 1 true entities have no description and are left out of LLM-Score, all"
    assert said in found["warnings"]


def test_a_judge_that_cannot_be_asked_costs_its_own_figure_alone(tmp_path):
    images, _ = chosen_images(read_qreal(tiny_qreal.save(tmp_path)))
    predictions = read_predictions([write(tmp_path, *PLAUSIBILITY)], images)

    def judge(pairs):
        raise ArtifactNetError("no key")

    found = compute_figures(images, predictions, ["image"], judge=judge)
    assert found["image"]["plausibility"]["llm"] is None
    assert found["image"]["plausibility"]["detection_rate"] == pytest.approx(0.25)
    assert any("no key" in text for text in found["warnings"])


def test_the_command(tmp_path, capsys):
    truth, path = tiny_qreal.save(tmp_path), write(tmp_path, *PLAUSIBILITY)
    command = ["score-qreal", str(truth), str(path), "--out", str(tmp_path / "o"), "--auc", "grid"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "| plausibility | 0.5833 |" in out
    assert "realism: 3 images have no answer" in err
    assert json.loads((tmp_path / "o" / "results.json").read_text())["auc"] == "grid"
    assert main(["score-qreal", str(truth), str(path), "--split", "val"]) == 2
    assert "no image is in the split val" in capsys.readouterr().err
    assert main(["score-qreal", str(truth), str(path), "--judge-model", "x"]) == 2
