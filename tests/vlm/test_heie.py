"""HEIE's forward pass: tiles and tokens in their places, losses, gradients, adapters."""

import copy

import pytest
import torch
from tiny_mllm import random_image, save_base
from torch.utils._python_dispatch import TorchDispatchMode

from artifactnet.types import ArtifactNetError, HeatmapLevel
from artifactnet.vlm.heie.model import build_heie, piece_indices
from artifactnet.vlm.heie.processing import HeieInputs
from artifactnet.vlm.heie.saving import load_heie, save_heie
from artifactnet.vlm.text.template import TEMPLATE

SIZES = {(1, 1): (56, 56), (2, 1): (112, 56), (1, 3): (56, 168), (3, 2): (168, 112)}


def encoded(model, sizes, text=TEMPLATE):
    return model.processing.encode([random_image(*size) for size in sizes], [text] * len(sizes))


def test_piece_indices():
    assert piece_indices([(1, 1), (2, 2), (1, 3)]) == ([0, 5, 9], [0, 1, 2, 3, 4, 6, 7, 8])


@pytest.mark.parametrize("grid", list(SIZES))
def test_maps_have_the_size_of_the_grid(built_heie, grid):
    with torch.no_grad():
        output = built_heie(encoded(built_heie, [SIZES[grid]]))
    (found,) = output.heatmaps
    assert found.heatmap.shape == (1, grid[0] * 16, grid[1] * 16)
    assert found.sigma.shape == found.heatmap.shape
    assert found.score.shape == (1,)
    assert 0 <= float(found.score) <= 1


