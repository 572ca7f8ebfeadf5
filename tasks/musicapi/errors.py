"""What upstream's answers mean when they are not what was asked for.

    UpstreamError
     ├── Refused         NO       never again: this request is wrong        (400 and the like)
     │    └── Moderated  NO       never again: this text is not allowed     (403, moderation)
     ├── Unauthorized    NO       mend the key                              (401)
     ├── Forbidden       NO       somebody must look                        (403 that says nothing known)
     ├── CannotPay       NO       pay, then again                           (402, credits or subscription in words)
     ├── SlowDown        NO       slow down, then again                     (429, or in words)
     ├── Unavailable     NO       again later                               (404, a proxy's 4xx)
     │    └── NoConnection NO     again later                               (it could not be opened)
     └── NoAnswer        UNKNOWN  a GET: again later; a POST: find out      (reset, time-out, 5xx, unreadable)

The middle column is `cost`: whether credits were charged. A 2xx whose body refuses is read as the status that the
body names. Their texts quote upstream's words, never our URL, key or body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar

from tasks.musicapi.layers import MESSAGE_MAX, code_of, message_of, named, says_no, word_of
from voicequeue.domain.clip import Phase, phase_of
from voicequeue.net.retry_after import parse_http_date, parse_retry_after

#: What upstream says where it refuses a text, whatever words of that text it quotes.
_MODERATION = re.compile(
    r"\b(copyright\w*|inappropriate|sensitive|offensive|prohibited|explicit|harmful|illegal) "
    r"(content|words?|lyrics|text)\b"
    r"|\bmoderated\b|\bmoderation (review|check|policy|filter|rejected|failed)"
    r"|\blyrics\b.*\bwrong format\b|\bwrong format\b.*\blyrics\b"
)
#: How it begins, or what it names, where it speaks of the request itself.
_OF_THE_REQUEST = re.compile(
    r"^\W*the (lyrics|song description|prompt|title|tags|style)\b|\b(field|characters?|words|letters|lines|tags)\b"
)
#: The same for moderation, with 403.
_OF_THE_TEXT = re.compile(r"^\W*the (lyrics|song description)\b")

#: Too much at once, in upstream's words, whatever the status.
_SLOW = re.compile(
    r"\bqps\b|\brate[- ]?limit|\b(rate|request|frequency|api|task|call|submission)s? (\w+ )?limit\b|\bconcurren"
    r"|\bqueue (is |was |has been )?(\w+ )?(full|overloaded)\b|\btoo (many|frequent\w*|fast|often)\b|\bbusy\b"
    r"|\boverload|\bthrottl|\bslow down\b|\bat capacity\b|\bhigh (load|demand|traffic)\b"
)
#: The account cannot pay, in words that mean nothing else.
_MONEY = r"(credit|balance|quota|fund)s?"
_CANNOT_PAY = re.compile(
    rf"\b{_MONEY}\b.*\b(not (be )?(enough|sufficient)|insufficient|exhausted|depleted|used up|r[au]n out|too low)\b"
    rf"|\b(not (have )?enough|insufficient|no|out of|lack\w*) (\w+ ){{0,2}}{_MONEY}\b"
    r"|\b(active|valid|paid|no) subscription\b|\bsubscription (has |is )?(expired|required|inactive)\b"
    r"|\bpayment (is )?required\b"
)
#: What is between quotes is somebody else's text. An apostrophe is no quote.
_QUOTED = re.compile(r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"|“[^”]*”|‘[^’]*’")

#: Beside a 2xx: upstream's own trouble, which may have come after the charge.
_OWN_TROUBLE = re.compile(r"\b(internal|server error|gateway|time[d -]?out|unexpected|exception|unavailable)\b")


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
    """The request may have arrived, but no readable answer came back. `answer` is the beginning of what did, for a
    person: no log has it."""

    cost = Cost.UNKNOWN

    def __init__(self, message: str, answer: str | None = None) -> None:
        super().__init__(message)
        self.answer = answer


def from_answer(status: int, body: Any, headers: Mapping[str, str], now: float) -> UpstreamError:
    """The error that an HTTP answer other than a success stands for.

    `body` is the parsed JSON, or None where there was none (a proxy's page, say).
    """
    if 200 <= status < 300:
        named_status = refused_as(body)
        if named_status is not None and message_of(body) is None and code_of(body) != named_status:
            return Unavailable(f"HTTP {status}: it is no success, and gives no reason")
        status = named_status or status
    text = message_of(body)
    message = text or f"HTTP {status}"
    said = f"HTTP {status}: {text}" if text else f"HTTP {status} without a readable text"
    if status in (301, 302, 307, 308):
        return Unavailable(f"HTTP {status}: the base URL leads elsewhere")
    if status >= 500 or status < 400:
        return NoAnswer(said)
    if status == 429:
        return SlowDown(message, parse_retry_after(headers.get("Retry-After"), now))
    if status in (401, 407):
        return Unauthorized(message)
    # 404 and 405 speak of the address, not of the job: a wrong base URL must not fail every job.
    if status in (404, 405, 408) or (body is None and status != 402):
        return Unavailable(said)
    return _in_words(status, message, parse_retry_after(headers.get("Retry-After"), now))


def _in_words(status: int, message: str, wait: float | None) -> UpstreamError:
    """Any other refusal, by its text."""
    text = message.lower()
    # First: what moderation quotes may speak of credits too, and is one job's trouble, not the account's.
    if _MODERATION.search(text) or (status in (402, 403) and _OF_THE_TEXT.search(text)):
        return Moderated(message)
    unquoted = _QUOTED.sub("", text)
    if not _OF_THE_REQUEST.search(unquoted):
        if _SLOW.search(unquoted):
            return SlowDown(message, wait)
        if _CANNOT_PAY.search(unquoted):
            return CannotPay(message)
    if status == 402 or (status == 403 and ("credit" in text or "subscription" in text)):
        return CannotPay(message)
    if status == 403:
        return Moderated(message) if "content" in text else Forbidden(message)
    return Refused(message)


def refused_as(body: Any) -> int | None:
    """The status that the body of a 2xx names where it is a refusal; None where it is none for certain."""
    if not isinstance(body, Mapping):
        return None
    code, fields, text = code_of(body), named(body), (message_of(body) or "").lower()
    if code is not None and 400 <= code < 600:
        return code
    if says_no(fields) or phase_of(word_of(fields)) is Phase.FAILED:
        return 500 if _OWN_TROUBLE.search(text) else 400
    is_success = code is None or code in (0, 1) or 200 <= code < 300
    return None if is_success or type(_in_words(400, text, None)) is Refused else 400


def answered_at(headers: Mapping[str, str], now: float) -> float:
    """Return when an answer was made by its sender's clock, which may differ from ours; `now` if it does not say."""
    at = parse_http_date(headers.get("Date", ""))
    return now if at is None else at
