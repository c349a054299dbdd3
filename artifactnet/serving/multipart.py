"""Files of a ``multipart/form-data`` body, parsed as it arrives and held in memory alone."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from artifactnet.names import visible
from artifactnet.serving.refused import Refused, Upload

MAX_NAME = 1024  # characters of a file's name that are repeated in the answer
_HEADERS = 16  # of one part
_HEADER_BYTES = 4096  # of one of them


def find_boundary(content_type: str) -> bytes:
    """What separates the parts.

    Raises:
        Refused: the header names none.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Refused(400, "the Content-Type multipart/form-data names no boundary")
    return boundary


class MultipartFiles:
    """Collects the files of a body; feed it pieces, then `finish`.

    Args:
        boundary: see `find_boundary`.
        max_files: that are taken.
    """

    def __init__(self, boundary: bytes, max_files: int) -> None:
        self._files: list[Upload] = []
        self._max_files = max_files
        self._content = bytearray()
        self._field, self._value = bytearray(), bytearray()
        self._name: str | None = None
        self._form_field = ""
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_field,
                    "on_header_value": self._on_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._check_part,
                    "on_part_data": self._on_data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
                max_header_count=_HEADERS,
                max_header_size=_HEADER_BYTES,
            )
        except FormParserError as error:
            raise Refused(400, f"a damaged multipart body: {error}") from error

    def feed(self, piece: bytes) -> None:
        """Parse the next piece.

        Raises:
            Refused: it is no multipart body, has a part that is no file, or too many files.
        """
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise Refused(400, f"a damaged multipart body: {error}") from error

    def finish(self) -> list[Upload]:
        """The files, in order.

        Raises:
            Refused: the body was cut off.
        """
        if not self._ended:
            raise Refused(400, "the multipart body ends before its last boundary")
        return self._files

    def _begin(self) -> None:
        if len(self._files) == self._max_files:
            raise Refused(413, f"more than {self._max_files} images in one request; send fewer")
        self._name, self._form_field, self._content = None, "", bytearray()
        self._field, self._value = bytearray(), bytearray()

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if bytes(self._field).lower() == b"content-disposition":
            options = parse_options_header(bytes(self._value))[1]
            name = options.get(b"filename")
            self._name = None if name is None else name.decode("utf-8", "replace")[:MAX_NAME]
            self._form_field = options.get(b"name", b"").decode("utf-8", "replace")[:MAX_NAME]
        self._field, self._value = bytearray(), bytearray()

    def _check_part(self) -> None:
        if self._name is None:
            field = visible(self._form_field)
            raise Refused(
                400,
                f"the form field {field!r} is text, not a file; with curl: -F images=@photo.jpg",
            )

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def _end_part(self) -> None:
        assert self._name is not None  # else the part was refused
        self._files.append(Upload(self._name, bytes(self._content)))
        self._content = bytearray()

    def _end(self) -> None:
        self._ended = True
