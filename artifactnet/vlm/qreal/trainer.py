"""Fine-tuning on Q-Real (Q-Real, Sec. 4 and 5): ObjectQA or ImageQA, then its benchmark."""

from __future__ import annotations

import gc
import os
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from artifactnet.config import Config
from artifactnet.files import write_json, write_text
from artifactnet.runs.device import own_device
from artifactnet.runs.run_folder import RunResult
from artifactnet.training.run import Run, start_run
from artifactnet.vlm.base import require_mllm_extra
from artifactnet.vlm.fakexplainer.arguments import require_training_extra
from artifactnet.vlm.fakexplainer.trainer import launch, same_everywhere, unsupported
from artifactnet.vlm.image_chat import load_image_chat
from artifactnet.vlm.qreal.benchmark import run_benchmark
from artifactnet.vlm.qreal.pages import results_page
from artifactnet.vlm.qreal.prompts import Context
from artifactnet.vlm.qreal.rows import OBJECT, QRealData, QRealExamples
from artifactnet.vlm.qreal.saving import FACTS, MARKS, check_qreal_adapters, save_qreal
from artifactnet.vlm.questions import load_answerer
from artifactnet.vlm.tuned import build_tuned

BENCHMARK = "benchmark"  # folder of answers and figures


def train_qreal(config: Config) -> RunResult:
    """Train, evaluate and save a model by a config with ``mllm.task=qreal_object|qreal_image``.

    With ``train.devices`` above 1, that many processes are started, unless a launcher (torchrun,
    accelerate) has started them.

    Raises:
        ArtifactNetError: any user error; what was saved before stays loadable.
        KeyboardInterrupt: Ctrl-C; how to resume has been printed.
    """
    if config.train.devices > 1 and "RANK" not in os.environ:
        return launch(config, train_qreal)
    with start_run(config, unsupported(config)) as run:
        # peft and TRL still use the old name
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.*is deprecated")
        require_mllm_extra()
        require_training_extra()
        training, data = _train(run)
        if not run.main:
            return RunResult(run.folder, {})
        gc.collect()  # only one base model fits
        if run.device == "cuda":
            torch.cuda.empty_cache()
        results = _evaluate(run, data, training)
        figures = results_page(results["benchmark"])
        saved = f"{run.folder / FACTS} and the files next to it"
        usage = [f"artifactnet benchmark-qreal OTHER.jsonl --model {run.folder} --out DIR"]
        return run.finish(results, figures, saved, usage)


def _train(run: Run) -> tuple[dict[str, Any], QRealData]:
    """Facts about the training, and its data; the trained model is in the run's folder."""
    from artifactnet.vlm.fakexplainer.callbacks import newest_checkpoint
    from artifactnet.vlm.fakexplainer.sft import learn_answers

    config = run.config
    adapters = None if config.mllm.adapters is None else Path(config.mllm.adapters)
    if adapters is not None:
        check_qreal_adapters(adapters, config.mllm)
    data = QRealData(config)
    chat = load_image_chat(config.mllm, MARKS)
    rows, val_rows = data.rows("train", chat), data.rows("val", chat)
    tokens = len(chat.processor.tokenizer)
    model, mllm = build_tuned(config.mllm, tokens, own_device(run.device), adapters)
    parameters = list(model.parameters())
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    run.open_folder(
        data,
        f"{config.mllm.task} on {config.mllm.base}, {learning:,} of "
        f"{sum(p.numel() for p in parameters):,} parameters learn, {len(rows)} questions",
    )
    checkpoint = newest_checkpoint(run.folder) if run.main and config.resume else None
    checkpoint = same_everywhere(checkpoint)
    if config.resume and run.main:
        start = "the start" if checkpoint is None else checkpoint.name.replace("-", " of step ")
        print(f"resume: from {start}", flush=True)
    started = time.perf_counter()
    examples, val = QRealExamples(rows), QRealExamples(val_rows)
    try:
        facts = learn_answers(run, model, chat.processor, examples, val, checkpoint)
    except KeyboardInterrupt:
        if run.main:
            print("\nstopped; resume=true continues the run from its last checkpoint", flush=True)
        raise
    facts |= {
        "seconds": round(time.perf_counter() - started, 1),
        "parameters": {"trained": learning, "total": sum(p.numel() for p in parameters)},
        "questions": len(rows),
    }
    if run.main:
        unverified = data.summary["unverified"]
        notices = ["trained on annotations that no person has verified"] if unverified else []
        extra = {"run": config.name, "epoch": facts["epochs"], "step": facts["steps"]}
        save_qreal(model, chat, mllm, run.folder, {**extra, "notices": notices})
    return facts, data


def _evaluate(run: Run, data: QRealData, training: dict[str, Any]) -> dict[str, Any]:
    """The benchmark on the test split; on val or train, with a warning, where there is none."""
    config = run.config
    split = next(name for name in ("test", "val", "train") if name in data.splits)
    is_object = config.mllm.task == OBJECT
    context: Context = "image" if config.mllm.context == "image" else "crop"
    answerer = load_answerer(run.folder, own_device(run.device), config.mllm.max_new_tokens)
    assert config.data.root is not None
    found = run_benchmark(
        config.data.root,
        answerer,
        run.folder / BENCHMARK,
        tasks=["object" if is_object else "image"],
        split=split,
        context=context,
        tuned=is_object,
        batch_size=config.data.eval_batch_size or config.data.batch_size,
    )
    if split != "test":
        found["figures"]["warnings"].append(f"no test split: these figures are of {split}")
    results = {
        "run": config.name,
        "data": {"name": config.data.name, "root": config.data.root, "split": split},
        "images": found["figures"]["images"],
        "model": {"base": config.mllm.base, "epoch": training["epochs"]},
        "notices": list(answerer.notices),
        "training": training,
        "benchmark": found,
    }
    write_json(run.folder / "results.json", results)
    write_text(run.folder / "results.md", results_page(found))
    return results
