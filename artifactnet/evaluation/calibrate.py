"""Calibration of a trained detector on its validation images: temperature and two limits.

The temperature makes its probabilities as confident as it is right
(`artifactnet.metrics.temperature`); the limits make three verdicts of them, with at most the errors
that are asked for on these images (`artifactnet.metrics.verdicts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artifactnet.config import Config, load
from artifactnet.data.datamodule import DataModule, build_splits, labels_of
from artifactnet.evaluation.evaluate import split_loader
from artifactnet.evaluation.samples import check_overrides
from artifactnet.inference.load import find_weights
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.metrics.calibration import expected_calibration_error
from artifactnet.metrics.checks import DIVERGED
from artifactnet.metrics.temperature import fit_temperature, negative_log_likelihood
from artifactnet.metrics.verdicts import choose_limits, shares_of, verdict_indices
from artifactnet.models import packaged
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import load_checkpoint, rewrite_facts
from artifactnet.models.state import evaluating
from artifactnet.runs import run_folder
from artifactnet.runs.device import choose_device
from artifactnet.types import VERDICTS, ArtifactNetError

_ALLOWED = ("data.", "train.device", "seed=")
_RECIPE = "student_nano"  # of a file: says which images a key of the data means; nothing else
_SEPARATED = (
    "every validation image is on its side of 0.5, so that no temperature is best: it is left at "
    "1; validate on more images, or harder ones"
)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A calibrated detector, and what was found on its validation images.

    Figures before are those of the model as it was, with the temperature that it had.

    Attributes:
        path: the file that was written.
        real, fake: numbers of validation photographs and fakes.
        temperature: that divides its logits.
        threshold: as before, or the nearest value between the limits.
        fake_from, real_below: the two limits.
        false_alarms, missed: the shares that were allowed.
        nll, ece: (before, after): mean cross-entropy in nats and expected calibration error, both
            classes weighing the same.
        shares: of ``real`` and ``fake`` images, the share of each verdict.
        warnings: what must be known before trusting it.
    """

    path: Path
    real: int
    fake: int
    temperature: float
    threshold: float
    fake_from: float
    real_below: float
    false_alarms: float
    missed: float
    nll: tuple[float, float]
    ece: tuple[float, float]
    shares: dict[str, dict[str, Any]]
    warnings: tuple[str, ...]


def calibrate(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    false_alarms: float = 0.03,
    missed: float = 0.1,
    out: str | Path | None = None,
) -> Calibration:
    """Fit temperature and limits of a detector on validation images, and save them with it.

    Nothing else in the file changes. Exports of the model are made again afterwards.

    Args:
        source: folder of a run, whose ``model.safetensors`` is calibrated on its own validation
            split; or a ``.safetensors`` file or the name of a packaged model, whose data
            ``overrides`` must name, unless the file lies in the folder of its run.
        overrides: ``dotted.key=value`` strings: ``data.*``, ``seed``, ``train.device``.
        false_alarms: share of the validation photographs that may be called fake, inside (0, 1).
        missed: share of the validation fakes that may be called real, inside (0, 1).
        out: the ``.safetensors`` file to write; None replaces the model's own, which a packaged
            model does not allow.

    Raises:
        ArtifactNetError: no such model or data, validation images of one class only or too few for
            a rate, or a logit that is not finite. Nothing is written then.
    """
    file = find_weights(source)
    for name, rate in (("false_alarms", false_alarms), ("missed", missed)):
        if not 0 < rate < 1:  # also for NaN
            raise ArtifactNetError(f"{name} must be above 0 and below 1, not {rate}")
    target = _target(source, file, out)
    config = _config(source, file, overrides)
    model = load_checkpoint(file, choose_device(config.train.device))
    data = _validation_data(config, model)
    before = model.config.temperature
    model.config.temperature = 1.0
    labels, logits = _logits(model, data)
    warnings = [*model.notices, *data.summary["warnings"]]
    skipped = data.skipped.get("val", [])
    if skipped:
        warnings.append(f"{len(skipped)} images were skipped (data.on_error=skip)")
    temperature = fit_temperature(labels, logits.double())
    if temperature is None:
        warnings.append(_SEPARATED)
        temperature = 1.0
    # in the model's own arithmetic: in float32 a large logit is a probability of exactly 1
    probabilities = (logits / temperature).sigmoid()
    real_below, fake_from = choose_limits(labels, probabilities, false_alarms, missed)
    threshold = min(max(model.config.threshold, real_below), fake_from)
    shares = _shares(labels, probabilities, (real_below, fake_from))
    (nll, ece), (new_nll, new_ece) = (
        _quality(labels, logits.double() / value) for value in (before, temperature)
    )
    found = Calibration(
        path=target,
        real=shares["real"]["images"],
        fake=shares["fake"]["images"],
        temperature=temperature,
        threshold=threshold,
        fake_from=fake_from,
        real_below=real_below,
        false_alarms=false_alarms,
        missed=missed,
        nll=(nll, new_nll),
        ece=(ece, new_ece),
        shares=shares,
        warnings=tuple(warnings),
    )
    values = {key: getattr(found, key) for key in ("temperature", "threshold")}
    values |= {"fake_from": fake_from, "real_below": real_below}
    record = {key: value for key, value in asdict(found).items() if key not in ("path", *values)}
    record["data"] = {"name": config.data.name, "root": config.data.root, "split": "val"}
    rewrite_facts(file, target, values, {"calibration": record})
    return found


