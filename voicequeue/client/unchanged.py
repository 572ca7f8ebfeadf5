"""The default of parameters of which None means "no limit"."""

from __future__ import annotations

from enum import Enum


class Unchanged(Enum):
    """The default of parameters for which None has a meaning."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return self.name


UNCHANGED = Unchanged.UNCHANGED
