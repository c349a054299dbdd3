import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny

from artifactnet.config import Config, ConfigError, HeatmapConfig, load
from artifactnet.data.datamodule import DataModule
from artifactnet.distillation.teachers import ModelTeacher
from artifactnet.evaluation.evaluate import compute_figures, evaluate_model, evaluate_run
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models.checkpoint import load_checkpoint, save_checkpoint
from artifactnet.training.trainer import train_detector
from artifactnet.types import ArtifactNetError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_config: Callable[..., Config]) -> Path:
    config = tiny_config(tmp_path_factory.mktemp("run"), "train.epochs=1", "data.demo_test=5")
    return train_detector(config).run_dir


def test_own_data_again_gives_the_same_results(run: Path) -> None:
    before = json.loads((run / "results.json").read_text())
    markdown = (run / "results.md").read_text()
    found = evaluate_run(run, ["data.eval_batch_size=3", "data.batch_size=2"])
    assert found["authenticity"]["all"]["auc"] == before["authenticity"]["all"]["auc"]
    assert found["training"] == before["training"]
    assert json.loads((run / "results.json").read_text()) == found
    assert (run / "results.md").read_text() == markdown
    assert not (run / "evaluations").exists()


def test_figures_against_a_loop(run: Path) -> None:
    """Every count again from single images in plain Python."""
    model = load_checkpoint(run / "model.safetensors").train()
    model.config.threshold, model.config.map_threshold = 0.52, 0.44
    config = Config()
    config.data.demo_train, config.data.demo_val, config.data.demo_test = 2, 2, 6
    config.data.demo_size, config.data.demo_migan = 40, 0.5
    data = DataModule(config.data, preprocess_of(model), seed=0)
    found = compute_figures(model, data.test_loader(), ["edit", "migan", "real"])
    assert model.training  # left alone
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    counts = dict.fromkeys(("tp", "fp", "tn", "fn"), 0)
    pixels = dict.fromkeys(("tp", "fp", "fn"), 0)
    parts = {name: dict(pixels) for name in ("edit", "migan")}
    source = data.splits["test"]
    for index, record in enumerate(source.records):
        example = preprocess_of(model).sample(source.load(index))
        with torch.no_grad():
            output = model(example.image[None], attention=True)
        called = float(torch.sigmoid(output.logit)) >= 0.52
        counts[("tp" if called else "fn") if record.label else ("fp" if called else "tn")] += 1
        if record.label:
            large = torch.nn.functional.interpolate(
                output.heatmap[:, None], example.mask.shape, mode="bilinear"
            )[0, 0]
            hit, truth = (large > 0.44).numpy(), (example.mask != 0).numpy()
            outcomes = {"tp": hit & truth, "fp": hit & ~truth, "fn": ~hit & truth}
            for key, outcome in outcomes.items():
                pixels[key] += int(outcome.sum())
                parts[record.generator][key] += int(outcome.sum())
    assert {key: found["authenticity"]["all"][key] for key in counts} == counts
    assert {key: found["heatmap"][key] for key in pixels} == pixels
    assert sum(pixels.values()) > 0
    for name, part in parts.items():
        assert {key: found["heatmap_generators"][name][key] for key in pixels} == part
        assert found["heatmap_generators"][name]["evaluated_images"] == 3
        assert found["authenticity"]["generators"][name]["fake"] == 3
        assert found["authenticity"]["generators"][name]["real"] == 6  # all of them
    assert found["images"] == 12
    del data.splits["test"]
    found = evaluate_model(model, data, config, epoch=1)
    assert found["data"]["split"] == "val"
    assert any("no test split" in warning for warning in found["data_warnings"])


