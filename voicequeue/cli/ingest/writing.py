"""Errors of the files that an ingestion writes, with their cure."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voicequeue.cli.ingest.paths import IngestPaths
from voicequeue.cli.terminal import CommandSetupError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CannotWriteError(CommandSetupError):
    """A file beside the source cannot be written; the text says how to continue."""

    code = "cannot_write"


@contextmanager
def writing(path: Path, paths: IngestPaths, note: str = "") -> Iterator[None]:
    """Raise CannotWriteError with a `note` for an error of the operating system while `path` is written."""
    try:
        yield
    except OSError as error:
        raise CannotWriteError(f"{path} cannot be written: {_cause(error, paths)}{note}") from None


def _cause(error: OSError, paths: IngestPaths) -> str:
    """Return what went wrong, and how to continue."""
    again = "run the same command" + (" with --resume" if paths.can_resume else " again")
    if error.errno in _FULL:
        return f"no space left; free some and {again}"
    if isinstance(error, FileNotFoundError):
        return "it, or its folder, was deleted or moved; run the same command again, without --resume"
    return f"{error.strerror or error}; correct that and {again}"
