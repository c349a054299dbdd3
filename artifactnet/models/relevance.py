"""Relevance maps of a ViT: which patches made the class token say what it says."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from artifactnet.models.attention.stored import (
    attention_weights,
    chain_rows,
    gradient_of_attention,
)
from artifactnet.models.attention.tap import AttentionLayer
from artifactnet.models.rollout import output_gradients


def relevance_row(logit: torch.Tensor, layers: Sequence[AttentionLayer]) -> torch.Tensor:
    """Class token's row of the relevance map of Chefer et al. (2021), for pure self-attention.

    Their update R <- R + W_l R with W_l = mean_h relu(G_h * A_h), from the first block to the
    last, starting at the identity, multiplies the factors (I + W_l); the class row of that
    product follows from the last block down, r <- r + r W_l, without any N x N product.

    Args:
        logit: (B,) score to explain; a sample's score must depend on that sample alone.
        layers: the blocks' attention, recorded in the forward pass that gave ``logit``.

    Returns:
        (B, N) over all tokens, float32 or wider, without graph; non-negative, of no fixed scale.
    """
    gradients = output_gradients(logit, layers)

    def matrix_of(index: int, rows: slice) -> torch.Tensor:
        weights = attention_weights(layers[index], rows)
        slope = gradient_of_attention(layers[index], gradients[index], rows, weights.dtype)
        return (weights * slope).clamp_min(0).mean(dim=1)

    with torch.no_grad(), torch.autocast(logit.device.type, enabled=False):
        return chain_rows(layers, matrix_of, normalized=False)
