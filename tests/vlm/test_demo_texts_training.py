"""A tiny HEIE on the demo data and its texts: what is trained on, and how answers are judged."""

import json

import pytest
from tiny_heie_run import CONFIG

from artifactnet.config import Config, load
from artifactnet.data.converters.demo import convert_demo_data
from artifactnet.vlm.heie import predictor
from artifactnet.vlm.heie.data import TextData
from artifactnet.vlm.heie.evaluate import evaluate_heie
from artifactnet.vlm.heie.trainer import train_heie
from artifactnet.vlm.text.chain_of_thought import ChainOfThought, build_cot
from artifactnet.vlm.text.reading import read_facts
from artifactnet.vlm.text.template import describe_annotation

DEMO = (
    *("data.name=demo", "data.root=null", "data.demo_texts=true", "data.demo_size=56"),
    *("data.demo_train=4", "data.demo_val=1", "data.demo_test=8", "data.check=off"),
)


def config(folder, base, *overrides: str) -> Config:
    path = folder / "tiny.yaml"
    path.write_text(CONFIG.format(base=base, root="none"))
    return load(path, [f"out={folder / 'runs'}", *DEMO, *overrides])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_base):
    return train_heie(config(tmp_path_factory.mktemp("run"), tiny_base, "train.max_steps=1"))


def test_texts_are_trained_on_where_they_are_asked_for(tmp_path, tiny_base, built_heie):
    processing = built_heie.processing
    with_texts = TextData(config(tmp_path, tiny_base), processing)
    assert with_texts.summary["texts"]["train"] == {"written": 8, "made": 0, "none": 0}
    assert not any("written text" in w for w in with_texts.summary["warnings"])
    for split, source in with_texts.splits.items():
        examples = [one for batch in with_texts.example_loader(split) for one in batch]
        assert len(examples) == len(source.records)
        assert {example.text for example in examples} == {
            source.load(k).text for k in range(len(source.records))
        }
        assert all(example.supervised and read_facts(example.text) for example in examples)
    for change in ("mllm.text=template", "data.demo_texts=false"):
        other = TextData(config(tmp_path, tiny_base, change), processing)
        assert other.summary["texts"]["train"] == {"written": 0, "made": 8, "none": 0}
        (example,) = (one for one in next(iter(other.example_loader("val")))[:1])
        sample = other.splits["val"].load(0)
        assert example.text == describe_annotation(sample)


def answer(monkeypatch, trained, write, *overrides):
    """Evaluate with given answers in place of generated ones: ``write`` of image and sample."""
    data = TextData(load(trained.run_dir / "config.yaml", overrides), None)
    source = data.splits["test"]
    queue = [write(source.load(k)) for k in range(len(source.records))]
    monkeypatch.setattr(predictor, "generate_texts", lambda model, images: [
        queue.pop(0) for _ in images
    ])  # fmt: skip
    return evaluate_heie(trained.run_dir, overrides)


def test_a_random_model_is_judged(trained):
    results = json.loads((trained.run_dir / "results.json").read_text())
    facts = results["explanations"]["facts"]
    assert (facts["texts"], facts["edited"], facts["untouched"]) == (16, 8, 8)
    assert (facts["categorized"], facts["repainted images"]) == (6, 2)
    assert facts["strict form"] == 0  # eight tokens cannot make a chain of thought
    assert facts["category"] == facts["called clean"] == facts["missed"] == 0
    page = (trained.run_dir / "results.md").read_text()
    assert "## Explanations against known facts" in page
    assert "| category | all categories | place |" in page


def test_perfect_answers_have_full_marks(trained, monkeypatch):
    facts = answer(monkeypatch, trained, lambda sample: sample.text)["explanations"]["facts"]
    for name in ("category", "all categories", "place", "repainted", "nothing invented"):
        assert facts[name] == 1, name
    assert facts["called clean"] == facts["strict form"] == facts["category precision"] == 1
    assert facts["missed"] == 0


def test_an_answer_that_calls_everything_clean(trained, monkeypatch):
    nothing = build_cot(ChainOfThought("A scene.", "No region looks odd.", "Nothing is wrong."))
    facts = answer(monkeypatch, trained, lambda sample: nothing)["explanations"]["facts"]
    assert facts["category"] == facts["place"] == facts["all categories"] == 0
    assert facts["missed"] == facts["nothing invented"] == facts["called clean"] == 1


def test_answers_that_invent_and_lack_the_form(trained, monkeypatch):
    invented = "### Image Description\nX\n### Analysis of Issues\n1. Hues are off.\n[SCORE]"
    results = answer(monkeypatch, trained, lambda sample: invented)
    facts = results["explanations"]["facts"]
    assert facts["nothing invented"] == facts["strict form"] == facts["called clean"] == 0
    assert facts["missed"] == 0
    assert results["explanations"]["mended"] == 16


def test_a_form_that_can_be_parsed_but_is_another_is_not_strict(trained, monkeypatch):
    results = answer(
        monkeypatch, trained, lambda sample: sample.text.replace("### Image", "# Image")
    )
    assert results["explanations"]["mended"] == 0
    assert results["explanations"]["facts"]["strict form"] == 0
    assert results["explanations"]["facts"]["category"] == 1


def test_nothing_is_judged_without_certain_facts_or_own_words(trained):
    for text in ("given", "template"):
        assert evaluate_heie(trained.run_dir, text=text)["explanations"]["facts"] is None
    made = evaluate_heie(trained.run_dir, ["data.demo_texts=false"])
    assert made["explanations"]["facts"] is None
    assert made["explanations"]["texts"] == 16


def test_texts_in_a_manifest_are_judged_as_well(trained, tmp_path):
    own = load(trained.run_dir / "config.yaml").data
    convert_demo_data(own, tmp_path / "set")
    found = evaluate_heie(trained.run_dir, ["data.name=manifest", f"data.root={tmp_path / 'set'}"])
    assert found["explanations"]["facts"]["texts"] == 16
    assert found["explanations"]["facts"]["edited"] == 8
