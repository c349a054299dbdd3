"""What every data source offers: records that cost nothing, samples that are decoded on demand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from artifactnet.types import Record, Sample


class Source(Protocol):
    """Images of one split."""

    @property
    def records(self) -> Sequence[Record]:
        """One record per image, in a fixed order."""
        ...

    def load(self, index: int) -> Sample:
        """Decode image ``index``.

        Raises:
            ArtifactNetError: the image or its mask cannot be used; the message names it.
        """
        ...


Splits = dict[str, Source]  # "train", "val", "test"; an evaluation-only set may have "test" alone
