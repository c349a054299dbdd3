"""Rows of Q-Real that no model can learn, told by line and entity before anything is trained."""

import pytest
import tiny_qreal
from PIL import Image

tiny_mllm = pytest.importorskip("tiny_mllm")
pytest.importorskip("peft", reason="needs the extra mllm")

from artifactnet.config import load  # noqa: E402
from artifactnet.types import ArtifactNetError  # noqa: E402
from artifactnet.vlm.image_chat import load_image_chat  # noqa: E402
from artifactnet.vlm.qreal.rows import QRealData  # noqa: E402


@pytest.mark.parametrize(
    ("recipe", "size", "said"),
    [
        # 602 x 3 pixels of the image, enlarged to 56 of height
        ("qreal_objectqa", (640, 80), "entity 'cat-1': an image of 11237x56 pixels is too narrow"),
        ("qreal_imageqa", (640, 3), "an image of 640x3 pixels is too narrow"),
    ],
)
def test_an_image_that_is_too_narrow_is_named(tmp_path, recipe, size, said):
    entity = tiny_qreal.entity("cat-1", [0, 0, 602, 2.5], False, True)
    truth = tiny_qreal.save(tmp_path, {"entities": [entity]})
    Image.new("RGB", size).save(tmp_path / "a.png")
    base = tiny_mllm.save_qwen(tmp_path / "base")
    own = [f"mllm.base={base}", f"data.root={truth}", "mllm.max_new_tokens=500"]
    config = load(f"paper/{recipe}", own)
    with pytest.raises(ArtifactNetError) as error:
        QRealData(config).rows("train", load_image_chat(config.mllm))
    assert str(error.value).startswith(f"{truth}:1: a.png: {said}")
