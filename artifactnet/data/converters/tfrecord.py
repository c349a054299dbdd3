"""TFRecord files of ``tf.train.Example`` without TensorFlow.

A file is a row of records: length (uint64), masked CRC-32C of these eight bytes, data, masked
CRC-32C of the data; all little-endian. An Example is a protocol buffer: a map from feature names to
lists of bytes, float32 or int64.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from artifactnet.types import ArtifactNetError

Feature = list[bytes] | list[float] | list[int]
_Value = TypeVar("_Value", bytes, int)
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_FIXED = {_FIXED64: 8, _FIXED32: 4}  # bytes
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3  # fields of tf.train.Feature
_MASK_DELTA = 0xA282EAD8
_SIGNATURES = {
    b"\x1f\x8b": "it is compressed with gzip; unpack it first",
    b"version https://git-lfs": "it is a Git LFS pointer; get the file with `git lfs pull`",
}


def crc32c(data: bytes) -> int:
    """CRC-32C of some bytes (RFC 3720, B.4), in 0..2^32 - 1."""
    import google_crc32c

    checksum: int = google_crc32c.value(data)
    return checksum


def masked_crc32c(data: bytes) -> int:
    """CRC-32C as TFRecord stores it: rotated and shifted, so that it may itself be checksummed."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def read_tfrecord(path: str | Path) -> Iterator[tuple[str, bytes]]:
    """Records of a file, one at a time, and their places; both checksums of each are checked.

    A place is for people: ``file: record 3 at byte 1024``, counted from 0.

    Raises:
        ArtifactNetError: the file cannot be read, ends inside a record, or a checksum is wrong; the
            message names the place. Records before it were yielded.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            offset = number = 0
            while offset < size:
                place = f"{path}: record {number} at byte {offset}"
                header = file.read(_HEADER.size)
                if len(header) < _HEADER.size:
                    raise ArtifactNetError(f"{place}: {_reason(header, offset, 'truncated')}")
                length, check = _HEADER.unpack(header)
                if masked_crc32c(header[:8]) != check:
                    wrong = "the checksum of its length is wrong"
                    raise ArtifactNetError(
                        f"{place}: {_reason(header + file.read(32), offset, wrong)}"
                    )
                following = offset + _HEADER.size + length + _FOOTER.size
                if following > size:
                    raise ArtifactNetError(
                        f"{place}: truncated: it needs {following - size} more bytes; copy or "
                        "download the file again"
                    )
                data = file.read(length)
                if (masked_crc32c(data),) != _FOOTER.unpack(file.read(_FOOTER.size)):
                    raise ArtifactNetError(
                        f"{place}: the checksum of its data is wrong: the file is damaged; copy or "
                        "download it again"
                    )
                yield place, data
                offset, number = following, number + 1
    except OSError as error:
        raise ArtifactNetError(f"{path}: cannot be read ({error.strerror})") from error


def _reason(start: bytes, offset: int, otherwise: str) -> str:
    """Why a file is no TFRecord file, where its first bytes tell."""
    for signature, text in _SIGNATURES.items():
        if offset == 0 and start.startswith(signature):
            return f"this is no TFRecord file: {text}"
    return f"{otherwise}: the file is damaged or no TFRecord file; copy or download it again"


def decode_example(data: bytes, where: str) -> dict[str, Feature]:
    """Features of a serialized ``tf.train.Example``; ``where`` names the record in errors.

    Returns:
        name -> list of bytes, floats or integers; an empty list where a feature has no value.

    Raises:
        ArtifactNetError: it is no Example.
    """
    features: dict[str, Feature] = {}
    try:
        for features_bytes in _messages(data, 1):
            for entry in _messages(features_bytes, 1):
                names, values = list(_messages(entry, 1)), list(_messages(entry, 2))
                name = names[-1].decode() if names else ""
                features[name] = _feature(values[-1]) if values else []
    except (ValueError, IndexError) as error:  # UnicodeDecodeError is a ValueError
        raise ArtifactNetError(f"{where}: not a tf.train.Example ({error})") from None
    return features


def _feature(data: bytes) -> Feature:
    """Values of a ``tf.train.Feature``; lists of numbers may be packed or not."""
    result: Feature = []
    for number, kind, content in _fields(data):
        if number not in (_BYTES_LIST, _FLOAT_LIST, _INT64_LIST) or kind != _BYTES:
            continue  # fields of later versions are passed over, as protocol buffers ask
        if number == _BYTES_LIST:
            result = list(_messages(_expect(content, bytes), 1))
        elif number == _FLOAT_LIST:
            values = _fields(_expect(content, bytes))
            raw = b"".join(_expect(value, bytes) for field, _, value in values if field == 1)
            result = np.frombuffer(raw, "<f4").tolist()
        else:
            integers: list[int] = []
            for field, packing, value in _fields(_expect(content, bytes)):
                if field == 1 and packing == _BYTES:
                    integers += _varints(_expect(value, bytes))
                elif field == 1:
                    integers.append(_expect(value, int))
            result = [value - (1 << 64) if value >> 63 else value for value in integers]
    return result


def _messages(data: bytes, field: int) -> Iterator[bytes]:
    """Length-delimited values of one field."""
    for number, kind, content in _fields(data):
        if number == field:
            if kind != _BYTES:
                raise ValueError(f"field {number} has wire type {kind}")
            yield _expect(content, bytes)


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes | int]]:
    """(field number, wire type, value) of a message; a varint is an int, all else is bytes."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield number, kind, value
            continue
        if kind == _BYTES:
            length, position = _varint(data, position)
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise ValueError(f"unknown wire type {kind}")
        if position + length > len(data):
            raise ValueError("a field is longer than the message")
        yield number, kind, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Variable-length integer at ``position``, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        octet = data[position]
        position += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise ValueError("an integer is longer than ten bytes")


def _varints(data: bytes) -> list[int]:
    position, values = 0, []
    while position < len(data):
        value, position = _varint(data, position)
        values.append(value)
    return values


def _expect(value: bytes | int, kind: type[_Value]) -> _Value:
    if not isinstance(value, kind):
        raise ValueError(f"{type(value).__name__} where {kind.__name__} belongs")
    return value
