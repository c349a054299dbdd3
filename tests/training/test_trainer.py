import contextlib
import io
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from artifactnet.config import Config, ConfigError, load
from artifactnet.models import checkpoint
from artifactnet.models.checkpoint import load_checkpoint
from artifactnet.models.metadata import read_metadata
from artifactnet.training import checkpoints
from artifactnet.training.module import DetectorModule
from artifactnet.training.trainer import RunResult, train_detector
from artifactnet.types import ArtifactNetError

Tiny = Callable[..., Config]


@dataclass
class Run:
    folder: Path
    results: dict[str, Any]
    printed: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_config: Tiny) -> Run:
    """One complete run with everything switched on, shared by tests that only look."""
    config = tiny_config(
        tmp_path_factory.mktemp("run"),
        "train.picture_every=2",
        "train.tensorboard=true",
        "model.pretrained=auto",
        "data.check=full",
    )
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        result = train_detector(config)
    return Run(result.run_dir, result.results, printed.getvalue())


def same(a: Any, b: Any) -> bool:
    """Bit-identical nests of tensors and plain values."""
    if isinstance(a, torch.Tensor):
        return bool(torch.equal(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def read_checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "last.ckpt", weights_only=True)


def test_what_a_run_leaves(run: Run) -> None:
    assert {path.name for path in run.folder.iterdir()} == {
        *("config.yaml", "provenance.json", "data.json", "last.ckpt", "model.safetensors"),
        *("last.safetensors", "results.json", "results.md", "finished.json"),
        *("logs", "pictures", "tensorboard"),
    }
    found = run.results
    assert json.loads((run.folder / "results.json").read_text()) == found
    assert json.loads((run.folder / "data.json").read_text())["warnings"] == []
    rows = (run.folder / "logs" / "version_0" / "metrics.csv").read_text().splitlines()
    assert "train/alignment_epoch" in rows[0]
    assert "val/balanced_accuracy" in rows[0]
    assert load(run.folder / "config.yaml").name == "tiny"
    (notice,) = found["notices"]
    assert "RANDOM" in notice
    assert run.printed.count(notice) == 2
    assert notice in (run.folder / "results.md").read_text()
    row = found["authenticity"]["all"]
    assert row["real"] == row["fake"] == row["tp"] + row["fn"] == 4
    assert row["balanced_accuracy"] == (row["tp"] / 4 + row["tn"] / 4) / 2
    fakes = {name: row["fake"] for name, row in found["authenticity"]["generators"].items()}
    assert fakes == {"edit": 3, "migan": 1}
    assert found["heatmap"]["evaluated_images"] == 4
    assert found["data"]["split"] == "test"
    assert found["training"]["steps"] == 8
    assert found["training"]["best_validation"]["loss"] > 0
    extra = read_metadata(run.folder / "model.safetensors")["extra"]
    assert extra["run"] == "tiny"
    assert extra["epoch"] == found["model"]["epoch"] == found["training"]["best_epoch"]
    assert extra["validation"] == found["training"]["best_validation"]


def test_the_printed_snippet_runs(run: Run, tmp_path: Path) -> None:
    assert "epoch 2/2  train loss" in run.printed
    assert "val loss" in run.printed
    snippet = run.printed.split("use it:\n")[1]
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (70, 50), "red").save(photo)
    code = "\n".join(line.strip() for line in snippet.splitlines())
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code.replace("photo.jpg", str(photo)), {})
    assert 0 <= float(printed.getvalue()) <= 1


def test_a_finished_run_is_not_touched(run: Run) -> None:
    config = load(run.folder / "config.yaml")
    before = {p: p.stat().st_mtime_ns for p in run.folder.rglob("*")}
    with pytest.raises(ArtifactNetError, match="finished run"):
        train_detector(config)
    assert {p: p.stat().st_mtime_ns for p in run.folder.rglob("*")} == before


