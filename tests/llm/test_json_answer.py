"""JSON between other words of an answer."""

import pytest

from artifactnet.llm.json_answer import last_json


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('["a"]', ["a"]),
        ('Sure:\n```json\n["a", "b"]\n```\nDone.', ["a", "b"]),
        ('A draft: ["a"]. Better: ["b"]', ["b"]),
        ("nothing [here", None),
        ("[1, [2]]", [1, [2]]),
        ("[" * 100_000, None),
    ],
)
def test_the_last_list_is_found(text, found):
    assert last_json(text, "[", lambda value: isinstance(value, list)) == found


def test_what_is_not_accepted_is_looked_into():
    text = '{"answer": {"x": 1}} {"y": 2}'
    assert last_json(text, "{", lambda value: "x" in value) == {"x": 1}
