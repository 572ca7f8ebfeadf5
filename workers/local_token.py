"""The local token: the API key of a gateway without configured keys, in a file that its user alone can read."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from voicequeue import apikeys
from voicequeue.apikeys import ApiKey, Scope

#: Name of this key, in logs and on the page.
NAME = "local"

_WELL_FORMED = re.compile(r"[A-Za-z0-9_-]{32,200}")


class UnsafeTokenError(ValueError):
    """The file holds no token that only its user knows; the text says why, without the token."""


def ensure(file: Path) -> str:
    """Return the token in this file; write a new one where there is none, or where others may have read it."""
    with suppress(UnsafeTokenError):
        return read(file)
    token, _ = apikeys.new(NAME, Scope)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(f"{token}\n")
    return token


def read(file: Path) -> str:
    """Return the token in this file. Raises UnsafeTokenError."""
    try:
        # Neither a link nor a pipe: the one leads to another file, the other waits for a writer.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UnsafeTokenError(f"{file} cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeTokenError(f"{file} must be a file")
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise UnsafeTokenError(f"{file} must belong to the gateway's user, who alone may read it: chmod 600")
        text = os.read(descriptor, 1_000).decode(errors="replace").strip()
    finally:
        os.close(descriptor)
    if not _WELL_FORMED.fullmatch(text):
        raise UnsafeTokenError(f"{file} must hold 32 to 200 of the letters A-Z and a-z, digits, '-' and '_'")
    return text


def key(file: Path) -> ApiKey:
    """Return the key that this file's token is; it may do everything. Raises UnsafeTokenError."""
    return ApiKey(NAME, frozenset(Scope), apikeys.digest_of(read(file)))
