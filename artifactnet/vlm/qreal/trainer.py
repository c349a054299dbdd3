"""Fine-tuning on Q-Real (Q-Real, Sec. 4 and 5): ObjectQA or ImageQA, then its benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifactnet.config import Config
from artifactnet.runs.device import own_device
from artifactnet.runs.run_folder import RunResult
from artifactnet.training.run import Run
from artifactnet.vlm.image_chat import load_image_chat
from artifactnet.vlm.qreal.benchmark import run_benchmark
from artifactnet.vlm.qreal.pages import results_page
from artifactnet.vlm.qreal.rows import OBJECT, STAGE_TASKS, QRealData, QRealExamples
from artifactnet.vlm.questions import load_answerer
from artifactnet.vlm.tuned import build_tuned
from artifactnet.vlm.tuned_chat import MARKS, check_adapters, facts_name, save_tuned_chat
from artifactnet.vlm.tuning_run import (
    fit_tuned,
    free_memory,
    train_in_processes,
    tuning_run,
    write_benchmark_results,
)

BENCHMARK = "benchmark"  # folder of answers and figures
_OF_A_CHAIN = """# Q-Real: {}

One of three models that answer in a chain. It has no figures of its own.
"""


def train_qreal(config: Config) -> RunResult:
    """Train, evaluate and save a model by a config with one of ``mllm.task=qreal_...``.

    With ``train.devices`` above 1, that many processes are started, unless a launcher (torchrun,
    accelerate) has started them.

    Raises:
        ArtifactNetError: any user error; what was saved before stays loadable.
        KeyboardInterrupt: Ctrl-C; how to resume has been printed.
    """
    launched = train_in_processes(config, train_qreal)
    if launched is not None:
        return launched
    with tuning_run(config) as run:
        training, data = _train(run)
        if not run.main:
            return RunResult(run.folder, {})
        free_memory(run)
        results, figures = _evaluate(run, data, training)
        saved = f"{run.folder / facts_name(config.mllm.task)} and the files next to it"
        usage = [f"artifactnet benchmark-qreal OTHER.jsonl --model {run.folder} --out DIR"]
        if config.mllm.task in STAGE_TASKS:
            usage = [
                "artifactnet benchmark-qreal OTHER.jsonl --chain DETECT FILTER DESCRIBE --out DIR"
            ]
        return run.finish(results, figures, saved, usage)


def _train(run: Run) -> tuple[dict[str, Any], QRealData]:
    """Facts about the training, and its data; the trained model is in the run's folder."""
    from artifactnet.vlm.sft import learn_answers

    config = run.config
    adapters = None if config.mllm.adapters is None else Path(config.mllm.adapters)
    if adapters is not None:
        check_adapters(adapters, config.mllm)
    data = QRealData(config)
    chat = load_image_chat(config.mllm, MARKS)
    rows, val_rows = data.rows("train", chat), data.rows("val", chat)
    tokens = len(chat.processor.tokenizer)
    model, mllm = build_tuned(config.mllm, tokens, own_device(run.device), adapters)
    examples, val = QRealExamples(rows), QRealExamples(val_rows)

    def train(checkpoint: Path | None) -> dict[str, Any]:
        return learn_answers(run, model, chat.processor, examples, val, checkpoint)

    title = f"{config.mllm.task} on {config.mllm.base}"
    facts = fit_tuned(run, model, data, title, (len(rows), "questions"), train)
    if run.main:
        extra = {"run": config.name, "epoch": facts["epochs"], "step": facts["steps"]}
        save_tuned_chat(model, chat, mllm, run.folder, {**extra, "notices": data.notices})
    return facts, data


def _evaluate(run: Run, data: QRealData, training: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Results of a run and their page; a model of a chain answers no benchmark by itself."""
    config = run.config
    split = next(name for name in ("test", "val", "train") if name in data.splits)
    found = None if config.mllm.task in STAGE_TASKS else _benchmark(run, split)
    page = _OF_A_CHAIN.format(config.name) if found is None else results_page(found)
    count = len(data.splits[split].records)
    results = write_benchmark_results(run, split, training, found, count, data.notices, page)
    return results, page


def _benchmark(run: Run, split: str) -> dict[str, Any]:
    """Figures of the test split; of val or train, with a warning, where there is none."""
    config = run.config
    answerer = load_answerer(run.folder, own_device(run.device), config.mllm.max_new_tokens)
    assert config.data.root is not None
    return run_benchmark(
        config.data.root,
        answerer,
        run.folder / BENCHMARK,
        tasks=["object" if config.mllm.task == OBJECT else "image"],
        split=split,
        batch_size=config.data.eval_batch_size or config.data.batch_size,
        replace=True,  # the folder is this run's alone
        warnings=[] if split == "test" else [f"no test split: these figures are of {split}"],
    )