def test_other_data_goes_to_a_folder_of_its_own(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for kind in ("real", "fake"):
            folder = tmp_path / "mine" / split / kind
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 255, (40, 44, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{split}{number}.png")
    before = (run / "results.json").read_bytes()
    found = evaluate_run(run, ["data.name=folder", f"data.root={tmp_path / 'mine'}"])
    (folder,) = (run / "evaluations").iterdir()
    assert folder.name.startswith("folder-mine-")
    assert json.loads((folder / "results.json").read_text()) == found
    assert found["authenticity"]["all"]["real"] == 3
    assert found["heatmap"] is None  # fakes without masks are not annotated
    assert "annotated" in found["no_heatmap"]
    assert "training" not in found
    assert str(folder / "results.md") in capsys.readouterr().out
    found = evaluate_run(run, ["model.threshold=0.999999"])
    assert found["threshold"] == 0.999999
    assert found["authenticity"]["all"]["recall"] == 0
    assert (run / "results.json").read_bytes() == before


def test_what_an_evaluation_cannot_change(run: Path, tmp_path: Path) -> None:
    for override in ("optim.lr=1", "model.backbone=x", "name=y"):
        with pytest.raises(ConfigError, match=override.split("=")[0]):
            evaluate_run(run, [override])
    with pytest.raises(ConfigError, match=r"data\.nme"):
        evaluate_run(run, ["data.nme=folder"])
    with pytest.raises(ArtifactNetError, match="not the folder of a run"):
        evaluate_run(tmp_path)


# --- beside a teacher --------------------------------------------------------------------------

HEADED = (
    "train.epochs=1",
    "model.backbone_kwargs.depth=4",
    "model.heatmap.head=decoder",
    "model.heatmap.width=8",
    "loss.alignment.weight=0",
    "loss.heatmap.laplace=1",
    "data.demo_test=5",
)


@pytest.fixture(scope="module")
def student(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: Callable[..., Config]
) -> tuple[Path, Path]:
    """A run with a heatmap head, and a teacher that it never heard of."""
    folder = tmp_path_factory.mktemp("student")
    run = train_detector(tiny_config(folder, *HEADED)).run_dir
    options = {"embed_dim": 24, "depth": 4, "num_heads": 2}
    teacher = tiny(kwargs=options, heatmap=HeatmapConfig(head="decoder", width=8), resize="crop")
    with torch.no_grad():
        teacher.heatmap.maps.weight.mul_(30)
        teacher.heatmap.maps.bias.zero_()
    save_checkpoint(teacher, folder / "tutor.safetensors")
    return run, folder / "tutor.safetensors"


def test_agreement_with_any_teacher_on_any_images_against_a_loop(
    student: tuple[Path, Path], tmp_path: Path
) -> None:
    """The teacher crops: what it never saw does not count."""
    run, file = student
    before = (run / "results.json").read_bytes()
    overrides = [f"distill.teacher={file}", f"distill.cache={tmp_path}", "data.demo_seed=3"]
    found = evaluate_run(run, [*overrides, "data.eval_batch_size=3"])["teacher"]
    assert (run / "results.json").read_bytes() == before
    model, preprocess = (
        load_checkpoint(run / "model.safetensors"),
        preprocess_of(load_checkpoint(file)),
    )
    teacher = ModelTeacher(file)
    config = load(run / "config.yaml", ["data.demo_seed=3"])
    data = DataModule(config.data, preprocess_of(model), config.seed)
    groups: dict[str, list[tuple[float, float]]] = {"all": [], "real": [], "fake": []}
    seen = preprocess.image(np.zeros((48, 48, 3), np.uint8))[1].source
    assert (seen.top, seen.height) == (8, 32)
    rows = 1.5 * np.arange(32)  # where those of the student's frame begin; most of it was seen
    inside = np.minimum(rows + 1.5, 40) - np.maximum(rows, 8) > 0.75
    for index, record in enumerate(data.splits["test"].records):
        sample = data.splits["test"].load(index)
        [answer] = teacher.label([teacher.prepare(record, sample.image)])
        example = preprocess_of(model).sample(replace(sample, teacher=answer))
        with torch.no_grad():
            output = model(example.image[None], heatmap=True)
        own = torch.nn.functional.interpolate(output.heatmap[:, None], (32, 32), mode="bilinear")
        a = own[0, 0].double().numpy()[inside].ravel()
        b = np.float64(example.teacher.heatmap)[inside].ravel()
        pair = np.corrcoef(a, b)[0, 1], ((a - b) ** 2).mean()
        for group in ("all", "fake" if record.label else "real"):
            groups[group].append(pair)
    assert inside.sum() == 22
    for group, pairs in groups.items():
        mine = found if group == "all" else found[group]
        assert mine["images"] == len(pairs) == {"all": 10}.get(group, 5)
        # the cache keeps float16
        assert mine["CC"] == pytest.approx(np.mean([p[0] for p in pairs]), abs=2e-3)
        assert mine["MSE"] == pytest.approx(np.mean([p[1] for p in pairs]), abs=1e-3)
    assert found["name"] == "tutor"


def test_a_teacher_is_asked_about_the_judged_images_only_and_once(
    student: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = student
    overrides = [f"distill.teacher={file}", f"distill.cache={tmp_path}"]
    first = evaluate_run(run, overrides)
    assert "tutor: 10 images labelled" in capsys.readouterr().out
    assert evaluate_run(run, overrides)["teacher"] == first["teacher"]
    told = capsys.readouterr().out
    assert "tutor: 0 images labelled" in told
    assert "with the teacher:  CC" in told
    results = [path.parent for path in (run / "evaluations").rglob("results.md")]
    assert any("The teacher is tutor" in (p / "results.md").read_text() for p in results)
    assert evaluate_run(run)["teacher"] is None


def test_a_teacher_that_was_named_must_answer(
    student: tuple[Path, Path], run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactNetError, match=r"distill\.teacher=.*gone: no such"):
        evaluate_run(student[0], [f"distill.teacher={tmp_path / 'gone'}"])
    with pytest.raises(ConfigError, match=r"distill\.teacher is not set"):
        evaluate_run(student[0], ["distill.side=64"])
    with pytest.raises(ConfigError, match=r"distill\.teacher needs model\.heatmap\.head"):
        evaluate_run(run, [f"distill.teacher={student[1]}"])
    with pytest.raises(ConfigError, match=r"distill\.laplace cannot be changed"):
        evaluate_run(student[0], ["distill.laplace=1"])
