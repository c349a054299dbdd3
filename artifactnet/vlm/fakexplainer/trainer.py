"""Training of a FakeXplainer: checks, one of two stages, evaluation, saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifactnet.config import Config
from artifactnet.runs.device import own_device
from artifactnet.runs.run_folder import RunResult
from artifactnet.training.run import Run
from artifactnet.vlm.fakexplainer.evaluate import evaluate_model, read_run_groups
from artifactnet.vlm.fakexplainer.pages import terminal, write
from artifactnet.vlm.fakexplainer.processing import load_fakexplainer_processing
from artifactnet.vlm.fakexplainer.rewards import ProgressiveRule
from artifactnet.vlm.fakexplainer.saving import (
    FACTS,
    build_fakexplainer,
    check_adapters,
    load_fakexplainer,
    save_fakexplainer,
)
from artifactnet.vlm.rows import RowExamples, TaskData
from artifactnet.vlm.tuning_run import fit_tuned, free_memory, train_in_processes, tuning_run


def train_fakexplainer(config: Config) -> RunResult:
    """Train, evaluate and save a FakeXplainer, by a config with ``mllm.task=fakexplainer``.

    With ``train.devices`` above 1, that many processes are started, unless a launcher (torchrun,
    accelerate) has started them.

    Raises:
        ArtifactNetError: any user error; what was saved before stays loadable.
        KeyboardInterrupt: Ctrl-C; how to resume has been printed.
    """
    launched = train_in_processes(config, train_fakexplainer)
    if launched is not None:
        return launched
    with tuning_run(config) as run:
        training, data = _train(run)
        if not run.main:
            return RunResult(run.folder, {})
        free_memory(run)
        model = load_fakexplainer(run.folder, own_device(run.device))
        results = evaluate_model(model, data, config, run.folder)
        results["training"] = training
        write(run.folder, results)
        saved = f"{run.folder / FACTS} and the files next to it"
        usage = [f"artifactnet predict photo.jpg --model {run.folder}"]
        if config.mllm.stage == "sft":
            demo = config.data.name == "demo"
            recipe = "fakexplainer_nano_grpo" if demo else "paper/fakexplainer_grpo"
            usage.append(f"artifactnet train {recipe} mllm.adapters={run.folder}")
        return run.finish(results, terminal(results), saved, usage)


def _train(run: Run) -> tuple[dict[str, Any], TaskData]:
    """Facts about the training, and its data; the trained model is in the run's folder."""
    config, adapters = run.config, run.config.mllm.adapters
    # what could else fail after every image is opened, or the base, of gigabytes, is loaded
    read_run_groups(config)
    if adapters is not None:
        check_adapters(Path(adapters), config.mllm)
    data = TaskData(config)
    processing = load_fakexplainer_processing(config.mllm)
    rows = data.rows("train", processing)
    wanted = config.mllm.stage == "sft" and "val" in data.splits
    val_rows = data.rows("val", processing) if wanted and data.splits["val"].records else []
    trained = build_fakexplainer(config.mllm, own_device(run.device), adapters)

    examples = RowExamples(data, "train", rows, processing.messages)
    val = RowExamples(data, "val", val_rows, processing.messages)

    def train(checkpoint: Path | None) -> dict[str, Any]:
        if config.mllm.stage == "sft":
            from artifactnet.vlm.sft import learn_answers

            return learn_answers(
                run, trained.model, processing.processor, examples, val, checkpoint
            )
        from artifactnet.vlm.grpo import learn_by_rewards

        rule = ProgressiveRule(config.mllm.grpo, processing.drop, processing.form)
        return learn_by_rewards(run, trained.model, processing, examples, rule, checkpoint)

    title = f"FakeXplainer ({config.mllm.stage}) on {config.mllm.base}"
    facts = fit_tuned(run, trained.model, data, title, (len(rows), "images"), train)
    if run.main:
        extra = {"run": config.name, "epoch": facts["epochs"], "step": facts["steps"]}
        save_fakexplainer(trained, run.folder, {**extra, "notices": []})
    return facts, data
