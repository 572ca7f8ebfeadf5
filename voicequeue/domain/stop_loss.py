"""Stop-loss: a batch stops itself when too many of its jobs fail. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, TypedDict

from voicequeue.domain.job import to_iso8601
from voicequeue.texts import parse_float

if TYPE_CHECKING:
    from voicequeue.domain import schemas

#: Settled jobs without which the limit does not apply, unless `stop_min` is set; the same as in
#: scripts/lib/stop_loss.lua.
STOP_MIN = 20


class BatchLimitChanges(TypedDict, total=False):
    """New limits of a batch: None leaves one unchanged, `math.inf` removes it."""

    max_credits: float | None
    max_in_flight: float | None
    stop_after: float | None
    stop_min: float | None


@dataclass(frozen=True, slots=True)
class BatchStop:
    """The stop of a batch whose jobs failed too often.

    Attributes:
        at: Time when it stopped (Unix seconds).
        settled: Number of settled jobs in the sample.
        failures: Number of them that failed, by failure code.
        stop_after: The limit that was reached, as a fraction.
        in_flight: Number of accepted orders that were in flight.
    """

    at: float
    settled: int
    failures: dict[str, int]
    stop_after: float
    in_flight: int = 0

    @property
    def failed(self) -> int:
        """The number of failed jobs in the sample."""
        return sum(self.failures.values())

    @property
    def reason(self) -> str:
        """The reason in words."""
        failed = f"{self.failed:,} of {self.settled:,} settled jobs failed ({failures_text(self.failures)})"
        in_flight = f"{self.in_flight:,} {'order' if self.in_flight == 1 else 'orders'} in flight"
        return f"stopped: {failed}, {in_flight}, limit {percent(self.stop_after)}"

    def as_dict(self) -> schemas.BatchStop:
        """Return the JSON representation."""
        return {
            "at": to_iso8601(self.at),
            "reason": self.reason,
            "settled": self.settled,
            "failed": self.failed,
            "failed_by_code": self.failures,
            "in_flight": self.in_flight,
        }


def parse_stop(text: str | None) -> BatchStop | None:
    """Return the stop in the field of a batch; None if it is not stopped."""
    if not text:
        return None
    line = json.loads(text)
    # Lua's empty table is an empty JSON object.
    failures = {code: int(count) for code, count in line["failed_by_code"].items()}
    return BatchStop(
        float(line["at"]), int(line["settled"]), failures, float(line["stop_after"]), int(line.get("in_flight", 0))
    )


def failures_text(failures: Mapping[str, int]) -> str:
    """Return the number of failures by code, the most frequent first."""
    by_count = sorted(failures.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{code} {count:,}" for code, count in by_count)


def percent(fraction: float) -> str:
    """Return a fraction as a percentage."""
    return f"{100 * fraction:.6g} %"


def parse_fraction(text: str) -> float:
    """Return the fraction in a text such as `20%` or `0.2`. Raises ValueError."""
    number, sign, rest = text.strip().partition("%")
    value = None if rest else parse_float(number.strip())
    if value is None:
        raise ValueError(f"{text!r} is not a percentage such as 20%, nor a fraction such as 0.2")
    if not sign and value > 1:
        raise ValueError(f"{text!r} is above 1: write {value:g}% for {percent(value / 100)}")
    return check_stop_after(value / 100 if sign else value)


def check_stop_after(value: float) -> float:
    """Return the limit if it is above 0 and at most 1. Raises ValueError."""
    if not 0 < value <= 1:
        raise ValueError(f"{value:g} must be above 0 and at most 1 (0.2 is 20 %)")
    return value


def limit_text(name: str, value: float) -> str:
    """Return a limit of a batch as a record field; empty for `math.inf`, no limit. Raises ValueError."""
    if value == inf:
        return ""
    if name == "stop_after":
        try:
            return repr(float(check_stop_after(value)))
        except ValueError as error:
            raise ValueError(f"stop_after: {error}, or math.inf for no limit") from None
    least = 0 if name in ("max_credits", "paused") else 1
    if value != value // 1 or value < least:
        none = f"the default, {STOP_MIN}" if name == "stop_min" else "no limit"
        raise ValueError(f"{name}: {value:g} must be a whole number of at least {least}, or math.inf for {none}")
    return str(int(value))
