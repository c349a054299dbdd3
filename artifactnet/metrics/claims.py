"""What explanations claim against what is known to be wrong: categories, places, nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from artifactnet.taxonomy import UNCATEGORIZED

_COUNTS = (
    *("texts", "strict", "edited", "missed", "categorized", "category", "all_categories"),
    *("right_categories", "said_categories", "true_categories"),
    *("placed", "place", "right_places", "said_places", "true_places"),
    *("repainted", "repainted_said", "untouched", "not_invented", "called_clean"),
)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a text says about an image, or the truth.

    Attributes:
        categories: X-AIGD labels, or ``uncategorized`` for what a network repainted; in the order
            in which they are named, in the truth the largest region first.
        places: of a grid of three by three, e.g. ``upper left``; likewise.
        says_clean: that nothing is wrong.
    """

    categories: tuple[str, ...]
    places: tuple[str, ...]
    says_clean: bool


class ClaimMetric(Metric):
    """Shares of texts that are right about their image; counts add up over processes.

    An image is *edited* if something is wrong with it in truth, else *untouched*.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in _COUNTS:
            self.add_state(name, default=torch.zeros(1, dtype=torch.long), dist_reduce_fx="sum")

    def update(
        self,
        said: Sequence[Claims],
        truth: Sequence[Claims],
        main_places: Sequence[Sequence[str]],
        strict: Sequence[bool],
    ) -> None:
        """Add texts.

        Args:
            said: what each text claims.
            truth: what is known about its image.
            main_places: the places of the largest region of its image; none if it has no main one.
            strict: whether the text had the required form to the letter.

        Raises:
            ValueError: lengths differ.
        """
        for claims, known, main, formal in zip(said, truth, main_places, strict, strict=True):
            self._count(texts=1, strict=formal)
            if known.categories:
                self._count_edited(claims, known, main)
            else:
                invented = bool(claims.categories or claims.places)
                self._count(untouched=1, not_invented=not invented, called_clean=claims.says_clean)

    def _count_edited(self, said: Claims, known: Claims, main: Sequence[str]) -> None:
        self._count(edited=1, missed=said.says_clean)
        named = [label for label in said.categories if label != UNCATEGORIZED]
        true = [label for label in known.categories if label != UNCATEGORIZED]
        if true:
            right = len(set(named) & set(true))
            self._count(categorized=1, category=named[:1] == true[:1])
            self._count(all_categories=set(said.categories) == set(known.categories))
            self._count(right_categories=right, said_categories=len(set(named)))
            self._count(true_categories=len(set(true)))
        if UNCATEGORIZED in known.categories:
            self._count(repainted=1, repainted_said=UNCATEGORIZED in said.categories)
        if main:
            right = len(set(said.places) & set(known.places))
            self._count(placed=1, place=bool(said.places) and said.places[0] in main)
            self._count(right_places=right, said_places=len(set(said.places)))
            self._count(true_places=len(set(known.places)))

    def _count(self, **amounts: int) -> None:
        for name, amount in amounts.items():
            counter: Tensor = getattr(self, name)
            counter += int(amount)

    def compute(self) -> dict[str, Any]:
        """Shares in [0, 1], None where no image counts, and how many images do.

        ``category``: over ``categorized`` images, the first category named is that of the largest
        region; ``all categories``: exactly the true ones are named; ``category precision`` and
        ``recall`` of all names. ``place``: over ``placed`` images, the first place named is one of
        the largest region; ``place precision`` and ``recall``, likewise. ``repainted``: over
        ``repainted images``, this is said. ``missed``: over ``edited`` images, the text says that
        nothing is wrong. ``nothing invented``: over ``untouched`` images, neither a category nor a
        place is named; ``called clean``: the text says besides that nothing is wrong.
        ``strict form``: over all ``texts``.
        """
        counts = {name: int(getattr(self, name)) for name in _COUNTS}

        def share(name: str, of: str) -> float | None:
            return counts[name] / counts[of] if counts[of] else None

        return {
            "texts": counts["texts"],
            "edited": counts["edited"],
            "categorized": counts["categorized"],
            "placed": counts["placed"],
            "repainted images": counts["repainted"],
            "untouched": counts["untouched"],
            "category": share("category", "categorized"),
            "all categories": share("all_categories", "categorized"),
            "category precision": share("right_categories", "said_categories"),
            "category recall": share("right_categories", "true_categories"),
            "place": share("place", "placed"),
            "place precision": share("right_places", "said_places"),
            "place recall": share("right_places", "true_places"),
            "repainted": share("repainted_said", "repainted"),
            "missed": share("missed", "edited"),
            "nothing invented": share("not_invented", "untouched"),
            "called clean": share("called_clean", "untouched"),
            "strict form": share("strict", "texts"),
        }