class Stop(Exception):
    """A kill in the middle of training."""


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException) -> None:
    original = DetectorModule.training_step

    def training_step(self: DetectorModule, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_step == step:
            raise error
        return original(self, batch, batch_idx)

    monkeypatch.setattr(DetectorModule, "training_step", training_step)


RANDOM = (
    "train.epochs=3",
    "model.drop_rate=0.2",
    "model.drop_path_rate=0.2",
    "optim.ema=0.5",
    "data.augment.vflip=0.5",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_config: Tiny) -> RunResult:
    """A run that nothing interrupts."""
    return train_detector(tiny_config(tmp_path_factory.mktemp("whole"), *RANDOM, "name=whole"))


@pytest.mark.parametrize("step", [2, 5, 8])
def test_resume_equals_an_uninterrupted_run(
    tiny: Tiny, whole: RunResult, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, step, Stop())
        with pytest.raises(Stop):
            train_detector(tiny(*RANDOM, "name=parts"))
    torch.manual_seed(12345)
    parts = train_detector(tiny(*RANDOM, "name=parts", "resume=true"))
    for name in ("model.safetensors", "last.safetensors"):
        assert same(load_file(whole.run_dir / name), load_file(parts.run_dir / name))
    a, b = read_checkpoint(whole.run_dir), read_checkpoint(parts.run_dir)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "current_model_state"):
        assert same(a[key], b[key]), key
    assert a["global_step"] == b["global_step"] == 12
    best = [result.results["training"]["best_validation"] for result in (whole, parts)]
    assert best[0] == best[1]


def test_a_finished_run_can_go_on_for_longer(tiny: Tiny) -> None:
    train_detector(tiny("train.epochs=1"))
    result = train_detector(tiny("train.epochs=2", "resume=true"))
    assert result.results["training"]["epochs"] == 2
    assert result.results["training"]["steps"] == 8
    assert (result.run_dir / "finished.json").is_file()
    (result.run_dir / "last.ckpt").write_bytes(b"nothing useful")
    with pytest.raises(ArtifactNetError, match=r"last\.ckpt: not a usable checkpoint"):
        train_detector(tiny("train.epochs=3", "resume=true"))


