"""Swin/UPerNet checkpoints of mmsegmentation, and of Swin's authors, for our model.

The paper starts from the ADE20K Swin-B (X-AIGD Sec. 5). mmsegmentation and Swin's authors
(``Swin-Transformer-Semantic-Segmentation``) name the backbone's weights differently, and both
differently from timm; the heads have the same names everywhere.
"""

from __future__ import annotations

import pickle
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.lora import rename_adapted
from artifactnet.types import ArtifactNetError

# mmsegmentation's file of a segmentor or of a backbone alone; the authors' of a segmentor
_SIGNATURE = re.compile(
    r"((backbone\.)?stages\.\d+\.blocks\.\d+\.attn\.w_msa|"
    r"backbone\.layers\.\d+\.blocks\.\d+\.attn)\.qkv\.weight"
)
_BUFFERS = ("relative_position_index", "attn_mask")  # timm computes them anew
_RENAMED = {
    "patch_embed.projection.": "patch_embed.proj.",
    ".attn.w_msa.": ".attn.",
    ".ffn.layers.0.0.": ".mlp.fc1.",
    ".ffn.layers.1.": ".mlp.fc2.",
}
_HEADS = {"decode_head": "segmentation.main", "auxiliary_head": "segmentation.auxiliary"}
_LAST_LEVEL = 3
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "module")  # timm's order
_OURS = ("backbone.", "segmentation.")  # what such a file can hold of an ArtifactNet


def is_mmseg(state: Mapping[str, Tensor]) -> bool:
    """Whether these are weights of a Swin of mmsegmentation, or of its authors' segmentor."""
    return any(_SIGNATURE.fullmatch(name) for name in state)


def read(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a weights file by name; no code in the file is run.

    Args:
        path: ``.safetensors``, or what ``torch.save`` wrote, bare or under a usual wrapper's key.

    Raises:
        ArtifactNetError: no such file, damaged, without tensors, or with pickled Python objects.
    """
    content: Any
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the reader raises, the message names this file
        why = _why(error, path)
        raise ArtifactNetError(f"model.weights {path}: cannot be read: {why}") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    tensors = content.items() if isinstance(content, Mapping) else ()
    state = {k: v for k, v in tensors if isinstance(k, str) and isinstance(v, Tensor)}
    if not state:
        raise ArtifactNetError(f"model.weights {path}: cannot be read: it holds no named tensors")
    return state


def _why(error: Exception, path: str | Path) -> str:
    """One line; for a file of pickled objects, how to get at its tensors."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = str(error)
    if "Unsupported global" not in text and "Unsupported class" not in text:
        reason = text.strip() or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):
            reason = "unknown format"  # torch's own text is long and advises to unpickle
        return f"damaged, or not a file of tensors: {reason.splitlines()[0]}"
    target = Path(path).with_name(f"{Path(path).stem}_tensors.pth")
    code = (
        "import sys, torch; c = torch.load(sys.argv[1], map_location='cpu', weights_only=False); "
        "torch.save(dict(c.get('state_dict', c)), sys.argv[2])"
    )
    command = f'python -c "{code}" {shlex.quote(str(path))} {shlex.quote(str(target))}'
    return (
        "it holds Python objects beside its tensors, and restoring them can run any code; if "
        f"you trust the file, export its tensors first: {command}"
    )


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename, and reorder where patches are merged, for an `ArtifactNet` on timm's Swin v1.

    Returns:
        Tensors under ``backbone.net``, ``segmentation.pyramid``, ``.main`` and ``.auxiliary``.
        The norm of the last level is also the backbone's final norm. Unknown names are kept.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if name.endswith(_BUFFERS):
            continue
        if part in _HEADS:
            out[f"{_HEADS[part]}.{rest}"] = tensor
        else:
            out |= _backbone_tensor(rest if part == "backbone" else name, tensor)
    return out


