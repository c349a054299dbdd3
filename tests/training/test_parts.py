"""Which form of distributed training a run needs."""

from collections.abc import Callable

import pytest

from artifactnet.config import Config
from artifactnet.training.components import ddp_strategy

PLAIN, SEARCHING = "ddp", "ddp_find_unused_parameters_true"
HEAD = ("loss.alignment.weight=0", "loss.heatmap.focal=1", "model.heatmap.head=decoder")
MAPPER = (
    *("loss.alignment.weight=0", "loss.heatmap.focal=1", "model.heatmap.head=mapper"),
    "model.heatmap.tile=16",
)
TEACHER = "distill.teacher=somebody"


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        ((), PLAIN),
        (HEAD, SEARCHING),
        ((*HEAD, "freeze=[heatmap]"), PLAIN),
        ((*HEAD, "loss.heatmap.score=1"), PLAIN),
        ((*HEAD, TEACHER), PLAIN),
        ((*HEAD, TEACHER, "distill.score=0"), SEARCHING),
        ((*HEAD, TEACHER, "distill.score=0", "loss.heatmap.score=1"), PLAIN),
        ((*MAPPER, "loss.heatmap.score=1"), SEARCHING),
        ((*MAPPER, "loss.heatmap.score=1", "loss.heatmap.laplace=1"), PLAIN),
        ((*MAPPER, "loss.heatmap.laplace=1"), SEARCHING),
        ((*MAPPER, TEACHER), PLAIN),
        ((*MAPPER, TEACHER, "distill.laplace=0"), SEARCHING),
    ],
)
def test_unused_weights_are_looked_for_only_where_losses_leave_some(
    tiny: Callable[..., Config], overrides: tuple[str, ...], wanted: str
) -> None:
    assert ddp_strategy(tiny(*overrides)) == wanted
