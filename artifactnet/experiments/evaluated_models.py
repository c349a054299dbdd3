"""A model under evaluation: one form for detectors, language models, code of others and files.

`parse_models` says what texts mean and opens nothing; `open_model` opens a model, once.
Whatever it is, a model is shown pixels and gives a `Judgment` of each image.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from artifactnet.config import Config
from artifactnet.data.heatmaps import read_gray, resize_heatmap
from artifactnet.data.regions import Corners
from artifactnet.data.test_sets.base import TestSet
from artifactnet.experiments.foreign_code import ClassifierPredictor, find_function, load_foreign
from artifactnet.experiments.prediction_file import SUFFIX, read_predictions
from artifactnet.files import sha256_file
from artifactnet.inference.base import BasePredictor
from artifactnet.inference.fingerprint import model_fingerprint
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.inference.load import find_model, load_model, names_model
from artifactnet.inference.predictor import Predictor
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.names import unsafe_name
from artifactnet.runs import run_folder
from artifactnet.types import ArtifactNetError, Prediction, UInt8Array
from artifactnet.vlm.coordinates import rule_of
from artifactnet.vlm.fakexplainer.answering import NO_VERDICT, AnswerPredictor
from artifactnet.vlm.fakexplainer.endpoint import NO_LIKELIHOOD, load_endpoint

Localization = Literal["boxes", "map"]  # in what form a model says where artifacts are

FORMS = (
    "a model is the folder of a run, a .safetensors, .onnx, .xml or .pt2 file, the name of a "
    "packaged model, NAME=module:function, NAME=endpoint:URL#MODEL or PREDICTIONS.jsonl"
)
_ENDPOINT = "endpoint:"
_CODE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_FAMILY = "qwen3_vl"  # of an endpoint's model: coordinates from 0 to 1000
_MAP = 0.5  # above it a map says artifact, if its model has no threshold of its own


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the user asked for.

    Attributes:
        name: for tables and folders.
        kind: ``saved``: what `load_model` opens; ``code``: ``module:function``; ``endpoint``:
            a model behind an interface; ``file``: predictions made elsewhere.
        source: what is opened.
    """

    name: str
    kind: Literal["saved", "code", "endpoint", "file"]
    source: str


@dataclass(frozen=True, slots=True)
class Shown:
    """An image as every model gets to see it.

    Attributes:
        test_set: name of its set.
        level: name of its damage.
        key: its name, see `artifactnet.data.test_sets.base.TestSet`.
        names: what a file of predictions may call it.
        pixels: (H, W, 3), sRGB, damaged.
    """

    test_set: str
    level: str
    key: str
    names: tuple[str, ...]
    pixels: UInt8Array


@dataclass(frozen=True, slots=True)
class Judgment:
    """What a model says about an image.

    Attributes:
        is_fake: its verdict.
        probability: of being fake, in [0, 1]; None: it gives verdicts only.
        boxes: where it sees artifacts, in pixels of what it was shown; None: it draws none.
        mask: (H, W), likewise, of a model with maps.
    """

    is_fake: bool
    probability: float | None = None
    boxes: Sequence[Corners] | None = None
    mask: npt.NDArray[np.bool_] | None = None


class EvaluatedModel(ABC):
    """A model, opened.

    Attributes:
        name: for tables and folders.
        version: hash of all that decides its answers.
        localization: what it draws; None: it says nothing of where artifacts are.
        batch_size: images that it takes together.
        about: JSON-ready facts: ``source``, ``threshold``, ``map_threshold`` and ``resize``.
        warnings: what must be known before trusting it.
    """

    name: str
    version: str
    localization: Localization | None = None
    batch_size: int
    about: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @abstractmethod
    def judge(self, images: Sequence[Shown], where: bool) -> Iterator[Judgment | Failure]:
        """A judgment of each image, in order; lazily, since maps are large.

        Args:
            images: that it is shown.
            where: also say where artifacts are, if it can.

        Raises:
            ArtifactNetError: it can judge nothing any more.
        """

    def covers(self, test_set: str, level: str) -> bool:
        """Whether it can judge a set at a level at all."""
        return True


