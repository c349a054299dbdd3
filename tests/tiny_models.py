"""Small models and independent references, for several tests."""

import numpy as np
import torch

from artifactnet.config import AttentionConfig, LoraConfig, ModelConfig
from artifactnet.models.artifact_net import ArtifactNet

TINY = {"embed_dim": 24, "depth": 3, "num_heads": 2}


def tiny(backbone="vit_tiny_patch16_224", size=(32, 48), seed=0, kwargs=None, **config):
    """A float32 ViT of a few thousand weights."""
    torch.manual_seed(seed)
    attention = config.pop("attention", AttentionConfig())
    return ArtifactNet(
        ModelConfig(
            backbone=backbone,
            backbone_kwargs=TINY if kwargs is None else kwargs,
            image_size=list(size),
            pretrained="false",
            attention=attention,
            lora=config.pop("lora", LoraConfig()),
            **config,
        )
    ).eval()


def rollout_by_loops(matrices, discard_ratio=0.0):
    """Class row of the full matrix product, one image, float64, loops only.

    ``matrices``: per layer a (N, N) array of fused, non-negative weights.
    """
    tokens = matrices[0].shape[0]
    product = np.eye(tokens)
    for matrix in matrices:
        matrix = matrix.astype(np.float64).copy()
        count = int(tokens * tokens * discard_ratio)
        order = sorted(range(tokens * tokens), key=lambda i: matrix.flat[i])
        for position in order[:count]:
            if position != 0:
                matrix.flat[position] = 0.0
        step = np.zeros((tokens, tokens))
        for i in range(tokens):
            total = 1.0 + sum(matrix[i, j] for j in range(tokens))
            for j in range(tokens):
                step[i, j] = (matrix[i, j] + (1.0 if i == j else 0.0)) / total
        result = np.zeros((tokens, tokens))
        for i in range(tokens):
            for j in range(tokens):
                result[i, j] = sum(step[i, k] * product[k, j] for k in range(tokens))
        product = result
    return product[0]


def softmax_by_loops(q, k, scale):
    """(N, N) attention of one head from (N, d) arrays."""
    tokens = len(q)
    out = np.zeros((tokens, tokens))
    for i in range(tokens):
        scores = [scale * sum(q[i][d] * k[j][d] for d in range(len(q[i]))) for j in range(tokens)]
        top = max(scores)
        weights = [np.exp(score - top) for score in scores]
        out[i] = np.array(weights) / sum(weights)
    return out


def fuse_by_loops(heads, how):
    """(H, N, N) -> (N, N)."""
    picks = {"mean": lambda v: sum(v) / len(v), "max": max, "min": min}
    tokens = heads.shape[1]
    out = np.zeros((tokens, tokens))
    for i in range(tokens):
        for j in range(tokens):
            out[i, j] = picks[how]([heads[h, i, j] for h in range(len(heads))])
    return out
