"""FakeXplainer's first stage: supervised fine-tuning on annotated answers, with TRL (Sec. 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image
from trl import SFTConfig, SFTTrainer

from artifactnet.training.run import Run
from artifactnet.vlm.fakexplainer.arguments import common_arguments
from artifactnet.vlm.fakexplainer.callbacks import callbacks, quiet
from artifactnet.vlm.fakexplainer.rows import Row, TaskData
from artifactnet.vlm.fakexplainer.saving import Fakexplainer

_SHOWN = {
    "loss": "loss",
    "mean_token_accuracy": "token accuracy",
    "eval_loss": "val loss",
    "eval_mean_token_accuracy": "val token accuracy",
}


def train_sft(
    run: Run,
    trained: Fakexplainer,
    data: TaskData,
    rows: Sequence[Row],
    val_rows: Sequence[Row],
    checkpoint: Path | None,
) -> dict[str, Any]:
    """Cross-entropy of the annotated answers; prompts are not learned.

    Args:
        run: the run.
        trained: whose adapters learn.
        data: opens the images.
        rows: of the train split.
        val_rows: of the val split; may be empty.
        checkpoint: from which the run resumes.

    Returns:
        ``epochs``, ``steps``, and the last ``train_loss``.
    """
    config = run.config
    batch = config.data.batch_size * config.train.accumulate * config.train.devices
    arguments = SFTConfig(
        **common_arguments(run),
        max_length=None,  # image tokens must not be cut; rows are checked for their length
        eval_strategy="steps" if val_rows else "no",
        eval_steps=config.train.eval_every * math.ceil(len(rows) / batch),
        per_device_eval_batch_size=config.data.eval_batch_size or config.data.batch_size,
    )
    trainer = quiet(
        SFTTrainer(
            model=trained.model,
            args=arguments,
            train_dataset=_dataset(data, "train", rows, trained),
            eval_dataset=_dataset(data, "val", val_rows, trained) if val_rows else None,
            processing_class=trained.processing.processor,
            callbacks=callbacks(run, _SHOWN),
        )
    )
    outcome = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return {
        "epochs": round(float(trainer.state.epoch), 3),
        "steps": trainer.state.global_step,
        "train_loss": float(outcome.training_loss),
    }


def _dataset(data: TaskData, split: str, rows: Sequence[Row], trained: Fakexplainer) -> Dataset:
    """Rows as TRL reads them; images are decoded when a batch is made."""
    prompt = trained.processing.messages

    def load(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        chosen = [rows[number] for number in batch["row"]]
        return {
            "images": [[Image.fromarray(data.image(split, row))] for row in chosen],
            "prompt": [prompt for _ in chosen],
            "completion": [
                [{"role": "assistant", "content": [{"type": "text", "text": row.answer}]}]
                for row in chosen
            ],
        }

    return Dataset.from_dict({"row": list(range(len(rows)))}).with_transform(load)
