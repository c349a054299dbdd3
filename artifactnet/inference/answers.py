"""What is asked of anything that judges images, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from artifactnet.inference.inputs import Failure, Source
from artifactnet.types import Prediction


@runtime_checkable
class Answers(Protocol):
    """A `artifactnet.inference.predictor.Predictor`, or what answers as it does.

    Folders and reports need no more than this: neither layers nor gradients.
    """

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be known before trusting an answer; repeated in each of them."""
        ...

    @property
    def threshold(self) -> float:
        """In [0, 1]: an image is called fake if its probability is not below."""
        ...

    def predict_stream(
        self,
        paths: Iterable[str | Path | Source | Failure],
        batch_size: int = 8,
        workers: int = 0,
        heatmaps: bool = True,
        *,
        tiles: bool = False,
        overlap: float = 0.25,
        min_area: int = 1,
    ) -> Iterator[Prediction | Failure]:
        """One answer per image, in order; see `Predictor.predict_stream` for every argument.

        Raises:
            ArtifactNetError: an option is out of range, or asks for what the model cannot give.
        """
        ...
