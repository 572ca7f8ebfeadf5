"""Read jobs from a file as a stream: CSV with any usual delimiter, Excel (.xlsx), or JSON.

The columns are the fields of `VoiceJob` and, on the same level, those of its song.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, cast

from voicequeue.ingest import encodings, file_types
from voicequeue.ingest.compression import decompressed
from voicequeue.ingest.csv_rows import CsvRows
from voicequeue.ingest.json_rows import json_rows, starts_with_json
from voicequeue.ingest.lines import ROW_MAX, Lines
from voicequeue.ingest.row import FileFormat, Position, ReadOptions, Row, UnreadableFileError

__all__ = ["ROW_MAX", "RowReader", "open_rows"]

_SNIFF_BYTES = 65_536


class _Borrowed(io.RawIOBase):
    """A reader of the caller's file, seekable or not, that does not close it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        # read1 returns what is available: a row of a pipe does not wait for the next.
        self._read: Callable[[int], bytes | None] = getattr(file, "read1", file.read)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._read(len(buffer)) or b""
        buffer[: len(piece)] = piece
        return len(piece)


class RowSource(Protocol):
    """The rows of a file of one kind."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The file's own columns."""

    @property
    def format(self) -> FileFormat:
        """The way the file is written."""

    @property
    def position(self) -> Position:
        """The place after the last row."""

    def skip_to(self, position: Position) -> None:
        """Skip the rows before a former `position`."""

    def __iter__(self) -> Iterator[Row]: ...


_DEFAULT = ReadOptions()


class RowReader:
    """The rows of an open file. Raises UnreadableFileError before the first row, if the file is invalid.

    A seekable file is checked as a whole; of a pipe, invalid text rejects its own row only. `columns` are the file's
    own; JSON has one, the whole row. `format` is how the file is written. `note` is what a person should know about the
    way it is read. The caller closes the file, and may close the reader, which deletes its temporary file.
    """

    def __init__(self, raw: BinaryIO, options: ReadOptions = _DEFAULT) -> None:
        self.options = options
        self._files = ExitStack()  # temporary ones
        weakref.finalize(self, self._files.close)
        stream: io.BufferedReader = io.BufferedReader(_Borrowed(raw), _SNIFF_BYTES)
        start_at = raw.tell() if _is_seekable(raw) else None
        if not file_types.is_zip(stream.peek(_SNIFF_BYTES)):
            self._source = self._text(raw, stream, start_at)
        elif start_at is None:
            self._source = self._workbook(cast(BinaryIO, stream))
        else:
            raw.seek(start_at)
            self._source = self._workbook(raw)
        self.columns = self._source.columns
        self.format = self._source.format
        self.note: str = getattr(self._source, "note", "")
        self._rows = iter(self._source)

    def _workbook(self, file: BinaryIO) -> RowSource:
        if not self.options.allow_excel:
            raise UnreadableFileError(
                "the file is an Excel workbook or a zip archive, which cannot be read here; send the rows as CSV UTF-8 "
                "or JSON Lines, or ingest the file with voicequeue ingest"
            )
        from voicequeue.ingest.excel.rows import ExcelRows  # noqa: PLC0415 - XML and openpyxl take 100 ms to import

        if not _is_seekable(file):
            spool = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            shutil.copyfileobj(file, spool)
            file = cast(BinaryIO, spool)
        file_types.check_zip(file)
        rows = ExcelRows(file, self.options)
        self._files.callback(rows.close)
        return rows

    def _text(self, raw: BinaryIO, stream: io.BufferedReader, start_at: int | None) -> RowSource:
        start = stream.peek(_SNIFF_BYTES)
        file_types.check_start(start)
        encoding = encodings.recognize(start, self.options.encoding)
        if encoding.is_ascii_based:
            file_types.check_text(start)
        if start_at is not None:
            raw.seek(start_at)
            encodings.check_whole(raw, encoding)
            stream = io.BufferedReader(_Borrowed(raw), _SNIFF_BYTES)
        lines = Lines(encoding.reader(stream))
        read = json_rows if starts_with_json(lines) else CsvRows
        return read(lines, self.options, has_bom=encoding.has_bom)

    def __iter__(self) -> Iterator[Row]:
        return self._rows

    @property
    def position(self) -> Position:
        """The place after the last row."""
        return self._source.position

    def skip_to(self, position: Position) -> None:
        """Skip the rows before a former `position` without parsing them."""
        self._source.skip_to(position)

    def close(self) -> None:
        """Delete temporary files."""
        self._files.close()

    def __enter__(self) -> RowReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _is_seekable(file: BinaryIO) -> bool:
    is_seekable: Callable[[], bool] | None = getattr(file, "seekable", None)
    return is_seekable is not None and is_seekable()


@contextmanager
def open_rows(path: Path, options: ReadOptions = _DEFAULT) -> Iterator[RowReader]:
    """Open a file of rows, plain or gzip. Raises UnreadableFileError, which names a file that is missing or a folder.

    Reading it may raise DamagedFileError.
    """
    if path.is_dir():
        raise UnreadableFileError(f"{path} is a folder; name a file in it")
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
        except OSError as error:
            raise UnreadableFileError(f"{path}: {error.strerror}") from None
        yield stack.enter_context(RowReader(decompressed(file), options))
