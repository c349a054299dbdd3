"""Figures of answers: the paper's columns, by worked examples."""

import json

import pytest

from artifactnet.cli import main
from artifactnet.types import ArtifactNetError, Region
from artifactnet.vlm.fakexplainer import grammar
from artifactnet.vlm.fakexplainer.evaluate import score_answers
from artifactnet.vlm.fakexplainer.figures import (
    KEYS,
    compute_figures,
    make_line,
    read_groups,
    read_lines,
)
from artifactnet.vlm.fakexplainer.pages import markdown, terminal

SIZE = (600, 600)  # coordinates of the model are pixels here


def line(label=1, regions=(), tags=(), answer="", generator="sdxl", drop="none", **more):
    """A line of answers; regions are boxes or pairs of a box and a caption."""
    known = make_line(
        f"{generator}.png",
        label,
        generator if label else "real",
        SIZE,
        SIZE,
        None if regions is None else [named(r) for r in regions],
        tags,
        drop,
        "json",
    )
    said = {"answer": answer, "probability": 0.5, "cut_off": False, "problem": None}
    return known | said | more


def named(region):
    box, caption = region if isinstance(region[0], list | tuple) else (region, "thing")
    return Region(tuple(map(float, box)), caption)


def said(regions=(), tags=(), is_fake=True):
    return grammar.write(is_fake, [named(r) for r in regions], tags, SIZE, SIZE)


REAL = said(is_fake=False)
QUARTERS = [[0, 0, 5, 5], [5, 0, 10, 5], [0, 5, 5, 10], [5, 5, 10, 10]]


@pytest.mark.parametrize(
    ("predicted", "truth", "union", "matched"),
    [
        ([[0, 0, 10, 10]], [[5, 0, 15, 10]], 1 / 3, 1 / 3),
        (QUARTERS, [[0, 0, 10, 10]], 1.0, 0.25),
        ([[0, 0, 10, 10], [5, 5, 15, 15]], [[0, 0, 15, 15]], 0.777778, 0.444444),
        ([[0, 0, 10, 10]], [[0, 0, 10, 10], [20, 20, 30, 30]], 0.5, 0.5),
        ([[0, 0, 512, 512]], [[100, 100, 200, 200]], 0.038147, 0.038147),
        (
            [[40, 40, 50, 50], [0, 0, 10, 10]],
            [[0, 0, 10, 10], [44, 44, 54, 54]],
            0.515152,
            0.609756,
        ),
    ],
)
def test_iou_of_worked_examples(predicted, truth, union, matched):
    row = compute_figures([line(regions=truth, answer=said(predicted))])["all"]
    assert row["iou"] == pytest.approx(union, abs=1e-6)
    assert row["iou_pooled"] == pytest.approx(union, abs=1e-6)
    assert row["iou_matched"] == pytest.approx(matched, abs=1e-6)
    assert row["strict"] == 1


def test_pooled_areas_are_not_a_mean():
    lines = [
        line(regions=[[0, 0, 10, 10]], answer=said([[0, 0, 10, 10]])),
        line(regions=[[0, 0, 30, 10]], answer=said([[0, 0, 10, 10]])),
    ]
    row = compute_figures(lines)["all"]
    assert row["iou"] == pytest.approx((1 + 1 / 3) / 2)
    assert row["iou_pooled"] == pytest.approx(200 / 400)


def test_where_the_verdict_is_not_generated_the_iou_is_zero():
    boxes = [[0, 0, 10, 10]]
    inside = said(boxes).replace("generated", "real")
    answers = [REAL, "no idea", "", inside, said(tags=["wrong texture"])]
    lines = [line(regions=boxes, answer=text) for text in answers]
    row = compute_figures(lines)["all"]
    assert (row["iou"], row["iou_pooled"], row["iou_matched"]) == (0, 0, 0)
    assert (row["accuracy"], row["unparsable"], row["iou_images"]) == (1 / 5, 2, 5)
    unmarked = line(regions=[], answer=said(tags=["wrong texture"]))
    assert compute_figures([unmarked])["all"]["iou"] == 1  # nothing to find, nothing said
    assert compute_figures([line(regions=[], answer=REAL)])["all"]["iou"] == 0


