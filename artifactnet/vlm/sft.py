"""Supervised fine-tuning: answers to questions about images are learned, with TRL."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

from datasets import Dataset
from PIL import Image
from trl import SFTConfig, SFTTrainer

from artifactnet.training.run import Run
from artifactnet.types import UInt8Array
from artifactnet.vlm.tuning_arguments import common_arguments, projector_optimizer
from artifactnet.vlm.tuning_callbacks import callbacks, quiet

_SHOWN = {
    "loss": "loss",
    "mean_token_accuracy": "token accuracy",
    "eval_loss": "val loss",
    "eval_mean_token_accuracy": "val token accuracy",
}


class Examples(Protocol):
    """What is learned: images, questions and answers, by number."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def example(self, number: int) -> tuple[UInt8Array, list[dict[str, Any]], str]:
        """Pixels (H, W, 3), the question as chat messages with one image, and the answer."""
        ...


def learn_answers(
    run: Run, model: Any, processor: Any, train: Examples, val: Examples, checkpoint: Path | None
) -> dict[str, Any]:
    """Cross-entropy of answers to any questions about images; prompts are not learned.

    Args:
        run: the run.
        model: the base, with adapters that learn, or to learn as a whole.
        processor: of the base; it pads on the left.
        train: what is learned.
        val: what is only measured; may be empty.
        checkpoint: from which the run resumes.

    Returns:
        ``epochs``, ``steps``, and the last ``train_loss``.
    """
    config = run.config
    batch = config.data.batch_size * config.train.accumulate * config.train.devices
    arguments = SFTConfig(
        **common_arguments(run),
        max_length=None,  # image tokens must not be cut; rows are checked for their length
        eval_strategy="steps" if len(val) else "no",
        eval_steps=config.train.eval_every * math.ceil(len(train) / batch),
        per_device_eval_batch_size=config.data.eval_batch_size or config.data.batch_size,
    )
    trainer = quiet(
        SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=_dataset(train),
            eval_dataset=_dataset(val) if len(val) else None,
            processing_class=processor,
            callbacks=callbacks(run, _SHOWN),
            optimizers=(projector_optimizer(model, config.optim), None),
        )
    )
    outcome = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return {
        "epochs": round(float(trainer.state.epoch), 3),
        "steps": trainer.state.global_step,
        "train_loss": float(outcome.training_loss),
    }


def _dataset(examples: Examples) -> Dataset:
    """Examples as TRL reads them; images are decoded when a batch is made."""

    def load(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        chosen = [examples.example(number) for number in batch["row"]]
        return {
            "images": [[Image.fromarray(pixels)] for pixels, _, _ in chosen],
            "prompt": [messages for _, messages, _ in chosen],
            "completion": [
                [{"role": "assistant", "content": [{"type": "text", "text": answer}]}]
                for _, _, answer in chosen
            ],
        }

    return Dataset.from_dict({"row": list(range(len(examples)))}).with_transform(load)
