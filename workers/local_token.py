"""The local token: the API key of a gateway without configured keys, in a file that its user alone can read."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import ApiKey, Scope
from workers import private_files
from workers.private_files import UnsafeFileError

#: Name of this key, in logs and on the page.
NAME = "local"

_WELL_FORMED = re.compile(r"[A-Za-z0-9_-]{32,200}")


def ensure(file: Path) -> str:
    """Return the token in this file; write a new one where there is none, or where others may have read it."""
    with suppress(UnsafeFileError):
        return read(file)
    token, _ = api_keys.new(NAME, Scope)
    private_files.write(file, f"{token}\n")
    return token


def read(file: Path) -> str:
    """Return the token in this file. Raises UnsafeFileError."""
    text = private_files.read(file)
    if not _WELL_FORMED.fullmatch(text):
        raise UnsafeFileError(f"{file} must hold 32 to 200 of the letters A-Z and a-z, digits, '-' and '_'")
    return text


def key(file: Path) -> ApiKey:
    """Return the key that this file's token is; it may do everything. Raises UnsafeFileError."""
    return ApiKey(NAME, frozenset(Scope), api_keys.digest_of(read(file)))
