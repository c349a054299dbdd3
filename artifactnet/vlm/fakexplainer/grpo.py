"""FakeXplainer's second stage: progressive GRPO with TRL (Sec. 4.3)."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from datasets import Dataset
from PIL import Image
from trl import GRPOConfig, GRPOTrainer

from artifactnet.config import GrpoConfig
from artifactnet.training.run import Run
from artifactnet.vlm.fakexplainer.processing import FakexplainerProcessing
from artifactnet.vlm.fakexplainer.rewards import Iou, Truth, grounding_weight, score_answer
from artifactnet.vlm.fakexplainer.rows import Row, TaskData
from artifactnet.vlm.fakexplainer.saving import Fakexplainer
from artifactnet.vlm.tuning_arguments import common_arguments
from artifactnet.vlm.tuning_callbacks import ANSWERS, callbacks, quiet

_SAMPLES = 8  # answers a logged step
_RECENT = 200  # answers whose mean number of regions is watched
_MOST_CHANGE = 3.0  # of that mean, against the training data's, before a warning
_SHOWN = {
    "reward": "reward",
    "reward_label": "label",
    "reward_grounding": "grounding",
    "reward_format": "format",
    "regions": "regions",
    "area_share": "area",
    "frac_reward_zero_std": "no spread",
    "completions/clipped_ratio": "cut off",
}


class AnswerReward:
    """TRL's reward function: R of each sampled answer (Sec. 4.2), and its parts as metrics.

    One function, since TRL's own weights of several are constant while that of the grounding
    reward rises.

    Args:
        rows: of the train split.
        processing: of the model.
        settings: ``eta``, ``grounding`` and ``iou``.

    Attributes:
        latest: the last answers with their rewards, for people.
        counts: regions of each of the last `_RECENT` answers.
    """

    __name__ = "answer"  # in TRL's names of metrics

    def __init__(
        self, rows: Sequence[Row], processing: FakexplainerProcessing, settings: GrpoConfig
    ) -> None:
        self._processing, self._settings = processing, settings
        self._rows = rows
        self._truths = [
            Truth(r.is_fake, r.regions or (), r.tags or (), r.size, r.input_size) for r in rows
        ]
        mode = settings.grounding
        self._mode: Literal["linear"] | float = "linear" if mode == "linear" else float(mode)
        self.latest: deque[dict[str, Any]] = deque(maxlen=_SAMPLES)
        self.counts: deque[int] = deque(maxlen=_RECENT)

    def __call__(
        self,
        completion_ids: Sequence[Sequence[int]],
        row: Sequence[int],
        trainer_state: Any,
        log_metric: Callable[[str, float], None],
        **_: Any,  # prompts, completions, images: TRL passes all columns
    ) -> list[float | None]:
        """Rewards of answers, each about the image of a row."""
        step, steps = trainer_state.global_step, trainer_state.max_steps
        weight = grounding_weight(self._mode, step, steps)
        found = []
        for ids, number in zip(completion_ids, row, strict=True):
            text = self._processing.decode(ids)
            score = score_answer(
                text,
                self._truths[number],
                weight,
                self._settings.eta,
                cast(Iou, self._settings.iou),
                self._processing.drop,
                self._processing.form,
            )
            found.append(score)
            self.counts.append(score.regions)
            self.latest.append(
                {
                    "step": step,
                    "image": self._rows[number].location,
                    "answer": text,
                    "reward": score.total,
                    "label": score.label,
                    "grounding": score.grounding,
                    "format": score.format,
                }
            )
        for name, values in (
            ("reward_label", [s.label for s in found]),
            ("reward_grounding", [s.grounding for s in found]),
            ("reward_format", [s.format for s in found]),
            ("regions", [float(s.regions) for s in found]),
            ("area_share", [s.area_share for s in found]),
            ("format_lost", [float(s.format == 0) for s in found]),
            ("grounding_weight", [weight]),
        ):
            log_metric(name, sum(values) / len(values))
        return [score.total for score in found]


def train_grpo(
    run: Run,
    trained: Fakexplainer,
    data: TaskData,
    rows: Sequence[Row],
    checkpoint: Path | None,
) -> dict[str, Any]:
    """Reward sampled answers for verdict, boxes and form.

    Args:
        run: the run.
        trained: whose adapters learn; they are also the reference of the KL divergence.
        data: opens the images.
        rows: of the train split.
        checkpoint: from which the run resumes.

    Returns:
        ``epochs`` and ``steps``.
    """
    config, settings = run.config, run.config.mllm.grpo
    arguments = GRPOConfig(
        **common_arguments(run),
        num_generations=settings.generations,
        temperature=settings.temperature,
        beta=settings.beta,
        epsilon=settings.epsilon,
        disable_dropout=True,  # it would tell the likelihood of an answer from that of sampling it
        loss_type="grpo",  # mean over tokens, then over answers; TRL's default is dapo
        max_completion_length=config.mllm.max_new_tokens,
        **_sampling(settings, trained.processing.forbidden_ids),
    )
    reward = AnswerReward(rows, trained.processing, settings)
    annotated = sum(len(row.regions or ()) for row in rows) / len(rows)
    watch = _Watch(run.folder, reward, annotated)
    trainer = quiet(
        GRPOTrainer(
            model=trained.model,
            reward_funcs=[reward],
            args=arguments,
            train_dataset=_dataset(data, rows, trained),
            processing_class=trained.processing.processor,
            callbacks=callbacks(run, _SHOWN, watch),
        )
    )
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return {"epochs": round(float(trainer.state.epoch), 3), "steps": trainer.state.global_step}


class _Watch:
    """Writes sample answers, and warns when the number of regions runs away from the data's."""

    def __init__(self, folder: Path, reward: AnswerReward, annotated: float) -> None:
        self._path, self._reward, self._annotated = folder / ANSWERS, reward, annotated

    def __call__(self, step: int, values: dict[str, float]) -> None:
        if "regions" not in values:
            return  # the summary at the end of training
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(answer) + "\n" for answer in self._reward.latest)
        counts, usual = self._reward.counts, self._annotated
        regions = sum(counts) / len(counts)
        enough = len(counts) == _RECENT and usual > 0
        if enough and not usual / _MOST_CHANGE <= regions <= usual * _MOST_CHANGE:
            print(
                f"warning: step {step}: {regions:.2f} regions an answer, where the training data "
                f"has {usual:.2f}: look at {self._path}",
                flush=True,
            )


