"""What is said to the models, and which of their answers are of use."""

from __future__ import annotations

import json

import pytest
from chat_server import GOOD

from artifactnet.annotation import prompts as prompts
from artifactnet.llm.client import Answer
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.text import chain_of_thought


def test_examples_keep_the_rules_that_they_teach():
    messages = prompts.formatting("the text")
    assert [m["role"] for m in messages] == ["user", "assistant"] * 2 + ["user"]
    for message in messages[1::2]:
        assert prompts.check_formatted(Answer(message["content"], "stop")) == message["content"]
    assert messages[0]["content"].startswith(prompts.FORMATTING)
    assert messages[-1]["content"].endswith("\n\nthe text")
    json.dumps(messages)


@pytest.mark.parametrize(
    "said",
    [
        "the red line around the paw",
        "The Red Circles show it",
        "as outlined in red",
        "highlighted with a red marker",
        "the circled areas",
        "the red-circled paw",
        "the marked areas",
        "the highlighted region",
        "a red ring around it",
        "the outlined area",
        "what is inside the red boundary",
        "red lines that clearly mark the toes",
        "toes enclosed by the thin red contour",
    ],
)
def test_texts_about_the_drawing_are_refused(said):
    with pytest.raises(ArtifactNetError, match="lines drawn on the image"):
        prompts.check_formatted(Answer(GOOD.replace("seven toes", said), "stop"))


@pytest.mark.parametrize(
    "said",
    [
        *("a red box", "a red apron", "a circle of red stones", "an outline that fades"),
        *("a red cross", "a red line subway map", "The Japanese flag's red circle"),
        *("a bird with red markings", "a red ring on one toe", "a subway map of the red line"),
    ],
)
def test_red_things_are_things(said):
    text = prompts.check_formatted(Answer(GOOD.replace("seven toes", said), "stop"))
    assert said in chain_of_thought.parse(text).issues


@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "```\n{}\n```",
        "```markdown\n{}```\n",
        "Here you are:\n\n{}",
        "{}\n\nI hope this helps.",
    ],
)
def test_what_stands_around_the_form_is_dropped(around):
    wanted = chain_of_thought.parse(GOOD)
    text = prompts.check_formatted(Answer(around.format(GOOD), "stop"))
    assert text == chain_of_thought.build(
        chain_of_thought.ChainOfThought(wanted.description, wanted.regions, wanted.issues)
    )


def test_another_wording_is_another_version():
    one = prompts.version(prompts.formatting(""))
    assert one == prompts.version(prompts.formatting(""))
    assert len({one, prompts.version(prompts.analysis(b"")), prompts.version([])}) == 3
    assert len(one) == 12
