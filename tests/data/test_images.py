"""Decoding: every odd image form ends as the same RGB array, every bad one as one error."""

import io

import numpy as np
import pytest
from PIL import Image

from artifactnet.data import images
from artifactnet.data.images import decode_image, encode_jpeg, jpeg_quality, probe_image, shown_size
from artifactnet.types import ArtifactNetError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
SMOOTH = np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_orientation(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(RGB), kind, exif=exif)


# How a viewer turns the stored pixels, written with numpy alone.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("kind", ["png", "tiff", "webp", "jpeg"])
@pytest.mark.parametrize("orientation", range(0, 10))
def test_exif_orientation_and_the_shown_size(kind, orientation):
    data = with_orientation(kind, orientation)
    decoded = decode_image(data, "x")
    if kind in ("png", "tiff"):
        upright = UPRIGHT.get(orientation, UPRIGHT[1])
        np.testing.assert_array_equal(decoded, upright(RGB))
    assert shown_size(data) == (*decoded.shape[:2], 2 <= orientation <= 8)


def test_gray_and_one_bit_become_three_equal_channels():
    bits = GRAY > 127
    for image, expected in ((GRAY, GRAY), (bits, bits * np.uint8(255))):
        out = decode_image(encoded(Image.fromarray(image)), "x")
        np.testing.assert_array_equal(out, np.stack([expected] * 3, axis=-1))
    pixels = np.stack([GRAY, bits * np.uint8(255)], axis=-1)  # with alpha: on white
    out = decode_image(encoded(Image.fromarray(pixels, "LA")), "x")
    np.testing.assert_array_equal(out[..., 1], np.where(bits, GRAY, 255))


def test_transparency_is_composited_on_white():
    alpha = RNG.integers(0, 256, (5, 7, 1), dtype=np.uint8)
    out = decode_image(encoded(Image.fromarray(np.concatenate([RGB, alpha], 2))), "x")
    share = alpha.astype(float) / 255
    assert np.abs(out - (RGB * share + 255 * (1 - share))).max() <= 1
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    out = decode_image(encoded(image, transparency=0), "x")
    np.testing.assert_array_equal(out, [[[255, 255, 255], [200, 100, 50]]])
    np.testing.assert_array_equal(decode_image(encoded(image), "x")[0, 0], [10, 20, 30])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_not_clipped(kind):
    values = np.array([[0, 257, 128, 129, 65535, 32768]], dtype=np.uint16)
    out = decode_image(encoded(Image.fromarray(values), kind), "x")
    expected = [round(float(v) / 257) for v in values[0]]
    assert out[0, :, 0].tolist() == expected == [0, 1, 0, 1, 255, 128]
    assert out.shape == (1, 6, 3)


def test_pixels_of_unknown_range_are_an_error():
    for dtype in (np.int32, np.float32):
        image = Image.fromarray(np.full((2, 2), 70000, dtype=dtype))
        with pytest.raises(ArtifactNetError, match=r"deep\.tif.*no known range"):
            decode_image(encoded(image, "TIFF"), "deep.tif")


def test_pillow_image_and_path(tmp_path):
    path, image = tmp_path / "a.png", Image.fromarray(RGB)
    image.save(path)
    for data in (path, str(path), image):
        out = decode_image(data, "x")
        np.testing.assert_array_equal(out, RGB)
        out[:] = 0
    np.testing.assert_array_equal(np.asarray(image), RGB)


def test_cmyk_and_the_first_frame_of_an_animation():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red ink
    red = decode_image(encoded(image, "JPEG", quality=95), "x")
    assert np.abs(red.astype(int) - [255, 0, 0]).max() < 12
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_image(data, "x")[0, 0], [255, 0, 0])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_image_is_an_error(kind, share):
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(ArtifactNetError, match=r"^half\.bin: "):
        decode_image(data[: int(len(data) * share)], "half.bin")


