"""A HEIE under training: text, heatmap and score losses, and the figures of a validation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, SumMetric

from artifactnet.config import Config, OptimConfig
from artifactnet.models.heads.scorer import UNSCORED
from artifactnet.rules import heatmap_terms
from artifactnet.training.base import TrainingModule
from artifactnet.training.heatmap_losses import annotation_terms
from artifactnet.training.optim import group_parameters
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.base import WHOLE
from artifactnet.vlm.heie.data import TextBatch
from artifactnet.vlm.heie.model import HEIE, HeieOutput
from artifactnet.vlm.heie.saving import UNMAPPED, save_heie
from artifactnet.vlm.heie.words import WordLoss
from artifactnet.vlm.sharding import gather_weights, shard

_TERMS = ("focal", "laplace", "correlation", "score")  # in the order of `heatmap_terms`
_NEW_ROWS = "trainable_tokens"  # in the names of new tokens' rows of the embedding (peft)
_MAX_NLL = 50.0  # mean likelihood whose perplexity is still a number to print
_NO_TEXT = "the text is UNTRAINED (loss.text=0): it is the base model's own, do not rely on it"


class HeieModule(TrainingModule):
    """HEIE under training: a weighted sum of the losses that the config asks for.

    Cross-entropy of the text, and for each image, on its own grid of tiles, the heatmap and score
    losses of HEIE Sec. 3. Images without annotation take part in no heatmap loss, those without a
    text to learn not in the text loss, those without a score not in the score loss.

    The text loss is a mean over the tokens of all batches of an optimizer step, on all processes,
    so that each token weighs the same however images are batched. The other terms are means over
    images.

    Checkpoints hold what learns, and nothing of the frozen base.

    The model is on the device where it is to be trained, or on the CPU.
    """

    model: HEIE

    def __init__(self, model: HEIE, config: Config) -> None:
        super().__init__(model, config)
        self.strict_loading = False  # of frozen tensors, see `on_load_checkpoint`
        self._sharded = False
        self._window_tokens = 0.0
        terms = zip(_TERMS, heatmap_terms(config), strict=True)
        names = [f"heatmap_{name}" for name, weight in terms if weight]
        self.words: WordLoss | None = None
        if config.loss.words:
            tokenizer = model.processing.processor.tokenizer
            embeddings = model.base.get_input_embeddings().weight
            cells = math.isqrt(model.processing.processor.image_seq_length)
            self.words = WordLoss(tokenizer, embeddings, cells)
            names.append("words")
        # the image tokens are all that learns; for them the language model need not run
        self._language = bool(config.loss.text or any(heatmap_terms(config)))
        means = {name: MeanMetric() for name in names}
        self.means: dict[str, MeanMetric] = nn.ModuleDict(means)  # type: ignore[assignment]
        self.nll, self.tokens = SumMetric(), SumMetric()
        nearest = ("category", "clean", "place") if self.words is not None else ()
        means = {name: MeanMetric() for name in nearest}
        self.nearest: dict[str, MeanMetric] = nn.ModuleDict(means)  # type: ignore[assignment]

    def configure_model(self) -> None:
        """Shard the weights among the processes if the run's strategy is fsdp."""
        if self.config.train.strategy != "fsdp" or self._sharded:
            return
        assert self.device_mesh is not None
        shard(self.model, self.model.base, self.device_mesh["data_parallel"])
        self._sharded = True

    def losses(
        self, batch: TextBatch, window_tokens: float | None = None
    ) -> tuple[dict[str, Tensor], HeieOutput]:
        """Loss terms of a batch (their weighted sum under ``loss``) and the model's output.

        The text loss is divided by ``window_tokens``, the text tokens that a batch of its
        optimizer step has on average; None: by those of this batch.
        """
        weights = self.config.loss
        output: HeieOutput = self.model(batch.inputs, self._language)
        each: dict[str, list[Tensor]] = {}
        weight_of: dict[str, float] = {"text": weights.text}
        for k, maps in enumerate(output.heatmaps):
            one = slice(k, k + 1)
            truth = (batch.target[k][None], batch.annotation[one], batch.score[one])
            for name, (term, weight) in annotation_terms(maps, *truth, weights.heatmap).items():
                each.setdefault(name, []).append(term)
                weight_of[name] = weight
        terms = {name: torch.stack(values).mean() for name, values in each.items()}
        if self.words is not None:
            terms["words"] = self._word_loss(self.words, output.image_tokens, batch)
            weight_of["words"] = weights.words
        if weights.text and batch.inputs.labels is not None:
            terms["text"] = output.nll.sum() / max(window_tokens or batch.tokens, 1)
        total = torch.stack([weight_of[name] * term.float() for name, term in terms.items()]).sum()
        return {"loss": total, **terms}, output

    def _word_loss(self, loss: WordLoss, tokens: Tensor, batch: TextBatch) -> Tensor:
        """Mean over the images of a batch, 0 of those whose artifacts nobody marked."""
        each = [loss(*image) for image in _marked(tokens, batch)]
        # where there are none, the projector must have gradients all the same
        return sum(each, 0.0 * tokens.float().sum()) / len(batch.mask)

    def training_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        """Loss of one batch.

        Raises:
            ArtifactNetError: the loss is not finite in any process; all of them stop.
        """
        if not self.config.loss.text:
            batch.inputs.labels = None  # skips the output layer
        elif batch_idx % self.trainer.accumulate_grad_batches == 0:
            self._window_tokens = self._mean_tokens(batch)
        terms, _ = self.losses(batch, self._window_tokens)
        return self.finish_step(terms, batch)

    def _mean_tokens(self, batch: TextBatch) -> float:
        """Text tokens per batch over the optimizer step that begins, on all processes.

        Lightning divides the loss by the number of accumulated batches, and distributed training
        averages gradients over processes: with this divisor in all of them, the sum of the text
        losses becomes the mean over all tokens.
        """
        tokens = torch.tensor(float(batch.window_tokens), device=self.device)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(tokens)
        return float(tokens) / (batch.window_batches * self.trainer.world_size)

    def trains_score(self, batch: TextBatch) -> bool:
        """Whether a loss of this batch reaches the score."""
        return self.config.loss.heatmap.score > 0 and not bool(batch.score.isnan().all())

    def validation_step(self, batch: TextBatch, batch_idx: int) -> None:
        """Count one batch into the validation figures."""
        parts, output = self.losses(batch)
        if batch.padding:
            return
        for name, mean in self.means.items():
            mean.update(parts[name], weight=len(batch.record))
        self.nll.update(output.nll.sum())
        self.tokens.update(output.tokens.sum())
        if self.words is not None:
            found = [self.words.nearest(*image) for image in _marked(output.image_tokens, batch)]
            for name, share in self.nearest.items():
                right = [one[name].float() for one in found]
                share.update(torch.cat([torch.zeros(0, device=self.device), *right]))

    def validation_figures(self) -> dict[str, float]:
        """Figures of the validation that has just run, over all processes; starts them anew.

        ``loss`` and its terms are means over images, but ``text`` over tokens, so that none depends
        on how images were batched; ``perplexity`` is that of the texts, if there are any.
        ``nearest_...`` are the shares of image tokens whose nearest word is right, see `WordLoss`.
        """
        weights = self.config.loss
        values = {name: float(mean.compute()) for name, mean in self.means.items()}
        terms = zip(_TERMS, heatmap_terms(self.config), strict=True)
        total = sum(weight * values[f"heatmap_{name}"] for name, weight in terms if weight)
        if self.words is not None:
            total += weights.words * values["words"]
        nll, tokens = float(self.nll.compute()), float(self.tokens.compute())
        if tokens:
            values["text"] = nll / tokens
            total += weights.text * values["text"]
            values["perplexity"] = math.exp(min(values["text"], _MAX_NLL))
        for name, mean in self.nearest.items():
            if not math.isnan(share := float(mean.compute())):  # no such token
                values[f"nearest_{name}"] = share
        for metric in (*self.means.values(), *self.nearest.values(), self.nll, self.tokens):
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
        """Refuse a checkpoint that does not hold exactly what learns: it is of another model."""
        names = checkpoint.get("state_dict", checkpoint["learns"])  # fsdp has loaded it by now
        unmatched = sorted(self._learns() ^ set(names))
        if unmatched:
            raise ArtifactNetError(
                f"the checkpoint to resume from was made from another model: {len(unmatched)} "
                f"learning tensors differ, e.g. {unmatched[0]}; was the base replaced? Start again "
                "with overwrite=true"
            )
        self.scored = checkpoint["scored"]

    def _learns(self) -> set[str]:
        return {name for name, p in self.named_parameters() if p.requires_grad}

    def save_model(self, path: Path, facts: dict[str, Any]) -> None:
        """Write the model next to ``path``; all processes gather, the first one writes."""
        notices = [] if self.scored else [UNSCORED]
        if not any(heatmap_terms(self.config)):
            notices = [UNMAPPED]
        if not self.config.loss.text:
            notices.append(_NO_TEXT)
        first = self.trainer.is_global_zero
        with gather_weights(self.model, first):
            if first:
                save_heie(self.model, path.parent, {**facts, "notices": notices})

    def count_parameters(self) -> int:
        """Parameters that learn."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `parameter_groups`."""
        return parameter_groups(self.model, self.config.optim)


