"""Can pretrained weights be had right now? Asked before timm is, whose own answer takes long."""

from __future__ import annotations

import urllib.error
import urllib.request

_TIMEOUT = 3.0  # seconds; an unreachable hub otherwise costs 20-30 s of retries


def in_hub_cache(repository: str) -> bool:
    """Whether a weights file of the hub repository lies in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    names = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in names)


def why_unreachable() -> str | None:
    """None if the hub answers within a few seconds, else the reason in words."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "the weights are not in the local cache and HF_HUB_OFFLINE is set"
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_TIMEOUT).close()
    except urllib.error.HTTPError:
        return None  # it answered, so it is there
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        return f"the weights are not in the local cache and the hub cannot be reached ({why})"
    return None
