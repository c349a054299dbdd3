"""What a browser sends becomes pixels, or one sentence."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from artifactnet.demo.examples import EXAMPLES, read_example
from artifactnet.demo.upload import UploadLimits, read_upload
from artifactnet.types import ArtifactNetError

LIMITS = UploadLimits(bytes=200_000, pixels=1_000_000)


def encoded(content):
    return base64.b64encode(content).decode()


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def bomb(width, height):
    """A PNG of a few kilobytes whose header announces that many pixels."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000 * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data)


def icon_of_large_picture():
    """An entry of 16 x 16 pixels, whose PNG has two million."""
    content = png(np.zeros((1000, 2000, 3), np.uint8))
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(content), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + content


def test_pixels_come_through_unchanged(noise):
    pixels = noise(31, 47)
    upload = read_upload({"name": "a b.png", "data": encoded(png(pixels))}, LIMITS)
    assert upload.name == "a b.png"
    np.testing.assert_array_equal(upload.pixels, pixels)


def test_a_jpeg_is_not_encoded_again(noise):
    buffer = io.BytesIO()
    Image.fromarray(noise()).save(buffer, "JPEG", quality=40)
    upload = read_upload({"name": "x.jpg", "data": encoded(buffer.getvalue())}, LIMITS)
    np.testing.assert_array_equal(upload.pixels, np.asarray(Image.open(buffer)))


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_are_real_files_of_the_package(number):
    upload = read_upload({"example": number}, LIMITS)
    example = EXAMPLES[number]
    assert upload.name == example.caption
    np.testing.assert_array_equal(upload.pixels, np.asarray(Image.open(example.path)))


def test_examples_are_photographs_and_repainted_ones():
    assert {example.is_fake for example in EXAMPLES} == {False, True}
    assert all(e.file.split("/")[1] == ("fake" if e.is_fake else "real") for e in EXAMPLES)
    photograph, repainted = (read_example(e) for e in EXAMPLES[:2])  # of one scene
    assert photograph.shape == repainted.shape
    differs = np.abs(photograph.astype(int) - repainted).max(axis=2) > 40
    assert 0 < differs.mean() < 0.2


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"name": "a.png", "data": ""}, "a.png: the file is empty"),
        ({"name": "a.txt", "data": encoded(b"hello, world")}, "a.txt: not an image"),
        ({"name": "a.png", "data": "%%%"}, "a.png: damaged on its way here"),
        ({"name": "a.png", "data": "QUJ"}, "a.png: damaged on its way here"),
        ({"name": "big.png", "bytes": 200_001}, "big.png: 0.2 MB are more than the 0.2 MB"),
        ({"name": "big.png", "data": encoded(bytes(200_001))}, "big.png: 0.2 MB are more"),
        ({"name": "bomb.png", "data": encoded(bomb(60_000, 60_000))}, "bomb.png: more than 150"),
        ({"name": "bomb.png", "data": encoded(bomb(2000, 2000))}, "2000x2000 pixels are above"),
        ({"name": "bomb.ico", "data": encoded(icon_of_large_picture())}, "ICO files are not taken"),
        ({"name": "half.png", "data": encoded(bomb(900, 1100)[:400])}, "half.png: truncated or"),
        ({"example": len(EXAMPLES)}, "no such example"),
        ({"example": -1}, "no such example"),
        ({"example": True}, "no such example"),
        ({"example": "0"}, "no such example"),
        (None, "no image was sent"),
        ("/etc/passwd", "no image was sent"),
        ({"name": "/etc/passwd"}, "no image was sent"),
        ({"name": 3, "data": ""}, "no image was sent"),
        ({"name": "a.png", "bytes": 3}, "no image was sent"),
        ({"path": "/etc/passwd"}, "no image was sent"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused_in_one_line(sent, message):
    with pytest.raises(ArtifactNetError) as caught:
        read_upload(sent, LIMITS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_are_short_and_visible():
    with pytest.raises(ArtifactNetError) as caught:
        read_upload({"name": "a\u202egnp.exe\n" + 300 * "x", "data": ""}, LIMITS)
    assert str(caught.value).startswith("a\\u202egnp.exe\\u000a")
    assert len(str(caught.value)) < 150


def test_a_request_has_room_for_the_largest_file():
    limits = UploadLimits(bytes=1_000_001)
    assert limits.request_bytes > len(encoded(bytes(limits.bytes)))
