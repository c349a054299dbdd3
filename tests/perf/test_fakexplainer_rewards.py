"""The rewards' benchmark scores what it claims: strict answers, of so many regions."""

import json
from pathlib import Path

import pytest
from perf import fakexplainer_rewards as module
from perf.cli import main

from artifactnet.vlm.fakexplainer.grammar import is_strict, read
from artifactnet.vlm.fakexplainer.rewards import score_answer


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_answers_are_strict_and_overlap_their_truth():
    answers = module.make_answers(5, 30, seed=0)
    assert answers == module.make_answers(5, 30, seed=0)
    for text, truth in answers:
        assert is_strict(text, module.INPUT)
        assert len(read(text, module.SIZE, module.INPUT).regions) == 30
        assert len(truth.regions) == module.TRUTHS
        reward = score_answer(text, truth, weight=0.75)
        assert (reward.label, reward.format, reward.regions) == (1, 1, 30)
        assert 0 < reward.grounding < 1


@pytest.mark.parametrize("name", module.HOSTILE)
def test_hostile_texts_have_their_length(name):
    text = module.hostile_text(name, 1001)
    assert len(text) == 1001
    assert text.startswith(module.HOSTILE[name])


def test_report(capsys):
    small = "--answers 2 --regions 3 --length 300 --repeats 2 --out report.json"
    assert main(["fakexplainer-rewards", *small.split()]) == 0
    report = json.loads(Path("report.json").read_text())
    assert report["setting"] == {"answers": 2, "regions": 3, "length": 300, "repeats": 2}
    assert list(report["times"]) == ["rewards", *module.HOSTILE]
    for own in report["times"].values():
        for spread in own.values():
            assert 0 <= spread["min"] <= spread["median"] <= spread["max"]
    assert "rewards" in capsys.readouterr().out


def test_more_regions_than_an_answer_may_have(capsys):
    assert main(["fakexplainer-rewards", "--regions", "33"]) == 2
    assert "--regions 33: an answer has at most 32" in capsys.readouterr().err
