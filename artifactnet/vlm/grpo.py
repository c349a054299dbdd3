"""Group relative policy optimization: sampled answers about images are rewarded, with TRL."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image
from trl import GRPOConfig, GRPOTrainer

from artifactnet.config import GrpoConfig
from artifactnet.training.run import Run
from artifactnet.vlm.image_chat import ImageChat
from artifactnet.vlm.reward_rule import RewardRule
from artifactnet.vlm.rows import Row, RowExamples
from artifactnet.vlm.tuning_arguments import common_arguments, projector_optimizer
from artifactnet.vlm.tuning_callbacks import ANSWERS, callbacks, quiet

_SAMPLES = 8  # answers a logged step
_RECENT = 200  # answers whose mean number of regions is watched
_MOST_CHANGE = 3.0  # of that mean, against the training data's, before a warning
_SHOWN = {  # on the terminal, after the parts of the reward
    "regions": "regions",
    "area_share": "area",
    "frac_reward_zero_std": "no spread",
    "completions/clipped_ratio": "cut off",
}


def learn_by_rewards(
    run: Run,
    model: Any,
    chat: ImageChat,
    examples: RowExamples,
    rule: RewardRule,
    checkpoint: Path | None,
) -> dict[str, Any]:
    """Sample answers to questions about images, and make the better rewarded ones likelier.

    Args:
        run: the run.
        model: the base, with adapters that learn; as they are now, they are also the reference of
            the KL divergence.
        chat: of the base.
        examples: what is asked; their answers are not shown to the model.
        rule: rewards an answer.
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
        **_sampling(settings, chat.forbidden_ids),
    )
    reward = _Reward(examples.rows, chat, rule)
    annotated = sum(len(row.regions or ()) for row in examples.rows) / len(examples)
    watch = _Watch(run.folder, reward, annotated)
    shown = {"reward": "reward", **{f"reward_{part}": part for part in rule.parts}, **_SHOWN}
    trainer = quiet(
        GRPOTrainer(
            model=model,
            reward_funcs=[reward],
            args=arguments,
            train_dataset=_dataset(examples),
            processing_class=chat.processor,
            callbacks=callbacks(run, shown, watch),
            optimizers=(projector_optimizer(model, config.optim), None),
        )
    )
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return {"epochs": round(float(trainer.state.epoch), 3), "steps": trainer.state.global_step}


class _Reward:
    """TRL's reward function: what sampled answers earn, and its parts as metrics.

    One function, since TRL's own weights of several are constant.

    Attributes:
        latest: the last answers with their rewards, for people.
        counts: regions of each of the last `_RECENT` answers.
    """

    __name__ = "answer"  # in TRL's names of metrics

    def __init__(self, rows: Sequence[Row], chat: ImageChat, rule: RewardRule) -> None:
        self._rows, self._chat, self._rule = rows, chat, rule
        self.latest: deque[dict[str, Any]] = deque(maxlen=_SAMPLES)
        self.counts: deque[float] = deque(maxlen=_RECENT)

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
        found = []
        for ids, number in zip(completion_ids, row, strict=True):
            text = self._chat.decode(ids)
            one = self._rule(text, self._rows[number], step, steps)
            found.append(one)
            self.counts.append(one.figures["regions"])
            known = {"step": step, "image": self._rows[number].location, "answer": text}
            self.latest.append({**known, "reward": one.total, **one.parts})
        columns = {f"reward_{name}": [e.parts[name] for e in found] for name in self._rule.parts}
        columns |= {name: [e.figures[name] for e in found] for name in found[0].figures}
        columns["format_lost"] = [float(e.parts["format"] == 0) for e in found]
        for name, values in columns.items():
            log_metric(name, sum(values) / len(values))
        return [one.total for one in found]


class _Watch:
    """Writes sample answers, and warns when the number of regions runs away from the data's."""

    def __init__(self, folder: Path, reward: _Reward, annotated: float) -> None:
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


def _dataset(examples: RowExamples) -> Dataset:
    """Questions as TRL reads them; images are decoded when a batch is made."""

    def load(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        chosen = [examples.example(number) for number in batch["row"]]
        return {
            "images": [[Image.fromarray(pixels)] for pixels, _, _ in chosen],
            "prompt": [messages for _, messages, _ in chosen],
            "row": batch["row"],
        }

    return Dataset.from_dict({"row": list(range(len(examples)))}).with_transform(load)
