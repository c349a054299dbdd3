"""Which implementation of the products is chosen: portable tiles, Triton only on request."""

from types import SimpleNamespace

import pytest
import torch

from artifactnet.config import ConfigError, load
from artifactnet.models.attention import products, tiles
from artifactnet.models.attention.rollout import attention_rollout
from artifactnet.models.attention.tap import AttentionLayer

GPU = SimpleNamespace(device=torch.device("cuda:0"))


@pytest.fixture(autouse=True)
def fresh_log():
    products._warn_once.cache_clear()


def test_cuda_uses_portable_tiles_and_logs_the_key_once(caplog):
    q = torch.zeros(1, 1, 2, 16)
    assert products.products_for(q, q) is tiles
    assert not caplog.records
    for _ in range(2):
        assert products.products_for(GPU, GPU) is tiles
    (record,) = caplog.records
    assert "model.attention.form=triton" in record.message


def test_triton_runs_on_request_where_it_can(monkeypatch, caplog):
    kernels = pytest.importorskip("artifactnet.models.attention.triton_kernels")
    reasons = iter([None, "compute capability 7.5"])
    monkeypatch.setattr(kernels, "why_not", lambda q, k: next(reasons))
    assert products.products_for(GPU, GPU, triton=True) is kernels
    assert not caplog.records
    assert products.products_for(GPU, GPU, triton=True) is tiles
    assert "7.5" in caplog.text


def test_the_key_reaches_the_products(monkeypatch):
    seen = []

    def chosen(q, k, triton=False):
        seen.append(triton)
        return tiles

    monkeypatch.setattr("artifactnet.models.attention.chains.products_for", chosen)
    q = torch.randn(1, 2, 5, 8)
    layers = [AttentionLayer(q, q, q, q, 0.3, log_sum_exp=tiles.log_sum_exp(q, q, 0.3))]
    for form in ("auto", "triton"):
        attention_rollout(layers, form=form)
    assert seen == [False, True]
    assert load("dinov2_align", ["model.attention.form=triton"]).model.attention.form == "triton"
    with pytest.raises(ConfigError, match=r"model\.attention\.form"):
        load("dinov2_align", ["model.attention.form=cuda"])
