"""What is asked about the images of Q-Real, and how answers and files of them are read."""

import json

import pytest
import tiny_qreal

from artifactnet.data.qreal import read_qreal
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.qreal.answers import (
    EntityList,
    NamedEntity,
    read_entities,
    read_yes_no,
    write_entities,
)
from artifactnet.vlm.qreal.predictions import EntityAnswer, read_predictions
from artifactnet.vlm.qreal.prompts import entity_question, list_question

SIZE, THOUSAND = (200, 100), (1000, 1000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", True),
        ("no.", False),
        ("**YES**, no doubt", True),
        ("It is not clear. No, I think", False),
        ("Certainly yes_no", True),  # an underscore separates words, too
        ("nothing, yesterday, know", None),
        ("", None),
        ("<think>No... yes?</think> No", False),
        ("<think>No", None),
        ("Not yes", True),
    ],
)
def test_yes_or_no(text, expected):
    assert read_yes_no(text) is expected


def test_entities_are_read_from_lines_lists_and_tokens():
    one = '{"label": "violin", "bbox_2d": [100, 200, 500, 400], "description": "melts"}'
    violin = NamedEntity((20.0, 20.0, 100.0, 40.0), "violin", "melts")
    for text in (one, f"```json\n[{one}]\n```", f"<think>{one}{one}</think>\n{one}"):
        assert read_entities(text, SIZE, THOUSAND) == EntityList((violin,))
    two = read_entities(one + '\n{"label": "x", "bbox_2d": [5, 5, 5, 9]}', SIZE, THOUSAND)
    assert two == EntityList((violin,), dropped=1)
    native = read_entities("<ref>violin</ref><box>[[100, 200, 500, 400]]</box>", SIZE, THOUSAND)
    assert native.entities == (violin._replace(description=""),)


@pytest.mark.parametrize(
    ("text", "readable"),
    [("none", True), (" None.\n", True), ("[]", True), ("```json\n[]\n```", True),
     ("All is well", False), ("", False), ("none of the violins is right", False)],
)  # fmt: skip
def test_silence_is_told_from_an_answer_that_cannot_be_read(text, readable):
    assert read_entities(text, SIZE, THOUSAND) == EntityList((), readable=readable)


def test_a_sliver_that_is_nothing_in_the_image_is_dropped():
    found = read_entities('{"bbox_2d": [0, 0, 5e-324, 9], "label": "x"}', (84, 112), (1000, 1000))
    assert (found.entities, found.dropped) == ((), 1)


def test_what_is_taught_is_read_again(tmp_path):
    image = read_qreal(tiny_qreal.save(tmp_path))[1]
    problems = image.problems("plausibility")
    text = write_entities(problems, "plausibility", (1000, 500), (1000, 500))
    assert text.count("\n") == 1
    found = read_entities(text, (1000, 500), (1000, 500))
    assert [one.bbox for one in found.entities] == [one.bbox for one in problems]
    assert [one.description for one in found.entities] == [one.plausibility for one in problems]
    assert write_entities((), "realism", SIZE, SIZE) == "none"


def test_prompts(tmp_path):
    entity = read_qreal(tiny_qreal.save(tmp_path))[0].entities[0]
    asked = "Does the picture look like it was taken in the real world?"
    assert entity_question("realism_1", entity) == f"{asked} Answer with Yes or No."
    assert entity_question("realism_1", entity, tuned=True) == asked
    whole = entity_question("realism_1", entity, "image", (84, 112), THOUSAND, tuned=True)
    assert whole == f'This is about "violin" at [119, 89, 595, 357]. {asked}'
    listed = list_question("plausibility", pixels=True)
    assert listed.startswith(
        "Analyze this AI-generated image, provide all entities with their type labels, "
        "coordinates within the image, and an explanation of plausibility (whether each entity "
        "looks like unnatural or not match the real world) for each object.\n"
    )
    assert "in pixels of the image" in listed
    assert "from 0 to 1000" in list_question("realism", pixels=False)
    # the example has the form that is read
    assert len(read_entities(listed, (1000, 1000), (1000, 1000)).entities) == 1


def predictions(tmp_path, *rows, unit=None):
    images = read_qreal(tiny_qreal.save(tmp_path))
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_predictions([path], images, unit)