def test_accuracy_of_all_of_real_and_of_generators_and_groups():
    lines = [
        *[line(0, answer=REAL)] * 3,
        line(0, answer=said([[0, 0, 9, 9]])),
        line(answer=said([[0, 0, 9, 9]]), regions=[[0, 0, 9, 9]]),
        line(answer=REAL, regions=[[0, 0, 9, 9]]),
        line(generator="stylegan", answer=said([[0, 0, 9, 9]]), regions=None),
        line(generator="dit", answer=None, problem="no answer", regions=None),
    ]
    found = compute_figures(lines, {"sdxl": "Diffusion", "dit": "Diffusion", "stylegan": "GAN"})
    row = found["all"]
    assert row["accuracy"] == 5 / 8
    assert row["balanced_accuracy"] == (3 / 4 + 2 / 4) / 2
    assert (row["iou"], row["iou_images"]) == (0.5, 2)  # of those that somebody annotated
    assert (row["failed"], row["unparsable"]) == (1, 0)
    assert found["real"]["accuracy"] == 3 / 4
    assert found["real"]["iou"] is None
    assert {name: row["accuracy"] for name, row in found["generators"].items()} == {
        "dit": 0,
        "sdxl": 0.5,
        "stylegan": 1,
    }
    groups = found["groups"]
    assert {name: (row["images"], row["accuracy"]) for name, row in groups.items()} == {
        "Diffusion": (3, 1 / 3),
        "GAN": (1, 1),
    }


def test_bleu_and_rouge_of_worked_examples():
    box = [0, 0, 9, 9]
    first = line(
        regions=[(box, "left hand with six fingers")],
        answer=said([(box, "the left hand has six fingers")]),
    )
    second = line(regions=[(box, "blurred text on the sign")], answer=said([(box, "blurred text")]))
    third = line(regions=[(box, "a warped window frame")], answer="no verdict <tag>x</tag>")
    for lines, bleu, rouge in (
        ([first], 0.516398, 0.727273),
        ([second], 0.223130, 0.571429),
        ([first, second], 0.476916, 0.649351),
        ([first, second, third], 0.289264, 0.432900),
    ):
        row = compute_figures(lines)["all"]
        assert row["bleu_2"] == pytest.approx(bleu, abs=1e-6)
        assert row["rouge_l"] == pytest.approx(rouge, abs=1e-6)
    uncaptioned = line(regions=[(box, "")], answer=said([(box, "hand")]))
    assert compute_figures([uncaptioned])["all"]["bleu_2"] is None
    assert compute_figures([first, uncaptioned])["all"]["texts"] == 1


def test_captions_are_compared_in_the_order_of_their_places():
    low, high = ([0, 90, 9, 99], "second thing seen"), ([50, 10, 60, 20], "first thing seen")
    tags = ["wrong texture", "artistic style"]
    answer = said([high, low], tags)
    row = compute_figures([line(regions=[low, high], tags=tags, answer=answer)])["all"]
    assert (row["bleu_2"], row["rouge_l"]) == (pytest.approx(1), pytest.approx(1))


def test_table_7_of_the_worked_example():
    texture, style = "wrong texture", "artistic style"
    right, wrong = said([[0, 0, 9, 9]]), REAL
    lines = [
        line(tags=[texture], answer=right),
        line(tags=[texture, style], answer=wrong),
        line(tags=[], answer=right),
        line(tags=[style], answer=right),
        line(0, answer=right),
        line(tags=None, answer=wrong),
    ]
    rows = {row["tag"]: row for row in compute_figures(lines)["tags"]}
    for tag in (texture, style):
        assert (rows[tag]["with_tag"], rows[tag]["without_tag"], rows[tag]["share"]) == (
            0.5,
            1,
            0.5,
        )
    assert rows["other anomalies"]["with_tag"] is None
    assert compute_figures([line(tags=None, answer=right)])["tags"] is None


