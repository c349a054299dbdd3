import copy

import numpy as np
import pytest

from artifactnet.config import load
from artifactnet.distillation.distill import label_run
from artifactnet.distillation.teachers import HeieTeacher, open_teacher
from artifactnet.models.heads.scorer import UNSCORED
from artifactnet.training.trainer import train_detector
from artifactnet.types import Annotation, ArtifactNetError, Record
from artifactnet.vlm.heie import saving

RNG = np.random.default_rng(6)
RECORD = Record("a", 1, "demo", Annotation.NONE, "a.png")


@pytest.fixture
def folder(heie, tmp_path):
    saving.save_heie(heie, tmp_path / "heie", {})
    return tmp_path / "heie"


def test_answers_are_those_of_the_fast_path(heie, folder):
    from artifactnet.vlm.heie.predictor import HeiePredictor

    images = [RNG.integers(0, 256, size, dtype=np.uint8) for size in ((60, 50, 3), (70, 200, 3))]
    teacher = open_teacher(folder)
    assert isinstance(teacher, HeieTeacher)
    answers = teacher.label([teacher.prepare(RECORD, image) for image in images])
    expected = HeiePredictor(heie, "template").predict(images, 2)
    for image, answer, wanted in zip(images, answers, expected, strict=True):
        assert answer.heatmap.shape == answer.sigma.shape == image.shape[:2]
        np.testing.assert_allclose(answer.heatmap, wanted.heatmap, atol=1e-5)
        assert answer.score == pytest.approx(wanted.score, abs=1e-5)
        assert np.isnan(answer.logit)  # plausibility is no verdict


def test_identity_changes_with_what_was_learnt(heie, folder, tmp_path):
    import torch

    before = HeieTeacher(folder).identity
    assert HeieTeacher(folder).identity == before
    with torch.no_grad():
        next(heie.head.parameters()).add_(0.1)
    saving.save_heie(heie, tmp_path / "other", {})
    assert HeieTeacher(tmp_path / "other").identity != before


def test_answer_that_is_not_a_number(folder):
    import torch

    teacher = HeieTeacher(folder)
    with torch.no_grad():
        teacher.predictor.model.head.mapper.maps.bias.fill_(torch.nan)
    ready = teacher.prepare(RECORD, RNG.integers(0, 256, (60, 60, 3), dtype=np.uint8))
    with pytest.raises(ArtifactNetError, match=r"a\.png: the model's answer is not a number"):
        teacher.label([ready])


def test_untrained_score_is_not_taught(heie, tmp_path):
    saving.save_heie(heie, tmp_path, {"notices": [UNSCORED, "and more"]})
    teacher = HeieTeacher(tmp_path)
    assert teacher.about["notices"] == [UNSCORED, "and more"]
    image = RNG.integers(0, 256, (60, 60, 3), dtype=np.uint8)
    assert np.isnan(teacher.label([teacher.prepare(RECORD, image)])[0].score)


def test_untrained_heatmap_is_refused(heie, tmp_path):
    saving.save_heie(heie, tmp_path, {"notices": [saving.UNMAPPED]})
    with pytest.raises(ArtifactNetError, match=r"distill\.teacher=.*heatmap and score are UNTR"):
        open_teacher(tmp_path)


def test_other_teachers_are_opened_as_ever(tmp_path):
    with pytest.raises(ArtifactNetError, match="nothing: no such"):
        open_teacher(tmp_path / "nothing")


@pytest.mark.slow
def test_student_learns_from_it_end_to_end(folder, tmp_path):
    """`artifactnet distill` as it is, with a HEIE as its teacher."""
    config = load(
        "student_nano",
        [
            *(f"distill.teacher={folder}", f"out={tmp_path / 'runs'}", "name=student"),
            *("data.name=demo", "data.demo_train=4", "data.demo_val=2", "data.demo_test=2"),
            *("data.demo_size=64", "model.image_size=[64,64]", "data.batch_size=4"),
            *("train.epochs=1", "distill.side=32", "train.tensorboard=false"),
        ],
    )
    cache = label_run(copy.deepcopy(config))
    shards = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    results = train_detector(config).results
    assert results["teacher"]["images"] == 4
    assert (tmp_path / "runs" / "student" / "model.safetensors").is_file()
    # nothing was asked twice
    again = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    assert again == shards
