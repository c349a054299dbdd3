"""Which validation counts as the best."""

import pytest

from artifactnet.training.checkpoints import BestModel


def rank(monitor, **figures):
    return BestModel("unused", monitor, {})._rank(figures)


def test_higher_accuracy_wins_whatever_the_loss():
    better = rank("balanced_accuracy", balanced_accuracy=0.7, loss=2.0)
    assert better > rank("balanced_accuracy", balanced_accuracy=0.69, loss=1.0)


def test_equal_counts_tie_although_their_floats_differ():
    one, other = (0.7 + 0.1) / 2, (0.3 + 0.1 + 0.4) / 2
    assert one != other
    early = rank("balanced_accuracy", balanced_accuracy=max(one, other), loss=1.2)
    late = rank("balanced_accuracy", balanced_accuracy=min(one, other), loss=1.1)
    assert late > early


def test_the_loss_is_better_when_lower():
    assert rank("loss", balanced_accuracy=0.5, loss=0.9) > rank(
        "loss", balanced_accuracy=0.9, loss=1.0
    )


@pytest.mark.parametrize("monitor", ["balanced_accuracy", "map_iou", "loss"])
def test_an_equal_validation_does_not_replace_the_earlier_one(monitor):
    figures = {"balanced_accuracy": 0.6, "map_iou": 0.1, "loss": 1.0}
    assert not rank(monitor, **figures) > rank(monitor, **figures)
