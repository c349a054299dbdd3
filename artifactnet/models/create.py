"""Building models, and where their first weights come from.

``model.weights`` names a file. Otherwise ``model.pretrained`` decides: ``auto`` takes the first
available of timm's published weights in the local hub cache, published weights in the package, the
hub, a packaged model with the same backbone, and random ones. Everything but published weights is
recorded as a notice of the model.
"""

from __future__ import annotations

import copy
import fnmatch
import logging
from pathlib import Path
from typing import Any, NamedTuple

from artifactnet.config import Config, ConfigError, ModelConfig
from artifactnet.models import packaged
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.context import context_model
from artifactnet.models.conv_stem import add_stem
from artifactnet.models.hub import in_cache, why_unreachable
from artifactnet.models.import_timm import import_timm
from artifactnet.models.metadata import FORMAT, read_metadata
from artifactnet.models.mmseg_checkpoint import is_mmseg, load_mmseg, read
from artifactnet.models.shared_backbone import complete
from artifactnet.models.timm_net import (
    convert_weights,
    create_net,
    kwargs_change_tensors,
    move_last_norm,
)
from artifactnet.rules import problems
from artifactnet.types import ArtifactNetError

_FEW = 0.1  # share of a net's tensors: fewer random ones need no permanent notice
_OURS = "backbone.net."  # where a model saved by ArtifactNet keeps its backbone
_log = logging.getLogger(__name__)


def create_model(
    model: ModelConfig | str,
    *,
    pretrained: bool | None = None,
    weights: str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    attention: str | None = None,
    segmentation: str | None = None,
    heatmap: str | None = None,
) -> ArtifactNet:
    """Build a model and give its backbone weights; heads start from random ones.

    Args:
        model: the whole configuration, or the name of a timm backbone with defaults elsewhere.
        pretrained: True: published weights or an error; False: random weights; None: as
            configured, by default the first available of published, packaged and random ones.
        weights: file of the backbone's weights (``model.weights``).
        image_size: (height, width) in pixels, or the side of a square.
        attention: ``model.attention.method``: ``rollout``, ``gradient_rollout`` or ``grad_cam``.
        segmentation: ``model.segmentation.head``: ``none`` or ``upernet``.
        heatmap: ``model.heatmap.head``: ``none``, ``decoder`` or ``mapper``.

    Returns:
        The model, in training mode on the CPU, with its own copy of the configuration. Its
        ``notices`` say if the weights are not the published ones.

    Raises:
        ArtifactNetError: an unknown backbone, an impossible configuration, or weights that are
            missing, damaged or of another architecture; the message names the key.
    """
    config = ModelConfig(backbone=model) if isinstance(model, str) else copy.deepcopy(model)
    if pretrained is not None:
        config.pretrained = str(pretrained).lower()
    if weights is not None:
        config.weights = str(weights)
    if image_size is not None:
        square = isinstance(image_size, int)
        config.image_size = [image_size] * 2 if square else list(image_size)  # type: ignore
    if attention is not None:
        config.attention.method = attention
    if segmentation is not None:
        config.segmentation.head = segmentation
    if heatmap is not None:
        config.heatmap.head = heatmap
    for key, problem in problems(Config(model=config)):
        if key.startswith("model."):
            raise ConfigError(f"{key} {problem}")
    if config.weights is not None and is_mmseg(read(config.weights)):
        net = ArtifactNet(config)
        for line in load_mmseg(net, config.weights):
            _log.warning(line)
        return net
    return _with_backbone_weights(config)


def list_models(pattern: str = "*", *, backbones: bool = False) -> list[str]:
    """Matching names of models, sorted.

    Args:
        pattern: shell-style, e.g. ``"*swin*"``.
        backbones: list timm backbones for `create_model` instead of the packaged models that
            `artifactnet.load_model` opens. Whether a backbone has attention rollout or a feature
            pyramid is known once it is built (``ArtifactNet.no_attention``).
    """
    if backbones:
        return sorted(import_timm().list_models(pattern))
    return fnmatch.filter(packaged.list_packaged(), pattern)


def _with_backbone_weights(config: ModelConfig) -> ArtifactNet:
    net, notice = _weighted_net(config)
    context, notices = None, [notice]
    if config.context.backbone:
        context, notice = _weighted_net(context_model(config.context))
        notices.append(notice)
    model = ArtifactNet(config, net, context)
    model.notices = tuple(notice for notice in notices if notice)
    return model


def _weighted_net(config: ModelConfig) -> tuple[Any, str]:
    """A timm model with its stem and weights, and the notice about these, or ""."""
    source = _weights_source(config)
    net = create_net(config, pretrained=source.kind == "hub")
    # only weights that we saved include those of a convolutional stem
    ours = source.kind == "packaged" or (source.kind == "file" and _saved_by_us(source.path))
    if ours:
        add_stem(net, config)
    notice = source.notice
    if source.kind in ("file", "packaged", "published"):
        strict = config.weights_strict or source.kind != "file"
        partial = load_backbone_weights(net, source.path, strict)
        notice = notice or partial
    if not ours:
        add_stem(net, config)
    return net, notice


