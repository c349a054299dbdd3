"""Mutated image files: each is decoded, read as a mask and predicted, or refused in one line."""

from __future__ import annotations

import argparse
import io
import json
import random
import struct
import tempfile
import zlib
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from artifactnet.cli.arguments import add_value, natural
from artifactnet.data.images import decode_image
from artifactnet.data.masks import read_mask
from artifactnet.types import ArtifactNetError
from perf.fuzz import add_fuzz_options, fuzz, print_counts
from perf.harness import check_out, machine, write_report

MODEL = "student-nano"
SUFFIXES = (".png", ".jpg", ".jpe", ".webp", ".tif", ".gif", ".bmp", ".avif", ".jp2", ".pgm", "")
_FOLDER = 100  # files that predict gets at once


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    add_fuzz_options(parser, cases=10_000)
    add_value(parser, "--predicted", natural, 1000, "of them also through predict (1000)")


def run(args: argparse.Namespace) -> int:
    """Run, print and write the report; exit code 1 where a file was neither used nor listed."""
    check_out(args.out)
    decoded = fuzz(partial(decode_case, args.seed), args.cases, args.limit, args.workers)
    print("decode_image and read_mask")
    print_counts(decoded)
    folders = -(-min(args.predicted, args.cases) // _FOLDER)
    predicted = fuzz(partial(predict_case, args.seed), folders, 30 * args.limit, 1)
    print(f"predict, folders of {_FOLDER} files")
    print_counts(predicted)
    report = {
        "benchmark": "fuzz-images",
        "setting": {
            "cases": args.cases,
            "seed": args.seed,
            "limit": args.limit,
            "workers": args.workers,
            "predicted": folders * _FOLDER,
            "model": MODEL,
        },
        "machine": machine(),
        "decode": decoded.to_json(),
        "predict": predicted.to_json(),
    }
    write_report(args.out, report)
    return 0 if decoded.clean and predicted.clean else 1


def decode_case(seed: int, number: int) -> str | None:
    """Decode one mutated file as an image and as a mask; why it is refused, or None.

    Raises:
        AssertionError: what came back is no image, or an error does not name the file.
    """
    suffix, data = make_case(seed, number)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"case{number}{suffix}"
        path.write_bytes(data)
        reason = None
        try:
            pixels = decode_image(path, path.name)
            assert pixels.shape[2:] == (3,)
            assert pixels.dtype == np.uint8
            size = pixels.shape[:2]
        except ArtifactNetError as error:
            reason, size = _checked(error, path), (32, 40)
        try:
            mask = read_mask(path, size, "image")
            assert mask.shape == size
            assert mask.dtype == np.uint8
        except ArtifactNetError as error:
            _checked(error, path)
        return reason


def _checked(error: ArtifactNetError, path: Path) -> str:
    message = str(error)
    assert path.name in message, message
    assert "\n" not in message, message
    return message.partition(": ")[2]


def predict_case(seed: int, number: int) -> str | None:
    """Predict a folder of mutated files; every one must be answered or listed.

    Raises:
        AssertionError: a file is neither, or the command did not end as it should.
    """
    from artifactnet.inference.folder import predict_to_folder

    with tempfile.TemporaryDirectory() as folder:
        images, out = Path(folder) / "images", Path(folder) / "out"
        images.mkdir()
        for case in range(number * _FOLDER, (number + 1) * _FOLDER):
            suffix, data = make_case(seed, case)
            (images / f"case{case}{suffix}").write_bytes(data)
        summary = predict_to_folder(_predictor(), [images], out, heatmaps=False)
        lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        answered = {Path(json.loads(line)["path"]).name for line in lines}
        listed = {Path(failure.path).name for failure in summary.failures}
        skipped = sum(summary.skipped.counts.values())
        assert not answered & listed, answered & listed
        found = len(answered) + len(listed) + skipped
        assert found == _FOLDER, f"{found} of {_FOLDER} files were answered or listed"
        assert all(len(failure.reason.splitlines()) == 1 for failure in summary.failures)
    return None


@lru_cache(maxsize=1)
def _predictor() -> Any:
    from artifactnet import load_model

    return load_model(MODEL, "cpu")


def make_case(seed: int, number: int) -> tuple[str, bytes]:
    """Suffix and content of a mutated file, by seed and number alone."""
    rng = random.Random(f"{seed}/{number}")
    if rng.random() < 0.04:
        return rng.choice(SUFFIXES), rng.choice(_BOMBS)(rng)
    name = rng.choice(sorted(_originals()))
    suffix, data = _originals()[name]
    if rng.random() < 0.15:
        suffix = rng.choice(SUFFIXES)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(_MUTATIONS)(data, rng)
    return suffix, data


# --- originals ------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _originals() -> dict[str, tuple[str, bytes]]:
    """Small files of every kind: name -> suffix, content."""
    rng = np.random.default_rng(0)
    smooth = np.linspace(0, 255, 32 * 40 * 3).reshape(32, 40, 3).astype(np.uint8)
    noise = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
    mask = np.zeros((32, 40), np.uint8)
    cv2.circle(mask, (20, 16), 9, 255, -1)
    colour, gray, photo = Image.fromarray(noise), Image.fromarray(mask), Image.fromarray(smooth)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a prompt " * 40)
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>" * 10, zip=True)
    profile = rng.bytes(600)
    rich: dict[str, Any] = {"exif": exif, "icc_profile": profile}
    clear = Image.fromarray(np.dstack([noise, mask]))
    deep = Image.fromarray(rng.integers(0, 65536, (32, 40)).astype(np.uint16))
    files: dict[str, tuple[str, Image.Image, str, dict[str, Any]]] = {
        "png": (".png", colour, "PNG", {"pnginfo": text, **rich}),
        "png mask": (".png", gray, "PNG", {}),
        "png alpha": (".png", clear, "PNG", rich),
        "png palette": (".png", colour.quantize(16), "PNG", {"transparency": 3, **rich}),
        "png bits": (".png", gray.convert("1"), "PNG", {"pnginfo": text}),
        "png gray alpha": (".png", clear.convert("LA"), "PNG", {}),
        "png 16 bit": (".png", deep, "PNG", {}),
        "png 12 bit": (".png", Image.fromarray(np.asarray(deep) // 16), "PNG", {}),
        "jpeg": (".jpg", photo, "JPEG", {"comment": b"comment", **rich}),
        "jpeg progressive": (".jpg", colour, "JPEG", {"progressive": True, **rich}),
        "jpeg gray": (".jpg", gray, "JPEG", {}),
        "jpeg cmyk": (".jpg", colour.convert("CMYK"), "JPEG", rich),
        "webp": (".webp", photo, "WEBP", rich),
        "webp lossless": (".webp", clear, "WEBP", {"lossless": True, **rich}),
        "gif": (".gif", colour, "GIF", {"comment": b"comment"}),
        "gif frames": (".gif", colour, "GIF", {"save_all": True, "append_images": [photo] * 3}),
        "bmp": (".bmp", colour, "BMP", {}),
        "bmp palette": (".bmp", colour.quantize(200), "BMP", {}),
        "tiff": (".tif", colour, "TIFF", rich),
        "tiff lzw": (".tif", colour, "TIFF", {"compression": "tiff_lzw", **rich}),
        "tiff deflate": (".tif", deep, "TIFF", {"compression": "tiff_deflate"}),
        "tiff jpeg": (".tif", photo, "TIFF", {"compression": "jpeg"}),
        "tiff fax": (".tif", gray.convert("1"), "TIFF", {"compression": "group4"}),
        "tiff cmyk": (".tif", colour.convert("CMYK"), "TIFF", {}),
        "tiff int": (".tif", Image.fromarray(mask.astype(np.int32)), "TIFF", {}),
        "tiff float": (".tif", Image.fromarray(mask.astype(np.float32) / 255), "TIFF", {}),
        "tiff pages": (".tif", colour, "TIFF", {"save_all": True, "append_images": [photo] * 2}),
        "ppm": (".ppm", colour, "PPM", {}),
        "pgm 16 bit": (".pgm", deep.convert("I"), "PPM", {}),
        "ico": (".ico", clear, "ICO", {"sizes": [(32, 32)]}),
        "tga": (".tga", colour, "TGA", {"rle": True}),
        "avif": (".avif", photo, "AVIF", {"exif": exif.tobytes(), "icc_profile": profile}),
        "avif alpha": (".avif", clear, "AVIF", {}),
        "jp2": (".jp2", photo, "JPEG2000", {}),
        "jp2 16 bit": (".jp2", deep, "JPEG2000", {}),
        "j2k": (".j2k", colour, "JPEG2000", {"no_jp2": True}),
    }
    made = {name: (suffix, _encode(image, kind, options)) for name, (suffix, image, kind, options)
            in files.items()}  # fmt: skip
    wide = rng.integers(0, 65536, (32, 40, 4)).astype(np.uint16)
    for name, values in (("rgb", wide[..., :3]), ("rgba", wide), ("rgb dark", wide[..., :3] // 16)):
        for suffix in (".png", ".tif"):
            made[f"{suffix} 16 bit {name}"] = suffix, cv2.imencode(suffix, values)[1].tobytes()
    return made


def _encode(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# --- mutations ------------------------------------------------------------------------------


def _flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 5, 20, 100)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _flip_header_bits(data: bytes, rng: random.Random) -> bytes:
    size = rng.choice((32, 128, 512))
    return _flip_bits(data[:size], rng) + data[size:]


def _set_bytes(data: bytes, rng: random.Random) -> bytes:
    """Extreme lengths, offsets and counts."""
    changed = bytearray(data)
    value = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"))
    if len(changed) > 4:
        place = rng.randrange(min(len(changed), rng.choice((64, 400, 10**9))) - 4 or 1)
        width = rng.choice((1, 2, 4))
        changed[place : place + width] = value[:width]
    return bytes(changed)


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: int(len(data) * rng.random())]


def _cut_out(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 4, 100, 1000)) :]


def _repeat_part(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    end = start + rng.choice((1, 8, 200))
    return data[:end] + data[start:end] * rng.choice((1, 3)) + data[end:]


def _splice(data: bytes, rng: random.Random) -> bytes:
    """The head of one file and the tail of another."""
    other = _originals()[rng.choice(sorted(_originals()))][1]
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


def _append(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((b"\0" * 1000, b"\r\n", b"<html></html>", rng.randbytes(500)))


def _prepend(data: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"\0", b"\r\n", b"\xef\xbb\xbf", b"HTTP/1.1 200 OK\r\n\r\n")) + data


def _spoil_metadata(data: bytes, rng: random.Random) -> bytes:
    """Noise in EXIF, XMP, colour profile, text or directories, wherever their marks are."""
    marks = (b"Exif", b"eXIf", b"EXIF", b"iCCP", b"ICC_PROFILE", b"ICCP", b"XMP ", b"tEXt", b"iTXt")
    places = [data.find(mark) for mark in (*marks, b"II*\0", b"MM\0*", b"colr", b"JFIF", b"acTL")]
    places = [place for place in places if place >= 0]
    if not places:
        return _flip_bits(data, rng)
    start = rng.choice(places) + rng.choice((4, 8, 12, 20))
    noise = rng.choice((rng.randbytes, lambda n: b"\xff" * n, bytes))(rng.choice((2, 8, 30)))
    return data[:start] + noise + data[start + len(noise) :]


def _bad_png_chunk(data: bytes, rng: random.Random) -> bytes:
    """One more chunk after the header of a PNG: unreadable, empty, huge or compressed."""
    if not data.startswith(b"\x89PNG"):
        return _spoil_metadata(data, rng)
    kind = rng.choice((b"eXIf", b"iCCP", b"iTXt", b"zTXt", b"tEXt", b"acTL", b"fcTL", b"pHYs",
                       b"gAMA", b"cHRM", b"sRGB", b"tRNS", b"PLTE", b"sBIT", b"cICP"))  # fmt: skip
    body = rng.choice(
        (b"", rng.randbytes(40), b"\xff" * 9, b"a\0\0" + zlib.compress(b"x" * 3_000_000))
    )
    checksum = zlib.crc32(kind + body) ^ (rng.random() < 0.3)
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
    return data[:33] + chunk + data[33:]


_MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flip_bits, _flip_header_bits, _set_bytes, _truncate, _cut_out, _repeat_part, _splice),
    *(_append, _prepend, _spoil_metadata, _bad_png_chunk),
    lambda data, _: data,  # the file itself, perhaps under a wrong suffix
)


# --- bombs ----------------------------------------------------------------------------------


def _png_bomb(rng: random.Random) -> bytes:
    side = rng.choice((12_300, 30_000, 65_535, 2**31 - 1))
    return _png(side, side, rng.choice((1, 8, 16)), rng.choice((0, 2, 6)), zlib.compress(b"0"))


def _flat_png(rng: random.Random) -> bytes:
    """Few bytes that unpack to as many pixels as are allowed, or more than were announced."""
    width, height = rng.choice(((3000, 3000), (1, 60_000), (60_000, 1), (16, 16)))
    rows = zlib.compress(bytes((width // 8 + 1) * max(height, 3000)), 9)
    return _png(width, height, 1, 0, rows)


def _png(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def _gif_bomb(rng: random.Random) -> bytes:
    data = bytearray(_originals()["gif"][1])
    struct.pack_into("<HH", data, 6, 65_535, rng.choice((65_535, 150)))
    return bytes(data)


def _bmp_bomb(rng: random.Random) -> bytes:
    data = bytearray(_originals()["bmp"][1])
    struct.pack_into(
        "<ii", data, 18, rng.choice((10_000, 2**31 - 1)), rng.choice((14_000, -(2**31)))
    )
    return bytes(data)


def _tiff_bomb(rng: random.Random) -> bytes:
    """A directory that leads to itself, or with counts beyond the file."""
    data = bytearray(_originals()[rng.choice(("tiff", "tiff lzw", "tiff pages"))][1])
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    if rng.random() < 0.5:
        struct.pack_into("<I", data, start + 2 + 12 * count, start)
    else:
        struct.pack_into("<I", data, start + 2 + 12 * rng.randrange(count) + 4, 2**32 - 1)
    return bytes(data)


def _ppm_bomb(rng: random.Random) -> bytes:
    size = rng.choice((b"12000 12000", b"99999 99999", b"12247 12247"))
    return rng.choice((b"P6", b"P5", b"P3", b"P4")) + b"\n" + size + b"\n255\n" + bytes(100)


def _no_image(rng: random.Random) -> bytes:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"
    starts = (b"", b"GIF89a", b"P6", b"BM", b"II*\0", postscript)
    return rng.choice((*starts, b"text\n" * 50, bytes(3000), rng.randbytes(3000)))


_BOMBS: tuple[Callable[[random.Random], bytes], ...] = (
    *(_png_bomb, _flat_png, _gif_bomb, _bmp_bomb, _tiff_bomb, _ppm_bomb, _no_image),
)
