"""What the photographs of the demo data show, in words that stay true of their crops."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from artifactnet.data.text import read_text

CAPTIONS = Path(__file__).parents[2] / "photographs" / "captions.csv"


@cache
def read_captions() -> Mapping[str, tuple[str, ...]]:
    """Captions by scene, several of one meaning for each; they fit after "a picture of".

    Raises:
        ArtifactNetError: the package was built without them.
    """
    captions: dict[str, tuple[str, ...]] = {}
    for row in csv.DictReader(io.StringIO(read_text(CAPTIONS))):
        captions[row["name"]] = (*captions.get(row["name"], ()), row["caption"])
    return captions
