"""``artifactnet distill``: what it asks for, and what it calls."""

import pytest

from artifactnet import api
from artifactnet.cli import main
from artifactnet.distillation import distill

CONFIG = """
model: {backbone: vit_tiny_patch16_224, heatmap: {head: decoder}}
loss: {alignment: {weight: 0}}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "student.yaml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def trained(monkeypatch):
    """Configs that reached training, which is replaced by a list."""
    made: list = []
    monkeypatch.setattr(api, "train", made.append)
    return made


def test_without_a_teacher_it_says_so_and_trains_nothing(config, trained, capsys):
    assert main(["distill", config]) == 2
    assert "distill.teacher is not set" in capsys.readouterr().err
    assert trained == []


def test_the_student_is_trained_with_its_overrides(config, trained):
    assert main(["distill", config, "distill.teacher=runs/t", "seed=5", "resume=true"]) == 0
    [made] = trained
    assert (made.distill.teacher, made.seed, made.resume) == ("runs/t", 5, True)


def test_label_only_labels_and_trains_nothing(config, trained, monkeypatch, capsys, tmp_path):
    labelled = []

    def label_run(config):
        labelled.append(config)
        return tmp_path / "c"

    monkeypatch.setattr(distill, "label_run", label_run)
    assert main(["distill", "--label-only", config, "distill.teacher=runs/t"]) == 0
    assert [c.distill.teacher for c in labelled] == ["runs/t"]
    assert trained == []
    assert str(tmp_path / "c") in capsys.readouterr().out


def test_a_teacher_that_is_not_there_is_one_line(config, capsys, tmp_path):
    words = ["distill", "--label-only", config, f"distill.teacher={tmp_path / 'nobody'}"]
    assert main([*words, f"out={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "nobody" in err


def test_an_unknown_key_is_told_before_anything_is_asked(config, capsys):
    assert main(["distill", config, "distill.techer=x"]) == 2
    assert "distill.teacher" in capsys.readouterr().err
