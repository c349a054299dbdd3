"""The prompt, whose example is an answer of the form that it asks for."""

import re
from itertools import product

import pytest

from artifactnet.taxonomy import TAGS
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.coordinates import FAMILIES
from artifactnet.vlm.fakexplainer.grammar import is_strict, read
from artifactnet.vlm.fakexplainer.prompts import QUESTION, prompt_hash, prompt_messages

DROPS = ("none", "bbox", "caption", "tags", "label")


def text_of(messages) -> str:
    parts = [part for message in messages for part in message["content"]]
    return "\n".join(part["text"] for part in parts if part["type"] == "text")


def examples(text: str) -> list[str]:
    return re.findall(r"(?:<think>.*?</think>\n)?<verdict>.*?</verdict>", text, re.DOTALL)


def forms_of(family: str) -> list[str]:
    return ["json", *(form for form in ("qwen", "internvl") if family.startswith(form))]


@pytest.mark.parametrize("drop", DROPS)
@pytest.mark.parametrize("family", FAMILIES)
def test_examples_are_strict_answers_in_coordinates_of_the_family(family, drop):
    size = (644, 476) if family == "qwen2_5_vl" else (1000, 1000)
    for form in forms_of(family):
        generated, real = examples(text_of(prompt_messages("user", family, drop, form)))
        assert is_strict(generated, size, drop, form)
        assert is_strict(real, size, drop, form)
        assert read(generated, size, size).is_fake is True
        assert read(real, size, size).is_fake is False


def test_the_example_is_one_place_in_all_coordinates():
    def regions(family, size):
        text = examples(text_of(prompt_messages("user", family)))[0]
        return [region.bbox for region in read(text, (644, 476), size).regions]

    pixels, thousandths = regions("qwen2_5_vl", (644, 476)), regions("internvl", (1000, 1000))
    assert len(pixels) == 2
    for a, b in zip(pixels, thousandths, strict=True):
        assert a == pytest.approx(b, abs=0.5)


def test_layouts():
    system, user = prompt_messages("system", "qwen3_vl"), prompt_messages("user", "qwen3_vl")
    assert [message["role"] for message in system] == ["system", "user"]
    assert [message["role"] for message in user] == ["user"]
    assert system[1]["content"] == [{"type": "image"}, {"type": "text", "text": QUESTION}]
    assert [part["type"] for part in user[0]["content"]] == ["image", "text"]
    assert system[0]["content"][0]["text"] in user[0]["content"][1]["text"]
    assert prompt_messages("brief", "qwen3_vl") == system[1:]


def test_what_is_named():
    text = text_of(prompt_messages("user", "internvl"))
    assert all(f"- {tag}: " in text for tag in TAGS)
    assert "0 to 1000" in text
    assert "pixels" in text_of(prompt_messages("user", "qwen2_5_vl"))
    assert text.endswith("nothing else.")


@pytest.mark.parametrize(
    ("drop", "words"),
    [
        ("bbox", ["bbox_2d", "corners", "1000"]),
        ("caption", ["label", "caption"]),
        ("tags", ["tag", "perspective"]),
        ("label", ["tag", "region", "bbox_2d", "think"]),
    ],
)
def test_what_is_dropped_is_not_mentioned(drop, words):
    full = text_of(prompt_messages("system", "internvl"))
    text = text_of(prompt_messages("system", "internvl", drop))
    assert [word for word in words if word in text] == []
    assert [word for word in words if word not in full] == []


def test_hashes_tell_prompts_apart():
    keys = [
        (layout, family, drop, form)
        for layout, family, drop in product(("system", "user"), ("qwen2_5_vl", "internvl"), DROPS)
        for form in forms_of(family)
    ]
    keys += [("brief", "qwen2_5_vl", "none", "json"), ("brief", "internvl", "tags", "json")]
    texts = {key: str(prompt_messages(*key)) for key in keys}
    hashes = {key: prompt_hash(*key) for key in keys}
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in hashes.values())
    assert len(set(hashes.values())) == len(set(texts.values()))
    # of thousandths families alike: one prompt
    assert prompt_hash("user", "llava") == prompt_hash("user", "internvl")


def test_refusals():
    with pytest.raises(ArtifactNetError, match=r"blip_2.*known"):
        prompt_messages("user", "blip_2")
    with pytest.raises(ArtifactNetError, match="blip_2"):
        prompt_messages("brief", "blip_2")
    with pytest.raises(ArtifactNetError, match=r"llava.*qwen.*use json"):
        prompt_messages("user", "llava", form="qwen")
