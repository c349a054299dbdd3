"""What a file's header may say before a stranger's image is decoded."""

from __future__ import annotations

from artifactnet.data.images import is_tiled, probe_image
from artifactnet.types import ArtifactNetError

# Formats whose header states the size that is decoded. Of icons it states another one than the
# pictures inside may have, and the rest is not what people send to a server.
FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JXL", "JPEG2000"),
)
# Of a progressive JPEG, every scan goes over all pixels, and a few bytes make one. Encoders write
# about ten.
MAX_SCANS = 100
_START_OF_SCAN = b"\xff\xda"  # inside compressed data, 0xff is always followed by 0x00


def check_header(content: bytes, name: str, max_pixels: int) -> None:
    """Refuse an image that would take too long or too much memory to decode.

    Args:
        content: of an image file.
        name: of the image, for errors.
        max_pixels: that it may have.

    Raises:
        ArtifactNetError: no image, another format, too many pixels, too many scans, or tiles.
    """
    kind, width, height = probe_image(content, name)
    if kind not in FORMATS:
        raise ArtifactNetError(
            f"{name}: {kind} files are not taken here; send it as JPEG, PNG or WebP"
        )
    if width * height > max_pixels:
        raise ArtifactNetError(
            f"{name}: {width}x{height} pixels are above this server's limit of "
            f"{max_pixels / 1e6:g} megapixels; send a smaller version"
        )
    # a tile may be a thousand times its image, and Pillow and libtiff may read its size differently
    if kind == "TIFF" and is_tiled(content, name):
        raise ArtifactNetError(f"{name}: a TIFF file in tiles; save it again without tiles")
    if kind in ("JPEG", "MPO") and content.count(_START_OF_SCAN) > MAX_SCANS:
        raise ArtifactNetError(
            f"{name}: a JPEG of more than {MAX_SCANS} scans; save it again as an ordinary JPEG"
        )
