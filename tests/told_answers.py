"""A predictor that is told what to say: what a language model's answers look like, without one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from artifactnet.inference.inputs import Failure, ImageInput, to_pixels
from artifactnet.types import ArtifactNetError, Prediction, Rationale

NOTICE = "probability is 1 - score"
WORDS = Rationale(
    "The image shows two people on a bench in a park.\nTrees stand behind them.",
    "1. The left hand of the woman.\n2. The lower edge of the bench.",
    "The hand has six fingers, and two of them grow out of the wrist.\nThe bench has three legs "
    "on one side and one on the other, so that it could not stand.",
    "Sure. \n### Image Description\n... [MAP] ... [SCORE].",
)


class ToldPredictor:
    """Score: the first pixel's red; heatmap: the green channel; text: as given.

    Attributes:
        calls: batch size, workers and heatmaps of every call.
    """

    warnings = (NOTICE,)
    threshold = 0.5

    def __init__(self, *rationales: Rationale | None) -> None:
        self.rationales = rationales or (WORDS,)
        self.calls: list[tuple[int, int, bool]] = []
        self._asked = 0

    def predict_stream(
        self,
        paths: Iterable[str | Path | ImageInput | Failure],
        batch_size: int = 1,
        workers: int = 0,
        heatmaps: bool = True,
        *,
        tiles: bool = False,
        overlap: float = 0.25,
        min_area: int = 1,
    ) -> Iterator[Prediction | Failure]:
        assert not tiles, "refused before"
        self.calls.append((batch_size, workers, heatmaps))
        waiting = iter(paths)
        while few := list(islice(waiting, batch_size)):
            for source in few:
                yield source if isinstance(source, Failure) else self._answer(source, heatmaps)

    def _answer(self, source: str | Path | ImageInput, heatmaps: bool) -> Prediction | Failure:
        named = source if isinstance(source, ImageInput) else ImageInput(str(source), source)
        try:
            pixels = to_pixels(named.image, named.name)
        except ArtifactNetError as error:
            return Failure(named.name, str(error).removeprefix(f"{named.name}: "))
        score = float(pixels[0, 0, 0]) / 255
        said = self.rationales[self._asked % len(self.rationales)]
        self._asked += 1
        return Prediction(
            1 - score,
            1 - score >= self.threshold,
            score=score,
            path=named.name,
            heatmap=pixels[..., 1].astype(np.float32) / 255 if heatmaps else None,
            warnings=(NOTICE, "the text was cut off") if score < 0.25 else (NOTICE,),
            explanation=said,
        )


def told_pixels(score: float, size: tuple[int, int] = (24, 36)) -> np.ndarray:
    """Pixels of which `ToldPredictor` says this score, with a bright spot for the heatmap."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    spot = np.exp(-(((x / size[1] - 0.6) / 0.15) ** 2) - ((y / size[0] - 0.4) / 0.2) ** 2)
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[..., 0] = round(255 * score)
    pixels[..., 1] = np.round(255 * spot)
    pixels[..., 2] = np.round(200 * x / size[1])
    return pixels
