"""Gradient rollout inside the backwards of attention that run anyway.

First-order gradient rollout needs two backwards of every block: one for dO, one for the loss. Both
compute P and products with v^T tile by tile, so W = max(0, mean_h P_h * dO_h v_h^T) is collected
in the first, and its gradient is added in the second: 12 matrix products per block and tile
instead of 17. On a processor, where the library's kernel has no advantage over tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from artifactnet.models.attention.gradient_tiles import (
    SOFTMAX_BACKWARD,
    Block,
    Inputs,
    matrix_gradient,
)
from artifactnet.models.attention.tiles import as_pairs, like


class Message(NamedTuple):
    """dL/dW of a block, W > 0: share_i (target_j - slope_i); see `fused_row_backward`."""

    matrix: Tensor  # W (B, N, N)
    d_out: Tensor  # dO of the logit (B, H, N, d), a constant
    share: Tensor  # u / H (B, N)
    target: Tensor  # g (B, N)
    slope: Tensor  # t (B, N)

    def gradient(self, images: slice, rows: slice) -> Tensor:
        """dL/dW / H of some rows, see `matrix_gradient`."""
        matrix, share = self.matrix[images, rows], self.share[images, rows]
        return matrix_gradient(matrix, share, self.target[images], self.slope[images, rows])


@dataclass(slots=True)
class Ride:
    """What one attention call is asked to do in its next backward.

    Attributes:
        collect: keep W of the gradient that arrives.
        matrix: W (B, N, N), once collected.
        message: a gradient of W to be added; taken by the backward that adds it.
    """

    collect: bool = False
    matrix: Tensor | None = None
    message: Message | None = None


def can_ride(q: Tensor) -> bool:
    """Whether keeping W (B, N, N) is worth it: on a processor, in float32 or wider, and where it
    takes no more than q, k, v and dO (N <= 4 H d).

    Args:
        q: (B, H, N, d).
    """
    _, heads, tokens, size = q.shape
    return q.device.type == "cpu" and q.dtype.itemsize >= 4 and tokens <= 4 * heads * size


def attention_backward(inputs: Inputs, ride: Ride) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of softmax(scale q k^T) v with respect to q, k and v, and what a ride asks for.

    Args:
        inputs: of the block; ``d_out`` is whatever gradient arrives at the output.
        ride: its message is added and taken, else its W is collected if it asks for that.
    """
    q, k, v, _, _, scale = inputs
    block = Block.of(inputs)
    message, ride.message = ride.message, None
    if message is None and ride.collect:
        ride.matrix = block.left.new_empty(len(q), q.shape[2], k.shape[2])
    logit_d_out = as_pairs(message.d_out) if message is not None else None
    plain_q, plain_k = block.plain()
    values = block.values.transpose(1, 2)
    d_q, d_k, d_v = (torch.zeros_like(x) for x in (block.d_out, block.values, block.values))
    for images, rows, groups in block.parts():
        d_matrix = message.gradient(images, rows) if message is not None else None
        for pairs in groups:
            weights, slopes = block.tile(pairs, rows, logit_d_out)
            by_image = (images.stop - images.start, -1, *weights.shape[1:])
            x = block.spare[: weights.numel()].view_as(weights)
            if d_matrix is not None and logit_d_out is not None:
                torch.mul(weights.view(by_image), d_matrix, out=x.view(by_image))
                d_v[pairs].baddbmm_(x.transpose(1, 2), logit_d_out[pairs, rows])
                slopes.view(by_image).mul_(d_matrix)
                slopes.baddbmm_(block.d_out[pairs, rows], values[pairs])
            elif ride.collect:
                block.add(weights, slopes, pairs is groups[0])
            d_v[pairs].baddbmm_(weights.transpose(1, 2), block.d_out[pairs, rows])
            d_scores = SOFTMAX_BACKWARD(slopes, weights, -1, weights.dtype, grad_input=slopes)
            d_q[pairs, rows] = torch.bmm(d_scores, plain_k[pairs])
            d_k[pairs].baddbmm_(d_scores.transpose(1, 2), plain_q[pairs, rows])
        if message is None and ride.matrix is not None:
            block.fuse(images, rows, ride.matrix[images, rows])
    return like(q, d_q.mul_(scale)), like(k, d_k), like(v, d_v)