class PredictorModel(EvaluatedModel):
    """A predictor."""

    def __init__(
        self, spec: ModelSpec, predictor: BasePredictor, resize: str, batch_size: int | None
    ) -> None:
        self.name, self.version = spec.name, model_fingerprint(predictor)
        self.batch_size = batch_size or predictor.default_batch_size
        self.warnings = predictor.warnings
        self._predictor = predictor
        writes = isinstance(predictor, AnswerPredictor)
        draws, self._map_threshold = predictor.has_heatmap, _MAP
        if isinstance(predictor, Predictor):
            model = predictor.model
            draws = model.has_attention or model.has_heatmap or model.has_segmentation
            self._map_threshold = model.config.map_threshold
        if draws:
            self.localization = "boxes" if writes else "map"
        self.about = {
            "source": spec.source,
            "threshold": None if writes else predictor.threshold,  # its verdict is a word
            "map_threshold": self._map_threshold if self.localization == "map" else None,
            "resize": resize,
        }

    def judge(self, images: Sequence[Shown], where: bool) -> Iterator[Judgment | Failure]:
        """See `EvaluatedModel.judge`."""
        maps = where and self.localization == "map"
        inputs = [ImageInput(image.key, image.pixels) for image in images]
        for answer in self._predictor.predict_stream(inputs, self.batch_size, heatmaps=maps):
            yield answer if isinstance(answer, Failure) else self._judgment(answer)

    def _judgment(self, answer: Prediction) -> Judgment | Failure:
        if NO_VERDICT in answer.warnings:
            return Failure(str(answer.path), "the answer has no verdict")
        boxes = mask = None
        if answer.regions is not None:
            boxes = [region.bbox for region in answer.regions]
        elif answer.mask is not None:
            mask = answer.mask > 0
        elif answer.heatmap is not None:
            mask = answer.heatmap > self._map_threshold
        probability = None if NO_LIKELIHOOD in answer.warnings else answer.probability
        return Judgment(answer.is_fake, probability, boxes, mask)


class PredictionFileModel(EvaluatedModel):
    """Predictions made elsewhere."""

    batch_size = 1

    def __init__(self, spec: ModelSpec) -> None:
        self.name, self.version = spec.name, sha256_file(spec.source)
        self._predictions = read_predictions(spec.source)
        self.localization = self._predictions.localization
        self.about = {
            "source": spec.source,
            "threshold": None,
            "map_threshold": _MAP if self.localization == "map" else None,
            "resize": "unknown",
        }

    def covers(self, test_set: str, level: str) -> bool:
        """See `EvaluatedModel.covers`."""
        return self._predictions.covers(test_set, level)

    def judge(self, images: Sequence[Shown], where: bool) -> Iterator[Judgment | Failure]:
        """See `EvaluatedModel.judge`."""
        for image in images:
            try:
                yield self._judgment(image, where)
            except ArtifactNetError as error:
                yield Failure(image.key, str(error))

    def _judgment(self, image: Shown, where: bool) -> Judgment:
        found = self._predictions.find(image.test_set, image.level, image.names)
        if found is None:
            raise ArtifactNetError("the file has no prediction of it")
        boxes, mask = found.boxes, None
        if boxes is None and self.localization == "boxes":
            boxes = ()
        if where and found.mask is not None:
            height, width = image.pixels.shape[:2]
            gray = read_gray(found.mask, found.mask)
            mask = resize_heatmap(gray, (height, width), found.mask) > _MAP
        return Judgment(found.is_fake, found.probability, boxes, mask)


def parse_models(texts: Sequence[str]) -> list[ModelSpec]:
    """What each ``[NAME=]MODEL`` means; nothing is opened, but code is imported.

    A path that exists wins over the form ``NAME=MODEL``. Without a name, a model is called like
    its file or folder.

    Raises:
        ArtifactNetError: one means nothing that could be opened, a module has no such function, a
            file of predictions has a line that is none, or two models have one name.
    """
    found: dict[str, ModelSpec] = {}
    for text in texts:
        spec = _parse(text)
        other = found.setdefault(spec.name, spec)
        if other is not spec:
            raise ArtifactNetError(
                f"--model: two models are called {spec.name!r}; name them: A={other.source} "
                f"B={spec.source}"
            )
    return list(found.values())


