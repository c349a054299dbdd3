"""Saved models that hold only what differs from published weights in the package.

A backbone that was tuned in part, or by adapters, mostly equals the weights that it started from.
`leave_out` drops its equal tensors from what is saved, and stores those that differ by a matrix of
low rank (merged LoRA adapters, Hu et al. 2021) as the two factors of that difference:
``W = W_published + lora_B @ lora_A``. `complete` puts everything back. What is left out is named in
the file's metadata, key ``backbones``: the prefix of the tensors -> name and SHA-256 of a file in
`packaged.PUBLISHED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from artifactnet.models.packaged import PUBLISHED, PublishedWeights
from artifactnet.models.timm_net import convert_weights
from artifactnet.types import ArtifactNetError

_A, _B = ".lora_A", ".lora_B"  # (r, in) and (out, r), beside the name of the weight
_ROUNDING = 2.0**-11  # of a float16, as a share of the value
Backbones = Mapping[str, PublishedWeights]


def find_backbones(model: nn.Module) -> dict[str, PublishedWeights]:
    """The timm modules of a model whose published weights are in the package, by their prefix.

    Raises:
        ArtifactNetError: there is none.
    """
    found, seen = {}, []
    for name, module in model.named_modules():
        timm_name = (getattr(module, "pretrained_cfg", None) or {}).get("architecture")
        seen += [timm_name] if timm_name else []
        if timm_name in PUBLISHED:
            found[f"{name}."] = PUBLISHED[timm_name]
    if not found:
        raise ArtifactNetError(
            f"the package has no published weights of {' or '.join(seen) or 'its backbone'}, only "
            f"of {', '.join(PUBLISHED)}; pack the whole model instead"
        )
    return found


def leave_out(
    state: Mapping[str, Tensor], model: nn.Module, backbones: Backbones
) -> dict[str, Tensor]:
    """What of ``state`` must be saved beside the published weights.

    Args:
        state: the model's tensors in float16, by name.
        model: whose tensors they are, in float32, without adapters.
        backbones: see `find_backbones`.

    Raises:
        ArtifactNetError: published weights are missing or damaged, or nothing equals them.
    """
    exact, kept = model.state_dict(), dict(state)
    for prefix, published in backbones.items():
        published.check()
        for name, theirs in _published(model, prefix, published).items():
            ours = exact.get(name)
            if ours is None or ours.shape != theirs.shape:
                continue
            if torch.equal(state[name], theirs.to(state[name].dtype)):
                del kept[name]
            elif factors := _low_rank(ours.cpu().float(), theirs.float()):
                del kept[name]
                for end, factor in zip((_B, _A), factors, strict=True):
                    kept[name + end] = factor.half().contiguous()
        if all(name in kept for name in exact if name.startswith(prefix)):
            raise ArtifactNetError(
                f"no tensor of {prefix[:-1]} equals the published {published.name}, or differs by "
                "a matrix of low rank; pack the whole model instead"
            )
    return kept


def complete(
    state: Mapping[str, Tensor],
    nets: Mapping[str, nn.Module],
    path: str | Path,
    facts: Mapping[str, Mapping[str, str]],
) -> dict[str, Tensor]:
    """All tensors of a saved model: the file's own, and those that it left out.

    Args:
        state: the tensors in the file, by name.
        nets: the timm module that each prefix stands for.
        path: of the file, for messages.
        facts: ``backbones`` in its metadata, see `metadata.read_metadata`.

    Raises:
        ArtifactNetError: published weights are missing or damaged, or not those that it was packed
            with.
    """
    full = dict(state)
    for prefix, published in _published_of(path, facts).items():
        for name, theirs in _converted(nets[prefix], prefix, published).items():
            if name + _B in full and name + _A in full:
                change = full.pop(name + _B).float() @ full.pop(name + _A).float()
                full[name] = theirs.float() + change.reshape(theirs.shape)
            else:
                full.setdefault(name, theirs)
    return full


def _published_of(
    path: str | Path, facts: Mapping[str, Mapping[str, str]]
) -> dict[str, PublishedWeights]:
    """The published weights that a file leaves out, checked."""
    known = {published.name: published for published in PUBLISHED.values()}
    found = {}
    for prefix, each in facts.items():
        start = f"{path}: holds only what differs from the backbone {each['name']}"
        published = known.get(each["name"])
        if published is None:
            raise ArtifactNetError(f"{start}, which this version does not contain; update")
        if published.sha256 != each["sha256"]:
            raise ArtifactNetError(
                f"{start} of another version of ArtifactNet (its SHA-256 differs); pack it again, "
                "or use that version"
            )
        try:
            published.check()
        except ArtifactNetError as error:
            raise ArtifactNetError(f"{start}: {error}") from error
        found[prefix] = published
    return found


def _published(model: nn.Module, prefix: str, published: PublishedWeights) -> dict[str, Tensor]:
    return _converted(model.get_submodule(prefix[:-1]), prefix, published)


def _converted(net: nn.Module, prefix: str, published: PublishedWeights) -> dict[str, Tensor]:
    """Published weights as the net takes them, under the names that a saved model has for them."""
    with safe_open(published.path, framework="pt") as handle:
        state = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    # a net may lack blocks, and adapters rename the layer that they wrap
    own = {name.replace(".base_layer.", ".") for name in net.state_dict()}
    converted = convert_weights(state, net)
    return {prefix + name: value for name, value in converted.items() if name in own}


def _low_rank(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor] | None:
    """Factors (out, r) and (r, in) of the difference; None where they would not be smaller.

    Their product misses no weight by more than half precision would miss it, or one of usual size.
    """
    difference = (ours - theirs).flatten(1) if ours.ndim > 1 else None
    if difference is None or not torch.isfinite(difference).all():
        return None
    rows, columns = difference.shape
    most = (rows * columns - 1) // (rows + columns)  # a larger rank takes no less than all of it
    usual = ours.abs().median()  # which an outlier does not move
    limit = _ROUNDING * ours.flatten(1).abs().maximum(usual)
    u, s, v = torch.linalg.svd(difference, full_matrices=False)
    # the sum of squares that a smaller rank leaves out exceeds what the limits allow together
    rank = int((s.square().flip(0).cumsum(0).flip(0) > limit.square().sum()).sum())
    while rank <= most:
        factors = u[:, :rank] * s[:rank].sqrt(), s[:rank, None].sqrt() * v[:rank]
        if bool(((difference - factors[0] @ factors[1]).abs() <= limit).all()):
            return factors
        rank += 1
    return None
