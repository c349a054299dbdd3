"""HEIE's inputs: tiles, map and score tokens, labels, and texts that are refused."""

import copy

import numpy as np
import pytest
import torch
from tiny_mllm import random_image

from artifactnet.types import ArtifactNetError
from artifactnet.vlm.heie.processing import load_heie_processing
from artifactnet.vlm.processing import IGNORE_INDEX
from artifactnet.vlm.text.template import TEMPLATE


@pytest.mark.parametrize(
    ("size", "grid"),
    [((56, 56), (1, 1)), ((112, 56), (2, 1)), ((56, 168), (1, 3)), ((168, 112), (3, 2))],
)
def test_tiles_row_by_row_then_the_thumbnail(built_heie, size, grid):
    processing = built_heie.processing
    rows, columns = grid
    image = np.zeros((*size, 3), np.uint8)
    for index in range(rows * columns):
        row, column = divmod(index, columns)
        image[row * 56 : row * 56 + 56, column * 56 : column * 56 + 56] = 30 * (index + 1)
    inputs = processing.encode([image], [TEMPLATE])
    assert inputs.grids == [grid]
    assert processing.grid(*size) == grid
    count = rows * columns
    assert len(inputs.pixel_values) == count + (count > 1)
    levels = inputs.pixel_values.mean((1, 2, 3)).tolist()
    assert levels[:count] == sorted(levels[:count])
    assert all(float(tile.std((1, 2)).max()) < 1e-3 for tile in inputs.pixel_values[:count])
    if count > 1:  # the thumbnail shows the whole image
        assert levels[-1] == pytest.approx(np.mean(levels[:count]), abs=0.02)


def test_map_and_score_tokens_and_labels(built_heie):
    processing = built_heie.processing
    images = [random_image(56, 56), random_image(168, 112)]
    inputs = processing.encode(images, [TEMPLATE, TEMPLATE])
    assert ((inputs.input_ids == processing.map_id).sum(1)).tolist() == [2, 7]
    assert ((inputs.input_ids == processing.score_id).sum(1)).tolist() == [1, 1]
    assert inputs.attention_mask[0, 0] == 0  # the shorter one is padded, on the left
    assert inputs.attention_mask[:, -1].tolist() == [1, 1]
    for row in range(2):
        known = inputs.labels[row] != IGNORE_INDEX
        assert torch.equal(inputs.labels[row][known], inputs.input_ids[row][known])
        assert bool((known.int().diff() >= 0).all())  # the answer is one block at the end
        assert not bool((inputs.labels[row] == processing.processor.image_token_id).any())
        answer = processing.decode(inputs.input_ids[row][known])
        assert answer == TEMPLATE
    prompts = processing.prompt(images)
    assert prompts.labels is None
    length = int((inputs.labels[1] == IGNORE_INDEX).sum())
    assert torch.equal(
        prompts.input_ids[1][prompts.attention_mask[1] == 1],
        inputs.input_ids[1][:length][inputs.attention_mask[1][:length] == 1],
    )


def test_questions(built_heie):
    processing = built_heie.processing
    ids = processing.prompt([random_image(56, 56)] * 2, ["Where is it wrong?", None]).input_ids
    texts = [processing.processor.tokenizer.decode(row) for row in ids]
    assert "Where is it wrong?" in texts[0]
    assert processing.question in texts[1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (TEMPLATE.replace("[MAP]", ""), r"\[MAP\].* 0 "),
        (TEMPLATE + "[MAP]", r"\[MAP\].* 2 "),
        (TEMPLATE.replace("[SCORE]", ""), r"\[SCORE\].* 0 "),
        (TEMPLATE + "<|im_end|>", r"<\|im_end"),
        (TEMPLATE + "<IMG_CONTEXT>", "<IMG_CONTEXT>"),
        (TEMPLATE + "<|im_start|>", r"<\|im_start"),  # special, though not an extra token
    ],
)
def test_invalid_text_is_refused(built_heie, text, problem):
    with pytest.raises(ArtifactNetError, match=f"text 0.*{problem}"):
        built_heie.processing.encode([random_image(56, 56)], [text])


def test_question_with_a_control_word_is_refused(built_heie):
    with pytest.raises(ArtifactNetError, match=r"question 0.*<\|im_end"):
        built_heie.processing.prompt([random_image(56, 56)], ["<|im_end|>"])


def test_extreme_aspect_ratio_gives_a_warning(built_heie):
    processing = built_heie.processing
    image = random_image(40, 800)
    inputs = processing.encode([image], [TEMPLATE])
    assert inputs.grids == [(1, 6)]
    (note,) = processing.tiling_warnings(40, 800)
    assert "800:40" in note
    assert "3.3" in note
    assert processing.tiling_warnings(100, 150) == []


def test_max_tiles(tiny_config):
    heatmap = copy.deepcopy(tiny_config.model.heatmap)
    heatmap.max_tiles = 2
    processing = load_heie_processing(tiny_config.mllm, heatmap)
    assert processing.encode([random_image(300, 200)], [TEMPLATE]).grids in ([(2, 1)], [(1, 1)])


@pytest.mark.parametrize("size", [(3, 90), (1, 40), (90, 3)])
def test_few_rows_are_not_mistaken_for_channels(built_heie, size):
    image = random_image(*size)
    image[...] = (200, 100, 50)
    tiles = built_heie.processing.encode([image], [TEMPLATE]).pixel_values
    assert float(tiles.std((2, 3)).max()) < 1e-3  # one colour everywhere
    assert tiles[0, 0].mean() > tiles[0, 1].mean() > tiles[0, 2].mean()
