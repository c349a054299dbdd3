"""The forms of a training step that the benchmark compares."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from artifactnet.engine import benchmark_naive as naive
from artifactnet.models.artifact_net import ArtifactNet

FLOOR = "sdpa"


@dataclass(frozen=True)
class Form:
    """A way to take the step.

    Attributes:
        text: what it is, in a line.
        judge: logits and heatmaps of a batch.
        gradient: forms with the same name here have the same gradient; None: no alignment.
    """

    text: str
    judge: Callable[[ArtifactNet, Tensor], naive.Judged]
    gradient: str | None = None


def _own(form: str, second_order: bool) -> Callable[[ArtifactNet, Tensor], naive.Judged]:
    """The library's map, with these options."""

    def judge(model: ArtifactNet, images: Tensor) -> naive.Judged:
        options = model.config.attention
        changed = dataclasses.replace(options, form=form, second_order=second_order)
        model.config.attention = changed
        try:
            output = model(images, attention=True, create_graph=True)
        finally:
            model.config.attention = options
        return output.logit, output.heatmap

    return judge


_PLAIN = Form("no alignment, fused attention: the floor", naive.plain)
_UNFUSED = Form("no alignment, every block forms its N x N weights", naive.unfused)
# the baseline of a method is the last of its forms
FORMS: dict[str, dict[str, Form]] = {
    "rollout": {
        FLOOR: _PLAIN,
        "unfused": _UNFUSED,
        "fused": Form(
            "model.attention.form=auto: nothing N x N is stored", _own("auto", True), "exact"
        ),
        "stored row": Form(
            "model.attention.form=stored: weights kept, the class row multiplied through them",
            _own("stored", True),
            "exact",
        ),
        "naive": Form(
            "weights of all heads and blocks kept, N x N products, as public scripts do",
            naive.naive_rollout,
            "exact",
        ),
    },
    "gradient_rollout": {
        FLOOR: _PLAIN,
        "unfused": _UNFUSED,
        "extra backward": Form(
            "no alignment, one more backward to the attention outputs: the method's floor",
            naive.extra_backward,
        ),
        "first order": Form(
            "second_order=false, form=auto: of a block and image one N x N matrix, heads fused, is "
            "stored while N <= 4 x width; beyond that nothing N x N",
            _own("auto", False),
            "first",
        ),
        "stored first order": Form(
            "second_order=false, form=stored: weights kept, row products",
            _own("stored", False),
            "first",
        ),
        "second order": Form(
            "second_order=true, form=auto: attention is not fused, every head's matrices stored",
            _own("auto", True),
            "second",
        ),
        "plain create_graph": Form(
            "gradient of kept weights with create_graph, N x N products, as public scripts do",
            naive.naive_gradient_rollout,
            "second",
        ),
    },
}


def baseline_of(method: str) -> str:
    """The form that does what public scripts do."""
    return list(FORMS[method])[-1]
