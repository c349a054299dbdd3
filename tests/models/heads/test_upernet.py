"""The heads of mmsegmentation, and what stands in for mmcv's compiled operators."""

import copy
import importlib.machinery
import importlib.util
import sys

import pytest
import torch

from artifactnet.models.heads import upernet
from artifactnet.types import ArtifactNetError

EXTENSION = "mmcv._ext"
WIDTHS = [8, 12, 16, 24]


@pytest.fixture(scope="module")
def heads():
    """Both heads; the first import of mmseg takes seconds."""
    torch.manual_seed(0)
    return (upernet.uper_head(WIDTHS, 16, 8, 0.1), upernet.fcn_head(WIDTHS, 2, 10, 8, 0.1))


def levels(sizes, batch=2, requires_grad=False):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(batch, width, *size, generator=generator).requires_grad_(requires_grad)
        for width, size in zip(WIDTHS, sizes, strict=True)
    ]


PYRAMIDS = [
    [(56, 56), (28, 28), (14, 14), (7, 7)],
    [(26, 34), (13, 17), (7, 9), (4, 5)],  # of an odd input, rounded up
    [(25, 33), (12, 16), (6, 8), (3, 4)],  # rounded down
    [(8, 4), (4, 2), (2, 1), (1, 1)],
]


@pytest.mark.parametrize("sizes", PYRAMIDS, ids=str)
def test_logits_have_the_size_of_the_level_that_is_read(heads, sizes):
    main, auxiliary = (copy.deepcopy(head).eval() for head in heads)
    with torch.no_grad():
        assert main(levels(sizes)).shape == (2, 8, *sizes[0])
        assert auxiliary(levels(sizes)).shape == (2, 8, *sizes[2])
        assert main(levels(sizes, batch=1)).isfinite().all()


def test_every_weight_and_level_learns(heads):
    main, auxiliary = (copy.deepcopy(head).train() for head in heads)
    pyramid = levels(PYRAMIDS[1], requires_grad=True)
    main(pyramid).square().mean().backward()
    assert all(level.grad.abs().sum() > 0 for level in pyramid)
    pyramid = levels(PYRAMIDS[1], requires_grad=True)
    auxiliary(pyramid).square().mean().backward()
    assert [level.grad is not None for level in pyramid] == [False, False, True, False]
    for head in (main, auxiliary):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


class Finder:
    """Finds ``mmcv._ext`` as if the full mmcv were installed."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == EXTENSION else None


def test_the_placeholder_is_planted_where_the_extension_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, EXTENSION, raising=False)
    upernet.plant_placeholder()
    planted = sys.modules.get(EXTENSION)
    monkeypatch.delitem(sys.modules, EXTENSION)
    assert hasattr(planted, "ms_deform_attn_forward")  # mmcv asks at import
    assert not hasattr(planted, "__wrapped__")
    with pytest.raises(ArtifactNetError, match=r"operator nms is not installed.*pip install 'mmcv"):
        planted.nms(torch.zeros(1, 4), iou_threshold=0.5)


def test_an_extension_on_disk_is_left_to_be_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, EXTENSION, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    upernet.plant_placeholder()
    assert EXTENSION not in sys.modules


@pytest.mark.usefixtures("heads")
@pytest.mark.parametrize("package", ["mmseg", "mmcv"])
def test_an_absent_package_is_one_message_with_the_pip_line(monkeypatch, package):
    for name in (package, f"{package}.models"):
        monkeypatch.setitem(sys.modules, name, None)  # Python's way to say: not there
    with pytest.raises(ArtifactNetError, match=rf"needs mmsegmentation.*{package}") as caught:
        upernet.fcn_head(WIDTHS, 2, 4, 8, 0.1)
    assert "pip install 'mmsegmentation" in str(caught.value)


@pytest.mark.usefixtures("heads")
@pytest.mark.parametrize("version", ["2.2.0", "1.7.2"])
def test_an_mmcv_that_mmseg_refuses_is_named(monkeypatch, version):
    import mmcv

    monkeypatch.setattr(mmcv, "__version__", version)
    with pytest.raises(ArtifactNetError, match=rf"not {version}: pip uninst.*mmcv-lite"):
        upernet.uper_head(WIDTHS, 4, 8, 0.1)


@pytest.mark.usefixtures("heads")
def test_a_broken_mmcv_is_reported_and_not_replaced(monkeypatch):
    def broken():
        raise ImportError("_ext.so: undefined symbol: _ZN3c106detail")

    monkeypatch.setattr(upernet, "plant_placeholder", broken)
    with pytest.raises(ArtifactNetError, match="undefined symbol.*: pip install"):
        upernet.uper_head(WIDTHS, 4, 8, 0.1)
