"""ArtifactNet: detect AI-generated images by their perceptual artifacts.

Each name below is imported on first use, so that ``import artifactnet`` loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from artifactnet.api import distill, evaluate, train
    from artifactnet.benchmarks.xaigd.instances import score_instances
    from artifactnet.benchmarks.xaigd.pixels import score_pixels
    from artifactnet.config import Config, ModelConfig
    from artifactnet.config import load as load_config
    from artifactnet.data.synthetic.synthesize import synthesize
    from artifactnet.evaluation.calibrate import calibrate
    from artifactnet.explanation.detector import Classifier
    from artifactnet.explanation.explainer import explain
    from artifactnet.explanation.judge import judge
    from artifactnet.explanation.report.build import report
    from artifactnet.exporters.export import export_model as export
    from artifactnet.inference.load import load_model
    from artifactnet.inference.predictor import Predictor
    from artifactnet.models.artifact_net import ArtifactNet
    from artifactnet.models.create import create_model, list_models
    from artifactnet.taxonomy import CATEGORIES
    from artifactnet.types import Annotation, ArtifactNetError, Explanation, Prediction
    from artifactnet.vlm.fakexplainer.endpoint import load_endpoint

__version__ = "0.1.0"

__all__ = [
    "CATEGORIES",
    "Annotation",
    "ArtifactNet",
    "ArtifactNetError",
    "Classifier",
    "Config",
    "Explanation",
    "ModelConfig",
    "Prediction",
    "Predictor",
    "__version__",
    "calibrate",
    "create_model",
    "distill",
    "evaluate",
    "explain",
    "export",
    "judge",
    "list_models",
    "load_config",
    "load_endpoint",
    "load_model",
    "report",
    "score_instances",
    "score_pixels",
    "synthesize",
    "train",
]

# public name -> (module, name in that module); the same as the imports for type checkers above
_HOME = {
    "CATEGORIES": ("artifactnet.taxonomy", "CATEGORIES"),
    "Annotation": ("artifactnet.types", "Annotation"),
    "ArtifactNet": ("artifactnet.models.artifact_net", "ArtifactNet"),
    "ArtifactNetError": ("artifactnet.types", "ArtifactNetError"),
    "Classifier": ("artifactnet.explanation.detector", "Classifier"),
    "Config": ("artifactnet.config", "Config"),
    "Explanation": ("artifactnet.types", "Explanation"),
    "ModelConfig": ("artifactnet.config", "ModelConfig"),
    "Prediction": ("artifactnet.types", "Prediction"),
    "Predictor": ("artifactnet.inference.predictor", "Predictor"),
    "calibrate": ("artifactnet.evaluation.calibrate", "calibrate"),
    "create_model": ("artifactnet.models.create", "create_model"),
    "distill": ("artifactnet.api", "distill"),
    "evaluate": ("artifactnet.api", "evaluate"),
    "explain": ("artifactnet.explanation.explainer", "explain"),
    "export": ("artifactnet.exporters.export", "export_model"),
    "judge": ("artifactnet.explanation.judge", "judge"),
    "list_models": ("artifactnet.models.create", "list_models"),
    "load_config": ("artifactnet.config", "load"),
    "load_endpoint": ("artifactnet.vlm.fakexplainer.endpoint", "load_endpoint"),
    "load_model": ("artifactnet.inference.load", "load_model"),
    "report": ("artifactnet.explanation.report.build", "report"),
    "score_instances": ("artifactnet.benchmarks.xaigd.instances", "score_instances"),
    "score_pixels": ("artifactnet.benchmarks.xaigd.pixels", "score_pixels"),
    "synthesize": ("artifactnet.data.synthetic.synthesize", "synthesize"),
    "train": ("artifactnet.api", "train"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'artifactnet' has no attribute {name!r}")
    module, attribute = _HOME[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
