"""The result of one check of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voicequeue.domain import operator_schemas


class Level(StrEnum):
    """The severity of a result."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"
    #: The service does not respond, or refuses the login or a command, so it could not be checked.
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check: what it found, and what to do (`action`, empty if nothing)."""

    check: str
    level: Level
    message: str
    action: str = ""

    def as_dict(self) -> operator_schemas.Check:
        """Return the JSON representation."""
        return {"check": self.check, "level": self.level, "message": self.message, "action": self.action}


def passed(check: str, what: str) -> CheckResult:
    """Return the result of a check without problems."""
    return CheckResult(check, Level.OK, what)
