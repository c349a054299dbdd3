"""Packaged models answer as they did when they were packed (old_answers.npz)."""

from pathlib import Path

import numpy as np
import pytest
from skimage import data

from artifactnet import load_model

OLD = np.load(Path(__file__).with_name("old_answers.npz"))  # MODEL/FIELD: of five images


def photographs():
    random = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    return [data.astronaut(), data.chelsea(), data.coffee(), data.cat(), random]


def reduced(value):
    """Numbers and small maps as they are, large maps as the means of 8x8 parts."""
    value = np.asarray(value, np.float64)
    if value.ndim == 0 or min(value.shape) < 16:
        return value
    rows = [part.mean(0) for part in np.array_split(value, 8)]
    return np.stack([[part.mean() for part in np.array_split(row, 8)] for row in rows])


@pytest.mark.parametrize("name", ["vit-aligned", "student-nano"])
def test_packaged_models_answer_as_before(name):
    answers = load_model(name, "cpu").predict(photographs(), batch_size=2)
    fields = [key.removeprefix(f"{name}/") for key in OLD.files if key.startswith(name)]
    assert {"probability", "heatmap"} < set(fields)
    for field in fields:
        found = np.stack([reduced(getattr(answer, field)) for answer in answers])
        # kernels of other processors round otherwise
        np.testing.assert_allclose(found, OLD[f"{name}/{field}"], rtol=0, atol=1e-5, err_msg=field)