class _Source(NamedTuple):
    """Where weights come from, and the notice to repeat."""

    kind: str  # file | hub | published (in the package) | packaged (a model) | random
    path: str = ""  # of a file
    notice: str = ""


def _weights_source(config: ModelConfig) -> _Source:
    """What ``model.weights`` and ``model.pretrained`` request, as far as it is available."""
    if config.weights is not None:
        return _Source("file", config.weights)
    if config.pretrained == "false":
        return _Source("random")
    reason = _why_unpublished(config)
    if reason is None:
        if _in_hub_cache(config.backbone):
            return _Source("hub")
        published = packaged.find_published(config)
        if published is not None:
            published.check()
            return _Source("published", str(published.path))
        unreachable = why_unreachable()
        if unreachable is not None:
            reason = f"the weights are not in the local cache and {unreachable}"
    if reason is None:
        return _Source("hub")
    if config.pretrained == "true":
        raise ArtifactNetError(
            f"model.pretrained=true, but {reason}. Put the weights in the hub cache, give a "
            "local file with model.weights=PATH, or allow random weights with "
            "model.pretrained=auto"
        )
    packed = packaged.find_backbone(config)
    if packed is None:
        notice = f"{config.backbone} started from RANDOM weights, not pretrained ones: {reason}"
        _log.warning(notice)
        return _Source("random", notice=notice)
    data = f", trained on {packed.trained_on}" if packed.trained_on else ""
    notice = (
        f"{config.backbone} started from the packaged weights {packed.name}{data} (see its "
        f"model card): {reason}"
    )
    _log.warning(notice)
    return _Source("packaged", str(packed.path), notice)


def _why_unpublished(config: ModelConfig) -> str | None:
    """None if published weights fit the backbone, wherever they are, else the reason."""
    if kwargs_change_tensors(config):
        return "model.backbone_kwargs changes the architecture, so published weights do not fit"
    known = import_timm().get_pretrained_cfg(config.backbone)
    if known is None or not (known.hf_hub_id or known.url or known.file):
        return f"timm publishes no weights for {config.backbone}"
    return None


def _in_hub_cache(backbone: str) -> bool:
    """Whether the weights file of a timm model is in the local hub cache."""
    published = import_timm().get_pretrained_cfg(backbone)
    if published is None or not published.hf_hub_id:
        return False
    return in_cache(published.hf_hub_id, ["model.safetensors", "pytorch_model.bin"])


def _saved_by_us(path: str) -> bool:
    """Whether a file holds a model saved by ArtifactNet; a damaged one is reported on loading."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            return (handle.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def _left_out(path: str) -> dict[str, dict[str, str]]:
    """What a model saved by ArtifactNet leaves out of its backbone."""
    return {k: v for k, v in read_metadata(path)["backbones"].items() if k == _OURS}


def load_backbone_weights(net: Any, path: str, strict: bool = True) -> str:
    """Load local weights into a timm model without classifier.

    Takes the backbone of a model saved by ArtifactNet. Original layouts (e.g. Meta's DINOv2 files)
    go through timm's key conversion, which also resizes position embeddings. Drops a classifier.

    Args:
        net: the timm model.
        path: ``.safetensors``, or a ``.pth`` with tensors only.
        strict: every key must fit. Otherwise tensors that fit by timm's name and by shape are
            loaded: a shallower net starts from the part that it shares with a deeper one.

    Returns:
        A notice of how many tensors stayed random; or "".

    Raises:
        ArtifactNetError: the file is missing, unreadable or of another architecture.
    """
    try:
        state = import_timm().models.load_state_dict(path)
    except Exception as error:  # whatever the reader raises, the message names this file
        why = str(error) or type(error).__name__
        raise ArtifactNetError(f"model.weights {path}: cannot be read: {why}") from error
    if _saved_by_us(path):
        state = complete(state, {_OURS: net}, path, _left_out(path))
    ours = {k.removeprefix(_OURS): v for k, v in state.items() if k.startswith(_OURS)}
    state = ours or state
    classifier = (net.pretrained_cfg or {}).get("classifier") or ()
    classifiers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    own = net.state_dict()
    if not strict:  # conversions look up every key in the net
        state = move_last_norm(state, net)
        state = {k: v for k, v in state.items() if k in own}
    try:
        state = convert_weights(state, net)
        dropped = tuple(f"{name}." for name in classifiers)
        state = {k: v for k, v in state.items() if not (dropped and k.startswith(dropped))}
        if not strict:
            state = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
        missing, unexpected = net.load_state_dict(state, strict=False)
    except (RuntimeError, KeyError, AttributeError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ArtifactNetError(f"model.weights {path}: other architecture: {first}") from error
    if not strict and state:
        notice = (
            f"the backbone took {len(state)} tensors from {Path(path).name}; "
            f"{len(missing)} started from RANDOM weights, e.g. {next(iter(missing), '-')}"
        )
        _log.warning(notice)
        return notice if len(missing) > _FEW * len(own) else ""
    if missing or unexpected:
        raise ArtifactNetError(
            f"model.weights {path}: other architecture: {len(missing)} keys missing "
            f"(e.g. {next(iter(missing), '-')}), {len(unexpected)} unexpected "
            f"(e.g. {next(iter(unexpected), '-')})"
        )
    return ""
