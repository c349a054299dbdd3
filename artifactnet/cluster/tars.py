"""WebDataset tars: the images in a tar, as it streams by, and whether it is whole."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Literal

from artifactnet.data.image_files import HEAD, Entry, why_no_image_content
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.types import ArtifactNetError

SUFFIXES = (".tar", ".tar.gz", ".tgz")
# the last five are slips of `tarfile` on headers that it does not check
_DAMAGE = (
    *(tarfile.TarError, EOFError, zlib.error),
    *(ValueError, TypeError, IndexError, OverflowError, RecursionError),
)


class _StrictHeader(tarfile.TarInfo):
    """`tarfile` takes a header that is cut or damaged for the end of the tar; this does not."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictHeader:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise  # the block of zeros at its end
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"unexpected end or damaged header: {error}") from None


def iterate_tar(file: BinaryIO, name: str, largest: int) -> Iterator[ImageInput | Failure | None]:
    """Images of a tar, plain or compressed; one of them is in memory at a time.

    Every file whose content is an image counts. Others are None (texts, labels), or a failure if
    they have the name of an image. The generator is the name of the tar without suffix, the uid
    that of the member up to its first dot, which is what WebDataset calls the key.

    Args:
        file: read from start to end.
        name: of the tar; images are called ``name#member``.
        largest: bytes of an image file.

    Raises:
        ArtifactNetError: the tar is damaged or cut; what comes before that has been yielded.
        OSError: it cannot be read.
    """
    generator = os.path.basename(name).partition(".")[0] or None
    try:
        mode: Literal["r|", "r|gz"] = "r|" if name.lower().endswith(".tar") else "r|gz"
        with tarfile.open(fileobj=file, mode=mode, tarinfo=_StrictHeader) as tar:
            for member in tar:
                if member.isfile():
                    yield _image(tar, member, name, generator, largest)
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
    except _DAMAGE as error:
        raise ArtifactNetError(f"{name}: the tar is damaged or cut ({error})") from error


def _image(
    tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, generator: str | None, largest: int
) -> ImageInput | Failure | None:
    called = f"{name}#{member.name}"
    if member.size > largest:
        return Failure(called, f"larger than {largest >> 30} GiB")
    file = tar.extractfile(member)
    assert file is not None  # of a regular file
    content = file.read()
    reason = why_no_image_content(content[:HEAD])
    if reason is not None:
        entry = Entry(member.name, called, reason)
        return Failure(called, entry.complaint) if entry.claims else None
    uid = os.path.basename(member.name).partition(".")[0]
    return ImageInput(called, content, generator, uid)
