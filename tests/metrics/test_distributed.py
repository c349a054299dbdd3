"""Metrics of two processes equal those of one, however the images are dealt out."""

from __future__ import annotations

import json
import multiprocessing

import pytest
import torch
import torch.distributed

from artifactnet.metrics.authenticity import AuthenticityMetric
from artifactnet.metrics.pixels import PixelMetric
from artifactnet.types import Annotation

COUNT = 11


def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(COUNT) % 3 % 2
    names = [["a", "b"][i % 2] if label else "real" for i, label in enumerate(labels.tolist())]
    heatmap = torch.rand(COUNT, 4, 4, generator=generator)
    mask = (torch.rand(COUNT, 4, 4, generator=generator) > 0.6).byte() * labels.byte()[
        :, None, None
    ]
    annotation = torch.where(labels == 1, int(Annotation.MASK), int(Annotation.CLEAN))
    return torch.rand(COUNT, generator=generator), labels, names, heatmap, mask, annotation


def results(indices):
    """Both metrics after the images of ``indices``, one batch each."""
    probabilities, labels, names, heatmap, mask, annotation = data()
    authenticity, pixels = AuthenticityMetric(["a", "b"]), PixelMetric()
    for i in indices:
        one = slice(i, i + 1)
        authenticity.update(probabilities[one], labels[one], names[one])
        pixels.update(heatmap[one], mask[one], annotation[one], labels[one])
    return {"authenticity": authenticity.compute(), "pixels": pixels.compute()}


def process(rank, indices, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    (folder / f"{rank}.json").write_text(json.dumps(results(indices[rank])))
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("first", [5, COUNT])  # uneven; and nothing at all for the second
def test_two_processes_agree_with_one(tmp_path, first):
    indices = (range(first), range(first, COUNT))
    context = multiprocessing.get_context("fork")  # a spawned process would import torch again
    children = [context.Process(target=process, args=(r, indices, tmp_path)) for r in (0, 1)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    expected = results(range(COUNT))
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == expected
