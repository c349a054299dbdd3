"""GRPO on annotated images of X-AIGD, then figures by category (X-AIGD, App. C.3, Table 12)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifactnet.config import Config
from artifactnet.data.shards import find_shards
from artifactnet.runs.device import own_device
from artifactnet.runs.run_folder import RunResult
from artifactnet.training.run import Run
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.questions import load_answerer
from artifactnet.vlm.rows import RowExamples, TaskData
from artifactnet.vlm.tuned import build_tuned
from artifactnet.vlm.tuned_chat import check_adapters, facts_name, save_tuned_chat
from artifactnet.vlm.tuning_run import (
    fit_tuned,
    free_memory,
    train_in_processes,
    tuning_run,
    write_benchmark_results,
)
from artifactnet.vlm.xaigd.baselines import run_instances
from artifactnet.vlm.xaigd.pages import page
from artifactnet.vlm.xaigd.processing import load_pad_processing
from artifactnet.vlm.xaigd.rewards import PadRule

BENCHMARK = "benchmark"  # folder of answers and figures


def train_pad(config: Config) -> RunResult:
    """Train, evaluate and save a model by a config with ``mllm.task=xaigd_pad``.

    With ``train.devices`` above 1, that many processes are started, unless a launcher (torchrun,
    accelerate) has started them.

    Raises:
        ArtifactNetError: any user error; what was saved before stays loadable.
        KeyboardInterrupt: Ctrl-C; how to resume has been printed.
    """
    launched = train_in_processes(config, train_pad)
    if launched is not None:
        return launched
    with tuning_run(config) as run:
        training, images, split = _train(run)
        if not run.main:
            return RunResult(run.folder, {})
        free_memory(run)
        results = _evaluate(run, images, split, training)
        saved = f"{run.folder / facts_name(config.mllm.task)} and the files next to it"
        command = "artifactnet benchmark-xaigd instances --labels OTHER.parquet"
        usage = [f"{command} --model {run.folder} --out DIR"]
        return run.finish(results, page(results["benchmark"]), saved, usage)


def _train(run: Run) -> tuple[dict[str, Any], set[tuple[str, str]], str]:
    """Facts about the training; fakes (generator, uid) of the evaluation, and their split.

    The trained model is in the run's folder.
    """
    from artifactnet.vlm.grpo import learn_by_rewards

    config = run.config
    adapters = None if config.mllm.adapters is None else Path(config.mllm.adapters)
    if adapters is not None:
        check_adapters(adapters, config.mllm)
    data = TaskData(config)
    chat = load_pad_processing(config.mllm)
    rows = data.rows("train", chat, clean_fakes=True)
    if not any(row.regions for row in rows):
        raise ArtifactNetError(
            f"data.root={config.data.root}: no image of the train split has a polygon, so there "
            "is nothing to detect"
        )
    # opened before the training, so that a bad one is not found after it
    split = next(name for name in ("test", "val", "train") if name in data.splits)
    tested = rows if split == "train" else data.rows(split, chat, clean_fakes=True)
    records = [data.splits[split].records[row.index] for row in tested if row.is_fake]
    images = {(record.generator, record.uid) for record in records}
    if not images:
        raise ArtifactNetError(f"data.root={config.data.root}: no annotated fake in split {split}")
    tokens = len(chat.processor.tokenizer)
    model, mllm = build_tuned(config.mllm, tokens, own_device(run.device), adapters)
    examples = RowExamples(data, "train", rows, chat.messages)

    def train(checkpoint: Path | None) -> dict[str, Any]:
        return learn_by_rewards(run, model, chat, examples, PadRule(), checkpoint)

    title = f"{config.mllm.task} ({config.mllm.stage}) on {config.mllm.base}"
    facts = fit_tuned(run, model, data, title, (len(rows), "images"), train)
    if run.main:
        extra = {"run": config.name, "epoch": facts["epochs"], "step": facts["steps"]}
        save_tuned_chat(model, chat, mllm, run.folder, {**extra, "notices": []})
    return facts, images, split


def _evaluate(
    run: Run, images: set[tuple[str, str]], split: str, training: dict[str, Any]
) -> dict[str, Any]:
    """``benchmark-xaigd instances`` on the fakes of a split."""
    config = run.config
    shards, _ = find_shards(Path(str(config.data.root)))
    found = run_instances(
        [path for part, paths in shards.items() if part.startswith("labeled") for path in paths],
        run.folder / BENCHMARK,
        load_answerer(run.folder, own_device(run.device), config.mllm.max_new_tokens),
        only=images,
        batch_size=config.data.eval_batch_size or config.data.batch_size,
        replace=True,  # the folder is this run's alone
        warnings=[] if split == "test" else [f"no test split: these figures are of {split}"],
    )
    count = found["figures"]["images"]
    return write_benchmark_results(run, split, training, found, count, [], page(found))
