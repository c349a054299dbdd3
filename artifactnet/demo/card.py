"""What the page says about its model."""

from __future__ import annotations

from artifactnet.inference.base import BasePredictor
from artifactnet.inference.model_card import plain
from artifactnet.models.catalogue import known_models


def card_of(model: str, predictor: BasePredictor) -> str:
    """The card of a model that `load_model` opened, as Markdown without its title.

    Models of the package and of the hub come with one; for all others it is what the model itself
    knows.
    """
    for known in known_models():
        if known.name == model and known.card is not None:
            return _body(known.card.read_text(encoding="utf-8"))
    limits = predictor.limits
    called = f"An image is called fake from a probability of {predictor.threshold:g}."
    if limits is not None:
        called = (
            f"An image is called fake from a probability of {limits[1]:g}, real below "
            f"{limits[0]:g}, and uncertain between them."
        )
    lines = [
        "This model has no card: only those of the package and of the Hugging Face Hub have one. "
        "Ask who trained it what it was trained on, and test it on images of your own before you "
        "rely on it.",
        called,
        *(f"**Warning:** {plain(text)}" for text in predictor.warnings),
    ]
    return "\n\n".join(lines)


def _body(card: str) -> str:
    """A card without the front matter of the hub, and without its title, which stands above it."""
    if card.startswith("---\n"):
        card = card[4:].partition("\n---\n")[2]
    card = card.lstrip()
    return card.partition("\n")[2].lstrip() if card.startswith("# ") else card
