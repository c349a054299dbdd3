"""``score-preference``: votes from a file."""

from __future__ import annotations

import json

import pytest

from artifactnet.benchmarks.fakexplainer.preference import preference_page, score_preference
from artifactnet.cli import main
from artifactnet.types import ArtifactNetError

VOTE = {"image": "1.png", "a": "x", "b": "y", "choice": "a", "voter": "v"}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*rows) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    with open("votes.jsonl", "w") as file:
        file.write("\n".join(lines) + "\n")
    return "votes.jsonl"


def votes(wins: int, losses: int, neutral: int):
    choices = ["a"] * wins + ["b"] * losses + ["neutral"] * neutral
    return [{**VOTE, "image": f"{k}.png", "choice": choice} for k, choice in enumerate(choices)]


def test_the_command_writes_json_and_markdown(place, capsys):
    path = write(*votes(9, 3, 2), "", {**VOTE, "image": "0.png", "choice": "b"})
    assert main(["score-preference", path, "--out", "out"]) == 0
    found = json.loads((place / "out" / "preference.json").read_text())
    assert found == score_preference(path)
    first = found["cells"][0]
    assert (first["system"], first["opponent"], first["rate"]) == ("x", "y", 0.75)
    assert [first[key] for key in ("low", "high", "p")] == pytest.approx(
        [0.4677, 0.9111, 0.145996], abs=5e-5
    )
    assert found["votes"] == 14
    page = (place / "out" / "preference.md").read_text()
    assert page == preference_page(found)
    assert "| x |  | 75.0% |\n| y | 25.0% |  |" in page
    assert "| x : y | 9 | 3 | 2 | 75.0% | 46.8% to 91.1% | 0.146 |" in page
    out, err = capsys.readouterr()
    assert page in out
    assert "warning: repeated votes left out: 1" in err
    assert "WARNING: repeated votes left out: 1" in page


def test_names_cannot_break_the_table():
    page = preference_page(score_preference(write({**VOTE, "a": "new\nline", "b": "p|q"})))
    assert "| new\\u000aline : p\\|q | 1 | 0 | 0 |" in page


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "votes.jsonl:2: not readable as JSON"),
        ([], "votes.jsonl:2: must be a JSON object"),
        ({**VOTE, "score": 1}, "votes.jsonl:2: unknown key 'score'; known: image, a, b"),
        ({**VOTE, "voter": None}, "votes.jsonl:2: 'voter' is missing"),
        ({**VOTE, "a": 1}, "votes.jsonl:2: 'a' must be text, not 1"),
        ({**VOTE, "image": " "}, "votes.jsonl:2: 'image' must be text, not ' '"),
        ({**VOTE, "b": "x"}, "votes.jsonl:2: 'a' and 'b' are both 'x'"),
        ({**VOTE, "choice": "tie"}, "votes.jsonl:2: 'choice' must be one of a, b, neutral, not"),
        ({**VOTE, "choice": ["a"]}, "votes.jsonl:2: 'choice' must be one of a, b, neutral, not"),
    ],
)
def test_a_bad_line_is_named(row, message, capsys):
    assert main(["score-preference", write(VOTE, row)]) == 2
    err = capsys.readouterr().err
    assert f"error: {message}" in err
    assert err.count("\n") == 1


def test_no_file_and_no_vote():
    with pytest.raises(ArtifactNetError, match="votes.jsonl: cannot be read"):
        score_preference("votes.jsonl")
    with pytest.raises(ArtifactNetError, match="votes.jsonl: has no line"):
        score_preference(write(""))
