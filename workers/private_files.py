"""Files that hold a secret: only their user has access."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path


class UnsafeFileError(ValueError):
    """Other users may know the content of the file; the text says why, without quoting it."""


def read(file: Path) -> str:
    """Return the content of this file, at most 1,000 bytes. Raises UnsafeFileError."""
    try:
        # Neither a link, which leads to another file, nor a pipe, which waits for a writer.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UnsafeFileError(f"{file} cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeFileError(f"{file} must be a regular file")
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise UnsafeFileError(f"{file} must belong to this user and be readable by no other: chmod 600")
        return os.read(descriptor, 1_000).decode(errors="replace").strip()
    finally:
        os.close(descriptor)


def write(file: Path, text: str) -> None:
    """Replace the file with a new one that holds the text, so that no other process has it open."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)


def ensure_random_secret(file: Path) -> str:
    """Return the random secret in this file, which is created once and kept. Raises UnsafeFileError."""
    if not os.path.lexists(file):
        write(file, secrets.token_hex(32))
    return read(file)


def restrict(folder: Path) -> None:
    """Create the folder if it is missing, and deny other users access to it. Raises UnsafeFileError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_mode & stat.S_ISVTX or status.st_uid != os.geteuid():  # shared, as /tmp is
        raise UnsafeFileError(f"{folder} is shared or another user's: set VOICEQUEUE_HOME to a folder of your own")
    folder.chmod(0o700)
