"""Models are left as they were found."""

import pytest
import torch
from torch import nn

from artifactnet.models.state import by_size, evaluating, undisturbed


def net():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    return model


def flags(model):
    return [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]


def test_every_flag_comes_back_after_success_and_after_failure():
    model = net()
    before = flags(model)
    for context in (evaluating, undisturbed):
        with context(model):
            assert not any(m.training for m in model.modules())
        assert flags(model) == before
        with pytest.raises(RuntimeError), context(model):
            raise RuntimeError
        assert flags(model) == before


def test_gradients_that_an_optimizer_waits_for_survive():
    model = net()
    model(torch.randn(5, 3)).sum().backward()
    waiting = [p.grad for p in model.parameters()]
    assert any(g is not None for g in waiting)
    copies = [None if g is None else g.clone() for g in waiting]
    with undisturbed(model):
        images = torch.randn(5, 3, requires_grad=True)
        model(images).sum().backward()
        assert images.grad is not None
        assert all(p.grad is None for p in model.parameters())
        model.zero_grad()
    for weight, grad, copy in zip(model.parameters(), waiting, copies, strict=True):
        assert weight.grad is grad
        assert grad is None or torch.equal(grad, copy)


def test_images_of_one_size_go_together():
    sizes = [(2, 3), (4, 4), (2, 3), (3, 2)]
    images = [torch.full((3, *size), float(k)) for k, size in enumerate(sizes)]
    found = list(by_size(images))
    assert [indices for indices, _ in found] == [[0, 2], [1], [3]]
    assert [tuple(batch.shape) for _, batch in found] == [(2, 3, 2, 3), (1, 3, 4, 4), (1, 3, 3, 2)]
    for indices, batch in found:
        assert torch.equal(batch[:, 0, 0, 0], torch.tensor(indices, dtype=torch.float32))
    assert list(by_size([])) == []
