"""What three annotators agree on; every refusal names its rows."""

import itertools
import json

import pytest
from qreal_stubs import NO_PROBLEM

from artifactnet.annotation.qreal.merge import majority, merge_review
from artifactnet.data.qreal import QUESTIONS, read_qreal
from artifactnet.types import ArtifactNetError

HEAD, TEXT_HEAD = "entity,annotator,question,answer", "entity,annotator,dimension,text"


@pytest.fixture
def data(tmp_path):
    """A file with two entities, of which the second is a person; answers of three annotators."""
    man = {**NO_PROBLEM, "plausibility_1": "Yes"}
    rows = [
        {"id": "7-0", "label": "violin", "bbox": [0, 0, 9, 9], "answers": NO_PROBLEM},
        {
            "id": "7-1",
            "label": "man",
            "bbox": [0, 0, 9, 9],
            "answers": man,
            "parts": {"hands": "x"},
            "quality": 0.5,
        },
    ]
    line = {"image": "a.png", "uid": "7", "split": "test", "verified": False, "entities": rows}
    (tmp_path / "q.jsonl").write_text(json.dumps(line) + "\n")
    write(tmp_path, table())
    return tmp_path


def table(people="ABC", **changes):
    """Rows of answers without any problem; ``changes``: violin_realism_1_B="No"."""
    rows = []
    for person in people:
        for entity, name in (("7-0", "violin"), ("7-1", "man")):
            for key in QUESTIONS:
                answer = changes.get(f"{name}_{key}_{person}", NO_PROBLEM[key])
                rows.append(f"{entity},{person},{key},{answer}")
    return rows


def write(root, rows, texts=()):
    (root / "r.csv").write_text("\n".join([HEAD, *rows]) + "\n")
    (root / "t.csv").write_text("\n".join([TEXT_HEAD, *texts]) + "\n")


def merge(root, **options):
    return merge_review(
        root / "q.jsonl", [root / "r.csv"], [root / "t.csv"], root / "out.jsonl", **options
    )


def merged(root, **options):
    merge(root, **options)
    (image,) = read_qreal(root / "out.jsonl", images=False)
    return image


def test_the_worked_example():
    assert majority([True, True, False]) is True


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_majority_is_what_more_than_half_say(count):
    for votes in itertools.product([True, False], repeat=count):
        yes = len([vote for vote in votes if vote])
        expected = True if yes > count - yes else False if yes < count - yes else None
        assert majority(votes) is expected


def test_the_majority_replaces_what_stood_there(data):
    turned = {"violin_realism_1_A": "No", "violin_realism_1_C": "no", "violin_realism_2_B": "No"}
    texts = ["7-0,C,realism,Plastic.", '7-0,A,realism,"Too smooth, too bright."']
    write(data, table(**turned), texts)
    done = merge(data)
    assert (done.images, done.entities, done.changed, done.verified) == (1, 2, 2, True)
    (image,) = read_qreal(data / "out.jsonl", images=False)
    assert (image.verified, image.split, image.image) == (True, "test", "a.png")
    violin, man = image.entities
    assert violin.votes["realism_1"] == (False, True, False)
    assert violin.answers["realism_1"] is False
    assert violin.votes["realism_2"] == (True, False, True)
    assert violin.answers["realism_2"] is True
    assert violin.realism == "Too smooth, too bright. Plastic."
    assert man.answers["plausibility_1"] is False
    assert man.plausibility is None
    assert (man.parts, man.quality) == ({}, 0.5)


def test_equal_texts_stand_once_in_the_order_of_annotators(data):
    turned = {f"violin_realism_1_{p}": "No" for p in "BC"}
    texts = ["7-0,C,realism,Wax.", "7-0,B,realism,Odd.", "7-0,A,realism,Wax."]
    write(data, table(**turned), texts)
    assert merged(data).entities[0].realism == "Wax. Odd."


def test_texts_without_a_problem_are_left_out(data):
    write(data, table(violin_realism_1_A="No"), ["7-0,A,realism,Wax."])
    assert merged(data).entities[0].realism is None


def test_parts_are_merged_one_by_one(data):
    turned = {f"man_plausibility_1_{p}": "Yes" for p in "AB"}
    texts = ["7-1,B,hands,Six fingers.", "7-1,A,feet,None.", "7-1,A,hands,Fused."]
    write(data, table(**turned), texts)
    man = merged(data).entities[1]
    assert dict(man.parts) == {"hands": "Fused. Six fingers.", "feet": "None."}
    assert man.plausibility == "Fused. Six fingers. None."


def test_a_whole_description_replaces_parts(data):
    turned = {f"man_plausibility_1_{p}": "Yes" for p in "AB"}
    write(data, table(**turned), ["7-1,A,plausibility,Odd hands."])
    man = merged(data).entities[1]
    assert (man.parts, man.plausibility) == (None, "Odd hands.")


