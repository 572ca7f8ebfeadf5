"""Sources of jobs: the interface that enqueued a job, and the name of the caller.

The interface records it; a job's own fields cannot set it. Receivers of callbacks check it (docs/guides/callbacks.md).
"""

from __future__ import annotations

import re
from enum import StrEnum

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Source(StrEnum):
    """Interface through which a job was enqueued."""

    HTTP = "http"
    MESSAGE = "message"
    LIBRARY = "library"
    CLI = "cli"

    @staticmethod
    def http_caller(source: str) -> str:
        """Return the name of the API key in a source; empty if it names none."""
        interface, _, name = source.partition(":")
        return name if interface == Source.HTTP else ""

    def with_caller(self, name: str = "") -> str:
        """Return the source with the caller's name, such as `http:shop`. Raises ValueError for an invalid name."""
        if name and not _NAME.fullmatch(name):
            raise ValueError(
                "the name of an app must be 1 to 64 characters (A-Z, a-z, digits, '.', '_', '-') that begin with a "
                "letter or digit"
            )
        return f"{self}:{name}" if name else self.value