def _sampling(settings: GrpoConfig, forbidden: Sequence[int]) -> dict[str, Any]:
    """How answers are sampled; control words and image tokens never are.

    An image token in an answer would break the next forward pass.
    """
    if settings.vllm == "none":
        return {"generation_kwargs": {"suppress_tokens": list(forbidden)}}
    where: dict[str, Any] = {"vllm_gpu_memory_utilization": settings.vllm_memory}
    if settings.vllm == "server":
        where = {"vllm_server_base_url": settings.vllm_url}
    return {
        "use_vllm": True,
        "vllm_mode": settings.vllm,
        # keys are numbers: vLLM compares them with the size of the vocabulary
        "generation_kwargs": {"logit_bias": {token: -100.0 for token in forbidden}},
        **where,
    }


def _dataset(data: TaskData, rows: Sequence[Row], trained: Fakexplainer) -> Dataset:
    """Rows as TRL reads them; images are decoded when a batch is made."""
    prompt = trained.processing.messages

    def load(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        numbers = batch["row"]
        return {
            "images": [[Image.fromarray(data.image("train", rows[n]))] for n in numbers],
            "prompt": [prompt for _ in numbers],
            "row": numbers,
        }

    return Dataset.from_dict({"row": list(range(len(rows)))}).with_transform(load)
