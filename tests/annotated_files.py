"""Small files in other data sets' formats, written without the code that reads them."""

import io
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from artifactnet.config import DataConfig
from artifactnet.data.sources.manifest import build_manifest_splits

SCORES = {
    "artifact_score": 0.75,
    "misalignment_score": 0.5,
    "aesthetics_score": 0.25,
    "overall_score": 0.125,
}


def crc32c(data: bytes) -> int:
    """Bit by bit, from the definition."""
    state = 0xFFFFFFFF
    for octet in data:
        state ^= octet
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)


def frame(data: bytes) -> bytes:
    """One record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def varint(value: int) -> bytes:
    value %= 2**64
    out = b""
    while value >= 128:
        out += bytes([value % 128 + 128])
        value //= 128
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(features: Mapping[str, list], packed: bool = True) -> bytes:
    """A serialized tf.train.Example."""
    entries = b""
    for name, values in features.items():
        if values and isinstance(values[0], bytes):
            content = field(1, b"".join(field(1, value) for value in values))
        elif values and isinstance(values[0], float):
            raw = [struct.pack("<f", value) for value in values]
            one = b"".join(varint(1 << 3 | 5) + value for value in raw)
            content = field(2, field(1, b"".join(raw)) if packed else one)
        elif values:
            raw = [varint(value) for value in values]
            one = b"".join(varint(1 << 3 | 0) + value for value in raw)
            content = field(3, field(1, b"".join(raw)) if packed else one)
        else:
            content = b""
        entries += field(1, field(1, name.encode()) + field(2, content))
    return field(1, entries)


def write_records(path: Path, records: Iterable[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(frame(record) for record in records))
    return path


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def picture(path: Path, size: tuple[int, int] = (16, 16)) -> Path:
    """An image whose content follows from its path, so that no two are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(list(str(path).encode())).integers(0, 256, (*size, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def load_manifest(path: Path) -> dict:
    """Sources by split of a manifest, or of a folder of them."""
    return build_manifest_splits(DataConfig(name="manifest", root=str(path)), 0)


def spot(size: tuple[int, int] = (16, 16), value: int = 200) -> np.ndarray:
    """A map with one square of ``value``."""
    pixels = np.zeros(size, np.uint8)
    pixels[4:8, 6:12] = value
    return pixels


def richhf_example(filename: str, artifact: np.ndarray, /, **changes: list) -> bytes:
    """A record of RichHF-18K."""
    features = {
        "filename": [filename.encode()],
        **{name: [score] for name, score in SCORES.items()},
        "artifact_map": [png(artifact)],
        "misalignment_map": [png(np.zeros_like(artifact))],
        "prompt_misalignment_label": [b"1 0 1"],
    }
    return example({**features, **changes})