def _marked(tokens: Tensor, batch: TextBatch) -> list[tuple[Tensor, Tensor, tuple[int, int]]]:
    """Image tokens, mask and grid of each image whose artifacts are marked, see `WordLoss`."""
    counts = [rows * columns for rows, columns in batch.inputs.grids]
    pieces = tokens.split([count + (count > 1) for count in counts])
    triples = zip(pieces, batch.mask, batch.inputs.grids, strict=True)
    return [(piece, mask, grid) for piece, mask, grid in triples if mask is not None]


def parameter_groups(model: HEIE, optim: OptimConfig) -> list[dict[str, Any]]:
    """`artifactnet.training.optim.group_parameters` of a HEIE.

    Mapper, scorer and the new tokens' rows, which start from random weights, learn at ``head_lr``,
    and so does a projector that learns beside adapters; these, or the base's own weights, at
    ``lr``. Norms, biases and token rows do not decay.
    """

    def settings(name: str, parameter: nn.Parameter) -> tuple[float, float]:
        fresh = name.startswith("head.") or _NEW_ROWS in name or WHOLE in name
        lr = optim.head_lr if fresh and optim.head_lr is not None else optim.lr
        decay = 0.0 if parameter.ndim <= 1 or _NEW_ROWS in name else optim.weight_decay
        return lr, decay

    return group_parameters(model, settings)
