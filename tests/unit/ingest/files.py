"""Files of rows, as people and programs write them."""

from __future__ import annotations

import io
from typing import BinaryIO

import pytest

from voicequeue import InvalidJob, VoiceJob
from voicequeue.ingest.row_reader import Row, Rows, UnreadableFile

A, B, C = (f"https://recordings.example/{letter}.wav" for letter in "abc")


def rows(*lines: str | bytes, end: bytes = b"\n") -> list[Row]:
    """The rows of a file with these lines."""
    return list(Rows(file(*lines, end=end)))


def file(*lines: str | bytes, end: bytes = b"\n") -> BinaryIO:
    """A file with these lines."""
    return io.BytesIO(b"".join(_bytes(line) + end for line in lines))


def _bytes(line: str | bytes) -> bytes:
    return line if isinstance(line, bytes) else line.encode()


def jobs(found: list[Row], batch: str = "spring") -> list[VoiceJob]:
    """The jobs that rows describe."""
    return [row.job(batch) for row in found]


def trouble(row: Row) -> str:
    """Why a row is no job."""
    with pytest.raises(InvalidJob) as caught:
        row.job("spring")
    return str(caught.value)


def refused(*lines: str | bytes) -> str:
    """Why the whole file is refused, before any of its rows."""
    with pytest.raises(UnreadableFile) as caught:
        Rows(file(*lines))
    return str(caught.value)
