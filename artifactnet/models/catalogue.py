"""The models that are here without a network: of the package, and of the hub's cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from artifactnet.models import hub, packaged
from artifactnet.types import ArtifactNetError

# of a card of the package, of one of the hub
_LICENCE = re.compile(r"\*\*Licence\*\*: ([\w.+-]*\w)|^license: *([\w.+-]*\w)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that is here.

    Attributes:
        name: what commands and `load_model` take.
        origin: where it comes from, in words.
        path: its file.
        card: its model card; None if the hub alone has it.
        page: where its card is, for people: a path or an address.
    """

    name: str
    origin: str
    path: Path
    card: Path | None
    page: str

    @property
    def bytes(self) -> int:
        """Size of its file."""
        return self.path.stat().st_size

    @property
    def licence(self) -> str | None:
        """As its card names it; None if there is no card here, or it names none."""
        if self.card is None:
            return None
        found = _LICENCE.search(self.card.read_text(encoding="utf-8"))
        return None if found is None else found[1] or found[2]


def known_models() -> list[KnownModel]:
    """All models that are here; those of the package come first."""
    models = []
    for name in packaged.list_packaged():
        origin = "packaged, the default" if name == packaged.DEFAULT else "packaged"
        path = packaged.FOLDER / f"{name}{packaged.SUFFIX}"
        card = path.with_suffix(".md")
        models.append(KnownModel(name, origin, path, card, str(card)))
    models += [
        KnownModel(
            found.address,
            "cache of the hub",
            found.path,
            found.card,
            found.page if found.card is None else str(found.card),
        )
        for found in hub.list_cached()
    ]
    return models


def read_card(name: str) -> str:
    """The card of a model that is here.

    Raises:
        ArtifactNetError: no such model; the message lists those that are here. Or its card was not
            downloaded.
    """
    models = {model.name: model for model in known_models()}
    if name not in models:
        raise ArtifactNetError(f"{name}: no such model here; there are: {', '.join(models)}")
    card = models[name].card
    if card is None:
        raise ArtifactNetError(f"{name}: its card is not in the cache; see {models[name].page}")
    return card.read_text(encoding="utf-8")
