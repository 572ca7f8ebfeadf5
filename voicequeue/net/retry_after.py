"""The dates of HTTP, and the Retry-After header. Source: RFC 9110, sections 5.6.7 and 10.2.3. Pure."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

from voicequeue.texts import parse_float

#: No date of HTTP is longer. `parsedate_to_datetime` takes quadratic time.
_DATE_MAX = 100


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds to wait that a Retry-After header names, in either of its forms; None if there are none.

    Fractions of a second are accepted; a time in the past is 0.
    """
    if value is None:
        return None
    if (seconds := parse_float(value)) is not None:
        return max(0.0, seconds)
    moment = parse_http_date(value)
    return None if moment is None else max(0.0, moment - now)


def parse_http_date(text: str) -> float | None:
    """Return a date of HTTP in Unix seconds; None if the text is none."""
    try:
        moment = parsedate_to_datetime(text[:_DATE_MAX])
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
