"""What two processes learn from the one reduction of a training step."""

import math
from types import SimpleNamespace

import torch
from torch import nn
from two_processes import run_both

from artifactnet.config import Config
from artifactnet.training.base import TrainingModule
from artifactnet.types import Annotation, ArtifactNetError, Record


class Step(TrainingModule):
    """Takes steps without a trainer."""

    trainer = SimpleNamespace(world_size=2)
    global_step = 7

    def __init__(self):
        super().__init__(nn.Linear(1, 1), Config())
        self.logged = None

    def trains_score(self, batch):
        return batch.scored

    def log_dict(self, values, batch_size, **_):
        self.logged = {name: float(value) for name, value in values.items()}, batch_size


def take_steps(steps):
    """What each step, given as (loss, images, scored), does in this process."""
    module, reductions, found = Step(), [], []
    reduce = torch.distributed.all_reduce
    torch.distributed.all_reduce = lambda tensor: (reductions.append(1), reduce(tensor))
    for loss, images, scored in steps:
        records = [Record("u", 1, "g", Annotation.MASK, f"image {k}") for k in range(images)]
        terms = {"loss": torch.tensor(loss), "text": torch.tensor(2 * loss)}
        error = None
        try:
            module.finish_step(terms, SimpleNamespace(record=records, scored=scored))
        except ArtifactNetError as caught:
            error = str(caught)
        found.append([module.scored, module.logged, error])
    return found, len(reductions)


def test_one_reduction_tells_all_processes_everything(tmp_path):
    shares = [
        [(1.0, 3, False), (2.0, 4, False), (3.0, 4, False)],
        [(5.0, 1, False), (2.0, 4, True), (math.inf, 6, False)],
    ]
    both = run_both(take_steps, shares, tmp_path)
    for found, reductions in both:
        assert reductions == 3
        # weighted by images: (3 * 1 + 1 * 5) / 4
        assert found[0] == [False, [{"train/loss": 2.0, "train/text": 4.0}, 4], None]
        assert found[1] == [True, [{"train/loss": 2.0, "train/text": 4.0}, 8], None]
        scored, _, error = found[2]
        assert scored
        assert "not finite at step 7" in error
    assert "loss inf, text inf; images image 0, image 1, image 2, image 3, ..." in both[1][0][2][2]


def test_logged_means_are_those_of_the_terms(monkeypatch):
    monkeypatch.setattr(Step, "trainer", SimpleNamespace(world_size=1))
    (found,), reductions = take_steps([(0.1, 3, False)])
    assert reductions == 0
    assert found[1][0] == {
        "train/loss": float(torch.tensor(0.1)), "train/text": float(torch.tensor(0.2))
    }  # fmt: skip
