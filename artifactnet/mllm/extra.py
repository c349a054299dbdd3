"""What the extra ``mllm`` installs, and what to say where it is missing."""

from __future__ import annotations

from importlib.util import find_spec

from artifactnet.types import ArtifactNetError

_PACKAGES = ("transformers", "peft", "accelerate")


def need_extra() -> None:
    """Say at once what is missing.

    Raises:
        ArtifactNetError: the extra is not installed; the message holds the command.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ArtifactNetError(
            f"the multimodal HEIE needs {', '.join(missing)}: pip install 'artifactnet[mllm]'"
        )