def test_what_is_no_image(tmp_path):
    for data, problem in (
        *[(junk, "") for junk in (b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0")],
        (tmp_path / "gone.png", "no such file"),
        (tmp_path, "cannot be opened"),
        (Image.new("RGB", (0, 3)), "no pixels"),
    ):
        with pytest.raises(ArtifactNetError, match=f"^odd: .*{problem}") as caught:
            decode_image(data, "odd")
        assert "\n" not in str(caught.value)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises more pixels than the file holds."""
    import struct
    import zlib

    def chunk(tag: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0"))


@pytest.mark.parametrize("side", [12_500, 60_000])  # above our limit; above Pillow's own too
@pytest.mark.parametrize("read", [decode_image, probe_image])
def test_decompression_bomb(read, side):
    with pytest.raises(ArtifactNetError, match=r"bomb\.png.*150 megapixels"):
        read(bomb(side, side), "bomb.png")


@pytest.mark.filterwarnings("error")
def test_large_but_allowed_image_gives_no_pillow_warning():
    assert images.MAX_PIXELS > 10_000 * 10_000
    assert probe_image(bomb(10_000, 10_000), "big.png") == ("PNG", 10_000, 10_000)


def test_probe(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encode_jpeg(RGB, 90))
    assert probe_image(path) == ("JPEG", 7, 5)
    assert probe_image(encoded(Image.fromarray(GRAY))) == ("PNG", 7, 5)
    with pytest.raises(ArtifactNetError, match="image bytes"):
        probe_image(b"no")
    assert jpeg_quality(encoded(Image.fromarray(RGB))) is None


@pytest.mark.parametrize("quality", [1, 10, 30, 49, 50, 51, 75, 92, 96, 100])
def test_jpeg_quality_is_estimated_exactly_for_libjpeg(quality):
    assert jpeg_quality(encode_jpeg(SMOOTH, quality)) == quality
    assert jpeg_quality(encoded(Image.fromarray(GRAY), "JPEG", quality=quality)) == quality


@pytest.mark.parametrize(("subsampling", "factors"), [("4:4:4", 1), ("4:2:2", 2), ("4:2:0", 2)])
def test_encode_jpeg_obeys_subsampling(subsampling, factors):
    image = Image.open(io.BytesIO(encode_jpeg(SMOOTH, 80, subsampling)))
    _, *sampling, _ = image.layer[0]
    assert sampling == [factors, 2 if subsampling == "4:2:0" else 1]
    for bad in ((0, "4:2:0"), (101, "4:2:0"), (90, "4:1:0")):
        with pytest.raises(ValueError, match="must be"):
            encode_jpeg(RGB, *bad)


def metadata_cases():
    """Files whose pixels are sound and whose metadata is not: name -> content, pixels."""
    import struct
    import zlib

    def chunk(kind, body, spoil=0):
        return (
            struct.pack(">I", len(body))
            + kind
            + body
            + struct.pack(">I", zlib.crc32(kind + body) ^ spoil)
        )

    plain = encoded(Image.fromarray(RGB))

    def with_chunk(kind, body, spoil=0):
        return plain[:33] + chunk(kind, body, spoil) + plain[33:]

    huge = zlib.compress(b"x" * 3_000_000)
    bad = b"\0\x08\0\2\1\x12\0\3"
    exif = Image.Exif()
    exif[0x010E] = "words"
    jpeg = encoded(Image.fromarray(RGB), "JPEG", exif=exif.tobytes())
    webp = encoded(Image.fromarray(RGB), "WEBP", lossless=True, exif=exif.tobytes())
    avif = encoded(Image.fromarray(SMOOTH), "AVIF", exif=exif.tobytes())
    tiff = encoded(Image.fromarray(RGB), "TIFF", tiffinfo={34665: 99_999})
    return {
        "PNG, EXIF": with_chunk(b"eXIf", bad),
        "PNG, large compressed text": with_chunk(b"zTXt", b"prompt\0\0" + huge),
        "PNG, large international text": with_chunk(b"iTXt", b"w\0\1\0\0\0" + huge),
        "PNG, large profile": with_chunk(b"iCCP", b"icc\0\0" + huge),
        "PNG, checksum of text": with_chunk(b"tEXt", b"a\0b", spoil=1),
        "PNG, short resolution": with_chunk(b"pHYs", b"\1"),
        "PNG, text after the pixels": plain[:-12] + chunk(b"zTXt", b"p\0\0" + huge) + plain[-12:],
        "JPEG, EXIF": jpeg.replace(b"Exif\0\0MM\0*", b"Exif\0\0MMMM"),
        "JPEG, short JFIF": jpeg[:2] + b"\xff\xe0\0\x07JFIF\0" + jpeg[2:],
        "WebP, EXIF": webp.replace(b"MM\0*", b"MMMM"),
        "AVIF, EXIF": avif.replace(b"MM\0*", b"MMMM"),
        "TIFF, EXIF outside the file": tiff,
    }


@pytest.mark.parametrize("name", metadata_cases())
def test_metadata_that_cannot_be_read_is_ignored(name):
    data = metadata_cases()[name]
    pixels = decode_image(data, name)
    if not name.startswith(("JPEG", "AVIF")):
        np.testing.assert_array_equal(pixels, RGB)
    assert shown_size(data) == (*pixels.shape[:2], False)
    assert probe_image(data)[1:] == pixels.shape[1::-1]


def test_ignored_metadata_is_reported_and_orientation_survives(caplog):
    from artifactnet.data import notices

    notices._counts.clear()
    data = metadata_cases()["PNG, large profile"]
    for number in range(12):
        decode_image(data, f"{number}.png")
    lines = [record.getMessage() for record in caplog.records]
    assert ["0.png" in lines[0], "1.png" in lines[1], "2.png" in lines[2]] == [True] * 3
    assert lines[3].startswith("10 images")
    assert len(lines) == 4
    turned = with_orientation("png", 6)
    extra = data[33 : data.index(b"IDAT") - 4]
    spoiled = turned[:33] + extra + turned[33:]
    np.testing.assert_array_equal(decode_image(spoiled, "x"), UPRIGHT[6](RGB))


DEEP = np.tile(np.linspace(0, 1, 64), (4, 1))


def stored(values, kind="TIFF"):
    return encoded(Image.fromarray(values), kind)


@pytest.mark.parametrize(
    ("white", "dtype", "kind"),
    [
        (255, np.uint16, "PNG"), (255, np.int32, "TIFF"), (255, np.float32, "TIFF"),
        (1023, np.uint16, "PNG"), (1023, np.uint16, "TIFF"), (4095, np.uint16, "PNG"),
        (4095, np.int32, "TIFF"), (16383, np.int32, "TIFF"), (65535, np.uint16, "TIFF"),
        (65535, np.int32, "TIFF"), (1, np.float32, "TIFF"),
    ],
)  # fmt: skip
def test_deep_images_are_scaled_by_their_evident_range(white, dtype, kind):
    values = DEEP * white
    values = values.astype(dtype) if white == 1 else np.rint(values).astype(dtype)
    out = decode_image(stored(values, kind), "x")
    assert np.abs(out[..., 0] - DEEP * 255).max() <= 1
    np.testing.assert_array_equal(decode_image(stored(values, kind), "x", white), out)


@pytest.mark.parametrize(
    ("high", "dtype"),
    [(20, np.int32), (300, np.uint16), (1500, np.int32), (9000, np.uint16), (70_000, np.int32),
     (254.5, np.float32)],
)  # fmt: skip
def test_a_range_that_is_not_evident_asks_for_levels(high, dtype):
    data = stored((DEEP * high).astype(dtype))
    with pytest.raises(ArtifactNetError, match=r"dim\.tif.*--levels"):
        decode_image(data, "dim.tif")
    out = decode_image(data, "dim.tif", 80_000 if high > 65535 else 10_000)
    assert out.max() == round(high * 255 / (80_000 if high > 65535 else 10_000))
    with pytest.raises(ArtifactNetError, match=r"dim\.tif.*above the white of 10"):
        decode_image(data, "dim.tif", 10)


def test_values_without_a_range_are_refused():
    for values in (np.array([[-1, 5]], np.int32), np.array([[np.nan, 1]], np.float32)):
        with pytest.raises(ArtifactNetError, match=r"odd\.tif: it has pixels"):
            decode_image(stored(values), "odd.tif")
    dark = np.zeros((3, 4), np.uint16)
    assert not decode_image(stored(dark, "PNG"), "black").any()


@pytest.mark.parametrize("kind", [".png", ".tif"])
@pytest.mark.parametrize("white", [1023, 4095])
def test_deep_colour_is_not_dark(kind, white):
    import cv2

    gradient = np.rint(DEEP * white).astype(np.uint16)
    data = cv2.imencode(kind, np.dstack([gradient, gradient[:, ::-1], gradient // 2]))[1].tobytes()
    out = decode_image(data, "x").astype(int)
    assert np.abs(out[..., 2] - DEEP * 255).max() <= 1  # OpenCV writes blue first
    assert np.abs(out[..., 1] - DEEP[:, ::-1] * 255).max() <= 1
    dim = decode_image(data, "x", 65535)
    assert dim.max() == round(white / 257)


def significant(data: bytes, *bits: int) -> bytes:
    """The PNG with the chunk that says how many bits are significant."""
    import struct
    import zlib

    chunk = b"sBIT" + bytes(bits)
    chunk = struct.pack(">I", len(bits)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return data[:33] + chunk + data[33:]


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (np.arange(15) * 257, 65535),  # 8 bits scaled to 16, dark; not 12 bits
        (np.arange(13) * 256, 65535),
        (np.arange(600) * 16, 65535),  # 12 bits scaled to 16, as TIFF from cameras
        (np.arange(60) * 64, 65535),  # 10 bits
        (np.arange(256) * 16, 4095),  # 8 bits scaled to 12
        (np.arange(256) * 64, 16383),
        (np.arange(4060), 4095),
        (np.arange(231), 255),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_the_steps_of_values_tell_dark_from_shallow(values, white, dtype):
    data = stored(values[None].astype(dtype))
    expected = np.rint(values * 255 / white)
    assert np.abs(decode_image(data, "x")[0, :, 0] - expected).max() <= 1


@pytest.mark.parametrize("high", [260, 900, 1000, 3000, 4000, 9000, 12_000, 16_000])
@pytest.mark.parametrize("colours", [1, 3])
def test_a_dark_photograph_is_never_brightened(high, colours):
    import cv2

    values = RNG.integers(0, high + 1, (64, 64, colours), dtype=np.uint16)
    values[0, 0] = high
    data = cv2.imencode(".png", values)[1].tobytes()
    with pytest.raises(ArtifactNetError, match=rf"dark\.png.* {high} only.*65535.*--levels"):
        decode_image(data, "dark.png")
    assert decode_image(data, "dark.png", 65535).max() == round(high / 257)
    declared = significant(data, *[16] * colours)
    assert abs(int(decode_image(declared, "dark.png").max()) - high / 257) <= 1


def test_significant_bits_that_were_scaled_as_the_standard_says():
    dark = np.arange(200, dtype=np.uint16)[None]
    for scaled in (dark << 4, dark << 4 | dark >> 8, np.rint(dark * (65535 / 4095))):
        data = significant(stored(scaled.astype(np.uint16), "PNG"), 12)
        assert decode_image(data, "x").max() == round(199 * 255 / 4095)
    data = significant(stored(dark * 15, "PNG"), 12)  # unscaled
    assert decode_image(data, "x").max() == round(199 * 15 * 255 / 4095)


@pytest.mark.parametrize("white", [255, 1023, 4095])
@pytest.mark.parametrize("opaque", [None, 65535])
def test_deep_colour_with_alpha(white, opaque):
    import cv2

    gray = np.rint(DEEP * white).astype(np.uint16)
    alpha = np.full_like(gray, white if opaque is None else opaque)
    data = cv2.imencode(".png", np.dstack([gray, gray, gray, alpha]))[1].tobytes()
    out = decode_image(data, "x").astype(int)
    assert np.abs(out[..., 0] - DEEP * 255).max() <= 1
    assert np.abs(decode_image(data, "x", 2 * white)[..., 0] - DEEP * 127.5).max() <= 1
