"""The preprocessing of a model, for everything that feeds images to one."""

from __future__ import annotations

from collections.abc import Sequence

from artifactnet.config import ModelConfig
from artifactnet.data.transforms import Preprocess
from artifactnet.inference.backends.exported import AnyModel
from artifactnet.models.heads.tiling import adapted_size


def preprocess_of(
    model: AnyModel | ModelConfig, shape: tuple[int, ...] | None = None
) -> Preprocess:
    """The preprocessing that belongs to a model.

    Args:
        model: a detector, an exported file, or the config saved with a detector (size, mean and
            std complete). A config has no patch size, so images below one patch are accepted.
        shape: (height, width) of an image, pixels, from which an adaptive mapper derives its grid
            of tiles. None: the fixed size of training.
    """
    mean: Sequence[float]
    std: Sequence[float]
    if isinstance(model, ModelConfig):
        config, patch = model, 1
        image_size = (config.image_size[0], config.image_size[1])
        mean, std = config.mean or (), config.std or ()
    else:
        config, patch = model.config, model.backbone.patch_size or 1
        image_size, mean, std = model.image_size, model.mean, model.std
    size = adapted_size(config.heatmap, shape[0], shape[1]) if shape is not None else None
    if size is not None:
        return Preprocess(size, "stretch", mean, std)
    return Preprocess(image_size, config.resize, mean, std, patch)
