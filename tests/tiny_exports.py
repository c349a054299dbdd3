"""A tiny student and pictures, for the tests of exported files."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from artifactnet.config import HeatmapConfig, ModelConfig
from artifactnet.exporters import export
from artifactnet.models.artifact_net import ArtifactNet

TINY_VIT = {  # a stage of convolutions and one of attention: exporting takes seconds per stage
    "embed_dims": [16, 32],
    "depths": [1, 1],
    "num_heads": [1, 2],
    "window_sizes": [7, 7],
}


def student(size=(64, 96), contrast=40.0, seed=0, **config):
    """A TinyViT of twenty thousand weights with a heatmap head.

    ``contrast`` multiplies the last layer: untrained, the map would be flat.
    """
    torch.manual_seed(seed)
    model = ArtifactNet(
        ModelConfig(
            backbone="tiny_vit_5m_224",
            backbone_kwargs=TINY_VIT,
            image_size=list(size),
            pretrained="false",
            heatmap=HeatmapConfig(head="decoder", width=16),
            **config,
        )
    ).eval()
    with torch.no_grad():
        model.heatmap.maps.weight[0] *= contrast
        model.head.weight.mul_(20)
    return model


def pictures(count, seed=0, least=40):
    """Coarse and fine structure in colour, (H, W, 3) uint8, each of another size."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        height, width = least + 7 * k % 60, least + 11 * k % 90
        coarse = rng.integers(0, 200, (-(-height // 16), -(-width // 16), 3))
        image = np.kron(coarse, np.ones((16, 16, 1)))[:height, :width]
        noise = rng.integers(0, 55, (height, width, 3))
        found.append((image + noise).astype(np.uint8))
    return found


@contextmanager
def traced_once():
    """Within, `export_checked` traces and converts the same model once, whatever it then writes.

    Both take seconds, and every format begins with the first, most with the second.
    """
    kept = {}

    def remembered(function):
        def call(made, *rest):
            key = (function.__name__, id(made), repr(rest))
            if key not in kept:
                kept[key] = (function(made, *rest), made)  # its id stays its own while it is kept
            return kept[key][0]

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("export_program", "onnx_bytes"):
            patch.setattr(export, name, remembered(getattr(export, name)))
        yield
