"""An actor beside the local engine: what is timed, and that the work is really done."""

import json

import pytest
from cluster_jobs import png
from perf import ray_engine
from perf.cli import main
from perf.ray_engine import Setting, benchmark_ray
from tiny_models import tiny

from artifactnet.cluster.plan import Plan
from artifactnet.cluster.worker import Worker
from artifactnet.inference.load import load_model
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import ArtifactNetError

pytest.importorskip("ray", reason="the ray engine needs the extra ray")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A tiny model; units are predicted in this process: a cluster takes many seconds to start."""
    jobs = []

    def in_this_process(job, resources, report):
        jobs.append((job, resources))
        plan, worker = Plan(job, False), Worker(job, load_model(job.model.source, "cpu"))
        for unit in plan.units():
            result = worker.run(unit)
            plan.take(result)
            report(result)
        return plan.finish()

    class Started:
        def __init__(self, cpus):
            self.cpus = cpus

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(ray_engine, "predict_on_ray", in_this_process)
    monkeypatch.setattr(ray_engine, "started", Started)
    monkeypatch.setenv("RAY_worker_niceness", "15")
    save_checkpoint(tiny(size=(32, 32)), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    return jobs


def test_report(here):
    setting = Setting("model.safetensors", images=24, size=40, part_images=4, repeats=3)
    report = benchmark_ray(setting)
    assert len(here) == 3
    job, resources = here[0]
    assert (resources.actors, resources.cpus, job.options.batch_size) == ((1, 1), 1, 8)
    local, ray = (report["forms"][n]["images_per_second"] for n in ("local", "ray"))
    share = report["share_per_actor"]
    assert ray["min"] / local["max"] <= share["min"] <= share["max"] <= ray["max"] / local["min"]
    assert report["bytes_per_row"] > 30
    assert report["setting"]["images"] == 24


def test_a_picture_that_fails_is_an_error(here, monkeypatch):
    def with_a_broken_one(folder, images, size):
        folder.mkdir()
        for k in range(images):
            (folder / f"{k}.png").write_bytes(png(k)[: 100 if k == 3 else None])

    monkeypatch.setattr(ray_engine, "make_crops", with_a_broken_one)
    with pytest.raises(ArtifactNetError, match=r"3\.png: "):
        benchmark_ray(Setting("model.safetensors", images=8, part_images=2, repeats=1))


def test_too_few_units(here):
    with pytest.raises(ArtifactNetError, match="too few units"):
        benchmark_ray(Setting("model.safetensors", images=4, size=40, part_images=9, repeats=1))


def test_command(here, capsys):
    arguments = ["--model", "model.safetensors", "--images", "16", "--size", "40", "--part-images",
                 "4", "--repeats", "1", "--no-heatmaps", "--out", "r.json"]  # fmt: skip
    assert main(["ray", *arguments]) == 0
    out = capsys.readouterr().out
    assert "of the local engine's speed" in out
    assert "bytes per image written" in out
    with open("r.json") as file:
        assert json.load(file)["benchmark"] == "ray"