def test_files_of_predictions(tmp_path):
    box = {"bbox": [1, 2, 30, 40], "label": "violin", "description": "odd"}
    text = '{"label": "violin", "bbox_2d": [500, 500, 1000, 1000], "description": "odd"}'
    found = predictions(
        tmp_path,
        {"entity": "cat-4", "question": "realism_1", "answer": "Yes.", "score": 0.25},
        {"entity": "cat-4", "question": "realism_2", "score": 0.25},
        {"entity": "cat-4", "question": "plausibility_1", "answer": "who knows"},
        {"image": "b.png", "dimension": "realism", "boxes": [box, {"bbox": [0, 0, 1, 1]}]},
        {"image": "b.png", "dimension": "plausibility", "answer": text, "input_size": [1000, 1000]},
        {"image": "c.png", "dimension": "realism", "answer": "none"},
    )
    assert found.entities == {
        ("cat-4", "realism_1"): EntityAnswer(True, 0.25),
        ("cat-4", "realism_2"): EntityAnswer(False, 0.25),
        ("cat-4", "plausibility_1"): EntityAnswer(None, None),
    }
    violin = NamedEntity((1.0, 2.0, 30.0, 40.0), "violin", "odd")
    assert found.images["b.png", "realism"].entities == (
        violin,
        NamedEntity((0.0, 0.0, 1.0, 1.0), "", ""),
    )
    # b.png is 84 x 112 pixels
    (one,) = found.images["b.png", "plausibility"].entities
    assert one.bbox == (42.0, 56.0, 84.0, 112.0)
    assert found.images["c.png", "realism"] == EntityList(())


def test_a_text_needs_a_unit(tmp_path):
    row = {"image": "b.png", "dimension": "realism", "answer": '{"bbox": [0, 0, 42, 56]}'}
    with pytest.raises(ArtifactNetError, match=r"p\.jsonl:1: what do its coordinates mean\?"):
        predictions(tmp_path, row)
    for unit, box in (("image", (0, 0, 42, 56)), ("thousandths", (0, 0, 3.528, 6.272))):
        found = predictions(tmp_path, row, unit=unit).images["b.png", "realism"]
        assert found.entities[0].bbox == pytest.approx(box)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"entity": "dog", "question": "realism_1", "answer": "No"}, "no entity 'dog'"),
        ({"entity": "cat-4", "question": "realism_3", "answer": "No"}, "no question 'realism_3'"),
        ({"entity": "cat-4", "question": "realism_1"}, "neither 'answer' nor 'score'"),
        ({"entity": "cat-4", "question": "realism_1", "answer": True}, "must be text"),
        ({"entity": "cat-4", "question": "realism_1", "score": "x"}, "finite number"),
        ({"entity": "cat-4", "question": "realism_1", "box": 1}, "unknown key 'box'"),
        ({"image": "z.png", "dimension": "realism", "answer": ""}, "no image 'z.png'"),
        ({"image": "b.png", "dimension": "beauty", "answer": ""}, "no dimension 'beauty'"),
        ({"image": "b.png", "dimension": "realism"}, "one of 'answer' and 'boxes'"),
        ({"image": "b.png", "dimension": "realism", "boxes": {}}, "must be a list"),
        ({"image": "b.png", "dimension": "realism", "boxes": [[1, 2, 3, 4]]}, "boxes[0] must be"),
        ({"image": "b.png", "dimension": "realism", "boxes": [{"bbox": [1, 2, 1, 4]}]},
         "boxes[0]: 'bbox' must have"),
        ({"image": "b.png", "dimension": "realism", "answer": "[", "input_size": [5]},
         "'input_size' must be"),
        (["b.png"], "a JSON object"),
        ({"entity": "cat-4", "question": "plausibility_4", "answer": "No"},
         "p.jsonl:1 already; keep one"),
    ],
)  # fmt: skip
def test_a_wrong_prediction_is_refused_with_its_place(tmp_path, row, message):
    good = {"entity": "cat-4", "question": "plausibility_4", "answer": "No"}
    with pytest.raises(ArtifactNetError) as error:
        predictions(tmp_path, good, row)
    assert str(error.value).startswith(f"{tmp_path / 'p.jsonl'}:2: ")
    assert message in str(error.value)
