"""What the page sends, as pixels: the content of a file, or the number of an example."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from artifactnet.data.images import decode_image
from artifactnet.demo.examples import EXAMPLES, read_example
from artifactnet.names import visible
from artifactnet.serving.guard import check_header
from artifactnet.types import ArtifactNetError, UInt8Array

_LONGEST_NAME = 80  # characters that are shown


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What an image may have at most: bytes of its file, and pixels."""

    bytes: int = 25_000_000
    pixels: int = 50_000_000

    @property
    def request_bytes(self) -> int:
        """Of a request that holds such a file as base64, with room for all else."""
        return 4 * (self.bytes // 3 + 1) + 100_000


@dataclass(frozen=True, slots=True)
class Upload:
    """An image to look at: its name for people, and (H, W, 3) uint8 sRGB."""

    name: str
    pixels: UInt8Array


def read_upload(sent: object, limits: UploadLimits) -> Upload:
    """Decode what a browser sent.

    Args:
        sent: ``{"example": NUMBER}``, ``{"name": NAME, "data": BASE64}``, or for a file that was
            too large to be sent ``{"name": NAME, "bytes": SIZE}``. Anything else is refused: the
            name is shown and never used as a path.
        limits: of the image.

    Raises:
        ArtifactNetError: no image that can be used; the message says why in one sentence.
    """
    if isinstance(sent, dict) and set(sent) == {"example"}:
        number = sent["example"]
        if type(number) is not int or not 0 <= number < len(EXAMPLES):
            raise ArtifactNetError("there is no such example")
        return Upload(EXAMPLES[number].caption, read_example(EXAMPLES[number]))
    if not (isinstance(sent, dict) and isinstance(sent.get("name"), str)):
        raise ArtifactNetError("no image was sent; choose one first")
    name = visible(sent["name"][:_LONGEST_NAME]) or "image"
    size, data = sent.get("bytes"), sent.get("data")
    if type(size) is int and size > limits.bytes:
        raise _too_large(name, size, limits)
    if not isinstance(data, str):
        raise ArtifactNetError("no image was sent; choose one first")
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ArtifactNetError(f"{name}: damaged on its way here; send it again") from None
    if not content:
        raise ArtifactNetError(f"{name}: the file is empty")
    if len(content) > limits.bytes:
        raise _too_large(name, len(content), limits)
    check_header(content, name, limits.pixels)
    return Upload(name, decode_image(content, name))


def _too_large(name: str, size: int, limits: UploadLimits) -> ArtifactNetError:
    return ArtifactNetError(
        f"{name}: {size / 1e6:.1f} MB are more than the {limits.bytes / 1e6:g} MB that this page "
        "takes"
    )
