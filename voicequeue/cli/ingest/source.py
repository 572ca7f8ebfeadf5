"""The file or standard input that is ingested: opened once, and monitored for changes while it is read."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from rich import progress as bars

from voicequeue.cli.ingest.errors import FileChangedError
from voicequeue.cli.ingest.intake import Item
from voicequeue.cli.ingest.lock import FileInUseError, locked
from voicequeue.cli.ingest.paths import IngestPaths
from voicequeue.cli.terminal import CommandSetupError, err
from voicequeue.ingest.checkpoint import IngestProgress, identify
from voicequeue.ingest.compression import decompressed
from voicequeue.ingest.row import Position, ReadOptions, UnreadableFileError
from voicequeue.ingest.row_reader import RowReader

#: The name of standard input, and of other streams without a folder, in the names of files beside it.
STDIN = "stdin"

_STANDARD_INPUT = "-"
_SYSTEM_FOLDERS = (Path("/dev"), Path("/proc"))
_UPDATE_INTERVAL_S = 0.1
_MISSING = ("deleted or moved", "Put it back")


class OpenFile(NamedTuple):
    """An open file, under its real path, or a stream."""

    path: Path
    file: BinaryIO
    is_file: bool


class Source:
    """The rows of a file or of a stream. `is_file` is whether they can be read a second time."""

    def __init__(self, opened: OpenFile, options: ReadOptions) -> None:
        self.path, self.file, self.is_file = opened
        self.options = options
        self._opened = os.fstat(self.file.fileno()) if self.is_file else None
        self._identity = identify(self.file, self._opened) if self._opened else {}
        self.rows = RowReader(decompressed(self.file), options)
        self._is_unread = True

    def read(self, start: Position) -> RowReader:
        """Return the rows from `start` on. A stream is read once."""
        if not self._is_unread:
            self.file.seek(0)
            self.rows = RowReader(decompressed(self.file), self.options)
        self._is_unread = False
        self.rows.skip_to(start)
        return self.rows

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the whole content of a file; the rows continue where they were."""
        place = self.file.tell()
        self.file.seek(0)
        yield from iter(partial(decompressed(self.file).read, size), b"")
        self.file.seek(place)

    def new_progress(self, batch: str) -> IngestProgress:
        """Return the progress of an ingestion that has not started."""
        options = {
            "sheet": self.rows.format.sheet,
            "encoding": self.options.encoding,
            "extra": str(self.options.extra_columns),
            "accept-incomplete": self.options.accept_incomplete,
        }
        return IngestProgress(batch, self._identity, options)

    def check_unchanged(self) -> None:
        """Raise FileChangedError if the file was written, replaced or deleted since it was opened."""
        if self._opened is None:
            return
        try:
            now = self.path.stat()
        except OSError:
            now = None
        if now is None or _identity(now) != _identity(self._opened):
            what, cure = ("changed by another program", "Finish the changes there") if now else _MISSING
            raise FileChangedError(
                f"{self.path} was {what} while it was read. {cure}, and ingest the file again without --resume; rows "
                "that are jobs are skipped"
            )

    def shown(self, items: Iterator[Item], label: str = "ingesting") -> Generator[Item, None, None]:
        """Yield the items, and show a progress bar on the terminal."""
        if not err.is_terminal:
            yield from items
            return
        counting = bars.TextColumn("{task.fields[rows]:,} rows")
        remaining = (bars.TimeRemainingColumn(),) if self.is_file else ()
        columns = (bars.SpinnerColumn(), bars.TextColumn("{task.description}"), bars.BarColumn(), counting, *remaining)
        with bars.Progress(*columns, console=err.console, transient=True) as bar:
            task = bar.add_task(label, total=self._opened.st_size if self._opened else None, rows=0)
            update_at = 0.0
            for rows, item in enumerate(items, start=1):
                if (now := time.monotonic()) >= update_at:
                    bar.update(task, completed=self.file.tell() if self.is_file else 0, rows=rows)
                    update_at = now + _UPDATE_INTERVAL_S
                yield item


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes with the file. Programs can restore its time of modification, but not that of its status."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


@contextmanager
def opened(name: str, options: ReadOptions, *, is_dry_run: bool) -> Iterator[tuple[Source, IngestPaths]]:
    """Open and lock the file `name`, or standard input.

    Raises UnreadableFileError, FileInUseError, CommandSetupError.
    """
    with ExitStack() as stack:
        file = _open(name)
        if name != _STANDARD_INPUT:
            stack.callback(file.file.close)
        paths = _lock(stack, file.path, is_dry_run=is_dry_run)
        yield Source(file, options), paths


def _open(name: str) -> OpenFile:
    """Open a file under its real path, so that all its names share one lock and one progress."""
    if name == _STANDARD_INPUT:
        return OpenFile(Path(STDIN), cast(BinaryIO, sys.stdin.buffer), is_file=False)
    path = Path(name)
    if path.is_dir():
        raise UnreadableFileError(f"{path} is a folder; name one file in it")
    try:
        file = path.open("rb")
        if any(folder in path.absolute().parents for folder in _SYSTEM_FOLDERS):
            return OpenFile(Path(STDIN), file, is_file=False)
        return OpenFile(path.resolve(), file, path.is_file())
    except FileNotFoundError:
        raise UnreadableFileError(f"{path}: there is no such file; check its name and folder") from None
    except PermissionError:
        raise UnreadableFileError(f"{path}: you are not allowed to read this file; ask its owner") from None
    except (OSError, ValueError) as error:
        raise UnreadableFileError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _lock(stack: ExitStack, path: Path, *, is_dry_run: bool) -> IngestPaths:
    """Lock a file; a stream gets a name of its own, so that several can be ingested in one folder."""
    paths = IngestPaths(path, is_dry_run)
    if path != Path(STDIN):
        stack.enter_context(locked(paths.lock, path.name))
        return paths
    for number in count(2):
        try:
            stack.enter_context(locked(paths.lock, path.name))
        except FileInUseError:
            paths = IngestPaths(Path(f"{STDIN}-{number}"), is_dry_run)
        except CommandSetupError:  # a folder that cannot be written matters only if a row is rejected
            break
        else:
            break
    return paths
