"""Files that hold a secret: their user alone may read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class UnsafeFileError(ValueError):
    """What the file holds is not known to its user alone; the text says why, without quoting it."""


def read(file: Path) -> str:
    """Return what this file holds, of 1,000 bytes at most. Raises UnsafeFileError."""
    try:
        # Neither a link nor a pipe: the one leads to another file, the other waits for a writer.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UnsafeFileError(f"{file} cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeFileError(f"{file} must be a file")
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise UnsafeFileError(f"{file} must belong to the user of this process, who alone may read it: chmod 600")
        return os.read(descriptor, 1_000).decode(errors="replace").strip()
    finally:
        os.close(descriptor)


def write(file: Path, text: str) -> None:
    """Write the text to a new file in place of what is there, so that no one has it open."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)


def narrow(folder: Path) -> None:
    """Make the folder where it is missing, and keep other users out of it. Raises UnsafeFileError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_mode & stat.S_ISVTX or status.st_uid != os.geteuid():  # as /tmp is: it is for others too
        raise UnsafeFileError(f"{folder} is shared, or another user's: set VOICEQUEUE_HOME to a folder of your own")
    folder.chmod(0o700)
