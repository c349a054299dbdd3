"""Files of Q-Real: what a line may say, what a problem is, and what is refused where."""

import copy
import itertools
import json
import logging
import random

import pytest
from annotated_files import picture

from artifactnet.data.qreal import (
    DIMENSIONS,
    PARTS,
    QUESTIONS,
    count_unverified,
    has_problem,
    join_parts,
    parse_qreal_line,
    read_qreal,
    write_qreal,
)
from artifactnet.types import ArtifactNetError

# no problem in either dimension
GOOD = {
    **{"realism_1": "Yes", "realism_2": "Yes"},
    **{f"plausibility_{k}": "No" for k in (1, 2, 3, 4)},
}
VIOLIN = {
    "id": "17-0",
    "label": "violin",
    "bbox": [1, 2, 10.5, 12],
    "quality": 0.41,
    "answers": {**GOOD, "realism_1": "No", "plausibility_4": "Yes"},
    "realism": "wood looks like plastic",
    "plausibility": "strings melt",
    "votes": {"realism_1": ["No", "No", "Yes"]},
}
WOMAN = {
    "id": "17-1",
    "label": "woman",
    "bbox": [0, 0, 20, 16],
    "answers": {**GOOD, "plausibility_1": "Yes"},
    "parts": {"hands": "six fingers.", "head/face": "two noses."},
}
LINE = {
    "image": "a.png",
    "uid": "17",
    "generator": "flux",
    "prompt": "a duet",
    "split": "test",
    "entities": [VIOLIN, WOMAN],
}


def write(root, *lines):
    """A file of lines and the images that it names, 20 pixels wide and 16 high."""
    path = root / "qreal.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for line in lines:
        if not (root / line["image"]).exists():
            picture(root / line["image"], (16, 20))
    return path


def changed(change):
    line = copy.deepcopy(LINE)
    change(line, line["entities"][0])
    return line


def test_a_file_is_read(tmp_path):
    (image,) = read_qreal(write(tmp_path, LINE))
    assert (image.image, image.uid, image.split) == ("a.png", "17", "test")
    assert image.path == tmp_path / "a.png"
    assert image.verified
    assert image.is_portrait
    violin, woman = image.entities
    assert violin.bbox == (1.0, 2.0, 10.5, 12.0)
    assert violin.answers["realism_1"] is False
    assert violin.votes == {"realism_1": (False, False, True)}
    assert violin.description("realism") == "wood looks like plastic"
    # the parts make the description, in the paper's order
    assert woman.plausibility == "two noses. six fingers."
    assert [e.id for e in image.problems("realism")] == ["17-0"]
    assert [e.id for e in image.problems("plausibility")] == ["17-0", "17-1"]


@pytest.mark.parametrize("words", itertools.product(("Yes", "No"), repeat=6))
def test_what_a_problem_is_for_all_answers(words):
    answers = {key: word == "Yes" for key, word in zip(QUESTIONS, words, strict=True)}
    r1, r2, p1, p2, p3, p4 = words
    assert has_problem(answers, "realism") is (r1 == "No" or r2 == "No")
    assert has_problem(answers, "plausibility") is ("Yes" in (p1, p2, p3, p4))


def test_every_question_belongs_to_the_dimension_of_its_name():
    assert len(QUESTIONS) == 6
    for key, asked in QUESTIONS.items():
        assert asked.dimension == key.split("_")[0]
        assert asked.text.endswith("?")


def test_writing_and_reading_gives_the_same(tmp_path):
    line = {**LINE, "image": "ä/b.png", "verified": False, "uid": "18"}
    line["entities"] = [{**one, "id": f"x{k}"} for k, one in enumerate(LINE["entities"])]
    images = read_qreal(write(tmp_path, LINE, line))
    write_qreal(tmp_path / "again.jsonl", images)
    assert read_qreal(tmp_path / "again.jsonl") == images
    assert count_unverified(images) == 1
    # the file of another folder names the same images
    write_qreal(tmp_path / "deep" / "er" / "q.jsonl", images)
    moved = read_qreal(tmp_path / "deep" / "er" / "q.jsonl")
    assert moved[1].image == "../../ä/b.png"
    assert [one.entities for one in moved] == [one.entities for one in images]


def test_parts_are_joined_in_the_order_of_the_paper():
    names = list(PARTS)
    random.Random(0).shuffle(names)
    assert join_parts({name: f"<{name}>" for name in names}) == " ".join(f"<{n}>" for n in PARTS)


def test_a_text_may_repeat_its_parts(tmp_path):
    def spell_out(line, _):
        line["entities"][1]["plausibility"] = "two noses. six fingers."

    assert read_qreal(write(tmp_path, changed(spell_out)))[0].entities[1].parts is not None

    def swap(line, _):
        line["entities"][1]["plausibility"] = "six fingers. two noses."

    with pytest.raises(ArtifactNetError, match=r"qreal.jsonl:1: entity '17-1': .* in their order"):
        read_qreal(write(tmp_path, changed(swap)))


def test_ids_are_made_where_there_is_none(tmp_path):
    line = changed(lambda _, entity: entity.pop("id"))
    (image,) = read_qreal(write(tmp_path, line))
    assert [entity.id for entity in image.entities] == ["a.png#0", "17-1"]