def _quality(labels: Tensor, logits: Tensor) -> tuple[float, float]:
    """Negative log-likelihood and expected calibration error, of classes that weigh the same."""
    error = expected_calibration_error(labels, logits.sigmoid(), balanced=True)
    assert error is not None  # there are images
    return negative_log_likelihood(labels, logits), error


def _target(source: str | Path, file: Path, out: str | Path | None) -> Path:
    if out is None:
        if not Path(source).exists() and str(source) in packaged.list_packaged():
            raise ArtifactNetError(f"{source}: a packaged model is not changed; name a file (out)")
        return file
    if Path(out).suffix != ".safetensors":
        raise ArtifactNetError(f"{out}: a model's name must end in .safetensors")
    return Path(out)


def _config(source: str | Path, file: Path, overrides: Sequence[str]) -> Config:
    """That of the model's run, or of the data that overrides name."""
    check_overrides(overrides, _ALLOWED)
    if (file.parent / run_folder.PROVENANCE).is_file():
        return load(run_folder.find_run(file.parent)[0] / run_folder.CONFIG, overrides)
    if not any(text.startswith("data.") for text in overrides):
        raise ArtifactNetError(
            f"{source}: a file does not say which images validate it; name them: "
            "data.name=folder data.root=FOLDER"
        )
    return load(_RECIPE, overrides)


def _validation_data(config: Config, model: ArtifactNet) -> DataModule:
    splits = build_splits(config.data, config.seed, one_class=True)
    labels = labels_of(splits, "val", config.data.name)
    if len(set(labels)) < 2:
        only = "fakes" if labels[0] else "photographs"
        raise ArtifactNetError(
            f"the {len(labels)} validation images are all {only}; calibration needs both classes: "
            "check data.root and data.generators"
        )
    return DataModule(config.data, preprocess_of(model), config.seed, {"val": splits["val"]})


def _logits(model: ArtifactNet, data: DataModule) -> tuple[Tensor, Tensor]:
    """(N,) labels and float32 logits of the validation images, on the CPU."""
    labels, logits = [], []
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        for batch in split_loader(model, data, "val"):
            found = model(batch.image.to(device, non_blocking=True)).logit.float().cpu()
            for record, finite in zip(batch.record, found.isfinite().tolist(), strict=True):
                if not finite:
                    raise ArtifactNetError(
                        f"{record.location}: its logit is not finite: {DIVERGED}"
                    )
            labels.append(batch.label.cpu())
            logits.append(found)
    return torch.cat(labels).long(), torch.cat(logits)


def _shares(
    labels: Tensor, probabilities: Tensor, limits: tuple[float, float]
) -> dict[str, dict[str, Any]]:
    verdicts = verdict_indices(probabilities, limits)
    return {
        name: shares_of(torch.bincount(verdicts[labels == label], minlength=len(VERDICTS)))
        for name, label in (("real", 0), ("fake", 1))
    }
