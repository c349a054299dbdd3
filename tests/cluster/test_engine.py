"""The ray engine: a real cluster of two actors, whose processes are killed on the way."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from io import BytesIO

import pytest
from cluster_jobs import png, read_rows
from PIL import Image, PngImagePlugin
from tiny_models import tiny

from artifactnet.cli import main
from artifactnet.cluster.engine import _Attempts, _own_error, _read_units
from artifactnet.cluster.worker import DIED
from artifactnet.inference.lines import predict_lines
from artifactnet.inference.load import load_model
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import ArtifactNetError

IMAGES = 2000
MARK = "ends the process that decodes it"
# every process of the cluster runs this first
CUSTOMIZE = f"""
import os
import PIL.Image

opened = PIL.Image.open

def open_or_die(file, *args, **kwargs):
    image = opened(file, *args, **kwargs)
    if image.info.get("Comment") == {MARK!r}:
        os._exit(1)
    return image

PIL.Image.open = open_or_die
"""


def deadly_png():
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", MARK)
    buffer = BytesIO()
    Image.open(BytesIO(png(5, (32, 32)))).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Address and process of a cluster of two cores."""
    pytest.importorskip("ray", reason="the ray engine needs the extra ray")
    pytest.importorskip("psutil", reason="finds the processes of actors")
    folder = tmp_path_factory.mktemp("cluster")
    sessions = tempfile.mkdtemp(prefix="ray")  # the paths of sockets must be short
    (folder / "sitecustomize.py").write_text(CUSTOMIZE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(folder), "RAY_TMPDIR": sessions, "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
        "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=2", "--num-gpus=0",
        "--include-dashboard=false", "--object-store-memory=100000000",
        "--disable-usage-stats",
    ]  # fmt: skip
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield f"127.0.0.1:{port}", process, environment
    finally:
        import psutil

        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
        shutil.rmtree(sessions, ignore_errors=True)


def wait_for(condition, seconds=300):
    """What the condition gives as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def working_actors(process):
    """Processes of actors that are at a unit."""
    import psutil

    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            title = " ".join(child.cmdline())
        except psutil.NoSuchProcess:
            continue
        if title.startswith("ray::MapWorker") and ".submit" in title:
            found.append(child.pid)
    return found


@pytest.mark.slow
def test_every_image_once_though_actors_and_the_driver_are_killed(tmp_path, cluster):
    """One actor is killed, another dies on an image again and again, and so does the driver."""
    address, process, environment = cluster
    save_checkpoint(tiny(size=(32, 32)), tmp_path / "model.safetensors")
    photos, out = tmp_path / "photos", tmp_path / "out"
    for k in range(IMAGES - 2):
        path = photos / f"{k // 500}" / f"{k:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(k, (32, 32)))
    (photos / "3" / "broken.png").write_bytes(png(0)[:100])
    (photos / "3" / "deadly.png").write_bytes(deadly_png())
    command = [
        sys.executable, "-m", "artifactnet", "predict", "photos", "--engine", "ray", "--out", "out",
        "--model", "model.safetensors", "--ray-address", address, "--actors", "2",
        "--part-images", "40", "--no-heatmaps",
    ]  # fmt: skip

    def parts():
        folder = out / "predictions"
        return len(list(folder.iterdir())) if folder.is_dir() else 0

    with open(tmp_path / "log", "w") as log:
        driver = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        actor, *_ = wait_for(lambda: parts() >= 3 and working_actors(process))
        os.kill(actor, signal.SIGKILL)
        wait_for(lambda: parts() >= 12)
    finally:
        driver.kill()
        driver.wait()
    before = parts()
    assert 12 <= before < 45  # of some 50: it was killed on the way
    assert not (out / "predictions.manifest.json").exists()

    again = subprocess.run(
        [*command, "--resume"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    rows = read_rows(out)
    assert Counter(row["path"] for row in rows) == Counter(
        str(path.relative_to(tmp_path)) for path in photos.rglob("*.png")
    )
    errors = {row["path"]: row["error"] for row in rows if row["error"]}
    assert errors["photos/3/deadly.png"] == DIED
    assert set(errors) == {"photos/3/deadly.png", "photos/3/broken.png"}
    manifest = json.loads((out / "predictions.manifest.json").read_text())
    assert (manifest["rows"], manifest["errors"], manifest["lost"]) == (IMAGES, 2, 0)
    told = again.stdout.splitlines()[-1]
    assert told.startswith(f"{IMAGES - 2} of {IMAGES} images predicted (")
    assert int(told.partition("(")[2].split()[0]) >= 12 * 20  # of them earlier
    lines = {}
    predictor = load_model(tmp_path / "model.safetensors", "cpu")
    predict_lines(predictor, [photos], lambda line: lines.update({line["path"]: line}))
    for row in rows:
        if row["error"] is None:
            line = lines[str(tmp_path / row["path"])]
            assert abs(row["probability"] - line["probability"]) <= 1e-6
            assert row["verdict"] == line["verdict"]


@pytest.mark.slow
def test_errors_of_actors_are_one_line(tmp_path, cluster, monkeypatch):
    """An actor that finds another model than the driver did says so, and the command ends."""
    address, _, environment = cluster
    save_checkpoint(tiny(size=(32, 32)), tmp_path / "model.safetensors")
    (tmp_path / "a.png").write_bytes(png(0))
    program = """