MUTATIONS = [
    (lambda _, e: e["answers"].update(realism_1="maybe"), "'17-0'", "must be Yes or No"),
    (lambda _, e: e["answers"].update(realism_1=True), "'17-0'", "must be Yes or No"),
    (lambda _, e: e["answers"].pop("plausibility_3"), "'17-0'", "'plausibility_3' has no answer"),
    (lambda _, e: e["answers"].update(realism_3="No"), "'17-0'", "unknown question"),
    (lambda _, e: e.update(answers=["No"]), "'17-0'", "must be an object"),
    (lambda _, e: e["answers"].update(realism_1="Yes") or e.pop("votes"), "'17-0'",
     "'realism' describes a problem"),
    (lambda _, e: e.pop("plausibility"), "'17-0'", "it has a problem of plausibility"),
    (lambda _, e: e.update(realism=" "), "'17-0'", "must be text"),
    (lambda _, e: e.update(bbox=[1, 2, 30, 12]), "'17-0'", "reaches out of the 20x16 image"),
    (lambda _, e: e.update(bbox=[5, 2, 5, 12]), "'17-0'", "'bbox' must have 0 <= x1"),
    (lambda _, e: e.update(bbox=[1, 2, 3]), "'17-0'", "four finite numbers"),
    (lambda _, e: e.update(id="17-1"), "'17-1'", "two entities have this id"),
    (lambda _, e: e["votes"].update(realism_1=["No", "Yes", "Yes"]), "'17-0'", "1 of 3 votes"),
    (lambda _, e: e["votes"].update(realism_1=["No", "Yes"]), "'17-0'", "no majority"),
    (lambda _, e: e["votes"].update(realism_1=[]), "'17-0'", "must be a list of Yes and No"),
    (lambda _, e: e.update(parts={"elbow": "odd"}), "'17-0'", "unknown part 'elbow'"),
    (lambda _, e: e.update(parts={"hands": "odd"}), "'17-0'", "not what its 'parts' say"),
    (lambda _, e: e.update(parts={}), "'17-0'", "not what its 'parts' say"),
    (lambda _, e: e.update(quality=1.5), "'17-0'", "from 0 to 1"),
    (lambda _, e: e.update(qualities=1), "entities[0]", "unknown key 'qualities'"),
    (lambda _, e: e.pop("label"), "entities[0]", "'label' is missing"),
    (lambda line, _: line.update(entities={}), "", "must be a list"),
    (lambda line, _: line["entities"].insert(0, "violin"), "entities[0]", "a JSON object"),
    (lambda line, _: line.update(uid=17), "", "'uid' must be text"),
    (lambda line, _: line.pop("uid"), "", "'uid' is missing"),
    (lambda line, _: line.update(split="somewhere"), "", "'split' must be one of"),
    (lambda line, _: line.update(verified="no"), "", "'verified' must be true or false"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "entity", "message"), MUTATIONS)
def test_a_wrong_line_is_refused_with_its_place(tmp_path, change, entity, message):
    first = {**LINE, "image": "first.png", "uid": "1", "entities": []}
    path = write(tmp_path, first, changed(change))
    with pytest.raises(ArtifactNetError) as error:
        read_qreal(path)
    text = str(error.value)
    assert text.startswith(f"{path}:2: ")
    assert entity in text
    assert message in text
    assert "\n" not in text


def test_what_occurs_twice_is_refused(tmp_path):
    other = {**LINE, "image": "b.png", "entities": []}
    path = write(tmp_path, LINE, {**other, "entities": [{**WOMAN, "id": "17-0"}]})
    with pytest.raises(ArtifactNetError, match=r"jsonl:2: entity '17-0': its id is in .*jsonl:1"):
        read_qreal(path)
    path = write(tmp_path, LINE, {**other, "image": "./a.png"})
    with pytest.raises(ArtifactNetError, match=r"jsonl:2: image '\./a\.png' is in .*jsonl:1"):
        read_qreal(path)
    path = write(tmp_path, LINE, {**other, "split": "train"})
    with pytest.raises(ArtifactNetError, match=r"jsonl:2: uid '17' is in split train, but in test"):
        read_qreal(path)
    path.write_text("\n")
    with pytest.raises(ArtifactNetError, match="has no line"):
        read_qreal(path)


def test_a_missing_description_may_be_allowed(tmp_path, caplog):
    path = write(tmp_path, changed(lambda _, entity: entity.pop("plausibility")))
    with caplog.at_level(logging.WARNING):
        (image,) = read_qreal(path, allow_missing=True)
    assert image.entities[0].plausibility is None
    assert caplog.messages == [
        f"{path}:1: entity '17-0': it has a problem of plausibility, which 'plausibility' must "
        "describe"
    ]


def test_images_are_opened_only_if_asked_for(tmp_path):
    path = write(tmp_path, LINE)
    (tmp_path / "a.png").unlink()
    assert len(read_qreal(path, images=False)) == 1
    with pytest.raises(ArtifactNetError, match=r"qreal\.jsonl:1: .*a\.png"):
        read_qreal(path)


def test_a_line_that_could_not_be_read_again_is_not_written(tmp_path):
    image = parse_qreal_line(
        json.dumps(changed(lambda _, e: e.pop("plausibility"))), tmp_path, "x", allow_missing=True
    )
    with pytest.raises(ArtifactNetError, match=r"^a\.png: entity '17-0'"):
        write_qreal(tmp_path / "q.jsonl", [image])
    assert not (tmp_path / "q.jsonl").exists()
    write_qreal(tmp_path / "q.jsonl", [image], allow_missing=True)
    assert json.loads((tmp_path / "q.jsonl").read_text())["entities"][0]["plausibility"] is None
    assert set(DIMENSIONS) < set(json.loads((tmp_path / "q.jsonl").read_text())["entities"][0])
