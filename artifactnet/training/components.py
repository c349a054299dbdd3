"""Which parts of a model learn in a run, and what is said of those that never did."""

from __future__ import annotations

from collections.abc import Sequence

from artifactnet.config import Config, heatmap_terms, teacher_terms
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError

UNTRAINED = {
    "head": "the real-or-fake verdict is UNTRAINED (no loss taught it): do not use it",
    "segmentation": "the segmentation is UNTRAINED (no loss taught it): do not use its masks",
    "heatmap": "the heatmap head is UNTRAINED (no loss taught it): do not use its heatmaps",
}
LOOKING = "ddp_find_unused_parameters_true"  # of Lightning, the costly form
UNSCORED = "the score is UNTRAINED (no training image had one): do not use it"
OUTDATED = {
    "head": "the real-or-fake verdict was trained with an EARLIER backbone: do not rely on it",
    "segmentation": "the segmentation was trained with an EARLIER backbone: do not rely on it",
    "heatmap": "the heatmap head was trained with an EARLIER backbone: do not rely on it",
}


def choose(model: ArtifactNet, config: Config, fresh: Sequence[str]) -> None:
    """Freeze what a run shall not or cannot teach, and keep the model's notices true.

    A part learns if a loss reaches it and ``config.freeze`` does not name it. Freezing what no
    loss reaches also keeps distributed training in step, which waits for every gradient.

    Args:
        model: about to be trained; its notices are brought up to date.
        config: the run.
        fresh: parts whose weights come from no earlier run.

    Raises:
        ArtifactNetError: a frozen part does not exist, or nothing is left to learn.
    """
    available = model.parts()
    missing = [part for part in config.freeze if part not in available]
    if missing:
        raise ArtifactNetError(
            f"freeze: the model has no {missing[0]} (it has {', '.join(available)})"
        )
    loss, taught = config.loss, config.distill.teacher is not None
    reached = {
        "backbone": True,
        "head": loss.bce > 0 or loss.alignment.weight > 0 or (taught and config.distill.logit > 0),
        "segmentation": loss.segmentation.weight > 0,
        "heatmap": any(heatmap_terms(config)) or any(teacher_terms(config)),
    }
    learning = {part for part in available if reached[part] and part not in config.freeze}
    if not learning:
        raise ArtifactNetError(
            f"nothing learns: freeze={config.freeze} leaves no part that a loss reaches"
        )
    model.freeze([part for part in available if part not in learning])
    notices = [n for n in model.notices if n not in (*UNTRAINED.values(), *OUTDATED.values())]
    if "heatmap" in fresh and UNSCORED not in notices:
        notices.append(UNSCORED)  # until the first score is met, see `scored`
    for part in UNTRAINED:
        if part not in available or part in learning:
            continue
        if part in fresh or UNTRAINED[part] in model.notices:
            notices.append(UNTRAINED[part])
        elif "backbone" in learning or OUTDATED[part] in model.notices:
            notices.append(OUTDATED[part])
    model.notices = tuple(notices)


def ddp_strategy(config: Config) -> str:
    """Lightning's name for training in several processes.

    The costly form, which looks for weights without a gradient in every step, only where losses
    leave some: a heatmap head's score that nothing teaches, or a mapper's deviation.
    """
    heatmap, taught = config.model.heatmap.head, config.distill.teacher is not None
    if heatmap == "none" or "heatmap" in config.freeze:
        return "ddp"
    annotated, distilled = config.loss.heatmap, config.distill
    score = annotated.score > 0 or (taught and distilled.score > 0)
    laplace = annotated.laplace > 0 or (taught and distilled.laplace > 0)
    if score and (laplace or heatmap != "mapper"):
        return "ddp"
    return LOOKING


def scored(model: ArtifactNet) -> None:
    """Take back that the score is untrained: an image with one was met in training."""
    model.notices = tuple(notice for notice in model.notices if notice != UNSCORED)
