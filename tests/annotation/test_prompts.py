"""Prompts of the annotating models, and which of their answers are valid."""

import json

import pytest
from chat_server import GOOD

from artifactnet.annotation import prompts
from artifactnet.llm.client import Answer
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.text import chain_of_thought


def test_examples_follow_their_own_rules():
    messages = prompts.formatting_messages("the text")
    assert [m["role"] for m in messages] == ["user", "assistant"] * 2 + ["user"]
    for message in messages[1::2]:
        assert prompts.check_formatted(Answer(message["content"], "stop")) == message["content"]
    assert messages[0]["content"].startswith(prompts.FORMATTING)
    assert messages[-1]["content"].endswith("\n\nthe text")
    json.dumps(messages)
    stages = [messages, prompts.analysis_messages(b""), []]
    assert len({prompts.prompt_version(stage) for stage in stages}) == 3


@pytest.mark.parametrize(
    "said",
    [
        *("the red line around the paw", "The Red Circles show it", "as outlined in red"),
        *("highlighted with a red marker", "the circled areas", "the red-circled paw"),
        *("the marked areas", "the highlighted region", "a red ring around it"),
        *("the outlined area", "what is inside the red boundary"),
        *("red lines that clearly mark the toes", "toes enclosed by the thin red contour"),
    ],
)
def test_texts_that_mention_the_drawing_are_invalid(said):
    with pytest.raises(ArtifactNetError, match="lines drawn"):
        prompts.check_formatted(Answer(GOOD.replace("seven toes", said), "stop"))


@pytest.mark.parametrize(
    "said",
    [
        *("a red box", "a red apron", "a circle of red stones", "an outline that fades"),
        *("a red cross", "a red line subway map", "The Japanese flag's red circle"),
        *("a bird with red markings", "a red ring on one toe", "a subway map of the red line"),
    ],
)
def test_red_objects_are_valid(said):
    text = prompts.check_formatted(Answer(GOOD.replace("seven toes", said), "stop"))
    assert said in chain_of_thought.parse_cot(text).issues


@pytest.mark.parametrize(
    "around",
    [
        *("{}", "```\n{}\n```", "```markdown\n{}```\n"),
        *("Here you are:\n\n{}", "{}\n\nI hope this helps."),
    ],
)
def test_text_around_the_form_is_dropped(around):
    wanted = chain_of_thought.parse_cot(GOOD)
    text = prompts.check_formatted(Answer(around.format(GOOD), "stop"))
    assert text == chain_of_thought.build_cot(
        chain_of_thought.ChainOfThought(wanted.description, wanted.regions, wanted.issues)
    )
