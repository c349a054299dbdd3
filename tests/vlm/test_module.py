"""Losses of images on grids of their own, what learns, and what a checkpoint holds."""

import copy
import math
from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
from tiny_heie_run import example

from artifactnet.config import OptimConfig
from artifactnet.losses import heatmap as losses
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.heie.data import collate
from artifactnet.vlm.heie.model import build_heie
from artifactnet.vlm.heie.module import HeieModule, parameter_groups

SIZES = ((56, 56), (56, 112), (168, 56))


@pytest.fixture
def run(tiny_config):
    config = copy.deepcopy(tiny_config)
    config.loss.bce, config.loss.text, config.loss.alignment.weight = 0.0, 2.0, 0.0
    terms = config.loss.heatmap
    terms.focal, terms.laplace, terms.correlation, terms.score = 3.0, 0.5, 0.25, 1.5
    return config


def batch_of(processing, states=(2, 2, 1)):
    parts = [example(k, size=size) for k, size in enumerate(SIZES)]
    for k, part in enumerate(parts):
        part.target[5 : 20 + k, 10:30] = 0.5 + 0.2 * k
        part.score = 0.3 * k
    parts[2].target.zero_()
    parts[2].score = math.nan
    batch = collate(parts, processing)
    batch.annotation = torch.tensor(states)
    return batch


