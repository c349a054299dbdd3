"""The training step of HEIE: text, heatmap and score losses, and the figures of a validation."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, SumMetric

from artifactnet.config import Config, OptimConfig, heatmap_terms
from artifactnet.training.heatmap_losses import annotation_terms
from artifactnet.training.optim import adamw, checked_loss, reseed
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.heie.data import TextBatch
from artifactnet.vlm.heie.model import HEIE, Output
from artifactnet.vlm.sharding import shard

_TERMS = ("focal", "laplace", "correlation", "score")  # in the order of `heatmap_terms`
_NEW_ROWS = "trainable_tokens"  # in the names of new tokens' rows of the embedding (peft)
_HEAD = "head."
_LARGEST = 50.0  # mean likelihood whose perplexity is still a number to print
_STOPPED = "what was saved before is intact"
_REMEDY = f"Lower optim.lr, lengthen optim.warmup or set optim.clip_norm=1; {_STOPPED}"


class HeieModule(pl.LightningModule):
    """HEIE under training: a weighted sum of the losses that the config asks for.

    Cross-entropy of the text, and for each image, on its own grid of tiles, the heatmap and score
    losses of HEIE Sec. 3. Images that nobody annotated take part in no heatmap loss, those
    without a text to learn not in that of the text, those without a score not in that of it.

    Checkpoints hold what learns, and nothing of the frozen base.

    Args:
        model: on the device where it is to be trained, or on the CPU.
        config: the run.

    Attributes:
        scored: a training image had a score, so that the score was taught.
    """

    def __init__(self, model: HEIE, config: Config) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.scored = False
        self.strict_loading = False  # of frozen tensors, see `on_load_checkpoint`
        self._sharded = False
        asked = zip(_TERMS, heatmap_terms(config), strict=True)
        names = [f"heatmap_{name}" for name, weight in asked if weight]
        means = {name: MeanMetric() for name in names}
        self.means: dict[str, MeanMetric] = nn.ModuleDict(means)  # type: ignore[assignment]
        self.nll, self.tokens = SumMetric(), SumMetric()

    def configure_model(self) -> None:
        """Divide the weights among the processes, where the run's strategy is fsdp."""
        if self.config.train.strategy != "fsdp" or self._sharded:
            return
        assert self.device_mesh is not None
        shard(self.model, self.device_mesh["data_parallel"])
        self._sharded = True

    def losses(self, batch: TextBatch) -> tuple[dict[str, Tensor], Output]:
        """Loss parts of a batch (their weighted sum under ``loss``) and the model's output."""
        weights = self.config.loss
        output: Output = self.model(batch.inputs)
        each: dict[str, list[Tensor]] = {}
        weight_of: dict[str, float] = {"text": weights.text}
        for k, found in enumerate(output.heatmaps):
            one = slice(k, k + 1)
            truth = (batch.target[k][None], batch.annotation[one], batch.score[one])
            for name, (term, weight) in annotation_terms(found, *truth, weights.heatmap).items():
                each.setdefault(name, []).append(term)
                weight_of[name] = weight
        parts = {name: torch.stack(terms).mean() for name, terms in each.items()}
        if weights.text and output.text_loss is not None:
            parts["text"] = output.text_loss
        total = torch.stack([weight_of[name] * part.float() for name, part in parts.items()]).sum()
        return {"loss": total, **parts}, output

    def on_train_epoch_start(self) -> None:
        """Reseed from (seed, epoch, rank), so that a resumed run draws what it would have."""
        reseed(self.config.seed, self.current_epoch, self.global_rank)

    def training_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        """Loss of one batch.

        Raises:
            ArtifactNetError: the loss is not finite, on any process: all of them stop.
        """
        if self.config.loss.heatmap.score and not bool(batch.score.isnan().all()):
            self.scored = True
        if not self.config.loss.text:
            batch.inputs.labels = None  # spares the output layer
        terms, _ = self.losses(batch)
        return checked_loss(self, terms, batch.record, _REMEDY)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop before a gradient that is not finite reaches the weights.

        With 16-bit floats overflow is normal: the gradient scaler skips such a step. DeepSpeed
        keeps the gradients to itself, and does the same.

        Raises:
            ArtifactNetError: the gradient is not finite.
        """
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if self.trainer.precision == "16-mixed" or not gradients:
            return
        norm: Any = torch.nn.utils.get_total_norm(gradients)
        norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if not math.isfinite(norm):
            raise ArtifactNetError(
                f"the gradient is not finite at step {self.global_step} although the loss is. "
                f"Lower optim.lr or lengthen optim.warmup; {_STOPPED}"
            )
        self.log("train/grad_norm", norm)

    def validation_step(self, batch: TextBatch, batch_idx: int) -> None:
        """Count one batch into the validation figures."""
        parts, output = self.losses(batch)
        if not batch.counts:  # it was there for the other processes, which waited for this forward
            return
        for name, mean in self.means.items():
            mean.update(parts[name], weight=len(batch.record))
        self.nll.update(output.nll.sum())
        self.tokens.update(output.tokens.sum())

    def validation_figures(self) -> dict[str, float]:
        """Figures of the validation that has just run, over all processes; starts them anew.

        Returns:
            ``loss`` and its parts, each a mean over images, but ``text`` over tokens, so that none
            depends on how images were batched; ``perplexity`` of the texts, where there are any.
        """
        weights = self.config.loss
        values = {name: float(mean.compute()) for name, mean in self.means.items()}
        asked = zip(_TERMS, heatmap_terms(self.config), strict=True)
        total = sum(weight * values[f"heatmap_{name}"] for name, weight in asked if weight)
        nll, tokens = float(self.nll.compute()), float(self.tokens.compute())
        if tokens:
            values["text"] = nll / tokens
            total += weights.text * values["text"]
            values["perplexity"] = math.exp(min(values["text"], _LARGEST))
        for metric in (*self.means.values(), self.nll, self.tokens):
            metric.reset()
        return {"loss": total, **values}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what learns; the frozen base is read again from where it came from."""
        learns = self._learns()
        state = checkpoint["state_dict"]  # of sharded weights only the first process has one
        checkpoint["state_dict"] = {k: v for k, v in state.items() if k in learns}
        checkpoint["learns"] = sorted(learns)
        checkpoint["scored"] = self.scored

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See that the checkpoint has all that learns, and nothing else.

        Raises:
            ArtifactNetError: it was made from another model.
        """
        found = checkpoint.get("state_dict", checkpoint["learns"])  # fsdp has loaded it by now
        strange = sorted(self._learns() ^ set(found))
        if strange:
            raise ArtifactNetError(
                f"the checkpoint to resume from was made from another model: {len(strange)} "
                f"learning tensors differ, e.g. {strange[0]}; was the base replaced? Start again "
                "with overwrite=true"
            )
        self.scored = checkpoint["scored"]

    def _learns(self) -> set[str]:
        return {name for name, p in self.named_parameters() if p.requires_grad}

    def configure_optimizers(self) -> Any:
        """AdamW over the model's parameter groups, warm-up and decay per step."""
        optim = self.config.optim
        groups = parameter_groups(self.model, optim)
        return adamw(groups, optim, int(self.trainer.estimated_stepping_batches))


def parameter_groups(model: HEIE, optim: OptimConfig) -> list[dict[str, Any]]:
    """AdamW groups of the trainable parameters.

    Mapper, scorer and the new tokens' rows, which start from nothing, learn at ``head_lr``,
    adapters (or the whole base) at ``lr``; norms, biases and token rows do not decay.

    Returns:
        Groups with ``params``, ``lr``, ``weight_decay`` and ``name``; every trainable parameter
        is in exactly one.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        fresh = name.startswith(_HEAD) or _NEW_ROWS in name
        lr = optim.head_lr if fresh and optim.head_lr is not None else optim.lr
        decay = 0.0 if parameter.ndim <= 1 or _NEW_ROWS in name else optim.weight_decay
        group = groups.setdefault(
            (lr, decay),
            {"params": [], "lr": lr, "weight_decay": decay, "name": f"lr{lr:g}_wd{decay:g}"},
        )
        group["params"].append(parameter)
    return list(groups.values())
