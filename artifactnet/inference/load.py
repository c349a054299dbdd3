"""Opening whatever a path or a name means: the one place that knows every form of a saved model.

`load_model` returns a predictor, `find_model` the kind of a model without loading it, and
`find_weights` the ``.safetensors`` file of a detector.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from artifactnet.inference.backends.exported import SUFFIXES, load_exported
from artifactnet.inference.device import pick_device
from artifactnet.inference.predictor import Predictor
from artifactnet.models import packaged
from artifactnet.models.checkpoint import load_checkpoint
from artifactnet.models.hub import MODEL_FILE, download_model, is_address, parse_address
from artifactnet.types import ArtifactNetError

if TYPE_CHECKING:
    from artifactnet.vlm.fakexplainer.predictor import FakexplainerPredictor
    from artifactnet.vlm.heie.predictor import HeiePredictor

RUN_CONFIG = "config.yaml"  # in the folder of a run, finished or not
LANGUAGE_MODELS = {  # by kind
    "heie": "HEIE on a language model",
    "fakexplainer": "FakeXplainer on a vision-language model",
}
Kind = Literal["weights", "exported", "heie", "fakexplainer", "folder"]


class ModelLocation(NamedTuple):
    """What a path or a name means.

    Attributes:
        kind: ``weights``: a ``.safetensors`` file of a detector; ``exported``: an ``.onnx``,
            ``.xml`` or ``.pt2`` file; ``heie``, ``fakexplainer``: the folder of such a model on a
            language model; ``folder``: a folder without any of these.
        path: the file or folder; for a run of a detector, its best model.
    """

    kind: Kind
    path: Path


def find_model(source: str | Path) -> ModelLocation:
    """What a path, a name or an address (see `load_model`) means; nothing is loaded.

    A model on the hub is fetched, unless the local cache has it.

    Raises:
        ArtifactNetError: no such path or name, or see `hub.download_model`.
    """
    from artifactnet.vlm.fakexplainer.saving import is_fakexplainer
    from artifactnet.vlm.heie.saving import is_heie

    if is_address(source):
        return ModelLocation("weights", download_model(parse_address(source)))
    path = packaged.resolve_model(source)
    if not path.is_dir():
        return ModelLocation("exported" if path.suffix in SUFFIXES else "weights", path)
    if is_heie(path):
        return ModelLocation("heie", path)
    if is_fakexplainer(path):
        return ModelLocation("fakexplainer", path)
    if (path / MODEL_FILE).is_file():
        return ModelLocation("weights", path / MODEL_FILE)
    return ModelLocation("folder", path)


def find_weights(source: str | Path) -> Path:
    """The ``.safetensors`` file of a run's folder, such a file itself, or of a name or address.

    Raises:
        ArtifactNetError: no such path or name, a folder without a finished model, or a model of
            another kind.
    """
    kind, path = find_model(source)
    if kind == "folder":
        raise _no_model(path)
    if kind == "exported":
        raise ArtifactNetError(
            f"{path}: an exported file holds no trainable weights; use the original model"
        )
    if kind in LANGUAGE_MODELS:
        raise ArtifactNetError(
            f"{path}: a {LANGUAGE_MODELS[kind]}, where a detector is needed; "
            "artifactnet.load_model opens it, and predict, evaluate and report accept it"
        )
    return path


def load_model(
    source: str | Path = packaged.DEFAULT,
    device: str | torch.device = "auto",
    *,
    backend: str | None = None,
    threads: int = 0,
    text: str | None = None,
) -> Predictor | HeiePredictor | FakexplainerPredictor:
    """Load a saved model of any kind, ready to predict.

    Args:
        source: a run's folder, a ``.safetensors`` file, an exported ``.onnx``, ``.xml`` or
            ``.pt2`` file, the folder of a HEIE or FakeXplainer, or the name of a packaged model; a
            path that exists wins. ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION`` is a detector
            on the Hugging Face Hub, of which ``model.safetensors`` is fetched and nothing else.
            The default is the packaged `packaged.DEFAULT`.
        device: see `pick_device`; exported files run on the CPU.
        backend: runtime of an exported file: ``onnx``, ``openvino`` or ``torch``; None goes by
            its suffix.
        threads: CPU threads; 0 leaves it to the backend. PyTorch sets it for the whole process.
        text: for a HEIE on a language model: ``generate`` lets it write its explanation,
            ``template`` takes a fixed text, which is far faster; None: ``generate`` if it was
            trained to write.

    Raises:
        ArtifactNetError: no such path, name or device, a folder without a finished model, a
            damaged file, an option of another kind of model, a package is not installed, or the
            hub has no such model or does not answer.
    """
    kind, path = find_model(source)
    if kind == "folder":
        raise _no_model(path)
    if kind != "heie" and text is not None:
        raise ArtifactNetError(
            f"{source}: text={text} is for a HEIE on a language model, which this is not; "
            "leave it out"
        )
    if kind == "exported":
        if str(device) not in ("auto", "cpu"):
            raise ArtifactNetError(f"{source}: exported files run on the CPU; leave out the device")
        return Predictor(load_exported(path, backend, threads))
    if backend not in (None, "torch"):
        hint = (
            f"a {LANGUAGE_MODELS[kind]} cannot be exported"
            if kind in LANGUAGE_MODELS
            else f"`artifactnet export --model {source} --out FILE` makes one"
        )
        raise ArtifactNetError(f"{source}: the {backend} backend runs exported files; {hint}")
    chosen = pick_device(device)
    if threads:
        torch.set_num_threads(threads)
    if kind == "weights":
        return Predictor(load_checkpoint(path, chosen), path)
    if kind == "fakexplainer":
        from artifactnet.vlm.fakexplainer.predictor import load_fakexplainer_predictor

        return load_fakexplainer_predictor(path, chosen)
    from artifactnet.vlm.heie.predictor import load_heie_predictor

    return load_heie_predictor(path, chosen, text)


def names_model(text: str) -> bool:
    """Whether a word means a saved model, finished or not, and no images.

    That is a packaged model's name where no such path exists, a file with the suffix of a model,
    the folder of a run, and an address on the hub.
    """
    if is_address(text):
        return True
    path = Path(text)
    if not path.exists():
        suffixes = (*SUFFIXES, packaged.SUFFIX)
        return text in packaged.list_packaged() or path.suffix in suffixes
    if path.is_dir():
        return find_model(path).kind != "folder" or (path / RUN_CONFIG).is_file()
    return path.suffix in (*SUFFIXES, packaged.SUFFIX)


def _no_model(folder: Path) -> ArtifactNetError:
    others = ", ".join(sorted(p.name for p in folder.glob("*.safetensors"))) or "none"
    return ArtifactNetError(
        f"{folder}: no {MODEL_FILE} in this folder, so no run with a finished model "
        f"(other .safetensors files there: {others})"
    )
