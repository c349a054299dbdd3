"""One image through one model: its prediction, and a heatmap by the method that was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from threading import RLock

from artifactnet.demo.upload import Upload
from artifactnet.explanation.detector import as_detector
from artifactnet.explanation.explainer import CONSTANT, Explained, Explainer
from artifactnet.explanation.methods import HEATMAP, PREDICTED, SEGMENTATION, why_not
from artifactnet.inference.backends.exported import ExportedModel
from artifactnet.inference.base import BasePredictor, need_answer
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.inference.predictor import Predictor
from artifactnet.types import ArtifactNetError, Explanation, Float32Array, Prediction

# offered beside a model's own heatmap where its network supports them
OTHER_METHODS = ("rollout", "relevance", "grad_cam")


@dataclass(frozen=True, slots=True)
class Analysis:
    """What there is to show of one image.

    Attributes:
        upload: the image.
        prediction: of the model.
        method: of `artifactnet.explanation.methods.METHODS`; None if the model has no map.
        heatmap: (H, W) float32 in [0, 1] by that method; None likewise, or if it failed.
        warnings: about the model, the image and the map.
    """

    upload: Upload
    prediction: Prediction
    method: str | None
    heatmap: Float32Array | None
    warnings: tuple[str, ...]


class Analyst:
    """Looks at images with one model, one at a time. It keeps nothing of them.

    Args:
        predictor: of any kind.

    Attributes:
        predictor: as given.
        possible: what a model of this kind could be explained by, its own heatmap first.
    """

    def __init__(self, predictor: BasePredictor) -> None:
        self.predictor = predictor
        self._own = own_method(predictor)
        self._busy = RLock()  # a method is looked for while an image is looked at
        self._explainers: dict[str, Explainer] = {}
        self._methods: tuple[str, ...] | None = None
        self.possible = (() if self._own is None else (self._own,)) + OTHER_METHODS

    @property
    def methods(self) -> tuple[str, ...]:
        """Those of ``possible`` that the model supports; the first call takes a forward pass."""
        with self._busy:
            if self._methods is None:
                others = other_methods(self.predictor)
                self._methods = tuple(m for m in self.possible if m == self._own or m in others)
            return self._methods

    def wait(self) -> None:
        """Return when no image is being looked at: a process must not end in the middle."""
        with self._busy:
            pass

    def analyse(self, upload: Upload, method: str | None = None) -> Analysis:
        """Predict an image, and explain it by a method of ``methods``; None: the first.

        Raises:
            ArtifactNetError: the model cannot use the image, and the message names it; or it does
                not support the method.
        """
        with self._busy:
            return self._analyse(upload, method)

    def _analyse(self, upload: Upload, method: str | None) -> Analysis:
        if method is None:
            method = self._own or next(iter(self.methods), None)
        elif method != self._own and method not in self.methods:
            raise ArtifactNetError(f"this model has no heatmap by {method}")
        answers = self.predictor.predict_stream([ImageInput(upload.name, upload.pixels)])
        prediction = need_answer(next(answers))
        heatmap, warnings = prediction.heatmap, list(prediction.warnings)
        if method is not None and method != self._own:
            answer = self._explain(upload, method)
            if isinstance(answer, Failure):
                heatmap = None
                warnings.append(f"no heatmap by this method: {answer.reason}")
            else:
                heatmap = answer.heatmap
                warnings += answer.warnings
        elif heatmap is not None and heatmap.size > 1 and heatmap.min() == heatmap.max():
            warnings.append(CONSTANT)
        return Analysis(upload, prediction, method, heatmap, tuple(dict.fromkeys(warnings)))

    def _explain(self, upload: Upload, method: str) -> Explanation | Failure:
        if method not in self._explainers:  # finding a layer costs a forward pass
            self._explainers[method] = Explainer(self.predictor, [method])
        found = self._explainers[method].explain_batch([(upload.name, upload.pixels)])[0]
        return found.explanations[method] if isinstance(found, Explained) else found


def own_method(predictor: BasePredictor) -> str | None:
    """The name of what `Prediction.heatmap` shows; None of a model that predicts none."""
    if not isinstance(predictor, Predictor):
        return PREDICTED if predictor.has_heatmap else None
    if predictor.has_segmentation:
        return SEGMENTATION
    if predictor.model.has_heatmap:
        return PREDICTED
    return HEATMAP if predictor.model.has_attention else None


def other_methods(predictor: BasePredictor) -> tuple[str, ...]:
    """Those of `OTHER_METHODS` that support the model; it takes a forward pass to find out."""
    if not isinstance(predictor, Predictor) or isinstance(predictor.model, ExportedModel):
        return ()  # neither layers nor gradients
    reasons = why_not(as_detector(predictor), OTHER_METHODS)
    return tuple(method for method, reason in reasons.items() if reason is None)
