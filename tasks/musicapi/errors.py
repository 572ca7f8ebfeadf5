"""What upstream's answers mean when they are not what was asked for.

    UpstreamError
     ├── Refused         NO       never again: this request is wrong        (400 and the like)
     │    └── Moderated  NO       never again: this text is not allowed     (403, moderation)
     ├── Unauthorized    NO       mend the key                              (401)
     ├── Forbidden       NO       somebody must look                        (403 that says nothing known)
     ├── CannotPay       NO       pay, then again                           (402, 403 credits, subscription)
     ├── SlowDown        NO       slow down, then again                     (429)
     ├── Unavailable     NO       again later                               (404, a proxy's 4xx)
     │    └── NoConnection NO     again later                               (it could not be opened)
     └── NoAnswer        UNKNOWN  a GET: again later; a POST: find out      (reset, time-out, 5xx, unreadable)

The middle column is `cost`: whether credits were charged.
Their texts quote upstream's words, never our URL, key or body.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, ClassVar

#: How much of upstream's text is kept.
MESSAGE_MAX = 500

#: How upstream begins, or what it says, where it refuses a text.
_MODERATION = re.compile(r"^the (lyrics|song description)\b|\b(copyrighted|inappropriate) content\b")


class Cost(Enum):
    """Whether a POST cost credits."""

    NO = "no"
    UNKNOWN = "unknown"


class UpstreamError(Exception):
    """Base of the tree; `message` is upstream's text, or what happened in our words."""

    cost: ClassVar[Cost] = Cost.NO
    #: By which calls that ended so are counted.
    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        if "kind" not in vars(cls):
            cls.kind = re.sub(r"\B([A-Z])", r"_\1", cls.__name__).lower()

    def __init__(self, message: str) -> None:
        self.message = message[:MESSAGE_MAX]
        super().__init__(self.message)


class Refused(UpstreamError):
    """The request is wrong and will never succeed."""


class Moderated(Refused):
    """The text is refused: copyrighted or inappropriate."""


class Unauthorized(UpstreamError):
    """The key is wrong: no call will succeed until somebody mends it."""


class Forbidden(UpstreamError):
    """Upstream does not let us, in words that the contract does not know: of the account, or of this job."""


class CannotPay(UpstreamError):
    """Credits or subscription are missing: no charge will succeed until they are there."""


class SlowDown(UpstreamError):
    """Too many calls or tasks at once; `retry_after` in seconds where upstream says it."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(UpstreamError):
    """The request never reached the API."""


class NoConnection(Unavailable):
    """No connection could be opened: that says nothing of the request."""

    kind = Unavailable.kind


class NoAnswer(UpstreamError):
    """The request may have arrived, but no readable answer came back."""

    cost = Cost.UNKNOWN


def from_answer(status: int, body: Any, headers: Mapping[str, str], now: float) -> UpstreamError:
    """The error that an HTTP answer other than a success stands for.

    `body` is the parsed JSON, or None where there was none (a proxy's page, say).
    """
    text = message_of(body)
    message = text or f"HTTP {status}"
    said = f"HTTP {status}: {text}" if text else f"HTTP {status} without a readable text"
    if status in (301, 302, 307, 308):
        return Unavailable(f"HTTP {status}: the base URL leads elsewhere")
    if status >= 500 or status < 400:
        return NoAnswer(said)
    if status == 429:
        return SlowDown(message, retry_after(headers.get("Retry-After"), now))
    if status in (401, 407):
        return Unauthorized(message)
    if status in (402, 403):
        return _forbidden(status, message, said, body)
    # 404 and 405 speak of the address, not of the job: a wrong base URL must not fail every job.
    if body is None or status in (404, 405, 408):
        return Unavailable(said)
    return Refused(message)


def _forbidden(status: int, message: str, said: str, body: Any) -> UpstreamError:
    text = message.lower()
    # First: what moderation quotes may speak of credits too, and is one job's trouble, not the account's.
    if _MODERATION.search(text):
        return Moderated(message)
    if status == 402 or "credit" in text or "subscription" in text:
        return CannotPay(message)
    if "content" in text:
        return Moderated(message)
    return Forbidden(message) if body is not None else Unavailable(said)


def message_of(body: Any) -> str | None:
    """The text in an answer: `error` or `message`, which may itself be an object with a message."""
    if not isinstance(body, dict):
        return None
    for name in ("error", "message", "detail"):
        found = body.get(name)
        if isinstance(found, dict):
            found = found.get("message")
        if text := text_of(found):
            return text[:MESSAGE_MAX]
    return None


def text_of(value: Any) -> str | None:
    """A string that has something in it, fit to be stored; None for anything else."""
    if not isinstance(value, str):
        return None
    # JSON may escape half a character, which no encoding takes.
    return value.strip().encode(errors="replace").decode() or None


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait, from a Retry-After header in either of its forms; None if there is none."""
    if value is None:
        return None
    try:
        seconds = float(value)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now)


def answered_at(headers: Mapping[str, str], now: float) -> float:
    """Return when an answer was made by its sender's clock, which may differ from ours; `now` if it does not say."""
    try:
        at = parsedate_to_datetime(headers.get("Date", ""))
    except ValueError:
        return now
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
