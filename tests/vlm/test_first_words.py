"""Logits of an answer's first word, against the model's own."""

import numpy as np
import pytest
import tiny_mllm

from artifactnet.types import ArtifactNetError
from artifactnet.vlm.first_words import FirstWords

pytest.importorskip("transformers")
WORDS = ("Excellent", "Good", "Fair", "Poor", "Bad")


@pytest.fixture(scope="module", params=["qwen", "internvl"])
def base(request, tmp_path_factory):
    save = tiny_mllm.save_qwen if request.param == "qwen" else tiny_mllm.save_base
    return save(tmp_path_factory.mktemp(request.param))


def test_logits_are_those_of_the_next_token(base):
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    image = tiny_mllm.random_image(56, 84)
    scorer = FirstWords(str(base))
    logits = scorer.logits(image, "How good is it?", WORDS)
    assert scorer.logits(image, "How good is it?", WORDS) == logits
    assert scorer.logits(image, "How bad is it?", WORDS) != logits
    processor = AutoProcessor.from_pretrained(base)
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32).eval()
    content = [{"type": "image"}, {"type": "text", "text": "How good is it?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    inputs = processor(images=[Image.fromarray(image)], text=[text], return_tensors="pt")
    with torch.inference_mode():
        all_logits = model(**inputs).logits[0, -1]
    ids = [processor.tokenizer.encode(word, add_special_tokens=False)[0] for word in WORDS]
    assert np.allclose(logits, all_logits[ids].double(), atol=1e-4)


def test_words_that_begin_alike_are_refused(base):
    with pytest.raises(ArtifactNetError, match="begin with the same token"):
        FirstWords(str(base)).logits(tiny_mllm.random_image(56, 56), "?", ("Xa", "Xb"))


def test_a_missing_checkpoint(tmp_path):
    with pytest.raises(ArtifactNetError, match="no such folder"):
        FirstWords(str(tmp_path / "none")).logits(tiny_mllm.random_image(56, 56), "?", WORDS)
