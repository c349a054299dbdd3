"""Stage 1: an endpoint names what is visible in an image (Q-Real, Sec. 3.2; wording is ours).

The image's prompt is not shown: many prompts are abstract, and what an image lacks has no box.
"""

from __future__ import annotations

import json

from artifactnet.annotation.prompts import check_analysis, prompt_version
from artifactnet.annotation.qreal.images import Picture, Shown
from artifactnet.data.text import brief
from artifactnet.llm.ask import Question
from artifactnet.llm.client import Answer, Message, user_message
from artifactnet.llm.json_answer import last_json
from artifactnet.types import ArtifactNetError

STAGE = "entities"
MAX_NAMES = 12
_MAX_NAME = 60  # characters
PROMPT = f"""Name the main things that are visible in this image: people, animals, plants, objects,
signs with lettering. A detector will look for each name, so each must be short and concrete.

- 1 to {MAX_NAMES} different names, the most important first; one to four words each, singular, \
lower case, without full stops.
- Only what can be seen, and no places or surroundings: no sky, room, street or background.
- If several things share a name, give it once, or tell them apart: "red car", "blue car".

Answer with one JSON list of names and nothing else, like ["violin", "old man"]; with [] if the \
image shows no such thing."""


def entities_question(picture: Picture) -> Question:
    """What is visible? The result is a JSON list of names."""
    key = {"stage": STAGE, "image": picture.digest, "prompt": prompt_version(_messages(b""))}
    return Question(key, lambda: _messages(Shown(picture).jpeg()), check_names, picture.relative)


def read_names(result: str) -> list[str]:
    """Names in the result of `entities_question`."""
    names: list[str] = json.loads(result)
    return names


def check_names(answer: Answer) -> str:
    """The names in an answer, as JSON.

    Raises:
        ArtifactNetError: it was cut off, or holds no list of at most 12 distinct, short names.
    """
    text = check_analysis(answer)
    names = last_json(text, "[", lambda value: isinstance(value, list))
    if names is None:
        raise ArtifactNetError("the answer holds no JSON list of names")
    if len(names) > MAX_NAMES:
        raise ArtifactNetError(f"the list has {len(names)} names, at most {MAX_NAMES} are allowed")
    checked = [_check_name(name) for name in names]
    lower = [name.lower() for name in checked]
    twice = next((name for name in lower if lower.count(name) > 1), None)
    if twice is not None:
        raise ArtifactNetError(f"the name {twice!r} occurs twice")
    return json.dumps(checked, ensure_ascii=False)


def _check_name(name: object) -> str:
    if not isinstance(name, str) or not name.strip() or len(name) > _MAX_NAME:
        raise ArtifactNetError(f"a name must be 1 to {_MAX_NAME} characters, not {brief(name)}")
    name = " ".join(name.split())
    # a full stop separates the names of one query to the detector
    if "." in name or not name.isprintable():
        raise ArtifactNetError(f"a name must be words without full stops, not {brief(name)}")
    return name


def _messages(jpeg: bytes) -> list[Message]:
    return [user_message(PROMPT, jpeg)]
