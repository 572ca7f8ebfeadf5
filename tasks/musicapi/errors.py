"""Errors of upstream, and the mapping from HTTP responses to them.

    UpstreamError                 charged?  what to do
     ├── InvalidRequest           no        never retry: the request is wrong     (400 and similar)
     │    └── Moderated           no        never retry: the text is not allowed  (403 with moderation text)
     ├── Unauthorized             no        fix the key                           (401)
     ├── Forbidden                no        an operator must check                (403 with an unknown text)
     ├── PaymentRequired          no        add credits, then retry               (402, or by its text)
     ├── RateLimited              no        slow down, then retry                 (429, or by its text)
     ├── Unavailable              no        retry later                           (404, 4xx of a proxy)
     │    └── ConnectionFailed    no        retry later                           (no connection)
     └── AmbiguousFailure         maybe     GET: retry later; POST: investigate   (reset, timeout, 5xx, unreadable)

A 2xx response whose body reports an error is read as the status named in the body. Messages quote upstream's text,
never the URL, the key or the request body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from tasks.musicapi.response_body import MESSAGE_MAX, Fields, message_in, status_code_in
from voicequeue.domain.clip import Phase, phase_of
from voicequeue.net.retry_after import parse_http_date, parse_retry_after

#: Upstream refuses a text; the message may quote any words of it.
_MODERATION = re.compile(
    r"\b(copyright\w*|inappropriate|sensitive|offensive|prohibited|explicit|harmful|illegal) "
    r"(content|words?|lyrics|text)\b"
    r"|\bmoderated\b|\bmoderation (review|check|policy|filter|rejected|failed)"
    r"|\blyrics\b.*\bwrong format\b|\bwrong format\b.*\blyrics\b"
)
#: The message is about the request itself.
_ABOUT_REQUEST = re.compile(
    r"^\W*the (lyrics|song description|prompt|title|tags|style)\b|\b(field|characters?|words|letters|lines|tags)\b"
)
#: With 402 or 403: the message is about the text, so it is moderation.
_ABOUT_TEXT = re.compile(r"^\W*the (lyrics|song description)\b")

#: Rate or concurrency limits in upstream's words, for any status.
_RATE_LIMITED = re.compile(
    r"\bqps\b|\brate[- ]?limit|\b(rate|request|frequency|api|task|call|submission)s? (\w+ )?limit\b|\bconcurren"
    r"|\bqueue (is |was |has been )?(\w+ )?(full|overloaded)\b|\btoo (many|frequent\w*|fast|often)\b|\bbusy\b"
    r"|\boverload|\bthrottl|\bslow down\b|\bat capacity\b|\bhigh (load|demand|traffic)\b"
)
#: The account cannot pay, in unambiguous words.
_MONEY = r"(credit|balance|quota|fund)s?"
_PAYMENT_REQUIRED = re.compile(
    rf"\b{_MONEY}\b.*\b(not (be )?(enough|sufficient)|insufficient|exhausted|depleted|used up|r[au]n out|too low)\b"
    rf"|\b(not (have )?enough|insufficient|no|out of|lack\w*) (\w+ ){{0,2}}{_MONEY}\b"
    r"|\b(active|valid|paid|no) subscription\b|\bsubscription (has |is )?(expired|required|inactive)\b"
    r"|\bpayment (is )?required\b"
)
#: Quoted text comes from the request, not from upstream. An apostrophe is not a quote.
_QUOTED = re.compile(r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"|“[^”]*”|‘[^’]*’")

#: In a 2xx body: an internal error of upstream, which may have occurred after the charge.
_INTERNAL_ERROR = re.compile(r"\b(internal|server error|gateway|time[d -]?out|unexpected|exception|unavailable)\b")


class UpstreamError(Exception):
    """Base class; `message` is upstream's text or a description of the failure."""

    #: Whether the POST may have been charged although it failed.
    may_be_charged: ClassVar[bool] = False
    #: Label of the metric that counts requests.
    outcome: ClassVar[str]

    def __init__(self, message: str) -> None:
        self.message = message[:MESSAGE_MAX]
        super().__init__(self.message)


class InvalidRequest(UpstreamError):
    """The request is wrong and will never succeed."""

    outcome = "invalid_request"


class Moderated(InvalidRequest):
    """The text is refused as copyrighted or inappropriate."""

    outcome = "moderated"