def test_losses_by_hand(heie, run):
    module = HeieModule(heie, run).eval()
    batch = batch_of(heie.processing)
    with torch.no_grad():
        parts, output = module.losses(batch)
    focal, laplace, correlation, score = [], [], [], []
    for k, found in enumerate(output.heatmaps):
        rows, columns = (SIZES[k][0] // 56, SIZES[k][1] // 56)
        assert found.heatmap.shape == (1, rows * 16, columns * 16)
        target = losses.resize_target(batch.target[k][None], tuple(found.heatmap.shape[1:]))
        known = torch.tensor([True])
        focal.append(float(losses.focal_loss(found.heatmap, target, known, 2.0)))
        both = [losses.laplace_loss(x.logit, x.log_sigma, target, known) for x in found.levels]
        laplace.append(float(sum(both)) / 2)
        correlation.append(float(losses.correlation_loss(found.heatmap, target, known.float())))
        given = batch.score[k]
        score.append(0.0 if given.isnan() else float((found.score - given) ** 2))
    assert correlation[2] == 0  # nothing to correlate with
    wanted = {
        "heatmap_focal": sum(focal) / 3,
        "heatmap_laplace": sum(laplace) / 3,
        "heatmap_correlation": sum(correlation) / 3,
        "heatmap_score": sum(score) / 3,
        "text": float(output.nll.sum() / output.tokens.sum()),
    }
    assert parts.keys() == {"loss", *wanted}
    for name, value in wanted.items():
        assert float(parts[name]) == pytest.approx(value, rel=1e-5), name
    weights = {"heatmap_focal": 3, "heatmap_laplace": 0.5, "heatmap_correlation": 0.25}
    weights |= {"heatmap_score": 1.5, "text": 2}
    total = sum(weights[name] * value for name, value in wanted.items())
    assert float(parts["loss"]) == pytest.approx(total, rel=1e-5)


def test_an_image_that_nobody_annotated_teaches_no_heatmap(heie, run):
    module = HeieModule(heie, run).eval()
    with torch.no_grad():
        parts, _ = module.losses(batch_of(heie.processing, (0, 0, 0)))
        some, _ = module.losses(batch_of(heie.processing, (2, 0, 0)))
        alone, _ = module.losses(collate([first_of(heie)], heie.processing))
    assert float(parts["heatmap_focal"]) == float(parts["heatmap_laplace"]) == 0
    assert float(parts["heatmap_score"]) > 0
    # a mean over the whole batch, whoever takes part
    assert float(some["heatmap_focal"]) == pytest.approx(
        float(alone["heatmap_focal"]) / 3, rel=1e-4
    )


def first_of(heie):
    one = example(0)
    one.target[5:20, 10:30] = 0.5
    one.score = 0.0
    return one


def test_gradients_reach_all_that_learns(heie, run):
    module = HeieModule(heie, run).train()
    parts, _ = module.losses(batch_of(heie.processing))
    parts["loss"].backward()
    learning = {n for n, p in heie.named_parameters() if p.requires_grad}
    silent = {n for n, p in heie.named_parameters() if p.requires_grad and p.grad is None}
    assert not silent
    assert any("lora_" in name for name in learning)
    assert any("trainable_tokens" in name for name in learning)
    assert any(name.startswith("head.") for name in learning)
    frozen = [p for p in heie.parameters() if not p.requires_grad]
    assert frozen
    assert all(p.grad is None for p in frozen)


def test_each_parameter_is_in_one_group(heie):
    optim = OptimConfig(lr=1e-4, head_lr=1e-3, weight_decay=0.1)
    groups = parameter_groups(heie, optim)
    home = {id(p): group for group in groups for p in group["params"]}
    assert len(home) == sum(len(group["params"]) for group in groups)
    learning = {n: p for n, p in heie.named_parameters() if p.requires_grad}
    assert {id(p) for p in learning.values()} == set(home)
    for name, parameter in learning.items():
        group = home[id(parameter)]
        fresh = name.startswith("head.") or "trainable_tokens" in name
        assert group["lr"] == (1e-3 if fresh else 1e-4), name
        decays = parameter.ndim > 1 and "trainable_tokens" not in name
        assert group["weight_decay"] == (0.1 if decays else 0.0), name
    assert len({group["name"] for group in groups}) == len(groups) == 3
    same = parameter_groups(heie, OptimConfig(lr=1e-4))
    assert {group["lr"] for group in same} == {1e-4}


def test_a_checkpoint_holds_what_learns(heie, run):
    module = HeieModule(heie, run)
    learning = {n for n, p in module.named_parameters() if p.requires_grad}
    checkpoint = {"state_dict": module.state_dict()}
    module.scored = True
    module.on_save_checkpoint(checkpoint)
    assert set(checkpoint["state_dict"]) == learning
    assert len(learning) < len(module.state_dict())
    torch.manual_seed(1)
    other = HeieModule(build_heie(copy.deepcopy(run)), run)
    other.on_load_checkpoint(checkpoint)
    other.load_state_dict(checkpoint["state_dict"], strict=other.strict_loading)
    assert other.scored
    for name, value in module.state_dict().items():
        if name in learning:
            assert torch.equal(other.state_dict()[name], value)
    name = sorted(learning)[0]
    without = {k: v for k, v in checkpoint["state_dict"].items() if k != name}
    with pytest.raises(ArtifactNetError, match=r"1 learning tensors differ, e\.g\. " + name):
        other.on_load_checkpoint({**checkpoint, "state_dict": without})
    del checkpoint["state_dict"]  # what is left of one whose sharded weights are loaded already
    other.on_load_checkpoint(checkpoint)
    checkpoint["learns"].append("x")
    with pytest.raises(ArtifactNetError, match="overwrite=true"):
        other.on_load_checkpoint(checkpoint)


def test_validation_does_not_depend_on_batches(heie, run):
    module = HeieModule(heie, run).eval()
    parts = [example(k, size=size) for k, size in enumerate(SIZES)]
    parts[0].text = parts[0].text.replace("A street", "A street, " * 5)
    parts[1].supervised = False
    for part in parts:
        part.target[10:30, 10:40] = 0.7
    with torch.no_grad():
        module.validation_step(collate(parts, heie.processing), 0)
        together = module.validation_figures()
        for k, part in enumerate(parts):
            module.validation_step(collate([part], heie.processing), k)
        apart = module.validation_figures()
    assert together == pytest.approx(apart, rel=1e-4)
    assert together["perplexity"] == pytest.approx(math.exp(together["text"]), rel=1e-6)
    weights = {"heatmap_focal": 3, "heatmap_laplace": 0.5, "heatmap_correlation": 0.25}
    weights |= {"heatmap_score": 1.5, "text": 2}
    total = sum(weight * together[name] for name, weight in weights.items())
    assert together["loss"] == pytest.approx(total)


def test_validation_without_texts(heie, run):
    run.loss.text = 0.0
    module = HeieModule(heie, run).eval()
    with torch.no_grad():
        module.validation_step(collate([example(0, supervised=False)], heie.processing), 0)
    found = module.validation_figures()
    assert "text" not in found
    assert "perplexity" not in found
    assert math.isfinite(found["loss"])


class Alone:
    """What a training step asks of a trainer."""

    world_size, precision, accumulate_grad_batches = 1, "32-true", 1


def trained_alone(heie, run, monkeypatch) -> HeieModule:
    module = HeieModule(heie, run).train()
    monkeypatch.setattr(HeieModule, "trainer", Alone())
    monkeypatch.setattr(HeieModule, "log_dict", lambda *args, **more: None)
    monkeypatch.setattr(HeieModule, "log", lambda *args, **more: None)
    monkeypatch.setattr(HeieModule, "global_step", 7)
    return module


def test_the_output_layer_is_skipped_if_no_text_is_learned(heie, run, monkeypatch):
    run.loss.text = 0.0
    module = trained_alone(heie, run, monkeypatch)
    monkeypatch.setattr(heie.causal.lm_head, "forward", None)  # whoever calls it fails
    module.training_step(batch_of(heie.processing), 0).backward()
    assert module.scored


def test_a_loss_or_gradient_that_is_not_finite_stops(heie, run, monkeypatch):
    module = trained_alone(heie, run, monkeypatch)
    silent = batch_of(heie.processing)
    silent.score[:] = math.nan
    loss = module.training_step(silent, 0)
    assert not module.scored
    loss.backward()
    module.on_before_optimizer_step(None)
    first = next(p for p in heie.parameters() if p.requires_grad)
    first.grad[...] = math.inf
    with pytest.raises(ArtifactNetError, match="gradient is not finite at step 7"):
        module.on_before_optimizer_step(None)
    with torch.no_grad():
        next(heie.head.parameters())[...] = math.nan
    with pytest.raises(ArtifactNetError, match=r"step 7 \(.*loss nan.*image 0, image 1"):
        module.training_step(batch_of(heie.processing), 0)


def gradients(heie, run, batches) -> dict[str, torch.Tensor]:
    """Of one optimizer step of Lightning that accumulates all batches."""
    found = {}

    class Watched(HeieModule):
        def on_before_optimizer_step(self, optimizer):
            for name, parameter in self.model.named_parameters():
                if parameter.grad is not None:
                    found[name] = parameter.grad.clone()

    trainer = pl.Trainer(
        accelerator="cpu", max_steps=1, accumulate_grad_batches=len(batches), barebones=True
    )
    # as `WindowLoader` gives them
    total = sum(batch.tokens for batch in batches)
    window = [replace(b, window_tokens=total, window_batches=len(batches)) for b in batches]
    loader = torch.utils.data.DataLoader(window, batch_size=None)
    trainer.fit(Watched(copy.deepcopy(heie), run), loader)
    return found


def test_accumulated_batches_have_the_gradient_of_one(heie, run):
    """Texts of very different lengths: each token weighs the same, however they are batched."""
    parts = [example(k, size=SIZES[0]) for k in range(4)]
    for k, part in enumerate(parts):
        part.text = part.text.replace("A street", "A street, " * (1 + 12 * k))
        part.target[5 : 20 + k, 10:30] = 0.5
    parts[1].supervised = False
    whole = gradients(heie, run, [collate(parts, heie.processing)])
    for sizes in ((2, 2), (1, 1, 1, 1)):
        starts = [sum(sizes[:k]) for k in range(len(sizes))]
        batches = [
            collate(parts[start : start + size], heie.processing)
            for start, size in zip(starts, sizes, strict=True)
        ]
        assert len({batch.tokens for batch in batches}) == len(batches)
        divided = gradients(heie, run, batches)
        assert divided.keys() == whole.keys()
        for name, gradient in whole.items():
            torch.testing.assert_close(divided[name], gradient, rtol=1e-4, atol=1e-6)
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-2