def check_prediction_files(specs: Sequence[ModelSpec], sets: Mapping[str, TestSet]) -> None:
    """Refuse files of predictions of which a line would count for images of two sets.

    Raises:
        ArtifactNetError: there is one; the message names file and line.
    """
    names = {name: [one.names(k) for k in range(len(one.keys))] for name, one in sets.items()}
    for spec in specs:
        if spec.kind == "file":
            read_predictions(spec.source).check_sets(names)


def _parse(text: str) -> ModelSpec:
    name, equals, source = text.partition("=")
    if not equals or Path(text).exists():
        name, source = "", text
    path = Path(source)
    kind: Literal["saved", "code", "endpoint", "file"]
    if source.startswith(_ENDPOINT):
        kind = "endpoint"
        rule_of(_endpoint_parts(source)[2])
    elif path.suffix == SUFFIX:
        kind = "file"
        read_predictions(path)
    elif path.exists() or names_model(source):
        kind = "saved"
        if find_model(source).kind == "folder":
            raise ArtifactNetError(f"--model {text}: no finished model in this folder; {FORMS}")
    elif _CODE.fullmatch(source):
        kind = "code"
        find_function(source)
    else:
        raise ArtifactNetError(f"--model {text}: nothing that can be opened; {FORMS}")
    if not name:
        if kind in ("code", "endpoint"):
            raise ArtifactNetError(f"--model {text}: give it a name, NAME={text}")
        name = path.resolve().name if path.is_dir() else path.stem
    problem = unsafe_name(name)
    if problem is not None:
        raise ArtifactNetError(f"--model {text}: the name {name!r} {problem}")
    return ModelSpec(name, kind, source)


def _endpoint_parts(source: str) -> tuple[str, str, str]:
    """URL, name of the model there, and family of its coordinates."""
    url, _, rest = source.removeprefix(_ENDPOINT).partition("#")
    model, _, family = rest.partition("#")
    if not url or not model:
        raise ArtifactNetError(
            f"--model {source}: give NAME=endpoint:URL#MODEL; its coordinates go from 0 to 1000, "
            "unless it is of a family of others: NAME=endpoint:URL#MODEL#qwen2_5_vl"
        )
    return url, model, family or _FAMILY


def open_model(
    spec: ModelSpec, device: str = "auto", batch_size: int | None = None
) -> EvaluatedModel:
    """Open a model.

    Args:
        spec: what to open.
        device: of a saved model in PyTorch, see `artifactnet.inference.load.pick_device`; code of
            others chooses its own.
        batch_size: images that it takes together; None: what suits it.

    Raises:
        ArtifactNetError: it cannot be opened, or code returns something else than a model.
    """
    if spec.kind == "file":
        return PredictionFileModel(spec)
    predictor: BasePredictor
    if spec.kind == "endpoint":
        predictor = load_endpoint(*_endpoint_parts(spec.source))
        return PredictorModel(spec, predictor, "the server's", batch_size)
    if spec.kind == "code":
        predictor = load_foreign(spec.source)
    else:
        exported = find_model(spec.source).kind == "exported"
        predictor = load_model(spec.source, "auto" if exported else device)
    return PredictorModel(spec, predictor, _resize_policy(predictor), batch_size)


def _resize_policy(predictor: BasePredictor) -> str:
    """How a model brings images to its size, in words."""
    if isinstance(predictor, Predictor):
        preprocess = preprocess_of(predictor.model)
    elif isinstance(predictor, ClassifierPredictor):
        preprocess = predictor.preprocess
    else:
        return "its own"
    height, width = preprocess.size
    return f"{preprocess.resize} to {width}x{height}"


def training_configs(spec: ModelSpec) -> list[Config]:
    """Configs of the run that trained a model, of that which it started from, and so on.

    The last one that still exists has a start (`start_of`) if the run before it is gone.
    """
    found: list[Config] = []
    path = find_model(spec.source).path if spec.kind == "saved" else None
    while path is not None and path.exists():
        folder = path if path.is_dir() else path.parent
        if not (folder / run_folder.CONFIG).is_file():
            break
        config = run_folder.read_config(folder)
        if config in found:  # a run that starts from itself
            break
        found.append(config)
        start = start_of(config)
        path = None if start is None else Path(start)
    return found


def start_of(config: Config) -> str | None:
    """The run or file whose weights a run started from; None: none of ours."""
    return config.init_from or config.mllm.adapters
