"""TFRecord files: framing, checksums, protocol buffers, and damage of every kind."""

import gzip

import pytest
from annotated_files import crc32c as bitwise
from annotated_files import example, field, frame, varint, write_records
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.data.converters.tfrecord import (
    crc32c,
    decode_example,
    masked_crc32c,
    read_tfrecord,
)
from artifactnet.types import ArtifactNetError

NAMES = st.text(max_size=8)
FEATURES = st.dictionaries(
    NAMES,
    st.one_of(
        st.lists(st.binary(max_size=200), max_size=3),
        st.lists(st.floats(width=32, allow_nan=False), max_size=5),
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    ),
    max_size=5,
)


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720, B.4, and the check value of the CRC catalogue
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_checksums(data, expected):
    assert crc32c(data) == expected
    # the first twelve bytes of a TFRecord file whose first record has 24 bytes
    assert masked_crc32c(bytes([24, 0, 0, 0, 0, 0, 0, 0])) == 0x224B7FA3


@given(st.binary(max_size=300))
def test_checksum_equals_the_definition(data):
    assert crc32c(data) == bitwise(data)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=5))
def test_records_come_back(tmp_path_factory, records):
    path = write_records(tmp_path_factory.mktemp("t") / "a.tfrecord", records)
    assert [data for _, data in read_tfrecord(path)] == records


def test_reading_is_lazy_and_names_file_record_and_offset(tmp_path):
    path = write_records(tmp_path / "a.tfrecord", [b"first", b"second"])
    damaged = bytearray(path.read_bytes())
    damaged[-6] ^= 1
    path.write_bytes(bytes(damaged))
    records = read_tfrecord(path)
    assert next(records) == (f"{path}: record 0 at byte 0", b"first")
    with pytest.raises(ArtifactNetError, match="record 1 at byte 21: the checksum of its data"):
        next(records)


@given(st.data())
def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.tfrecord"
    whole = frame(b"some record") + frame(b"another one")
    if data.draw(st.booleans()):
        cut = data.draw(st.integers(1, len(whole) - 1).filter(lambda n: n != len(whole) // 2))
        broken = whole[:cut]
    else:
        bit = data.draw(st.integers(0, 8 * len(whole) - 1))
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        broken = bytes(changed)
    path.write_bytes(broken)
    with pytest.raises(ArtifactNetError, match=r"damaged.tfrecord: record [01] at byte \d+: "):
        list(read_tfrecord(path))


def test_files_of_another_kind_are_recognised(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    path = tmp_path / "a.tfrecord"
    for content, kind in ((pointer, "LFS pointer"), (gzip.compress(frame(b"x" * 100)), "gzip")):
        path.write_bytes(content)
        with pytest.raises(ArtifactNetError, match=kind):
            list(read_tfrecord(path))
    with pytest.raises(ArtifactNetError, match=r"b.tfrecord: cannot be read \(No such file"):
        list(read_tfrecord(tmp_path / "b.tfrecord"))


@given(FEATURES, st.booleans())
def test_examples_come_back(features, packed):
    assert decode_example(example(features, packed), "here") == features


def test_unknown_fields_are_passed_over():
    known = example({"a": [1, -1]})
    extra = field(9, b"later") + varint(10 << 3 | 0) + varint(300) + varint(11 << 3 | 1) + bytes(8)
    assert decode_example(extra + known, "here") == {"a": [1, -1]}


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",  # a length is missing
        b"\x0a\x05ab",  # longer than the message
        b"\x0b",  # wire type 3
        b"\x08" + b"\xff" * 10,  # endless integer
        varint(1 << 3 | 0) + b"\x01",  # a number where `features` belongs
        field(1, field(1, field(1, b"\xff\xfe") + field(2, b""))),  # a name that is no text
        field(1, field(1, field(1, b"a") + field(2, field(2, field(1, b"abc"))))),  # 3/4 float
        field(1, field(1, field(1, b"a") + field(2, field(1, varint(8) + b"\x01")))),
    ],
)
def test_what_is_no_example_is_refused(data):
    with pytest.raises(ArtifactNetError, match="^here: not a tf.train.Example"):
        decode_example(data, "here")


@given(st.binary(max_size=40))
def test_any_bytes_are_an_example_or_a_clear_error(data):
    try:
        assert all(isinstance(values, list) for values in decode_example(data, "here").values())
    except ArtifactNetError as error:
        assert str(error).startswith("here: not a tf.train.Example (")  # noqa: PT017
