"""Bombs are refused by their headers, before anything is decoded."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from artifactnet.serving.guard import MAX_SCANS, check_header
from artifactnet.types import ArtifactNetError

LIMIT = 1_000_000


def saved(kind, size=(40, 30), **options):
    file = io.BytesIO()
    Image.new("RGB", size, "gray").save(file, kind, **options)
    return file.getvalue()


def gif_bomb():
    """A few bytes that announce 65535 x 65535 pixels."""
    screen = struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\x00"
    return b"GIF89a" + screen + frame + b";"


def gif_of_large_frame():
    """A small screen, and a frame far beyond it."""
    screen = struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 20000, 20000, 0) + b"\x02\x02\x4c\x01\x00"
    return b"GIF89a" + screen + frame + b";"


def png_bomb(width=20_000, height=20_000):
    """Zeros, a thousandth of their size when compressed."""

    def chunk(kind, data):
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    squeeze = zlib.compressobj(9)
    rows = b"".join(squeeze.compress(bytes(width + 1)) for _ in range(height // 100))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = rows + squeeze.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def icon_of_large_picture():
    """An entry of 16 x 16 pixels, whose PNG has two million."""
    file = io.BytesIO()
    Image.new("RGB", (2000, 1000)).save(file, "PNG")
    content = file.getvalue()
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(content), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + content


def jpeg_of_many_scans(scans=2000):
    """A progressive JPEG whose last scan is repeated."""
    content = saved("JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * scans + content[-2:]


def tiff_of_a_large_tile(first=8192, second=16):
    """An image of 16 x 16 pixels in one tile of 8192 x 8192, which decoders decode whole.

    The sides of the tile may be stated twice: Pillow believes the last, libtiff the first.
    """
    sides = [(tag, side) for tag in (322, 323) for side in dict.fromkeys((first, second))]
    data = zlib.compress(bytes(8192 * 8192), 9)
    longs = [(256, 16), (257, 16), *sides, (324, 8), (325, len(data))]
    tags = [(tag, 4, struct.pack("<I", value)) for tag, value in longs]
    shorts = [(258, 8), (259, 8), (262, 1), (277, 1)]
    tags += [(tag, 3, struct.pack("<HH", value, 0)) for tag, value in shorts]
    tags.sort(key=lambda tag: tag[0])
    entries = [struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in tags]
    folder = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gif_bomb(), "megapixels"),
        (gif_of_large_frame(), "megapixels"),
        (png_bomb(), "megapixels"),
        (saved("PNG", (1001, 1000)), "1001x1000 pixels are above this server's limit of 1 mega"),
        (icon_of_large_picture(), "ICO files are not taken"),
        (jpeg_of_many_scans(), f"more than {MAX_SCANS} scans"),
        (tiff_of_a_large_tile(second=8192), "a TIFF file in tiles"),
        (tiff_of_a_large_tile(), "a TIFF file in tiles"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"", "not an image"),
    ],
    ids=[
        "gif",
        "gif frame",
        "png",
        "one row",
        "icon",
        "scans",
        "tile",
        "two tiles",
        "eps",
        "empty",
    ],
)
def test_refused_without_decoding(content, message):
    tracemalloc.start()
    with pytest.raises(ArtifactNetError, match=message) as refused:
        check_header(content, "image 1", LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(refused.value).startswith("image 1: ")
    assert "\n" not in str(refused.value)
    assert peak < 3_000_000


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO"])
def test_ordinary_files_pass(kind):
    check_header(saved(kind), "image 1", LIMIT)


def test_a_progressive_photograph_passes():
    noise = np.random.default_rng(0).integers(0, 256, (900, 1000, 3), np.uint8)
    for options in ({}, {"progressive": True}, {"progressive": True, "quality": 100}):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "JPEG", **options)
        check_header(file.getvalue(), "image 1", LIMIT)
