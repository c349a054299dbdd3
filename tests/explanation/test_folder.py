"""Maps of files land beside their answers."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_models import tiny

from artifactnet.cli import main
from artifactnet.explanation.folder import explain_to_folder
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import ArtifactNetError


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 60)), ("deep/a.png", (70, 33))):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"nothing")
    return folder


def test_maps_overlays_and_answers(photos, tmp_path):
    answers = []
    out = tmp_path / "out"
    summary = explain_to_folder(
        tiny(), [photos], out, ["rollout", "grad_cam"], batch_size=2, report=answers.append
    )
    assert summary.images == len(answers) == 2
    assert [failure.path for failure in summary.failures] == [str(photos / "broken.jpg")]
    lines = [json.loads(line) for line in summary.answers.read_text().splitlines()]
    assert [line["path"] for line in lines] == [e.name for e in answers]
    for line, answer in zip(lines, answers, strict=True):
        assert line["probability"] == answer.probability
        for method in ("rollout", "grad_cam"):
            written = np.asarray(Image.open(out / line["maps"][method]["heatmap"]))
            heatmap = answer.explanations[method].heatmap
            assert written.shape == heatmap.shape
            assert np.abs(written - 255 * heatmap).max() <= 0.5 + 1e-4
            over = (out / line["maps"][method]["heatmap"]).with_suffix(".overlay.png")
            assert Image.open(over).size == heatmap.shape[::-1]
            assert line["maps"][method]["scale"] == "minmax"


def test_a_folder_that_cannot_be_written_is_one_error(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactNetError, match="file"):
        explain_to_folder(tiny(), [photos], tmp_path / "file" / "out")


def test_command(photos, tmp_path, capsys):
    model = tmp_path / "model.safetensors"
    save_checkpoint(tiny(), model)
    arguments = ["explain", str(model), str(photos), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--methods", "rollout, sliding_patch", "--window", "16"]) == 2
    assert "stride" in capsys.readouterr().err
    assert main([*arguments, "--methods", "rollout, relevance"]) == 0
    out, err = capsys.readouterr()
    assert "2 of 3 images explained by rollout, relevance" in out
    assert "broken.jpg" in err
    assert main([*arguments, "--methods", "magic"]) == 2
    assert "unknown method 'magic'" in capsys.readouterr().err
    assert main(["explain", str(model), str(photos / "broken.jpg"), "--out", str(tmp_path)]) == 1
