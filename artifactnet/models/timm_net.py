"""timm models by name, built for the images that they will get; `create` gives them weights."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from artifactnet.config import ModelConfig
from artifactnet.models.dry_run import dry_run, first_line
from artifactnet.models.import_timm import import_timm
from artifactnet.types import ArtifactNetError

# timm files whose models are plain ViTs: global attention, class token, blocks in a row
PLAIN_VIT_FILES = ("vision_transformer", "vision_transformer_hybrid", "eva", "deit", "beit")
_SWIN_FILES = ("swin_transformer", "swin_transformer_v2")
# sides of patches and windows, and their products: of sizes that may fit, the multiples of these
_STEPS = (32, 16, 14, 56, 64, 112, 128, 48, 28, 12)
_UNEXPECTED = re.compile(r"unexpected keyword argument(?:\(s\):)? \[?'(\w+)'")
_TRIES = 6  # sizes tried on either side of the one that does not fit


def net_size(config: ModelConfig) -> tuple[int, int]:
    """(height, width) of the images that reach a net: of a mapper, its thumbnail and tiles."""
    if config.heatmap.head == "mapper":
        return config.heatmap.tile, config.heatmap.tile
    return config.image_size[0], config.image_size[1]


def size_key(config: ModelConfig) -> str:
    """The key that sets `net_size`."""
    return "model.heatmap.tile" if config.heatmap.head == "mapper" else "model.image_size"


def run_net(net: Any, images: torch.Tensor) -> tuple[Any, Any]:
    """A timm model's last features of (B, 3, H, W) images, and its pooled feature."""
    final = net.forward_features(images)
    return final, net.forward_head(final, pre_logits=True)


