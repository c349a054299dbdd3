"""SAM, tiny and random: masks at the size of the image, and checkpoints that are none."""

import numpy as np
import pytest
import torch
from tiny_grounding import save_grounding

from artifactnet.types import ArtifactNetError
from artifactnet.vlm.segments import SamSegmenter

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def sam(tmp_path_factory):
    vision = transformers.SamVisionConfig(
        hidden_size=16,
        output_channels=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        mlp_dim=16,
        num_pos_feats=4,
        window_size=2,
        global_attn_indexes=[0],
    )
    prompts = transformers.SamPromptEncoderConfig(
        hidden_size=8, image_size=64, patch_size=16, mask_input_channels=4
    )
    decoder = transformers.SamMaskDecoderConfig(
        hidden_size=8,
        mlp_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        iou_head_hidden_dim=8,
        iou_head_depth=2,
    )
    config = transformers.SamConfig(
        vision_config=vision.to_dict(),
        prompt_encoder_config=prompts.to_dict(),
        mask_decoder_config=decoder.to_dict(),
    )
    images = transformers.SamImageProcessor(
        size={"longest_edge": 64},
        pad_size={"height": 64, "width": 64},
        mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )
    folder = tmp_path_factory.mktemp("sam")
    torch.manual_seed(0)
    transformers.SamModel(config).save_pretrained(folder)
    images.save_pretrained(folder)
    return str(folder)


def test_masks_have_the_size_of_the_image(sam):
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    segment = SamSegmenter(sam, points=3, quality=-10, stability=-1)
    masks = segment(image)
    assert masks
    assert {mask.shape for mask in masks} == {(50, 70)}
    assert all(mask.dtype == bool and mask.any() for mask in masks)
    again = SamSegmenter(sam, points=3, quality=-10, stability=-1)(image)
    np.testing.assert_array_equal(np.stack(again), np.stack(masks))
    assert SamSegmenter(sam, points=3, quality=2)(image) == []  # none is as good as that


def test_other_checkpoints_are_refused(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ArtifactNetError, match=r"segmenter .*nowhere: cannot be loaded"):
        SamSegmenter(str(tmp_path / "nowhere"))(image)
    other = save_grounding(tmp_path / "dino")
    with pytest.raises(ArtifactNetError, match=r"family 'grounding-dino' is not supported \(sam\)"):
        SamSegmenter(str(other))(image)