def test_same_seed_same_weights_other_seed_others(tiny: Tiny) -> None:
    folders = [
        train_detector(tiny("train.epochs=1", f"seed={seed}", f"name={name}")).run_dir
        for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    ]
    a, b, c = (load_file(folder / "last.safetensors") for folder in folders)
    assert same(a, b)
    assert not same(a, c)
    # global switches are put back
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_keyboard_interrupt_says_how_to_go_on(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    stop_at(monkeypatch, 5, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train_detector(tiny())
    assert "resume=true" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before


def test_a_loss_that_is_not_finite(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    original = DetectorModule.losses

    def losses(self: DetectorModule, *arguments: Any, **options: Any) -> Any:
        parts, output = original(self, *arguments, **options)
        factor = float("nan") if self.global_step == 5 else 1.0
        return {name: value * factor for name, value in parts.items()}, output

    monkeypatch.setattr(DetectorModule, "losses", losses)
    with pytest.raises(ArtifactNetError) as caught:
        train_detector(tiny())
    text = str(caught.value)
    assert "\n" not in text
    for word in ("step 5", "bce nan", "alignment nan", "demo", "optim.lr", "clip_norm"):
        assert word in text
    folder = tiny().out + "/tiny"
    assert read_checkpoint(Path(folder))["global_step"] == 4
    load_checkpoint(folder + "/model.safetensors")


def test_a_gradient_that_is_not_finite(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    original = DetectorModule.training_step

    def training_step(self: DetectorModule, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = original(self, batch, batch_idx)
        # sqrt at 0: the value is finite and the slope is not
        return loss + (0 * loss).sqrt() if self.global_step == 5 else loss

    monkeypatch.setattr(DetectorModule, "training_step", training_step)
    with pytest.raises(ArtifactNetError, match="gradient is not finite at step 5"):
        train_detector(tiny())
    weights = read_checkpoint(Path(tiny().out) / "tiny")["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())


def test_disk_full_while_saving_the_checkpoint(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = torch.save

    def save(data: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        original(data, path)

    monkeypatch.setattr(checkpoints.torch, "save", save)
    with pytest.raises(ArtifactNetError, match="No space left") as caught:
        train_detector(tiny())
    assert "\n" not in str(caught.value)
    folder = Path(tiny().out) / "tiny"
    assert read_checkpoint(folder)["global_step"] == 4
    assert not list(folder.glob(".*.tmp"))
    assert train_detector(tiny("resume=true")).results["training"]["epochs"] == 2


def test_disk_full_while_saving_the_model(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    train_detector(tiny("train.epochs=1"))
    folder = Path(tiny().out) / "tiny"
    before = (folder / "model.safetensors").read_bytes()

    def save_file(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    with pytest.raises(ArtifactNetError, match="No space left"):
        train_detector(tiny("train.epochs=3", "resume=true", "optim.lr=1e-3"))
    assert (folder / "model.safetensors").read_bytes() == before
    load_checkpoint(folder / "model.safetensors")


def test_end_is_validated_whatever_eval_every_says(tiny: Tiny) -> None:
    result = train_detector(tiny("train.epochs=50", "train.max_steps=6", "train.eval_every=7"))
    assert result.results["training"]["steps"] == 6
    extra = read_metadata(result.run_dir / "model.safetensors")["extra"]
    assert extra["step"] == 6


def test_init_from_takes_weights_and_nothing_else(tiny: Tiny) -> None:
    first = train_detector(tiny("train.epochs=1", "name=first"))
    options = ("train.max_steps=1", "optim.lr=1e-12", "optim.weight_decay=0")
    second = train_detector(tiny("name=second", f"init_from={first.run_dir}", *options))
    a = load_file(first.run_dir / "model.safetensors")
    b = load_file(second.run_dir / "last.safetensors")
    assert all(torch.allclose(a[key], b[key], atol=1e-9) for key in a)
    assert second.results["training"]["steps"] == 1


def test_lora_with_accumulation_and_gradient_rollout(tiny: Tiny) -> None:
    pytest.importorskip("peft")
    options = ("train.accumulate=2", "model.lora.rank=2", "model.attention.method=gradient_rollout")
    result = train_detector(tiny("train.epochs=1", *options))
    assert result.results["training"]["steps"] == 2
    assert result.results["heatmap"]["evaluated_images"] == 4


def test_weight_average_is_what_is_judged_and_saved(tiny: Tiny) -> None:
    folder = train_detector(tiny("train.epochs=1", "optim.ema=0.9")).run_dir
    saved = read_checkpoint(folder)
    average = {k[6:]: v for k, v in saved["state_dict"].items() if k.startswith("model.")}
    current = {k[6:]: v for k, v in saved["current_model_state"].items() if k.startswith("model.")}
    for name in ("model.safetensors", "last.safetensors"):
        assert same(load_file(folder / name), average)
        assert not same(load_file(folder / name), current)


def test_a_backbone_without_attention(tiny: Tiny) -> None:
    options = ["model.backbone=test_convnext", "model.backbone_kwargs={}", "train.max_steps=1"]
    # the tiny ViT's own arguments would not fit another architecture
    text = (Path(tiny().out).parent / "tiny.yaml").read_text()
    path = Path(tiny().out).parent / "conv.yaml"
    path.write_text(text.replace("{embed_dim: 32, depth: 2, num_heads: 2}", "{}"))
    options.append(f"out={tiny().out}")
    with pytest.raises(ArtifactNetError, match=r"loss\.alignment\.weight=0"):
        train_detector(load(path, options))
    options.append("loss.alignment.weight=0")
    with pytest.raises(ArtifactNetError, match="map_iou"):
        train_detector(load(path, [*options, "train.monitor=map_iou"]))
    found = train_detector(load(path, options)).results
    assert found["heatmap"] is None
    assert found["no_heatmap"]
    assert found["authenticity"]["all"]["fake"] == 4


def test_a_full_disk_and_divergence_are_one_error(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtifactNetError, match=r"not finite|diverged"):
        train_detector(tiny("optim.lr=1e30", "optim.clip_norm=0", "optim.warmup=0"))
    stop_at(monkeypatch, 1, OSError(28, "No space left on device"))
    with pytest.raises(ArtifactNetError, match="the disk is full"):
        train_detector(tiny("overwrite=true"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.device=gpu", "train.device=gpu"),
        ("train.precision=16", "needs a GPU"),
        ("model.attention.start_layer=2", "start_layer is 2, but vit_tiny_patch16_224 has 2 bl"),
    ],
)
def test_what_is_not_there(tiny: Tiny, override: str, words: str) -> None:
    if override.startswith("train") and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ArtifactNetError, match=words):
        train_detector(tiny(override))
    assert not (Path(tiny().out) / "tiny").exists()


def test_images_below_one_patch_stop_a_run_or_are_skipped(tiny: Tiny, tmp_path: Path) -> None:
    _noise_folder(tmp_path / "data", height=16, width=20)
    small = tmp_path / "data" / "fake" / "3.png"
    Image.new("RGB", (15, 40)).save(small)
    options = ["data.name=folder", f"data.root={tmp_path / 'data'}", "train.epochs=1"]
    with pytest.raises(
        ArtifactNetError, match=f"{small}: .*15x40 pixels is too small for one patch"
    ):
        train_detector(tiny(*options))
    assert (
        train_detector(tiny(*options, "data.on_error=skip", "overwrite=true")).results["images"] > 0
    )


def test_a_bad_validation_image_is_left_out_of_the_pictures(tiny: Tiny, tmp_path: Path) -> None:
    for split in ("train", "val"):
        _noise_folder(tmp_path / "data" / split, height=40, width=40, count=4)
    bad = tmp_path / "data" / "val" / "fake" / "0.png"
    bad.write_bytes(bad.read_bytes()[:200])
    options = ["data.name=folder", f"data.root={tmp_path / 'data'}", "train.epochs=1"]
    options += ["train.picture_every=1", "overwrite=true"]
    with pytest.raises(ArtifactNetError, match=f"^{bad}: "):
        train_detector(tiny(*options))
    heights = []
    for count in (8, 7):  # one of eight is left out, then one of seven
        own = ("data.on_error=skip", f"train.pictures={count}")
        result = train_detector(tiny(*options, *own))
        assert result.results["skipped"] == [str(bad)]
        with Image.open(result.run_dir / "pictures" / "epoch_001.png") as image:
            heights.append(image.height)
    assert heights[0] > heights[1]


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("mllm", "base", "some/base", r"mllm\.base is some/base"),
        ("model", "threshold", 2.0, r"model\.threshold"),
    ],
)
def test_configs_made_by_hand_are_checked(
    tiny: Tiny, part: str, key: str, value: Any, words: str
) -> None:
    config = tiny()
    setattr(getattr(config, part), key, value)
    with pytest.raises(ConfigError, match=words):
        train_detector(config)
    assert not (Path(config.out) / "tiny").exists()


def test_alignment_without_any_mask_is_switched_off_and_said(tiny: Tiny, tmp_path: Path) -> None:
    _noise_folder(tmp_path / "data", height=32, width=32)
    options = ["data.name=folder", f"data.root={tmp_path / 'data'}", "train.epochs=1"]
    found = train_detector(tiny(*options, "loss.alignment.weight=5")).results
    assert any("SWITCHED OFF" in warning for warning in found["data_warnings"])
    assert "alignment" not in found["training"]["best_validation"]
    plain = train_detector(tiny(*options, "loss.alignment.weight=0", "name=plain")).results
    assert not any("SWITCHED OFF" in warning for warning in plain["data_warnings"])
    assert found["training"]["best_validation"] == plain["training"]["best_validation"]


def _noise_folder(root: Path, *, height: int, width: int, count: int = 16) -> None:
    """As many real as fake images, without masks."""
    rng = np.random.default_rng(len(root.name))
    for kind in ("real", "fake"):
        (root / kind).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / kind / f"{number}.png")
