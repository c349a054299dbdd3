"""Tars: their images, and every way in which one may be cut."""

import io
import tarfile

import pytest
from cluster_jobs import png, tar_of

from artifactnet.cluster.tars import iterate_tar
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.types import ArtifactNetError

MEMBERS = {
    "a/000.png": png(0), "a/000.json": b'{"text": "x"}', "a/001.seg.png": png(1),
    "a/002.jpg": b"no image", "a/003": png(3), "a/004.cls": b"7",
}  # fmt: skip


def read(content, name="t.tar", largest=1 << 30):
    return list(iterate_tar(io.BytesIO(content), name, largest))


@pytest.mark.parametrize(
    ("compression", "name"), [("", "t.tar"), ("gz", "t.tar.gz"), ("gz", "t.TGZ")]
)
def test_images_are_told_by_content(compression, name):
    found = read(tar_of(MEMBERS, compression), name)
    assert [f.name if isinstance(f, ImageInput) else f for f in found] == [
        f"{name}#a/000.png", None, f"{name}#a/001.seg.png",
        Failure(f"{name}#a/002.jpg", "not an image: text"), f"{name}#a/003", None,
    ]  # fmt: skip
    first = found[0]
    assert (first.image, first.generator, first.uid) == (MEMBERS["a/000.png"], "t", "000")
    assert found[2].uid == "001"


@pytest.mark.parametrize("compression", ["", "gz"])
def test_a_cut_tar_gives_what_comes_before_the_cut_and_an_error(compression):
    whole = tar_of({f"{k}.png": png(k) for k in range(3)}, compression)
    name = "t.tar.gz" if compression else "t.tar"
    ends = []
    if not compression:
        end = 0
        for k in range(3):
            ends.append(end := end + 512 + -(-len(png(k)) // 512) * 512)
    for cut in (1, 100, 512, 700, 1200, *ends, *(e + 100 for e in ends), len(whole) // 2):
        found = []
        with pytest.raises(ArtifactNetError, match=rf"^{name}: the tar is damaged or cut \("):
            found.extend(iterate_tar(io.BytesIO(whole[:cut]), name, 1 << 30))
        assert [f.image for f in found] == [png(k) for k in range(len(found))]
        assert len(found) == sum(end <= cut for end in ends) or compression


def test_a_compressed_tar_cut_in_its_header():
    whole = tar_of({"0.png": png(0, (8, 8))}, "gz")
    for cut in range(100):
        with pytest.raises(ArtifactNetError, match=r"^t.tgz: the tar is damaged or cut \("):
            read(whole[:cut], "t.tgz")


@pytest.mark.parametrize(
    "header",
    [
        {"GNU.sparse.map": "x"},
        {"GNU.sparse.size": "x", "GNU.sparse.offset": "1"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        None,  # names of names of names
    ],
)
def test_a_tar_that_tarfile_itself_stumbles_on(header):
    if header is None:
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2
        content = (info.tobuf() + b"a".ljust(512, b"\0")) * 5000
    else:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            info = tarfile.TarInfo("0.png")
            info.size, info.pax_headers = 4, header
            tar.addfile(info, io.BytesIO(b"text"))
        content = buffer.getvalue()
    with pytest.raises(ArtifactNetError, match="damaged or cut"):
        read(content)


def test_a_damaged_header_is_no_end():
    whole = bytearray(tar_of({"0.png": png(0), "1.png": png(1)}))
    second = 512 + -(-len(png(0)) // 512) * 512
    whole[second : second + 100] = b"x" * 100
    with pytest.raises(ArtifactNetError, match="damaged or cut"):
        read(bytes(whole))


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_what_is_no_tar(content):
    with pytest.raises(ArtifactNetError, match="damaged or cut"):
        read(content)


def test_a_member_beyond_the_limit_is_a_failure():
    small, large = png(0), png(1, (200, 200))
    found = read(tar_of({"a.png": large, "b.png": small}), largest=len(small))
    assert isinstance(found[0], Failure)
    assert found[0].reason.startswith("larger than")
    assert found[1].image == small


def test_longer_names_than_a_header_holds():
    name = "folder/" * 40 + "é.png"
    assert read(tar_of({name: png(0)}))[0].name == f"t.tar#{name}"
