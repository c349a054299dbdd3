"""A fine-tuned vision-language model as one checkpoint for transformers, its adapters merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifactnet.config import MllmConfig
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.base import checkpoint_dtype
from artifactnet.vlm.fakexplainer import saving as fakexplainer
from artifactnet.vlm.heie import saving as heie
from artifactnet.vlm.saving import save_base
from artifactnet.vlm.tuned import BASE, mllm_of
from artifactnet.vlm.tuned_chat import is_tuned_chat, load_tuned_chat, read_tuned_chat


def merge_run(run: str | Path, out: str | Path) -> Path:
    """Write the base of a run with its adapters added to its weights.

    The checkpoint is what ``mllm.base`` takes, and what servers such as vLLM open without adapters.
    It has the base's data type. Of a HEIE it is the language model alone, with the tokens ``[MAP]``
    and ``[SCORE]``: mapper and scorer stay in the run.

    Args:
        run: folder of a HEIE, a FakeXplainer, or a model of Q-Real or X-AIGD.
        out: folder to write; must not exist.

    Returns:
        ``out``.

    Raises:
        ArtifactNetError: ``out`` exists; ``run`` is no such run, has no adapters, or was trained on
            a quantised base; or its parts cannot be loaded.
    """
    run, out = Path(run), Path(out)
    if out.exists():
        raise ArtifactNetError(f"{out}: exists already; name a new folder")
    if heie.is_heie(run):
        _check(run, mllm_of(heie.read_facts(run)["mllm"], run / heie.FACTS))
        found = heie.load_heie(run, merge=True)
        return _write(found.causal, found.processing.processor, found.mllm, out)
    if fakexplainer.is_fakexplainer(run):
        _check(run, mllm_of(fakexplainer.read_facts(run)["mllm"], run / fakexplainer.FACTS))
        tuned = fakexplainer.load_fakexplainer(run)
        return _write(tuned.model, tuned.processing.processor, tuned.mllm, out)
    if is_tuned_chat(run):
        _check(run, read_tuned_chat(run)[0])
        chat, model, mllm = load_tuned_chat(run)
        return _write(model, chat.processor, mllm, out)
    raise ArtifactNetError(
        f"{run}: no finished run of a vision-language model (no {heie.FACTS}, "
        f"{fakexplainer.FACTS}, qreal.json or xaigd.json)"
    )


def _check(run: Path, mllm: MllmConfig) -> None:
    if not mllm.lora_rank:
        raise ArtifactNetError(f"{run}: has no adapters (mllm.lora_rank=0); use {run / BASE}")
    if mllm.quantize != "none":
        raise ArtifactNetError(
            f"{run}: was trained with mllm.quantize={mllm.quantize}; adapters are not merged into "
            "quantised weights"
        )


def _write(model: Any, processor: Any, mllm: MllmConfig, out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    save_base(model.to(checkpoint_dtype(mllm)), processor, out)
    return out
