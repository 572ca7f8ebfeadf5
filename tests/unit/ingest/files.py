"""Files of rows, as people and programs write them."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast

import pytest

from voicequeue import InvalidJobError, VoiceJob
from voicequeue.ingest.row import Row, UnreadableFileError
from voicequeue.ingest.row_reader import RowReader

A, B, C = (f"https://recordings.example/{letter}.wav" for letter in "abc")


def rows(*lines: str | bytes, end: bytes = b"\n") -> list[Row]:
    """Return the rows of a file with these lines."""
    return list(RowReader(file(*lines, end=end)))


def piped(*lines: str | bytes, end: bytes = b"\n") -> list[Row]:
    """Return the rows of a pipe with these lines."""
    return list(RowReader(cast(BinaryIO, io.BufferedReader(Pipe(file(*lines, end=end).read())))))


class Pipe(io.RawIOBase):
    """A file that can be read once."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes."""
        return self._content.readinto(buffer)


def file(*lines: str | bytes, end: bytes = b"\n") -> BinaryIO:
    """Return a file with these lines."""
    return io.BytesIO(b"".join(_bytes(line) + end for line in lines))


def _bytes(line: str | bytes) -> bytes:
    return line if isinstance(line, bytes) else line.encode()


def jobs(parsed_rows: list[Row], batch: str = "spring") -> list[VoiceJob]:
    """Return the jobs that rows describe."""
    return [row.to_job(batch).model_copy(update={"source_row": None}) for row in parsed_rows]


def row_error(row: Row) -> str:
    """Return the error of a row that is not a valid job."""
    with pytest.raises(InvalidJobError) as raised:
        row.to_job("spring")
    return str(raised.value)


def file_error(*lines: str | bytes) -> str:
    """Return the error that rejects the whole file."""
    with pytest.raises(UnreadableFileError) as raised:
        RowReader(file(*lines))
    return str(raised.value)
