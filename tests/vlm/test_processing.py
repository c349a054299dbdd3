import numpy as np
import pytest
import torch

from artifactnet.types import ArtifactNetError
from artifactnet.vlm.processing import IGNORED
from artifactnet.vlm.text.template import TEMPLATE

RNG = np.random.default_rng(0)


def picture(height, width):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "grid"),
    [((56, 56), (1, 1)), ((112, 56), (2, 1)), ((56, 168), (1, 3)), ((168, 112), (3, 2))],
)
def test_tiles_are_the_image_row_by_row_and_the_thumbnail_last(heie, size, grid):
    processing = heie.processing
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
    if count > 1:  # the thumbnail holds all of it
        assert levels[-1] == pytest.approx(np.mean(levels[:count]), abs=0.02)


def test_map_and_score_tokens_and_labels(heie):
    processing = heie.processing
    images = [picture(56, 56), picture(168, 112)]
    inputs = processing.encode(images, [TEMPLATE, TEMPLATE])
    assert ((inputs.input_ids == processing.map_id).sum(1)).tolist() == [2, 7]
    assert ((inputs.input_ids == processing.score_id).sum(1)).tolist() == [1, 1]
    assert inputs.attention_mask[0, 0] == 0  # the shorter one is padded, on the left
    assert inputs.attention_mask[:, -1].tolist() == [1, 1]
    for row in range(2):
        known = inputs.labels[row] != IGNORED
        assert torch.equal(inputs.labels[row][known], inputs.input_ids[row][known])
        assert bool((known.int().diff() >= 0).all())  # the answer is one piece at the end
        assert not bool((inputs.labels[row] == processing.processor.image_token_id).any())
        answer = processing.decode(inputs.input_ids[row][known])
        assert answer == TEMPLATE
    prompts = processing.prompt(images)
    assert prompts.labels is None
    length = int((inputs.labels[1] == IGNORED).sum())
    assert torch.equal(
        prompts.input_ids[1][prompts.attention_mask[1] == 1],
        inputs.input_ids[1][:length][inputs.attention_mask[1][:length] == 1],
    )


def test_question_of_an_image_is_asked(heie):
    processing = heie.processing
    ids = processing.prompt([picture(56, 56)] * 2, ["Where is it wrong?", None]).input_ids
    texts = [processing.processor.tokenizer.decode(row) for row in ids]
    assert "Where is it wrong?" in texts[0]
    assert processing.question in texts[1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (TEMPLATE.replace("[MAP]", ""), r"\[MAP\] must stand in it once, not 0 times"),
        (TEMPLATE + "[MAP]", r"\[MAP\] must stand in it once, not 2 times"),
        (TEMPLATE.replace("[SCORE]", ""), r"\[SCORE\] must stand in it once, not 0 times"),
        (TEMPLATE + "<|im_end|>", "control word"),
        (TEMPLATE + "<IMG_CONTEXT>", "control word"),
        (TEMPLATE + "<|im_start|>", "control word"),  # special, though not among extra ones
    ],
)
def test_text_that_cannot_be_used(heie, text, problem):
    with pytest.raises(ArtifactNetError, match=f"text 0.*{problem}"):
        heie.processing.encode([picture(56, 56)], [text])


def test_question_with_a_control_word(heie):
    with pytest.raises(ArtifactNetError, match="question 0.*control word"):
        heie.processing.prompt([picture(56, 56)], ["<|im_end|>"])


def test_extreme_aspect_ratio_is_cut_and_told(heie):
    processing = heie.processing
    image = picture(40, 800)
    inputs = processing.encode([image], [TEMPLATE])
    assert inputs.grids == [(1, 6)]
    (note,) = processing.notes(40, 800)
    assert "aspect ratio 800:40" in note
    assert "factor of 3.3" in note
    assert processing.notes(100, 150) == []


def test_max_tiles_is_obeyed(tiny_config):
    import copy

    from artifactnet.vlm.heie.model import build

    config = copy.deepcopy(tiny_config)
    config.model.heatmap.max_tiles = 2
    model = build(config)
    assert model.processing.encode([picture(300, 200)], [TEMPLATE]).grids in ([(2, 1)], [(1, 1)])


@pytest.mark.parametrize("size", [(3, 90), (1, 40), (90, 3)])
def test_image_of_a_few_rows_is_not_taken_for_channels(heie, size):
    image = picture(*size)
    image[...] = (200, 100, 50)
    tiles = heie.processing.encode([image], [TEMPLATE]).pixel_values
    assert float(tiles.std((2, 3)).max()) < 1e-3  # one colour everywhere
    assert tiles[0, 0].mean() > tiles[0, 1].mean() > tiles[0, 2].mean()
