"""Both forms of the maps agree, and what they cost is reported."""

import json

import pytest
from perf import maps as module
from perf.maps import METHODS, benchmark_maps

from artifactnet.types import ArtifactNetError


@pytest.mark.slow
@pytest.mark.usefixtures("preloaded")
def test_report(monkeypatch):
    monkeypatch.setattr(module, "METHODS", ("relevance",))  # each form starts a process
    report = benchmark_maps("test_vit", size=64, batch_size=2, repeats=1)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["setting"]["tokens"] == 17
    found = report["methods"]["relevance"]
    assert list(found["forms"]) == ["full matrices", "row"]
    assert set(found["extra_megabytes"]) == {"full matrices", "row"}


@pytest.mark.parametrize("method", METHODS)
def test_both_forms_give_the_same_map(method):
    model, images = module._model("test_vit", 64), module._images(64, 2)
    (row,) = module._case(model, images, method, module.row_map)()
    (full,) = module._case(model, images, method, module.full_map)()
    assert row.shape == (2, 17)
    assert row[:, 1:].std() > 0
    assert abs(row - full).max() < 1e-5 * full.max()


def test_nonsense_is_refused():
    with pytest.raises(ArtifactNetError, match="repeats"):
        benchmark_maps(repeats=0)
    with pytest.raises(ArtifactNetError, match="no global attention"):
        benchmark_maps("resnet18", size=64)


def test_too_little_memory_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "fresh_peak", lambda *_: None)
    with pytest.raises(ArtifactNetError, match="row form of rollout"):
        module._peak("test_vit", 64, 1, "rollout", "row")
