"""Names of visible things: which answers are taken."""

import json

import pytest

from artifactnet.annotation.qreal.entities import check_names
from artifactnet.llm.client import Answer
from artifactnet.types import ArtifactNetError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["violin", "old man"]', ["violin", "old man"]),
        ('```json\n["cat"]\n```', ["cat"]),
        ('Maybe ["dog"]. No: ["cat"]', ["cat"]),
        ('[" red\\n  car "]', ["red car"]),
        ("[]", []),
        ('["Geige", "Gespräch"]', ["Geige", "Gespräch"]),
    ],
)
def test_names(text, names):
    assert json.loads(check_names(Answer(text, "stop"))) == names


@pytest.mark.parametrize(
    ("text", "finish", "problem"),
    [
        ("a violin", "stop", "no JSON list"),
        ("", "stop", "empty"),
        ('["cat"]', "length", "cut off"),
        ('["cat"]', "content_filter", "filter"),
        (json.dumps([str(k) for k in range(13)]), "stop", "13 names, at most 12"),
        ('["cat", "Cat"]', "stop", "'cat' occurs twice"),
        ('["cat", "  "]', "stop", "1 to 60 characters"),
        ('["cat", 3]', "stop", "1 to 60 characters, not 3"),
        ('["a cat. a dog"]', "stop", "without full stops"),
        (json.dumps(["x" * 61]), "stop", "1 to 60 characters"),
        ('["\\ud800x"]', "stop", "without full stops"),
    ],
)
def test_bad_names(text, finish, problem):
    with pytest.raises(ArtifactNetError, match=problem):
        check_names(Answer(text, finish))