@pytest.mark.parametrize("grid", list(SIZES))
def test_each_tile_comes_back_in_its_place(heie, grid, monkeypatch):
    """A mapper that writes the brightness of its piece: tile index in, tile index out."""
    rows, columns = grid
    inputs = encoded(heie, [SIZES[grid]])
    count = rows * columns
    marks = torch.arange(1.0, len(inputs.pixel_values) + 1)
    inputs.pixel_values = marks[:, None, None, None].expand(-1, 3, 56, 56).clone()
    inner = heie.inner
    real = inner.get_image_features

    def features(pixels, **options):
        found = real(pixels, **options)
        found.last_hidden_state = pixels[:, 0, 0, 0, None, None].expand(-1, 17, 32)
        return found

    def mapper(tokens, small):
        level = small[:, 0].repeat_interleave(4, 1).repeat_interleave(4, 2)
        return HeatmapLevel(level, torch.zeros_like(level))

    monkeypatch.setattr(inner, "get_image_features", features)
    monkeypatch.setattr(heie.head.neck, "forward", lambda levels, cell: levels[0])
    monkeypatch.setattr(heie.head.mapper, "forward", mapper)
    with torch.no_grad():
        (found,) = heie(inputs).heatmaps
    whole, local = found.levels
    for row in range(rows):
        for column in range(columns):
            place = local.logit[0, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
            assert torch.all(place == row * columns + column + 1)
    thumbnail = torch.full_like(whole.logit, count + 1 if count > 1 else 1)
    torch.testing.assert_close(whole.logit, thumbnail)


def test_map_tokens_belong_to_their_pieces(heie, monkeypatch):
    """The first map token goes with the thumbnail, the others with the tiles, in order."""
    seen = {}
    inputs = encoded(heie, [(112, 56), (56, 56)])
    processing = heie.processing
    width = heie.inner.config.text_config.hidden_size
    order = torch.arange(inputs.input_ids.numel(), dtype=torch.float32)
    states = order.view(*inputs.input_ids.shape, 1).expand(-1, -1, width)
    real = heie.head.map_pieces

    def spy(thumbnails, tiles, tokens):
        seen["tokens"] = tokens
        return real(thumbnails, tiles, tokens)

    monkeypatch.setattr(heie.head, "map_pieces", spy)
    heie._maps([torch.randn(len(inputs.pixel_values), 32, 4, 4)], states, inputs)
    places = (inputs.input_ids == processing.map_id).flatten().nonzero()[:, 0].float()
    tokens = seen["tokens"]
    assert tokens.global_map[:, 0, 0].tolist() == [places[0], places[3]]
    assert tokens.local_map[:, 0, 0].tolist() == [places[1], places[2], places[4]]
    score = (inputs.input_ids == processing.score_id).flatten().nonzero()[:, 0].float()
    assert tokens.score[:, 0].tolist() == score.tolist()


def test_padding_and_neighbours_change_nothing(built_heie):
    """In a batch of unequal tile counts, padded on the left."""
    images = [random_image(56, 56), random_image(168, 112), random_image(56, 168)]
    texts = [TEMPLATE, TEMPLATE.replace("[MAP]", "here and there: [MAP]"), TEMPLATE]
    with torch.no_grad():
        together = built_heie(built_heie.processing.encode(images, texts))
        for k in range(3):
            alone = built_heie(built_heie.processing.encode([images[k]], [texts[k]]))
            torch.testing.assert_close(
                together.heatmaps[k].heatmap, alone.heatmaps[0].heatmap, atol=1e-5, rtol=1e-4
            )
            torch.testing.assert_close(
                together.heatmaps[k].score, alone.heatmaps[0].score, atol=1e-5, rtol=1e-4
            )
            torch.testing.assert_close(together.nll[k], alone.nll[0], atol=1e-3, rtol=1e-4)
            assert together.tokens[k] == alone.tokens[0]


def test_text_loss_is_that_of_the_language_model_itself(built_heie):
    inputs = encoded(built_heie, [(56, 56), (112, 56)])
    with torch.no_grad():
        ours = built_heie(inputs)
        theirs = built_heie.causal(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            pixel_values=inputs.pixel_values,
            labels=inputs.labels,
        )
    torch.testing.assert_close(ours.text_loss, theirs.loss, atol=1e-5, rtol=1e-5)
    assert int(ours.tokens.sum()) == int((inputs.labels[:, 1:] != -100).sum())


def test_hidden_states_are_cast_after_they_are_selected(built_heie):
    """The head runs in float32; a copy of all states of a bfloat16 base would waste memory."""
    inputs = encoded(built_heie, [(56, 56), (112, 56)])
    features = [torch.randn(len(inputs.pixel_values), 32, 4, 4)]
    width = built_heie.inner.config.text_config.hidden_size
    hidden = torch.randn(*inputs.input_ids.shape, width, dtype=torch.bfloat16)
    casts = []

    class Casts(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten._to_copy.default:
                casts.append(args[0].shape)
            return function(*args, **(kwargs or {}))

    with torch.no_grad():
        before = built_heie._maps(features, hidden.float(), inputs)
        with Casts():
            after = built_heie._maps(features, hidden, inputs)
    assert casts.count((5, width)) == 1  # map tokens
    assert casts.count((2, width)) == 1  # score tokens
    assert hidden.shape not in casts
    for one, two in zip(before, after, strict=True):
        assert torch.equal(one.heatmap, two.heatmap)
        assert torch.equal(one.sigma, two.sigma)
        assert torch.equal(one.score, two.score)


def test_without_labels_there_is_no_text_loss(built_heie):
    inputs = encoded(built_heie, [(56, 56)])
    inputs.labels = None
    with torch.no_grad():
        output = built_heie(inputs)
    assert output.text_loss is None
    assert output.tokens.tolist() == [0]


def test_wrong_number_of_tokens_is_refused(built_heie):
    inputs = encoded(built_heie, [(56, 56)])
    prompt = built_heie.processing.prompt([random_image(56, 56)])
    with pytest.raises(ValueError, match="score tokens"):
        built_heie(
            HeieInputs(prompt.input_ids, prompt.attention_mask, inputs.pixel_values, inputs.grids)
        )


def test_step_changes_only_adapters_new_rows_and_head(heie):
    heie.train()
    learnt = {name for name, p in heie.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in heie.named_parameters()}
    output = heie(encoded(heie, [(112, 56), (56, 56)]))
    loss = output.text_loss + sum(
        (one.heatmap.mean() - 1) ** 2 + (one.score.mean() - 1) ** 2 + one.sigma.mean()
        for one in output.heatmaps
    )
    loss.backward()
    silent = [n for n, p in heie.named_parameters() if n in learnt and p.grad is None]
    assert silent == []
    torch.optim.AdamW([p for p in heie.parameters() if p.requires_grad], lr=1e-2).step()
    changed = {n for n, p in heie.named_parameters() if not torch.equal(p, before[n])}
    assert changed <= learnt
    assert any("lora_" in name for name in changed)
    assert any("trainable_tokens" in name for name in changed)
    assert {n for n in learnt if n.startswith("head.")} <= learnt
    assert any(name.startswith("head.mapper") for name in changed)
    assert any("vision_tower" in name for name in changed)


def test_full_fine_tuning_freezes_nothing(tiny_config):
    config = copy.deepcopy(tiny_config)
    config.mllm.lora_rank = 0
    config.mllm.gradient_checkpointing = True
    model = build_heie(config).train()
    assert all(parameter.requires_grad for parameter in model.parameters())
    model(encoded(model, [(56, 56)])).text_loss.backward()
    assert model.inner.language_model.layers[0].self_attn.q_proj.weight.grad is not None


def test_gradient_checkpointing_changes_no_gradient(heie):
    inputs = encoded(heie, [(56, 56)])
    gradients, calls, passes = [], [], []
    stacks = heie.inner.language_model.layers, heie.inner.vision_tower.encoder.layer
    for stack in stacks:
        stack[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    for on in (False, True):
        if on:
            heie.causal.gradient_checkpointing_enable({"use_reentrant": False})
        heie.train()
        heie.zero_grad()
        calls.clear()
        output = heie(inputs)
        (output.text_loss + output.heatmaps[0].heatmap.mean()).backward()
        gradients.append(
            {n: p.grad.clone() for n, p in heie.named_parameters() if p.grad is not None}
        )
        passes.append(len(calls))
    assert passes == [2, 4]  # with it, the first layer of either stack runs once more
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_the_mapper_reads_four_blocks_of_the_tower_if_asked(tmp_path, tiny_config):
    config = copy.deepcopy(tiny_config)
    config.mllm.base = str(save_base(tmp_path / "deep", blocks=8))
    config.mllm.features = "levels"
    model = build_heie(config).eval()
    tower, seen, given = model.inner.vision_tower, {}, []
    for k, block in enumerate(tower.encoder.layer):
        block.register_forward_hook(lambda _, args, out, k=k: seen.__setitem__(k, out))
    tower.layernorm.register_forward_hook(lambda _, args, out: seen.__setitem__("last", out))
    model.head.neck.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    with torch.no_grad():
        model(encoded(model, [(112, 56)]))  # two tiles, then the thumbnail
    for levels, rows in zip(given, ([2], [0, 1]), strict=True):
        for level, source in zip(levels, (1, 3, 5, "last"), strict=True):
            for piece, row in zip(level, rows, strict=True):
                for cell in range(16):
                    expected = seen[source][row, 1 + cell]
                    assert torch.equal(piece[:, cell // 4, cell % 4], expected)
    save_heie(model, tmp_path / "saved", {})
    again = load_heie(tmp_path / "saved")
    inputs = encoded(model, [(112, 56)])
    with torch.no_grad():
        one, two = (m(inputs).heatmaps[0].heatmap for m in (model, again))
    torch.testing.assert_close(one, two)


def test_a_tower_of_few_blocks_has_no_levels(tiny_config):
    config = copy.deepcopy(tiny_config)
    config.mllm.features = "levels"
    with pytest.raises(ArtifactNetError, match=r"features=levels needs 4 blocks .* has 2; set"):
        build_heie(config)
