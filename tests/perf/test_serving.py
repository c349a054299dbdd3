"""The server's benchmark: what it counts, and a short run with hostile clients."""

import json

import pytest
from perf import hostile_clients, serving
from perf.cli import main
from serving_stubs import make_service, png, running
from tiny_exports import student

from artifactnet.models.checkpoint import save_checkpoint


def test_a_wrong_answer_is_a_failure():
    outcome = serving._Outcome()
    body = json.dumps({"predictions": [{"probability": 0.5}]}).encode()
    outcome.count_good(0.50001, 200, body)
    assert (outcome.good, outcome.failures) == (1, 0)
    outcome.count_good(0.6, 200, body)
    outcome.count_good(0.5, 503, b"{}")
    outcome.count_good(0.5, None, b"")
    assert (outcome.good, outcome.failures) == (4, 3)
    outcome.count_hostile("bomb", 422, (422,))
    outcome.count_hostile("bomb", 200, (422,))
    assert (outcome.unexpected, outcome.done) == (1, 6)
    assert "probability 0.5 instead of 0.6" in outcome.examples[0]
    assert "bomb: status 200, not one of [422]" in outcome.examples[-1]


def test_memory_that_grows_is_seen():
    class Growing:
        megabytes = 100.0

        def resident(self):
            self.megabytes += 2
            return self.megabytes

    outcome = serving._Outcome()
    watch = serving._MemoryWatch(Growing(), outcome)
    for _ in range(20):
        outcome.good += 10
        watch._look()
    report = watch.report()
    assert report["megabytes_per_1000_requests"] == pytest.approx(200)
    assert report["peak"] == 140


@pytest.mark.parametrize("kind", hostile_clients.HOSTILE)
def test_hostile_clients_get_what_they_should(kind):
    import asyncio

    service = make_service(
        max_bytes=hostile_clients.HOSTILE_BYTES, max_pixels=4_000_000, timeout=20
    )
    hostile = hostile_clients.HOSTILE[kind]
    with running(service) as port:
        status = asyncio.run(hostile.attack(port, png(51, (300, 300))))
        assert status in hostile.allowed
        good = hostile_clients.upload(png(51), close=True)
        assert asyncio.run(hostile_clients.exchange(port, good))[0] == 200


@pytest.mark.slow
def test_a_short_run(tmp_path, capsys):
    model, out = tmp_path / "model.safetensors", tmp_path / "report.json"
    save_checkpoint(student(), model)
    options = (
        "--device cpu --threads 1 --size 96 --clients 1 3 --requests 12 --repeats 1 --max-batch 4 "
        "--soak 60 --soak-clients 4 --hostile 0.5"
    )
    assert main(["serving", "--model", str(model), "--out", str(out), *options.split()]) == 0
    report = json.loads(out.read_text())
    assert report["first_answer_seconds"] > 0
    assert list(report["forms"]) == ["predictor", "forward passes", "1 client", "3 clients"]
    for form in ("1 client", "3 clients"):
        assert report["forms"][form]["share_of_predictor"]["median"] > 0
        assert 0 < report["forms"][form]["p50"] <= report["forms"][form]["p99"]
    soak = report["soak"]
    assert (soak["failures"], soak["unexpected"], soak["exit_code"]) == (0, 0, 0)
    assert soak["good"] + soak["hostile"] == 60
    assert soak["memory"]["peak"] > 50
    assert "soak: " in capsys.readouterr().out