def test_tables_of_several_files_and_shapes(data):
    """In columns of another order, with semicolons, a byte order mark and blank rows."""
    rows = table()
    (data / "r.csv").write_text("\n".join([HEAD, *rows[:18]]))
    more = ["\ufeffanswer;question;annotator;entity"]
    more += [";".join(reversed(row.split(","))) for row in rows[18:]]
    (data / "s.csv").write_text("\r\n".join([*more, "", ";;;", ";realism_1;D;7-0"]))
    done = merge_review(data / "q.jsonl", [data / "r.csv", data / "s.csv"], [], data / "out.jsonl")
    assert done.verified


def test_trials_with_fewer_votes_stay_unverified(data):
    write(data, table("A", violin_realism_1_A="No"), ["7-0,A,realism,Wax."])
    image = merged(data, min_votes=1)
    assert image.verified is False
    assert image.entities[0].votes["realism_1"] == (False,)
    write(data, table("ABC"))
    assert merged(data, min_votes=1).verified is True


ROW = "7-0,A,realism_1,Yes"


@pytest.mark.parametrize(
    ("rows", "texts", "message"),
    [
        (table("AB"), [], r"'7-0', question realism_1: has the answers of 2 annotators, not of 3 "
         r"\(.*r\.csv:2, .*r\.csv:14\)"),
        (table("ABCD"), [], r"of 4 annotators, not of 3 \(.*:2, .*:14, .*:26, .*:38\)"),
        ([], [], r"of 0 annotators, not of 3 \(.*r\.csv\)"),
        (table()[:-1], [], r"'7-1', question plausibility_4: .* of 2 .*:13, .*:25\)"),
        ([*table(), ROW], [], r"r\.csv:38: annotator 'A' .* realism_1 .*'7-0' in .*r\.csv:2 "),
        ([ROW.replace("7-0", "7-9")], [], r"r\.csv:2: unknown entity '7-9'"),
        ([ROW.replace("realism_1", "realism_9")], [], r"r\.csv:2: unknown question 'realism_9'"),
        ([ROW.replace("Yes", "Maybe")], [], r"r\.csv:2: 'answer' must be Yes or No: 'Maybe'"),
        ([ROW.replace(",A,", ", ,")], [], r"r\.csv:2: 'annotator' is blank"),
        ([ROW + ",x"], [], r"r\.csv:2: a row must have 4 cells, not 5"),
        (['7-0,A,realism_1,"Yes'], [], r"r\.csv:2: not readable as CSV"),
        (table(), ["7-9,A,realism,x"], r"t\.csv:2: unknown entity '7-9'"),
        (table(), ["7-0,A,beauty,x"], r"t\.csv:2: unknown dimension 'beauty'"),
        (table(), ["7-0,D,realism,x"], r"t\.csv:2: annotator 'D' has not answered any"),
        (table(), ['7-0,A,realism,"x\ny"', "7-0,A,realism,z"],
         r"t\.csv:4: annotator 'A' .*t\.csv:2 already"),
        (table(violin_realism_1_A="No", violin_realism_1_B="No"), [],
         r"'7-0': has a problem of realism by the majority \(.*:2, .*:14\), but no text"),
        (table(man_plausibility_2_A="Yes", man_plausibility_2_B="Yes"),
         ["7-1,A,hands,x", "7-1,B,plausibility,y"], r"as a whole .*t\.csv:3.* parts .*t\.csv:2"),
    ],
)  # fmt: skip
def test_refusals(data, rows, texts, message):
    write(data, rows, texts)
    with pytest.raises(ArtifactNetError, match=message):
        merge(data)
    assert not (data / "out.jsonl").exists()


def test_an_even_split_is_refused(data):
    write(data, table("AB", violin_realism_2_A="No"))
    with pytest.raises(ArtifactNetError, match=r"realism_2: as many .*Yes as No \(.*:3, .*:15\)"):
        merge(data, min_votes=1)
    with pytest.raises(ArtifactNetError, match="of 2 annotators, not of 3 or more|not of 3"):
        merge(data)


@pytest.mark.parametrize("head", ["entity,annotator,answer", "a,b,c,d", ""])
def test_other_columns_are_refused(data, head):
    (data / "r.csv").write_text(head)
    with pytest.raises(ArtifactNetError, match=r"columns"):
        merge(data)


@pytest.mark.parametrize("votes", [0, 4])
def test_min_votes_out_of_range(data, votes):
    with pytest.raises(ArtifactNetError, match="1 to 3"):
        merge(data, min_votes=votes)


@pytest.mark.parametrize("before", [False, True])
def test_an_image_without_entities_stays_what_it_was(data, before):
    line = {"image": "b.png", "uid": "8", "verified": before, "entities": []}
    with (data / "q.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    assert merge(data, min_votes=3).verified
    full, empty = read_qreal(data / "out.jsonl", images=False)
    assert (full.verified, empty.verified) == (True, before)


def test_nothing_is_verified_where_nothing_was_asked(data):
    line = {"image": "b.png", "uid": "8", "verified": False, "entities": []}
    (data / "q.jsonl").write_text(json.dumps(line) + "\n")
    write(data, [])
    assert not merge(data).verified
    assert not read_qreal(data / "out.jsonl", images=False)[0].verified