@pytest.mark.parametrize(
    ("drop", "missing"),
    [
        ("bbox", {"iou", "iou_pooled", "iou_matched"}),
        ("caption", {"bleu_2", "rouge_l"}),
        ("tags", set()),
        ("label", {"iou", "iou_pooled", "iou_matched", "bleu_2", "rouge_l"}),
    ],
)
def test_what_answers_lack_has_no_figure(drop, missing):
    regions = [([0, 0, 9, 9], "hand with six fingers")]
    tags = ["wrong texture"]
    answer = grammar.write(True, [named(r) for r in regions], tags, SIZE, SIZE, drop)
    row = compute_figures([line(regions=regions, tags=tags, answer=answer, drop=drop)])["all"]
    figures = {"iou", "iou_pooled", "iou_matched", "bleu_2", "rouge_l"}
    assert {name for name in figures if row[name] is None} == missing
    assert all(row[name] == pytest.approx(1) for name in figures - missing)
    assert (row["accuracy"], row["strict"]) == (1, 1)


def test_mean_reward_of_worked_examples(tmp_path):
    """R = R_G + R_C + R_F, in hand-computed numbers: R_G is 1.1 IoU, at most 1."""
    truth = [[5, 0, 15, 10]]
    third = said([[0, 0, 10, 10]])  # an IoU of 1/3
    lines = [
        line(regions=truth, answer=third),  # 1.1/3 + 1 + 1
        line(regions=truth, answer=third.replace("generated", "real")),  # 1.1/3 + 0 + 0
        line(regions=truth, answer=third + " So it is."),  # 1.1/3 + 1 + 0
        line(regions=truth, answer=said([[5, 0, 14.6, 10]])),  # 1 + 1 + 1: whole pixels
        line(regions=truth, answer="It is generated."),  # 0
        line(regions=truth, answer=REAL),  # 0 + 0 + 1
        line(0, answer=REAL),  # 1 + 1 + 1
        line(0, answer=third),  # 0 + 0 + 1
        line(0, answer=None, problem="timeout"),  # 0: no answer earns nothing
        line(regions=None, tags=None, answer=third),  # it is unknown what the boxes earn
    ]
    figures = compute_figures(lines)
    row, real = figures["all"], figures["real"]
    assert row["reward_images"] == 9
    assert row["reward_grounding"] == pytest.approx((3 * 1.1 / 3 + 1 + 1) / 9)
    assert row["reward_label"] == pytest.approx(4 / 9)
    assert row["reward_format"] == pytest.approx(5 / 9)
    assert row["reward"] == pytest.approx((3.1 + 4 + 5) / 9)
    assert (real["reward"], real["reward_images"]) == (pytest.approx(4 / 3), 3)
    assert compute_figures(lines[-1:])["all"]["reward"] is None
    page = markdown(score_answers(save(tmp_path / "answers.jsonl", lines)))
    assert "| R_G | reward |" in page
    assert "over 9 images" in page


@pytest.mark.parametrize("drop", ["bbox", "label"])
def test_without_boxes_the_reward_is_verdict_and_form(drop):
    answer = grammar.write(True, [named([0, 0, 9, 9])], ["wrong texture"], SIZE, SIZE, drop)
    lines = [line(regions=regions, answer=answer, drop=drop) for regions in (None, [[0, 0, 9, 9]])]
    row = compute_figures(lines)["all"]
    assert (row["reward"], row["reward_grounding"], row["reward_images"]) == (2, None, 2)


def test_what_went_wrong_is_counted():
    broken = (
        '<think>\n{"bbox_2d": [9, 9, 1, 1], "label": "a"}\n{"bbox_2d": [0, 0, 9], "label": "b"}\n'
        "<tag>none</tag>\n</think>\n<verdict>generated</verdict>"
    )
    lines = [line(answer=broken), line(answer="<think>", cut_off=True), line(answer=REAL)]
    row = compute_figures(lines)["all"]
    assert (row["dropped_boxes"], row["cut_off"], row["unparsable"]) == (2, 1, 1)
    assert row["strict"] == pytest.approx(1 / 3)