def normalization(net: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel that a timm model's weights expect, of [0, 1]."""
    data: dict[str, Any] = net.pretrained_cfg or {}
    mean, std = data.get("mean", (0.485, 0.456, 0.406)), data.get("std", (0.229, 0.224, 0.225))
    return tuple(mean), tuple(std)


def create_net(config: ModelConfig, pretrained: bool = False) -> Any:
    """Build a timm model without classifier, and without the stem of ``model.stem=conv``.

    It gets the size of the images where it takes one, and where it does not fit as published.

    Raises:
        ArtifactNetError: timm has no such model, or cannot build it with these arguments or for
            images of this size (the message names sizes that fit), or its published weights do
            not fit what was built.
    """
    try:
        return _build(config, pretrained)
    except ArtifactNetError:
        raise
    except Exception as error:  # classes of timm raise whatever their layers raise
        if not pretrained:
            raise ArtifactNetError(why_unfit(config, error)) from error
        size = _published_size(config)
        best = f"model.image_size=[{size[0]}, {size[1]}]" if size else "other arguments"
        raise ArtifactNetError(
            f"model.backbone {config.backbone}: its published weights do not fit what was built "
            f"({first_line(error)}); set {best} or model.pretrained=false"
        ) from error


def _build(config: ModelConfig, pretrained: bool = False) -> Any:
    """`create_net` with the errors of timm."""
    file = _timm_file(config.backbone)
    arguments: dict[str, Any] = {"drop_rate": config.drop_rate}
    arguments["drop_path_rate"] = config.drop_path_rate
    size = net_size(config)
    if file in PLAIN_VIT_FILES:
        # any input size, and the class token's own feature as the thing that is classified
        arguments |= {"global_pool": "token", "dynamic_img_size": True}
    if file in _SWIN_FILES:
        arguments["dynamic_img_size"] = True
    if file in PLAIN_VIT_FILES or "swin" in file:
        arguments["img_size"] = tuple(config.image_size)
    create = _create_pretrained if pretrained else _create
    net = create(config, arguments)
    if file in _SWIN_FILES:
        accept_any_size(net)
    if "img_size" in arguments or not _takes(net, "img_size") or size == _published_size(config):
        return net
    # others keep the size of their published weights where they can
    return (
        net
        if _runs(net, size, shapes_alone=False)
        else create(config, arguments | {"img_size": size})
    )


def _create_pretrained(config: ModelConfig, arguments: dict[str, Any]) -> Any:
    """`_create` with published weights, also those of a net that averages its patches."""
    as_published = {key: value for key, value in arguments.items() if key != "global_pool"}
    with torch.device("meta"):
        kinds = [_create(config, each).state_dict().keys() for each in (arguments, as_published)]
    if kinds[0] == kinds[1]:
        return _create(config, arguments, pretrained=True)
    # not all classes of timm refuse weights that lack one of theirs
    published = _create(config, as_published, pretrained=True)
    net = _create(config, arguments)
    own = net.state_dict()
    state = move_last_norm(published.state_dict(), net)
    net.load_state_dict({key: value for key, value in state.items() if key in own})
    return net


def move_last_norm(state: dict[str, Any], net: nn.Module) -> dict[str, Any]:
    """Weights of a ViT whose last norm comes after pooling, named as in one that norms each token.

    BEiT and EVA-02 are published so. Of a class token the two are the same. Weights of nets that
    agree with ``net`` stay as they are.
    """
    own = net.state_dict()
    if "fc_norm.weight" in own or "norm.weight" not in own or "norm.weight" in state:
        return state
    return {re.sub(r"^fc_norm\.", "norm.", key): value for key, value in state.items()}


def convert_weights(state: dict[str, Any], net: nn.Module) -> dict[str, Any]:
    """Published weights, also of other layouts, under the names and shapes of ``net``.

    timm's own conversion of the model's file resizes position embeddings, too.
    """
    convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    return move_last_norm(convert(state, net) if convert else state, net)


def _create(config: ModelConfig, arguments: dict[str, Any], pretrained: bool = False) -> Any:
    """`timm.create_model` with those of our arguments that the class takes.

    Raises:
        ArtifactNetError: a key is set that the class does not take, or one that reads a file: a
            saved model comes with these keys, and must not name files of who loads it.
    """
    timm = import_timm()
    if "checkpoint_path" in config.backbone_kwargs:
        raise ArtifactNetError(
            "model.backbone_kwargs.checkpoint_path is no part of an architecture; model.weights "
            "names a file of weights"
        )
    arguments = {"num_classes": 0} | arguments | config.backbone_kwargs
    while True:
        try:
            return timm.create_model(config.backbone, pretrained=pretrained, **arguments)
        except (TypeError, AssertionError, ValueError) as error:
            key = _not_taken(error)
            if key not in arguments or key in config.backbone_kwargs:
                raise
            if key in ("drop_rate", "drop_path_rate") and arguments[key]:
                raise ArtifactNetError(
                    f"model.{key} is {arguments[key]:g}, but {config.backbone} has none; set it "
                    "to 0"
                ) from error
            del arguments[key]


def _not_taken(error: Exception) -> str | None:
    """The argument that a constructor of timm refuses before it does anything."""
    if "class token" in str(error):  # pooling by a token that the model lacks
        return "global_pool"
    found = _UNEXPECTED.search(str(error))
    return found[1] if found and isinstance(error, TypeError) else None


def _takes(net: nn.Module, argument: str) -> bool:
    return any(argument in inspect.signature(kind).parameters for kind in type(net).__mro__[:-1])


def _runs(net: nn.Module, size: tuple[int, int], shapes_alone: bool = True) -> bool:
    try:
        dry_run(net, size, run_net, shapes_alone)
    except Exception:
        return False
    return True


def why_unfit(config: ModelConfig, error: Exception) -> str:
    """One line about a net that could not be built or run, with image sizes that fit it."""
    reason, size = first_line(error), net_size(config)
    fitting = [f"{height}x{width}" for height, width in sizes_that_fit(config)]
    if fitting:
        return (
            f"{size_key(config)} {size[0]}x{size[1]} does not fit {config.backbone} "
            f"({reason}); {' and '.join(fitting)} {'do' if len(fitting) > 1 else 'does'}"
        )
    given = config.backbone_kwargs
    shown = f" with model.backbone_kwargs {given}" if given else ""
    return f"model.backbone {config.backbone} cannot be built{shown}: {reason}"


def sizes_that_fit(config: ModelConfig) -> list[tuple[int, int]]:
    """Image sizes that a net takes: the next smaller, the next larger, and the published one."""
    size, published = net_size(config), _published_size(config)
    found = set()
    for candidates in (_nearby(size, larger=False), _nearby(size, larger=True)):
        nearest = next((candidate for candidate in candidates if _fits(config, candidate)), None)
        found |= set() if nearest is None else {nearest}
    if published is not None and published != size and _fits(config, published):
        found.add(published)
    return sorted(found)


def _nearby(size: tuple[int, int], larger: bool) -> Iterator[tuple[int, int]]:
    """Sizes of whole patches and windows, the nearest ones first."""
    candidates = set()
    for step in _STEPS:
        units = [side // step + larger for side in size]
        if all(units):
            candidates.add((units[0] * step, units[1] * step))
    candidates.discard(size)
    near = sorted(candidates, key=lambda c: abs(c[0] - size[0]) + abs(c[1] - size[1]))
    yield from near[:_TRIES]


def _fits(config: ModelConfig, size: tuple[int, int]) -> bool:
    whole = replace(config.heatmap, head="none")
    wanted = replace(config, image_size=list(size), heatmap=whole)
    try:
        with torch.device("meta"):
            return _runs(_build(wanted), size)
    except Exception:
        return False


def _published_size(config: ModelConfig) -> tuple[int, int] | None:
    timm = import_timm()
    published = timm.get_pretrained_cfg(config.backbone)
    size = published.input_size if published is not None else None
    return (size[1], size[2]) if size else None


def _timm_file(name: str) -> str:
    """Name of timm's file that defines a model, e.g. ``vision_transformer``."""
    timm = import_timm()
    base = name.split(".")[0]
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=5)
        hint = f"; similar names: {', '.join(near)}" if near else ""
        raise ArtifactNetError(f"model.backbone: timm has no model named {name!r}{hint}")
    return timm.model_entrypoint(base).__module__.rsplit(".", 1)[-1]


def kwargs_change_tensors(config: ModelConfig) -> bool:
    """Whether ``model.backbone_kwargs`` add, remove or resize a weight of the backbone.

    ``depth`` and ``embed_dim`` do; ``drop_path_rate`` and ``patch_drop_rate`` do not.
    """
    if not config.backbone_kwargs:
        return False
    with torch.device("meta"):  # shapes alone: no memory, no random numbers
        nets = [create_net(c) for c in (config, replace(config, backbone_kwargs={}))]
    shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in nets]
    return shapes[0] != shapes[1]


def accept_any_size(net: Any) -> None:
    """Make timm's Swin (v1 and v2) pad what its patches and windows do not tile, in place.

    An image is padded to whole patches, and a block's map to whole windows before it is
    shifted. timm shifts first: its padding then lies behind the rows and columns that were
    rolled round, the attention mask no longer meets them, and opposite borders of an image
    attend to each other (timm issue 2438). Where nothing needs padding all is as before.
    ``net`` must be built with ``dynamic_img_size``; calling this twice does no harm.
    """
    net.patch_embed.dynamic_img_pad = True
    for module in net.modules():
        if type(module).__name__ in ("SwinTransformerBlock", "SwinTransformerV2Block"):
            # a partial, unlike a closure, follows its block into a deep copy
            module._attn = partial(_attention, module)


def _attention(block: Any, x: torch.Tensor) -> torch.Tensor:
    """Window attention of a (B, H, W, C) map; timm has nothing left to pad."""
    height, width = x.shape[1:3]
    rows, columns = block.window_size
    whole = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
    return type(block)._attn(block, whole)[:, :height, :width]
