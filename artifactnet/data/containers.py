"""An image file without its metadata: the same coded pixels, and nothing else that may be broken.

Pillow reads text, colour profiles and EXIF while it opens a file, and gives up on what it cannot
parse. Only the parts of a file that say how its pixels are coded, and how they are turned, are kept
here; nothing is decoded.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CRITICAL = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND"))
_PNG_USED = frozenset((b"tRNS", b"eXIf"))  # transparency and orientation, where they are sound
_WEBP_USED = frozenset((b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"EXIF"))
_WEBP_PROFILE_AND_XMP = 0x24  # flags in VP8X
# In the list of items: box type, version, flags, number, protection, and the item's type.
_AVIF_EXIF = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))Exif", re.DOTALL)
_JP2 = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_JP2_USED = frozenset((b"jP  ", b"ftyp", b"jp2c"))
# Baseline, strips, tiles, palette, predictor, extra samples, sample format, JPEG, YCbCr.
_TIFF_USED = frozenset(
    (
        *(254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 280, 281, 284, 292, 293),
        *(317, 320, 322, 323, 324, 325, 332, 338, 339, 347, 512, 513, 514, 529, 530, 531, 532),
    )
)


def strip_metadata(data: bytes) -> bytes | None:
    """The file with its coded pixels, orientation and transparency alone.

    Kept parts are copied as they are; damaged pixels stay damaged.

    Returns:
        None where nothing can be left out, or the format is not PNG, JPEG, WebP, TIFF, AVIF or JP2.
    """
    try:
        if data.startswith(_PNG):
            bare = _strip_png(data)
        elif data.startswith(b"\xff\xd8\xff"):
            bare = _strip_jpeg(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            bare = _strip_webp(data)
        elif data[:4] in (b"II*\0", b"MM\0*"):
            bare = _strip_tiff(data)
        elif data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis", b"mif1"):
            bare = _AVIF_EXIF.sub(rb"\1none", data)
        elif data.startswith(_JP2):
            bare = _strip_jp2(data)
        else:
            return None
    except (struct.error, IndexError):  # the structure itself is damaged
        return None
    return bare if bare != data else None


def png_significant_bits(data: bytes) -> int | None:
    """The largest depth that the chunk sBIT of a PNG states; None without one."""
    if not data.startswith(_PNG):
        return None
    for kind, whole, sound in _png_chunks(data):
        if kind == b"sBIT" and sound and len(whole) > 12:
            return max(whole[8:-4])
        if kind == b"IDAT":
            return None
    return None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """(type, whole chunk, whether its checksum is right); a truncated one comes last, as it is."""
    place = len(_PNG)
    while place < len(data):
        end = len(data)
        if place + 8 <= end:
            end = min(end, place + 12 + struct.unpack_from(">I", data, place)[0])
        whole = data[place:end]
        sound = len(whole) >= 12 and zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:], "big")
        yield whole[4:8], whole, sound
        place = end


def _strip_png(data: bytes) -> bytes:
    kept = [_PNG]
    for kind, whole, sound in _png_chunks(data):
        if kind in _PNG_CRITICAL or (kind in _PNG_USED and sound):
            kept.append(whole)
        if kind == b"IEND":
            break
    return b"".join(kept)


def _strip_jpeg(data: bytes) -> bytes:
    kept, place = [data[:2]], 2
    while data[place] == 0xFF and data[place + 1] != 0xDA:  # up to the first scan
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        end = place + 2 + struct.unpack_from(">H", data, place + 2)[0]
        body = data[place + 4 : end]
        application = 0xE0 <= marker <= 0xEF or marker == 0xFE
        used = (
            (marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14)
            or (marker == 0xE1 and body.startswith(b"Exif\0\0"))
            or (marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12)
        )
        if used or not application:
            kept.append(data[place:end])
        place = end
    return b"".join(kept) + data[place:]


def _strip_webp(data: bytes) -> bytes:
    kept, place = [], 12
    while place < len(data):
        kind, size = data[place : place + 4], struct.unpack_from("<I", data, place + 4)[0]
        end = place + 8 + size + size % 2
        whole = data[place:end]
        if kind == b"VP8X":
            whole = whole[:8] + bytes((whole[8] & ~_WEBP_PROFILE_AND_XMP,)) + whole[9:]
        if kind in _WEBP_USED:
            kept.append(whole)
        place = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _strip_tiff(data: bytes) -> bytes:
    """The first image alone; offsets stay valid, since its directory is shortened in place."""
    order = "<" if data[:2] == b"II" else ">"
    start = struct.unpack_from(order + "I", data, 4)[0]
    count = struct.unpack_from(order + "H", data, start)[0]
    entries = [data[start + 2 + 12 * k : start + 14 + 12 * k] for k in range(count)]
    kept = [
        entry
        for entry in entries
        if len(entry) == 12 and struct.unpack(order + "H", entry[:2])[0] in _TIFF_USED
    ]
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
    return data[:start] + directory + data[start + len(directory) :]


def _strip_jp2(data: bytes) -> bytes:
    return b"".join(
        _strip_jp2_header(whole) if kind == b"jp2h" else whole
        for kind, whole in _boxes(data, 0)
        if kind in _JP2_USED or kind == b"jp2h"
    )


def _strip_jp2_header(box: bytes) -> bytes:
    body = b"".join(whole for kind, whole in _boxes(box, 8) if kind != b"res ")
    return struct.pack(">I", len(body) + 8) + b"jp2h" + body


def _boxes(data: bytes, place: int) -> Iterator[tuple[bytes, bytes]]:
    """Type and whole of every box; one that runs to the end of the file comes last."""
    while place + 8 <= len(data):
        size = struct.unpack_from(">I", data, place)[0]
        if size == 1:  # the length follows in 64 bits
            size = struct.unpack_from(">Q", data, place + 8)[0]
        end = len(data) if size < 8 else place + size
        yield data[place + 4 : place + 8], data[place:end]
        place = end