class Unauthorized(UpstreamError):
    """The key is wrong: every request fails until an operator replaces it."""

    outcome = "unauthorized"


class Forbidden(UpstreamError):
    """Access denied with a text outside the contract: it may concern the account or this job only."""

    outcome = "forbidden"


class PaymentRequired(UpstreamError):
    """Credits or a subscription are missing: every paid request fails until they are added."""

    outcome = "payment_required"


class RateLimited(UpstreamError):
    """Too many requests or tasks at once; `retry_after` is the delay in seconds that upstream asks for, if any."""

    outcome = "rate_limited"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(UpstreamError):
    """The request never reached the API."""

    outcome = "unavailable"


class ConnectionFailed(Unavailable):
    """No connection could be opened, so the failure is unrelated to the request."""


class AmbiguousFailure(UpstreamError):
    """The request may have arrived, but there is no readable response.

    `answer` is the beginning of the response body, for an operator. It is never logged.
    """

    may_be_charged = True
    outcome = "no_response"

    def __init__(self, message: str, answer: str | None = None) -> None:
        super().__init__(message)
        self.answer = answer


def error_from_response(status: int, body: Any, headers: Mapping[str, str], now: float) -> UpstreamError:
    """Return the error for a response that is not a success.

    `body` is the parsed JSON, or None where there is none (the page of a proxy, for example). `now` is in Unix
    seconds and used for a Retry-After date.
    """
    if 200 <= status < 300:
        body_status = error_status_in(body)
        if body_status is not None and message_in(body) is None and status_code_in(body) != body_status:
            return Unavailable(f"HTTP {status}: the response reports a failure without a reason")
        status = body_status or status
    text = message_in(body)
    message = text or f"HTTP {status}"
    described = f"HTTP {status}: {text}" if text else f"HTTP {status} without a readable text"
    if status in (301, 302, 307, 308):
        return Unavailable(f"HTTP {status}: the base URL redirects to another address")
    if status >= 500 or status < 400:
        return AmbiguousFailure(described)
    if status == 429:
        return RateLimited(message, parse_retry_after(headers.get("Retry-After"), now))
    if status in (401, 407):
        return Unauthorized(message)
    # 404 and 405 concern the address, not the job: a wrong base URL must not fail every job.
    if status in (404, 405, 408) or (body is None and status != 402):
        return Unavailable(described)
    return _error_from_text(status, message, parse_retry_after(headers.get("Retry-After"), now))


def _error_from_text(status: int, message: str, retry_after_s: float | None) -> UpstreamError:
    """Classify any other error response by its message."""
    text = message.lower()
    # Moderation comes first: the text it quotes may mention credits, and it concerns one job, not the account.
    if _MODERATION.search(text) or (status in (402, 403) and _ABOUT_TEXT.search(text)):
        return Moderated(message)
    unquoted = _QUOTED.sub("", text)
    if not _ABOUT_REQUEST.search(unquoted):
        if _RATE_LIMITED.search(unquoted):
            return RateLimited(message, retry_after_s)
        if _PAYMENT_REQUIRED.search(unquoted):
            return PaymentRequired(message)
    if status == 402 or (status == 403 and ("credit" in text or "subscription" in text)):
        return PaymentRequired(message)
    if status == 403:
        return Moderated(message) if "content" in text else Forbidden(message)
    return InvalidRequest(message)


def error_status_in(body: Any) -> int | None:
    """Return the error status that the body of a 2xx response names or implies; None unless it certainly fails."""
    if not isinstance(body, Mapping):
        return None
    fields = Fields.of(body)
    code = fields.status_code
    if code is not None and 400 <= code < 600:
        return code
    has_failed = fields.is_unsuccessful or phase_of(fields.state_word) is Phase.FAILED
    if not has_failed and (code is None or code in (0, 1) or 200 <= code < 300):
        return None
    text = (fields.message or "").lower()
    if has_failed:
        return 500 if _INTERNAL_ERROR.search(text) else 400
    return None if type(_error_from_text(400, text, None)) is InvalidRequest else 400


def response_time(headers: Mapping[str, str], now: float) -> float:
    """Return the Date of a response in Unix seconds, or `now` without one.

    A Retry-After date is relative to the sender's clock, which may differ from ours.
    """
    at = parse_http_date(headers.get("Date", ""))
    return now if at is None else at