def save(path, lines):
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def test_saved_answers_are_scored_again_from_the_command_line(tmp_path, capsys):
    lines = [
        line(0, answer=REAL),
        line(answer=said([[0, 0, 9, 9]]), regions=[[0, 0, 9, 9]], tags=["wrong texture"]),
        line(generator="dit", answer=REAL, regions=[]),
    ]
    path = save(tmp_path / "answers.jsonl", lines)
    groups = tmp_path / "groups.json"
    groups.write_text('{"sdxl": "Diffusion"}')
    command = ["score-answers", str(path), "--groups", str(groups), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "1 generators are in no group: dit" in shown.err
    assert "Diffusion" in shown.out
    saved = json.loads((tmp_path / "out" / "results.json").read_text())
    assert saved == score_answers(path, groups)
    assert saved["fakexplainer"] == compute_figures(lines, {"sdxl": "Diffusion"})
    page = (tmp_path / "out" / "results.md").read_text()
    assert page == markdown(saved)
    assert "| all | 3 | 0.6667 | 0.7500 | 0.5000 |" in page
    assert "| real | 1 | 1.0000 | - | - |" in page
    assert "| wrong texture | 1.0000 | 0.0000 | 0.5000 | 1 |" in page
    assert terminal(saved) in shown.out


def test_names_from_data_stay_in_their_cell(tmp_path):
    path = save(tmp_path / "answers.jsonl", [line(generator="a|b\u202e\n", answer=REAL)])
    results = score_answers(path)
    assert "| a\\|b\\u202e\\u000a | 1 |" in markdown(results)
    assert "a|b\\u202e\\u000a  " in terminal(results)


def test_tags_may_have_their_other_names(tmp_path):
    """As in a file that somebody has written."""
    assert tuple(line()) == KEYS
    path = save(tmp_path / "answers.jsonl", [line(tags=["texture errors"], answer=REAL)])
    rows = {row["tag"]: row for row in score_answers(path)["fakexplainer"]["tags"]}
    assert rows["wrong texture"]["images"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 2}, "'label' cannot be 2"),
        ({"size": [0, 5]}, "'size' cannot be"),
        ({"size": [10**400, 5]}, "'size' cannot be"),
        ({"regions": [{"bbox": [1, 2, 3]}]}, "'regions' cannot be"),
        ({"regions": [{"bbox": [1, 2, 10**400, 4], "caption": ""}]}, "'regions' cannot be"),
        ({"tags": ["odd"]}, "unknown tag"),
        ({"drop": "all"}, "'drop' cannot be"),
        ({"answer": 5}, "'answer' cannot be 5"),
        ({"cut_off": None}, "'cut_off' cannot be"),
    ],
)
def test_a_bad_line_is_named(tmp_path, change, message):
    path = save(tmp_path / "a.jsonl", [line(), line() | change])
    with pytest.raises(ArtifactNetError) as error:
        read_lines(path)
    assert str(error.value).startswith(f"{path}:2: ")
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["", "[]\n", "{}\n", "{\n"])
def test_a_file_without_answers_is_refused(tmp_path, text, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    assert main(["score-answers", str(path)]) == 2
    assert main(["score-answers", str(tmp_path / "none.jsonl")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 2


def test_answers_of_two_kinds_are_not_mixed(tmp_path):
    path = save(tmp_path / "a.jsonl", [line(), line(drop="bbox")])
    with pytest.raises(ArtifactNetError, match="lack different parts"):
        score_answers(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "groups of generators are one JSON object"),
        ('{"a": 1}', "groups of generators are one JSON object"),
        ('{"a": "b", "a": "c"}', "key 'a' occurs twice"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "not readable as JSON"),
    ],
)
def test_groups_of_another_form_are_refused(tmp_path, text, message):
    path = tmp_path / "groups.json"
    path.write_text(text)
    with pytest.raises(ArtifactNetError) as error:
        read_groups(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
