"""``artifactnet report``: what it takes, what it says, and which packages it needs for it."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_models import tiny

from artifactnet.cli import main
from artifactnet.evaluation import samples
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A folder with a saved model whose weights come with a notice."""
    model = tiny()
    model.notices = ("these weights are random",)
    folder = tmp_path_factory.mktemp("runs") / "my run"
    save_checkpoint(model, folder / "model.safetensors")
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for k, name in enumerate(("gan/a.png", "gan/b.png", "ldm/c.jpg", "ldm/d.png", "e.png")):
        pixels = np.random.default_rng(k).integers(0, 256, (20 + k, 30, 3), dtype=np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return folder


def read(path):
    return json.loads(Path(path).read_text())


def test_files(run_folder, photos, tmp_path, capsys):
    (photos / "broken.png").write_bytes(b"nothing")
    out = tmp_path / "out"
    arguments = ["--images", str(photos), str(tmp_path / "none"), "--out", str(out)]
    assert main(["report", str(run_folder), *arguments, "--title", "Mine"]) == 0
    printed, errors = capsys.readouterr()
    assert printed.splitlines()[-1] == str(out / "report.html")
    assert "5 of 6 images" in printed
    for text in ("warning: these weights are random", "none: ", "broken.png: "):
        assert text in errors
    found = read(out / "report.json")
    assert found["title"] == "Mine"
    assert found["model"]["name"] == "my run"
    assert found["data"]["name"] == "photos, none"
    assert found["warnings"] == ["these weights are random"]
    names = ["gan/a.png", "gan/b.png", "ldm/c.jpg", "ldm/d.png", "e.png"]
    generators = {name: name.partition("/")[0] for name in names} | {"e.png": None}
    assert {entry["name"]: entry["generator"] for entry in found["entries"]} == generators
    assert found["failures"][1]["name"] == "broken.png"
    assert str(tmp_path) not in found["failures"][1]["reason"]
    assert len(found["failures"]) == 2


def test_default_folder_methods_and_limit(run_folder, photos, tmp_path, capsys):
    arguments = ["--images", str(photos), "--methods", "rollout,heatmap", "--limit", "2"]
    assert main(["report", str(run_folder), *arguments, "--batch-size", "1"]) == 0
    found = read(run_folder / "report" / "report.json")
    assert [method["name"] for method in found["methods"]] == ["rollout", "heatmap"]
    assert (found["data"]["images"], found["data"]["of"]) == (2, 5)
    assert "2 of 5 images" in capsys.readouterr().out
    nothing = ["--images", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    assert main(["report", str(run_folder), *nothing]) == 1
    assert "0 of 0 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no run"], "no run"),
        (["no run", "--images", "a.png"], "no run"),
        (["RUN", "data.root=x", "--images", "a.png"], "data.root=x"),
        (["RUN", "--images", "a.png", "--methods", "magic"], "magic"),
        (["RUN", "--images", "a.png", "--methods", "segmentation"], "segmentation head"),
        (["RUN", "--images", "a.png", "--device", "abacus"], "abacus"),
        (["RUN", "--text", "template"], "text=template"),
    ],
)
def test_user_errors_are_one_line(run_folder, tmp_path, monkeypatch, arguments, message, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [str(run_folder) if a == "RUN" else a for a in arguments]
    assert main(["report", *arguments, "--out", "out"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("artifactnet: error: ")
    assert message in last
    assert not Path("out").exists()


def test_the_images_of_a_run(run_folder, monkeypatch, capsys):
    records = [
        Record(str(k), k % 2, "g" if k % 2 else "real", Annotation.NONE, f"/d/{k}.png")
        for k in range(4)
    ]
    asked = []

    def load(index):
        if index == 2:
            raise ArtifactNetError("/d/2.png: truncated")
        pixels = np.random.default_rng(index).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        return Sample(records[index], pixels)

    def open_samples(folder, overrides):
        asked.append((folder, overrides))
        return SimpleNamespace(
            model=tiny(),
            config=SimpleNamespace(data=SimpleNamespace(name="folder")),
            folder=run_folder,
            name="its name",
            split="val",
            records=records,
            load=load,
            warnings=("no test split",),
        )

    monkeypatch.setattr(samples, "open_samples", open_samples)
    assert main(["report", str(run_folder), "data.root=there", "--device", "cpu"]) == 0
    assert asked == [(str(run_folder), ["data.root=there", "train.device=cpu"])]
    found = read(run_folder / "report" / "report.json")
    assert (found["model"]["name"], found["data"]["name"]) == ("its name", "folder")
    assert (found["data"]["split"], found["warnings"]) == ("val", ["no test split"])
    named = [(e["name"], e["label"]) for e in found["entries"]]
    assert named == [("0.png", 0), ("1.png", 1), ("3.png", 1)]
    assert "  2.png: truncated\n" in capsys.readouterr().err


@pytest.mark.slow
def test_a_short_report_loads_no_package_that_it_can_do_without(run_folder, photos, tmp_path):
    """Ten seconds for five images are mostly imports; these cost several each."""
    code = (
        "import sys; from artifactnet.cli import main\n"
        f"code = main(['report', {str(run_folder)!r}, '--images', {str(photos)!r}, "
        f"'--out', {str(tmp_path / 'out')!r}])\n"
        "heavy = ('lightning', 'torchmetrics', 'mmseg', 'mmcv', 'albumentations', 'sklearn',\n"
        "         'transformers', 'pytorch_grad_cam', 'matplotlib.pyplot')\n"
        "print([name for name in heavy if name in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
