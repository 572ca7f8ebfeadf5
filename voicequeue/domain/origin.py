"""Origins: through which door a job came into the queue, and who brought it.

A door writes it; none of a job's own fields can. Receivers of callbacks check it (docs/callbacks.md).
"""

from __future__ import annotations

import re
from enum import StrEnum

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Origin(StrEnum):
    """The doors of the queue."""

    HTTP = "http"
    MESSAGE = "message"
    LIBRARY = "library"
    CLI = "cli"

    def of(self, name: str = "") -> str:
        """Return the origin of what `name` brings through this door, such as `http:shop`. Raises ValueError."""
        if name and not _NAME.fullmatch(name):
            raise ValueError(
                "the name of an app must be 1 to 64 of the letters A-Z and a-z, digits, '.', '_' and '-', and begin "
                "with a letter or digit"
            )
        return f"{self}:{name}" if name else self.value
