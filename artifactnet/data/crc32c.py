"""CRC-32C (Castagnoli), the checksum of TFRecord files, in numpy.

The checksum of A followed by B is that of A, moved on by len(B) bytes, XOR that of B. So words of
eight bytes are looked up side by side, then joined in pairs, pairs of pairs, and so on: numpy does
in a few passes what would otherwise be a Python loop over bytes.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

UInt32Array = npt.NDArray[np.uint32]

_POLYNOMIAL = 0x82F63B78  # bit-reversed 0x1EDC6F41
_WORD = 8  # bytes looked up together
_CHUNK = 1 << 17  # bytes; larger ones leave the processor's cache
_MASK_DELTA = 0xA282EAD8


def crc32c(data: bytes) -> int:
    """CRC-32C of some bytes (RFC 3720, B.4), in 0..2^32 - 1."""
    state = 0xFFFFFFFF
    for start in range(0, len(data), _CHUNK):
        chunk = data[start : start + _CHUNK]
        state = _skip(state, len(chunk)) ^ _plain(chunk)
    return state ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """CRC-32C as TFRecord stores it: rotated and shifted, so that it may itself be checksummed."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _plain(chunk: bytes) -> int:
    """Checksum that starts from 0 instead of all ones: then leading zero bytes change nothing."""
    padded = np.frombuffer(bytes(-len(chunk) % _WORD) + chunk, np.uint8).reshape(-1, _WORD)
    values = np.zeros(len(padded), np.uint32)
    for place, table in enumerate(_word_tables()):
        values ^= table[padded[:, place]]
    level = 3  # a word is 2^3 bytes
    while len(values) > 1:
        if len(values) % 2:
            values = np.append(np.uint32(0), values)
        values = _move(values[::2], level) ^ values[1::2]
        level += 1
    return int(values[0]) if len(values) else 0


def _skip(state: int, count: int) -> int:
    """A checksum moved on by ``count`` zero bytes."""
    moved = np.array([state], np.uint32)
    for level in range(count.bit_length()):
        if count >> level & 1:
            moved = _move(moved, level)
    return int(moved[0])


def _move(values: UInt32Array, level: int) -> UInt32Array:
    """Checksums moved on by 2^level zero bytes each."""
    tables = _move_tables(level)
    octets = np.ascontiguousarray(values).astype("<u4", copy=False).view(np.uint8).reshape(-1, 4)
    result = tables[0][octets[:, 0]]
    for place in (1, 2, 3):
        result ^= tables[place][octets[:, place]]
    return result


@functools.cache
def _move_tables(level: int) -> UInt32Array:
    """(4, 256): where each value of each octet of a checksum goes within 2^level zero bytes."""
    octets = np.arange(256, dtype=np.uint32)
    values = octets << (8 * np.arange(4, dtype=np.uint32))[:, None]
    if level == 0:
        for _ in range(8):  # a bit at a time
            values = (values >> 1) ^ np.where(values & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
        return values
    for _ in range(2):
        values = _move(values.ravel(), level - 1).reshape(4, 256)
    return values


@functools.cache
def _word_tables() -> tuple[UInt32Array, ...]:
    """What a byte adds to the checksum of its word, by its place in the word."""
    tables = [_move_tables(0)[0]]
    for _ in range(_WORD - 1):
        tables.append(_move(tables[-1], 0))
    return tuple(reversed(tables))