import sys
from pathlib import Path
from artifactnet.cluster import engine, plan
from artifactnet.cli import main
from tiny_models import tiny
from artifactnet.models.checkpoint import save_checkpoint

made = plan.Plan

def change_the_model(*args):
    save_checkpoint(tiny(size=(32, 32), seed=1), "model.safetensors")
    return made(*args)

engine.Plan = change_the_model
sys.exit(main(sys.argv[1:]))
"""
    tests = os.path.dirname(os.path.dirname(__file__))
    done = subprocess.run(
        [sys.executable, "-c", program, "predict", "a.png", "--engine", "ray", "--out", "out",
         "--model", "model.safetensors", "--ray-address", address],
        cwd=tmp_path, env=environment | {"PYTHONPATH": tests}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"artifactnet: error: {tmp_path}/model.safetensors: the model on this machine is not the "
        "one that the job began with; every machine needs the same file and version of artifactnet"
    )


def test_what_processes_died_on_is_remembered():
    attempts = _Attempts()
    assert attempts.begin("a") == (1, frozenset(), False)
    assert attempts.begin("a") == (2, frozenset(), False)  # it died, who knows where
    attempts.at("a", 0)
    attempts.at("a", 7)
    assert attempts.begin("a") == (3, frozenset({7}), False)
    attempts.at("a", 9)
    assert attempts.begin("a") == (4, frozenset({7, 9}), False)
    assert attempts.begin("b") == (1, frozenset(), False)
    attempts.at("a", 7)  # left out, and yet it died there
    assert attempts.begin("a")[2]
    attempts.end("a")
    assert attempts.begin("a") == (1, frozenset(), False)


def test_a_unit_is_given_up_in_the_end():
    attempts = _Attempts()
    tries = [attempts.begin("a")[2] for _ in range(20)]
    assert tries.index(True) == 12
    assert not any(tries[:12])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--actors", "2"], "--actors needs --engine ray"),
        (["--part-images", "9"], "--part-images needs --engine ray"),
        (["--engine", "ray", "--save-masks"], "--engine ray has no --save-masks: "),
        (["--engine", "ray", "--json"], "--engine ray has no --json: its answers are parquet"),
        (["--engine", "ray", "--allow-urls"], "--engine ray has no --allow-urls: "),
        (["--engine", "ray", "--vlm-url", "http://x"], "--engine ray has no --vlm-url: "),
        (["--engine", "ray", "--vlm-max-tokens", "9"], "--engine ray has no --vlm-max-tokens: "),
        (["--engine", "ray", "--vlm-key-env", "KEY"], "--engine ray has no --vlm-key-env: "),
        (["--engine", "ray", "--device", "cuda:1"], "--device cuda:1: with --engine ray it is"),
    ],
)
def test_options_that_do_not_fit(options, message, capsys):
    assert main(["predict", "photos", "--out", "out", *options]) == 2
    assert f"artifactnet: error: {message}" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "3..2", "x", "1..", "-1"])
def test_a_number_of_actors_that_is_none(text, capsys):
    with pytest.raises(SystemExit):
        main(["predict", "photos", "--engine", "ray", "--out", "out", f"--actors={text}"])
    assert "argument --actors" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["inf", "nan", "-1", "1.5"])
def test_a_number_of_gpus_that_is_none(text, capsys):
    with pytest.raises(SystemExit):
        main(["predict", "photos", "--engine", "ray", "--out", "out", f"--gpus-per-actor={text}"])
    assert "neither a share of a GPU nor a whole number" in capsys.readouterr().err


def test_a_machine_that_does_not_see_the_folder_of_the_answers(tmp_path):
    ray = pytest.importorskip("ray", reason="the ray engine needs the extra ray")
    with pytest.raises(ArtifactNetError, match="its plan cannot be read .*every machine") as found:
        next(_read_units(str(tmp_path / "none"), "plan.jsonl"))
    # as it comes from another machine
    error = ray.exceptions.RayTaskError("read", "a trace\nof it", found.value)
    assert str(_own_error(error.as_instanceof_cause())) == str(found.value)


def test_a_cluster_that_is_not_there(capsys, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the ray engine needs the extra ray")
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tiny(size=(32, 32)), tmp_path / "model.safetensors")
    (tmp_path / "a.png").write_bytes(png(0))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert main(["predict", "a.png", "--engine", "ray", "--out", "out", "--ray-address", address,
                 "--model", "model.safetensors"]) == 2  # fmt: skip
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"artifactnet: error: the Ray cluster at {address} does not answer (")


def test_without_ray_the_extra_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    assert main(["predict", "photos", "--engine", "ray", "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'artifactnet[ray]'" in capsys.readouterr().err
