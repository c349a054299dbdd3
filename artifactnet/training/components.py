"""Which components of a model learn in a run, and notices about those that were not trained."""

from __future__ import annotations

from collections.abc import Sequence

from artifactnet.config import Config
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.heads.scorer import UNSCORED
from artifactnet.rules import heatmap_terms, teacher_terms
from artifactnet.types import ArtifactNetError

# of components that no loss of any run has reached
UNTRAINED = {
    "head": "the real-or-fake verdict is UNTRAINED (no loss trained it): do not use it",
    "segmentation": "the segmentation is UNTRAINED (no loss trained it): do not use its masks",
    "heatmap": "the heatmap head is UNTRAINED (no loss trained it): do not use its heatmaps",
}
# of components that a later run left as they were while it trained the backbone
OUTDATED = {
    "head": "the real-or-fake verdict was trained with an EARLIER backbone: do not rely on it",
    "segmentation": "the segmentation was trained with an EARLIER backbone: do not rely on it",
    "heatmap": "the heatmap head was trained with an EARLIER backbone: do not rely on it",
}
DDP_FIND_UNUSED = "ddp_find_unused_parameters_true"  # Lightning's name; costs time in every step


def choose_components(model: ArtifactNet, config: Config, fresh: Sequence[str]) -> None:
    """Freeze what a run must not or cannot train, and update the model's notices.

    A component learns if a loss reaches it and ``config.freeze`` does not name it. Freezing what
    no loss reaches also keeps distributed training in step, which waits for every gradient.
    Components named in ``fresh`` have weights that come from no earlier run.

    Raises:
        ArtifactNetError: a frozen component does not exist, or nothing can learn.
    """
    available = model.parts()
    missing = [part for part in config.freeze if part not in available]
    if missing:
        raise ArtifactNetError(
            f"freeze: the model has no {missing[0]} (it has {', '.join(available)})"
        )
    loss, distilled = config.loss, config.distill.teacher is not None
    reached = {
        "backbone": True,
        "head": loss.bce > 0
        or loss.alignment.weight > 0
        or (distilled and config.distill.logit > 0),
        "segmentation": loss.segmentation.weight > 0,
        "heatmap": any(heatmap_terms(config)) or any(teacher_terms(config)),
        "context": loss.bce > 0,
    }
    learning = {part for part in available if reached[part] and part not in config.freeze}
    if not learning:
        raise ArtifactNetError(
            f"nothing learns: freeze={config.freeze} leaves no part that a loss reaches"
        )
    model.freeze([part for part in available if part not in learning])
    if config.freeze_blocks and "backbone" in learning:
        model.freeze_blocks(config.freeze_blocks)
    # models saved by earlier versions word it differently
    earlier = [n.replace("no loss taught it", "no loss trained it") for n in model.notices]
    notices = [n for n in earlier if n not in (*UNTRAINED.values(), *OUTDATED.values())]
    if "heatmap" in fresh and UNSCORED not in notices:
        notices.append(UNSCORED)  # until the first score, see `drop_score_notice`
    for part in UNTRAINED:
        if part not in available or part in learning:
            continue
        if part in fresh or UNTRAINED[part] in earlier:
            notices.append(UNTRAINED[part])
        elif "backbone" in learning or OUTDATED[part] in earlier:
            notices.append(OUTDATED[part])
    model.notices = tuple(notices)


def drop_score_notice(model: ArtifactNet) -> None:
    """Remove the notice of an untrained score: a training image had one."""
    model.notices = tuple(notice for notice in model.notices if notice != UNSCORED)


def ddp_strategy(config: Config) -> str:
    """Lightning's name for training in several processes.

    The slower form, which looks for weights without a gradient in every step, is used only where
    losses leave some: a heatmap head's score without a loss, or a mapper's deviation.
    """
    heatmap, distilled = config.model.heatmap.head, config.distill.teacher is not None
    if heatmap == "none" or "heatmap" in config.freeze:
        return "ddp"
    annotated, distill = config.loss.heatmap, config.distill
    score = annotated.score > 0 or (distilled and distill.score > 0)
    laplace = annotated.laplace > 0 or (distilled and distill.laplace > 0)
    if score and (laplace or heatmap != "mapper"):
        return "ddp"
    return DDP_FIND_UNUSED