def _backbone_tensor(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """One tensor of the backbone under its new name, or two."""
    level = re.fullmatch(r"norm(\d)\.(weight|bias)", name)
    if level:
        index, leaf = int(level[1]), level[2]
        renamed = {f"segmentation.pyramid.norms.{index}.{leaf}": tensor}
        return renamed | ({f"backbone.net.norm.{leaf}": tensor} if index == _LAST_LEVEL else {})
    for theirs, timms in _RENAMED.items():
        name = name.replace(theirs, timms)
    stage = re.fullmatch(r"(stages|layers)\.(\d+)\.(.+)", name)
    if stage:
        index, rest = int(stage[2]), stage[3]
        if rest.startswith("downsample."):  # timm counts it to the next stage
            index += 1
            tensor = _merged_order(tensor) if stage[1] == "stages" else tensor
        name = f"layers.{index}.{rest}"
    return {f"backbone.net.{name}": tensor}


def _merged_order(tensor: Tensor) -> Tensor:
    """Order of a patch merging's 4C inputs: (channel, row, column) there, reversed here."""
    split = tensor.unflatten(-1, (-1, 2, 2))
    return split.transpose(-1, -3).flatten(-3).contiguous()


def load_mmseg(model: ArtifactNet, path: str | Path) -> list[str]:
    """Start a model from a checkpoint of mmsegmentation.

    Args:
        model: on timm's Swin v1 with full, shifted windows in every stage.
        path: see `read`.

    Returns:
        Sentences about what was not loaded: classifiers of another number of classes, heads that
        only one of the two has.

    Raises:
        ArtifactNetError: see `read`; or another architecture, and the model is untouched.
    """
    own = model.state_dict()
    state = rename_adapted(convert(read(path)), own)
    _check_windows(model, path)
    fresh, lines = _left_fresh(state, own)
    state = {k: v for k, v in state.items() if not k.startswith(fresh)}
    if model.segmentation is None and any(k.startswith("segmentation.") for k in state):
        state = {k: v for k, v in state.items() if not k.startswith("segmentation.")}
        lines.append("the file's segmentation heads are not used (model.segmentation.head=none)")
    expected = {k for k in own if k.startswith(_OURS) and not k.startswith(fresh)}
    expected = {k for k in expected if ".lora_" not in k}
    shapes = [
        f"{k} {tuple(v.shape)} there, {tuple(own[k].shape)} here"
        for k, v in state.items()
        if k in expected and own[k].shape != v.shape
    ]
    missing, unexpected = sorted(expected - set(state)), sorted(set(state) - expected)
    if missing or unexpected or shapes:
        raise ArtifactNetError(
            f"model.weights {path}: checkpoint of another architecture than "
            f"{model.config.backbone} with these heads: missing {missing[:3]}, unexpected "
            f"{unexpected[:3]}, of another shape {shapes[:3]}"
        )
    model.load_state_dict(state, strict=False)
    return [f"{path}: {line}" for line in lines]


def _left_fresh(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[tuple[str, ...], list[str]]:
    """Prefixes of our weights that the file cannot give, and a sentence about each."""
    fresh, lines = [], []
    for part in ("segmentation.pyramid.", "segmentation.main.", "segmentation.auxiliary."):
        ours = any(k.startswith(part) for k in own)
        if ours and not any(k.startswith(part) for k in state):
            fresh.append(part)
            lines.append(f"the file has no {part[:-1]}, which starts from random weights")
        if part == "segmentation.auxiliary." and _other_width(state, own, part):
            fresh.append(part)
            lines.append("the file's auxiliary head has another width; ours starts from random")
            continue
        weight = f"{part}conv_seg.weight"
        there, here = state.get(weight), own.get(weight)
        if there is not None and here is not None and len(there) != len(here):
            fresh.append(f"{part}conv_seg.")
            lines.append(
                f"{part}conv_seg starts from random weights: {len(there)} classes in the file, "
                f"{len(here)} here"
            )
    return tuple(fresh), lines


def _other_width(state: Mapping[str, Tensor], own: Mapping[str, Tensor], part: str) -> bool:
    """Whether a head's classifier reads another number of channels there than here."""
    there, here = (tensors.get(f"{part}conv_seg.weight") for tensors in (state, own))
    return there is not None and here is not None and there.shape[1] != here.shape[1]


def _check_windows(model: ArtifactNet, path: str | Path) -> None:
    """timm shrinks windows, and stops shifting them, where a map is no larger than a window."""
    for block in model.backbone.net.modules():
        if getattr(block, "shift_size", None) != getattr(block, "target_shift_size", None):
            raise ArtifactNetError(
                f"model.weights {path}: mmsegmentation's Swin has full, shifted windows at any "
                "size: set model.backbone_kwargs.always_partition=true"
            )
