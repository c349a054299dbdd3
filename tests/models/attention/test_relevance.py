"""The relevance map's class row against the full matrices of Chefer et al., by loops in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import softmax_by_loops

from artifactnet.models.attention import stored
from artifactnet.models.attention.rollout import attention_rollout, gradient_rollout, relevance_row
from artifactnet.models.attention.tap import AttentionTap


def run_blocks(tokens, heads, depth, size, seed):
    """Logit and recorded layers of a chain of bare attention blocks in float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden = draw(2, heads, tokens, size)
    with AttentionTap(differentiable=True) as tap:
        for _ in range(depth):
            mix = [draw(size, size) for _ in range(3)]
            q, k, v = (hidden @ m for m in mix)
            hidden = torch.tanh(hidden + F.scaled_dot_product_attention(q, k, v))
    weight = draw(heads, size)
    return (hidden[:, :, 0] * weight).sum((1, 2)), tap.layers


def full_matrices(logit, layers):
    """(B, N, N) of R <- R + mean_h relu(G * A) R, every product and sum by hand."""
    gradients = torch.autograd.grad(logit.sum(), [layer.out for layer in layers])
    batch, heads, tokens, size = layers[0].q.shape
    found = []
    for image in range(batch):
        relevance = np.eye(tokens)
        for layer, gradient in zip(layers, gradients, strict=True):
            q, k, v, d_out = (
                x[image].detach().numpy() for x in (layer.q, layer.k, layer.v, gradient)
            )
            mean = np.zeros((tokens, tokens))
            for head in range(heads):
                attention = softmax_by_loops(q[head], k[head], layer.scale)
                for i in range(tokens):
                    for j in range(tokens):
                        slope = sum(d_out[head, i, d] * v[head, j, d] for d in range(size))
                        mean[i, j] += max(0.0, slope * attention[i, j]) / heads
            product = np.zeros((tokens, tokens))
            for i in range(tokens):
                for j in range(tokens):
                    product[i, j] = sum(mean[i, m] * relevance[m, j] for m in range(tokens))
            relevance = relevance + product
        found.append(relevance)
    return np.stack(found)


@pytest.mark.parametrize(("tokens", "heads", "depth", "size"), [(5, 2, 3, 4), (9, 3, 2, 3)])
def test_class_row_equals_that_of_the_full_matrices(tokens, heads, depth, size):
    logit, layers = run_blocks(tokens, heads, depth, size, seed=tokens)
    expected = full_matrices(logit, layers)[:, 0]
    logit, layers = run_blocks(tokens, heads, depth, size, seed=tokens)
    row = relevance_row(logit, layers)
    assert row.dtype == torch.float64
    assert not row.requires_grad
    np.testing.assert_allclose(row.numpy(), expected, atol=1e-8, rtol=0)
    assert np.abs(expected[:, 1:]).max() > 1e-3


@given(band=st.integers(1, 200), seed=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_the_height_of_bands_does_not_matter(band, seed):
    whole = stored._BAND_ELEMENTS
    try:
        rows = []
        for elements in (whole, band):
            stored._BAND_ELEMENTS = elements
            logit, layers = run_blocks(7, 2, 3, 4, seed)
            with torch.no_grad():
                standard = attention_rollout(layers, form="stored")
            gradient = gradient_rollout(logit, layers, form="stored")
            rows.append((standard, gradient, relevance_row(*run_blocks(7, 2, 3, 4, seed))))
    finally:
        stored._BAND_ELEMENTS = whole
    torch.testing.assert_close(*rows, atol=1e-12, rtol=0)
