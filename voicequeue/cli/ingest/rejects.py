"""The file of rejected rows.

Rows are appended to a partial file, which is renamed at the end: a run that is killed leaves the earlier file whole,
and a resumed run cuts the partial file to the length of the last checkpoint.

Users correct rows in this file. The fraction of its time of modification is a digest of its content (`sign`), so that
a file that was changed since is recognized, and kept under another name.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO
from zipfile import ZIP_DEFLATED, ZipFile

from voicequeue.cli.ingest.paths import IngestPaths
from voicequeue.cli.ingest.writing import CannotWriteError, writing
from voicequeue.cli.terminal import CommandSetupError
from voicequeue.errors import VoiceQueueError
from voicequeue.ingest.cells import guard_for_any_separator as guard
from voicequeue.ingest.checkpoint import CannotResumeError
from voicequeue.ingest.row import REJECTED_COLUMNS, FileFormat, FileKind, Row

_BOM = "\ufeff"

#: The most characters of a cell of a workbook.
_CELL_MAX = 32_767

_SHEET = "rejected"
_SECOND_NS = 1_000_000_000


class RejectsFile:
    """The rejected rows of one run, in the format of the source, so that they open in the same program.

    `kept`: the bytes of the partial file that this run continues. Use it as a context; `finish` replaces the file of
    an earlier run.
    """

    def __init__(self, paths: IngestPaths, columns: tuple[str, ...], written: FileFormat, *, kept: int = 0) -> None:
        self.path = paths.rejected(written.kind)
        self.paths = paths
        self._columns = columns
        self._format = written
        self.kept_as: Path | None = None  # the file of an earlier run that was changed since
        self._is_input = self.path == paths.source
        self._file: TextIO | None = None
        if kept:
            self._file = _continued(paths.partial, kept)
        else:
            self._delete(paths.partial)
        self._delete(paths.partial_workbook)
        self._writer: Any = self._new_writer() if self._file else None

    def __enter__(self) -> RejectsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None and not self._file.closed:
            with suppress(OSError) if error else self._writing():
                self._file.close()

    def add(self, row: Row, error: VoiceQueueError) -> None:
        """Write a row with its place in the first input and the reason.

        It reads back unchanged (`ingest/row_reader.py`).
        """
        cells = [str(error), *(row.cells.get(column, "") for column in self._columns), *row.extra_cells]
        with self._writing():
            if self._file is None:
                self._file = _opened(self.paths.partial, "w")
                if self._format.has_bom or self._format.kind is FileKind.EXCEL:
                    self._file.write(_BOM)
                self._writer = self._new_writer()
                self._writer.writerow([*REJECTED_COLUMNS, *map(guard, self._columns)])
            self._writer.writerow([*(place or "" for place in row.source), *map(guard, cells)])

    def flush(self) -> int:
        """Flush the partial file, and return its length in bytes; 0 if no row was rejected."""
        if self._file is None:
            return 0
        with self._writing():
            self._file.flush()
            return self.paths.partial.stat().st_size

    def finish(self) -> Path | None:
        """Replace the file of an earlier run, or delete it if this run rejected no row; return the path of the new one.

        A source is never deleted, only replaced by its rows that were rejected again.
        """
        if self._file is None:
            if not self._is_input:
                self._keep_changed()
                self._delete(self.path)
            return None
        self._close()
        if self._format.kind is FileKind.EXCEL:
            self._write_workbook()
            self._replace(self.paths.partial_workbook)
            with self._writing():
                self.paths.partial.unlink()
        else:
            self._replace(self.paths.partial)
        return self.path

    def stop(self) -> Path | None:
        """Return the path of the rejected rows of a run that did not reach its end; None if there are none."""
        if self._file is None:
            return None
        self._close()
        if self._format.kind is FileKind.EXCEL:
            self._write_workbook()
            return self.paths.partial_workbook
        return self.paths.partial

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self.paths.partial, self.paths)

    def _close(self) -> None:
        with self._writing():
            if self._file is not None:
                self._file.close()

    def _write_workbook(self) -> None:
        path = self.paths.partial_workbook
        try:
            with writing(path, self.paths, f" (the rejected rows are in {self.paths.partial})"):
                _write_workbook(self.paths.partial, path)
        except CannotWriteError:
            with suppress(OSError):
                path.unlink()
            raise

    def _replace(self, new: Path) -> None:
        """Replace the file of an earlier run; a changed one is kept."""
        if not self._is_input:
            self._keep_changed()
        with writing(self.path, self.paths, f" (the rejected rows are in {new})"):
            sign(new)
            new.replace(self.path)

    def _keep_changed(self) -> None:
        """Rename the file of an earlier run if it was changed since: it may hold corrections."""
        with writing(self.path, self.paths):
            if self.path.is_file() and not _is_signed(self.path):
                self.kept_as = self.paths.kept(self.path)
                self.path.rename(self.kept_as)

    def _new_writer(self) -> Any:
        return csv.writer(self._file, delimiter=self._format.delimiter) if self._file else None

    def _delete(self, path: Path) -> None:
        try:
            if path.is_file():
                path.unlink()
        except OSError as error:
            raise CommandSetupError(f"{path}, of an earlier run, cannot be removed: {error.strerror}") from None


def _opened(path: Path, mode: str) -> TextIO:
    return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")  # type: ignore[return-value]


def sign(path: Path) -> None:
    """Store the digest of a file in the fraction of its time of modification, which changes with the file."""
    status = path.stat()
    seconds = status.st_mtime_ns // _SECOND_NS
    os.utime(path, ns=(status.st_atime_ns, seconds * _SECOND_NS + _fraction(path)))


def _is_signed(path: Path) -> bool:
    """Return whether a file has not changed since it was signed. It seems changed where times have no fraction."""
    return path.stat().st_mtime_ns % _SECOND_NS == _fraction(path)


def _fraction(path: Path) -> int:
    """Return the digest of a file as microseconds, in nanoseconds."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return int.from_bytes(digest[:8], "big") % 1_000_000 * 1_000


