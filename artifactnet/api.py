"""One function per task, whatever kind of model it is about: train, evaluate, distill.

A detector and a HEIE on a language model are trained and evaluated by different code. These
functions choose by the configuration, or by what is saved, so that Python and the command line
have one door each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifactnet.config import Config
from artifactnet.types import ArtifactNetError

if TYPE_CHECKING:
    from artifactnet.llm.client import Chat
    from artifactnet.runs.run_folder import RunResult
    from artifactnet.vlm.fakexplainer.endpoint import EndpointPredictor


def train(config: Config) -> RunResult:
    """Train, evaluate and save a model.

    Args:
        config: the run; `load_config` reads one. With ``mllm.base`` a HEIE or, with
            ``mllm.task=fakexplainer``, a FakeXplainer on that language model is trained, or, with
            ``qreal_object`` and ``qreal_image``, a model of Q-Real's tasks, or, with ``xaigd_pad``,
            one that finds artifacts of X-AIGD's categories (extras ``mllm``, ``mllm-train``),
            otherwise a detector.

    Returns:
        Folder and results of the run.

    Raises:
        ArtifactNetError: any user error; what was saved before stays loadable.
        KeyboardInterrupt: Ctrl-C; how to resume has been printed.
    """
    if config.mllm.task == "fakexplainer":
        from artifactnet.vlm.fakexplainer.trainer import train_fakexplainer

        return train_fakexplainer(config)
    if config.mllm.task.startswith("qreal_"):
        from artifactnet.vlm.qreal.trainer import train_qreal

        return train_qreal(config)
    if config.mllm.task == "xaigd_pad":
        from artifactnet.vlm.xaigd.trainer import train_pad

        return train_pad(config)
    if config.mllm.base is not None:
        from artifactnet.vlm.heie.trainer import train_heie

        return train_heie(config)
    from artifactnet.training.trainer import train_detector

    return train_detector(config)


def evaluate(
    source: str | Path | EndpointPredictor,
    overrides: Sequence[str] = (),
    *,
    text: str | None = None,
    chat: Chat | None = None,
) -> dict[str, Any]:
    """Evaluate a trained model on the test split of its own data, or on other data.

    Args:
        source: the folder of a run (results are written below it), any model that `load_model`
            takes, or what `load_endpoint` returns.
        overrides: ``dotted.key=value`` strings; which keys each kind of model accepts is in
            `artifactnet.evaluation.evaluate`, `artifactnet.vlm.heie.evaluate` and
            `artifactnet.vlm.fakexplainer.evaluate`.
        text: HEIE on a language model only: ``generate``, ``template`` or ``given``.
        chat: HEIE on a language model only: a judge of how similar its texts are to the
            annotated ones.

    Returns:
        The content of ``results.json``.

    Raises:
        ArtifactNetError: no such model, an override that an evaluation cannot have, or data that
            cannot be used.
    """
    from artifactnet.vlm.fakexplainer.saving import is_fakexplainer
    from artifactnet.vlm.heie.saving import is_heie

    if isinstance(source, str | Path) and is_heie(source):
        from artifactnet.vlm.heie.evaluate import evaluate_heie

        return evaluate_heie(source, overrides, text, chat)
    if text is not None or chat is not None:
        raise ArtifactNetError(
            f"{source}: text and chat are for a HEIE on a language model, which this is not"
        )
    if not isinstance(source, str | Path):
        from artifactnet.vlm.fakexplainer.evaluate import evaluate_endpoint

        return evaluate_endpoint(source, overrides)
    if is_fakexplainer(source):
        from artifactnet.vlm.fakexplainer.evaluate import evaluate_fakexplainer

        return evaluate_fakexplainer(source, overrides)
    from artifactnet.evaluation.evaluate import evaluate_file, evaluate_run, is_model_file

    return (evaluate_file if is_model_file(source) else evaluate_run)(source, overrides)


def distill(config: Config, label_only: bool = False) -> RunResult | Path:
    """Label the images of a run with a teacher, and train a student on the pseudo-labels.

    Args:
        config: the student's run; ``distill.teacher`` names the teacher.
        label_only: only fill the cache of pseudo-labels.

    Returns:
        Folder and results of the run; with ``label_only`` the folder of the cache.

    Raises:
        ArtifactNetError: no teacher, or any user error of `train`.
    """
    from artifactnet.distillation.distill import label_run, need_teacher

    need_teacher(config)
    return label_run(config) if label_only else train(config)
