"""What the page says about its model."""

from tiny_models import tiny

from artifactnet.demo.card import card_of
from artifactnet.inference.predictor import Predictor
from artifactnet.models.catalogue import KnownModel, read_card
from artifactnet.weights import DEFAULT


def test_a_packaged_model_shows_its_card_without_the_title():
    card = card_of(DEFAULT, Predictor(tiny()))
    title, _, rest = read_card(DEFAULT).partition("\n")
    assert title.startswith("# ")
    assert card == rest.lstrip()


def test_a_card_of_the_hub_loses_its_front_matter(monkeypatch, tmp_path):
    file = tmp_path / "README.md"
    file.write_text("---\nlicense: mit\ntags:\n- x\n---\n\n# owner/name\n\nWhat it is.\n")
    known = KnownModel("hf:owner/name", "hub", file, file, "")
    monkeypatch.setattr("artifactnet.demo.card.known_models", lambda: [known])
    assert card_of("hf:owner/name", Predictor(tiny())) == "What it is.\n"


def test_another_model_says_that_it_has_none():
    model = tiny(threshold=0.4)
    model.notices = ("it has <b>random</b> weights",)
    card = card_of("runs/mine", Predictor(model))
    assert "no card" in card
    assert "from a probability of 0.4" in card
    assert r"\<b\>random" in card