def _continued(path: Path, kept: int) -> TextIO:
    """Open the partial file of an interrupted run, and cut off the rows after its last checkpoint."""
    try:
        with path.open("r+b") as file:
            file.seek(kept - 1)
            if file.read(1) != b"\n":
                raise CannotResumeError(f"{path} was changed; ingest without --resume to write it again")
            file.truncate(kept)
        return _opened(path, "a")
    except OSError as error:
        raise CannotResumeError(f"{path}: {error.strerror}; ingest without --resume to write it again") from None


def _write_workbook(partial: Path, path: Path) -> None:
    """Write the rows of the partial file as a workbook, whose cells are texts, and never formulas."""
    from openpyxl import Workbook  # noqa: PLC0415  the extra `excel`
    from openpyxl.cell import WriteOnlyCell  # noqa: PLC0415
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE  # noqa: PLC0415
    from openpyxl.writer.excel import ExcelWriter  # noqa: PLC0415

    def cell(text: str) -> Any:
        cell = WriteOnlyCell(sheet, value="")
        cell.value = ILLEGAL_CHARACTERS_RE.sub("", text)[:_CELL_MAX]
        cell.data_type = "s"
        return cell

    workbook = Workbook(write_only=True)
    sheet = workbook.create_sheet(_SHEET)
    for cells in _rows(partial):
        sheet.append([cell(text) for text in cells])
    sheet.close()  # else its rows are written again when it is deleted
    with path.open("wb") as file:
        archive = ZipFile(file, "w", ZIP_DEFLATED)
        try:
            ExcelWriter(workbook, archive).save()
        except BaseException:
            archive.fp = None  # so that it does not write again when it is deleted
            raise


def _rows(partial: Path) -> Iterator[list[str]]:
    with partial.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        yield from csv.reader(file)
