"""Errors of the contract, and of any other response that is not a success."""

from __future__ import annotations

import itertools
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.musicapi import (
    AmbiguousFailure,
    Forbidden,
    InvalidRequest,
    Moderated,
    PaymentRequired,
    RateLimited,
    Unauthorized,
    Unavailable,
    UpstreamError,
)
from tasks.musicapi.errors import error_from_response, error_status_in, response_time
from tasks.musicapi.response_body import MESSAGE_MAX, message_in, to_text
from tests.unit.tasks.response_bodies import ANY_JSON
from voicequeue.net.retry_after import parse_retry_after

NOW = 1_800_000_000.0

#: Status, upstream's text, and what it means: the contract's table.
ROWS: list[tuple[int, str, type[UpstreamError]]] = [
    (400, "The 'mv' field is invalid. It must be one of: sonic-v3-5, sonic-v4.", InvalidRequest),
    (400, "The 'persona_id' field is required for persona_music.", InvalidRequest),
    (400, "The prompt character length should be less than 3000.", InvalidRequest),
    (400, "task not found.", InvalidRequest),
    (400, "missing task id.", InvalidRequest),
    (422, "The 'audio_url' field is invalid.", InvalidRequest),
    (413, "Too large.", InvalidRequest),
    (401, "Authorization header is missing.", Unauthorized),
    (401, "Invalid authorization format.", Unauthorized),
    (407, "Proxy authentication required.", Unauthorized),
    (403, "The key is not allowed to do this.", Forbidden),
    (402, "Payment required.", PaymentRequired),
    (403, "The remaining credits are not enough. Please top up your credits.", PaymentRequired),
    (403, "You do not have an active subscription. Please subscribe to a plan.", PaymentRequired),
    (403, "The lyrics contain copyrighted content: Yesterday.", Moderated),
    (403, "The lyrics contain inappropriate content: hate.", Moderated),
    (403, "The song description is not allowed.", Moderated),
    (403, "The title contains inappropriate content: hate.", Moderated),
    (403, "The lyrics contain copyrighted content: give credit where credit is due.", Moderated),
    (403, "The song description mentions a subscription to hate.", Moderated),
    (429, "Rate limit exceeded.", RateLimited),
    (429, "Too many tasks in progress.", RateLimited),
    (403, "API QPS limit exceeded", RateLimited),
    (403, "Queue is full", RateLimited),
    (400, "Queue is full, please try again later.", RateLimited),
    (400, "Too many requests.", RateLimited),
    (403, "Too many concurrent tasks.", RateLimited),
    (400, "You have reached the concurrency limit.", RateLimited),
    (403, "Rate limit reached for your plan.", RateLimited),
    (422, "The system is busy.", RateLimited),
    (409, "Task limit exceeded, slow down.", RateLimited),
    (402, "Too many requests.", RateLimited),
    (400, "The remaining credits are not enough. Please top up your credits.", PaymentRequired),
    (400, "Insufficient credits.", PaymentRequired),
    (400, "You do not have an active subscription.", PaymentRequired),
    (400, "Your balance is too low.", PaymentRequired),
    (403, "Lyrics of wrong format.", Moderated),
    (403, "The song did not pass the moderation review.", Moderated),
    (400, "The lyrics contain copyrighted content: too many requests", Moderated),
    (403, "The lyrics contain inappropriate content: the system is busy", Moderated),
    (403, "The song description mentions that the queue is full.", Moderated),
    (400, "The prompt has too many characters.", InvalidRequest),
    (400, "Too many tags.", InvalidRequest),
    (400, "The 'title' field is invalid: 'Queue is full'.", InvalidRequest),
    (400, "The title 'No credits' is not allowed: you don't say 'busy' here.", InvalidRequest),
    (400, 'The model does not exist: "rate limit".', InvalidRequest),
    (404, "Not found.", Unavailable),
    (405, "Method not allowed.", Unavailable),
    (408, "Request timeout.", Unavailable),
    (301, "Moved.", Unavailable),
    (302, "Found.", Unavailable),
    (307, "Moved for now.", Unavailable),
    (308, "Moved for good.", Unavailable),
    (200, "success", AmbiguousFailure),
    (204, "No content.", AmbiguousFailure),
    (303, "See other.", AmbiguousFailure),
    (304, "Not modified.", AmbiguousFailure),
    (500, "Internal error.", AmbiguousFailure),
    (502, "Bad gateway.", AmbiguousFailure),
    (503, "The remaining credits are not enough.", AmbiguousFailure),
    (504, "Gateway timeout.", AmbiguousFailure),
]


def error(status: int, body: object = None, **headers: str) -> UpstreamError:
    """Return the error for a response received now."""
    return error_from_response(status, body, {name.replace("_", "-"): value for name, value in headers.items()}, NOW)


@pytest.mark.parametrize("place", ["error", "message", "detail"])
@pytest.mark.parametrize(("status", "text", "expected"), ROWS)
def test_every_row_of_the_contract_has_its_error(
    status: int, text: str, expected: type[UpstreamError], place: str
) -> None:
    """Status and text decide, in any field for the text."""
    assert type(error(status, {place: text, "type": "whatever"})) is expected


@pytest.mark.parametrize(("status", "text", "expected"), ROWS)
def test_only_an_answer_that_was_lost_may_have_cost_something(
    status: int, text: str, expected: type[UpstreamError]
) -> None:
    """5xx and unreadable responses may be charged; a refusal never is."""
    assert error(status, {"error": text}).may_be_charged is (expected is AmbiguousFailure)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, AmbiguousFailure),
        (301, Unavailable),
        (400, Unavailable),
        (401, Unauthorized),
        (402, PaymentRequired),
        (403, Unavailable),
        (404, Unavailable),
        (413, Unavailable),
        (429, RateLimited),
        (500, AmbiguousFailure),
        (502, AmbiguousFailure),
        (599, AmbiguousFailure),
    ],
)
def test_a_proxys_page_does_not_concern_a_single_job(status: int, expected: type[UpstreamError]) -> None:
    """A response without JSON says nothing about the job, which is not refused permanently."""
    result = error(status)
    assert type(result) is expected
    assert str(status) in result.message


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": "no"}, "no"),
        ({"message": "no"}, "no"),
        ({"detail": "no"}, "no"),
        ({"error": "no", "message": "another"}, "no"),
        ({"error": "", "message": " no "}, "no"),
        ({"error": {"message": "no"}}, "no"),
        ({"error": {"message": None}, "message": "no"}, "no"),
        ({"error": ["no"], "detail": "no"}, "no"),
        ({"errorMessage": "no"}, "no"),
        ({"msg": "no"}, "no"),
        ({"errors": [{"message": "no"}]}, "no"),
        ({"detail": [{"loc": ["body"], "msg": "no"}]}, "no"),
        ({"code": 400, "data": {"error": "no"}}, "no"),
        ({"message": "success", "data": {"error": "no"}}, "no"),
        ({"Message": "success", "Data": {"Error": "no"}}, "no"),
        ({"error": "half a \ud83d character"}, "half a \ufffd character"),
        ({"error": 7}, None),
        ({}, None),
        ([], None),
        ("no", None),
        (None, None),
    ],
)
def test_upstreams_message_is_found_in_every_place(body: object, text: str | None) -> None:
    """The message is in `error`, `message` or `detail`, at the top or one level deeper."""
    assert message_in(body) == text


def test_a_long_text_is_cut() -> None:
    """A record does not contain a whole error page."""
    assert error(400, {"error": "n" * 10_000}).message == "n" * MESSAGE_MAX


@pytest.mark.parametrize("value", [None, 7, True, [], {}, "", " \n"])
def test_what_holds_no_text_is_no_text(value: object) -> None:
    """Only a non-empty string counts."""
    assert to_text(value) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("30", 30.0),
        (" 30 ", 30.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        (formatdate(NOW + 30, usegmt=True), 30.0),
        (formatdate(NOW - 30, usegmt=True), 0.0),
        ("Fri, 15 Jan 2027 08:00:30 -0000", 30.0),
        ("Fri, 15 Jan 2027 09:00:30 +0100", 30.0),
        ("", None),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("1e999", None),
        ("Fri, 99 Jan 2027 08:00:30 GMT", None),
        ("Fri, 15 Jan 99999 08:00:30 GMT", None),
    ],
)
def test_retry_after_is_understood_in_both_its_forms(value: str | None, seconds: float | None) -> None:
    """Seconds and dates are read; anything else is ignored, and no delay is infinite."""
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(("header", "wait"), [("30", 30.0), ("soon", None), (None, None)])
def test_a_429_carries_how_long_to_wait(header: str | None, wait: float | None) -> None:
    """None leaves the delay to the settings."""
    result = error(429, {"error": "slow"}, **({} if header is None else {"Retry_After": header}))
    assert isinstance(result, RateLimited)
    assert result.retry_after == wait


@given(st.text() | st.from_regex(r"\A(Mon, )?[0-9]{1,3} [A-Za-z]{3} [0-9]{1,6} [0-9:]{0,9} ?([+-][0-9]{0,6}|GMT)?\Z"))
def test_no_retry_after_is_too_strange(value: str) -> None:
    """No header raises, or results in a negative or infinite delay."""
    result = parse_retry_after(value, NOW)
    assert result is None or 0 <= result < float("inf")


@given(st.integers(100, 999), ANY_JSON, st.dictionaries(st.just("Retry-After"), st.text(max_size=5)))
def test_no_answer_is_too_strange_for_an_error(status: int, body: Any, headers: dict[str, str]) -> None:
    """Any status with any JSON results in an error with a short, non-empty message that can be stored."""
    result = error_from_response(status, body, headers, NOW)
    assert 0 < len(result.message) <= MESSAGE_MAX
    assert result.message.encode()
    assert str(result) == result.message


@given(st.integers(200, 599), ANY_JSON)
def test_an_answer_that_may_have_cost_something_is_never_taken_for_free(status: int, body: Any) -> None:
    """The charge is unknown below 400, except for redirects and a 2xx whose body refuses, and from 500 on."""
    refused = 200 <= status < 300 and error_status_in(body) not in (None, *range(500, 600))
    unknown = (status < 400 and status not in (301, 302, 307, 308) and not refused) or status >= 500
    assert error_from_response(status, body, {}, NOW).may_be_charged is unknown


@pytest.mark.parametrize("ahead", [-90.0, 0.0, 3_600.0])
def test_a_date_to_come_again_is_compared_with_the_date_of_the_answer(ahead: float) -> None:
    """Both dates are of the same clock; ours may differ."""
    headers = {"Date": formatdate(NOW, usegmt=True), "Retry-After": formatdate(NOW + 30, usegmt=True)}
    assert parse_retry_after(headers["Retry-After"], response_time(headers, NOW + ahead)) == 30.0


@pytest.mark.parametrize("headers", [{}, {"Date": ""}, {"Date": "now"}])
def test_an_answer_without_a_date_is_of_now(headers: dict[str, str]) -> None:
    """Our clock is used instead."""
    assert response_time(headers, NOW) == NOW


# ── refusals that come with a success ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("code", "text", "expected"), [row for row in ROWS if row[0] >= 400])
def test_a_refusal_in_the_body_is_read_as_the_status_that_it_names(
    code: int, text: str, expected: type[UpstreamError]
) -> None:
    """The status is a number or a text in any of its fields, with the same meaning as in HTTP."""
    for status, name in itertools.product((200, 201, 202), ("code", "status_code", "statusCode", "status")):
        for written in (code, str(code)):
            result = error(status, {name: written, "message": text})
            assert (type(result), result.message.endswith(text)) == (expected, True)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"success": False, "message": "The prompt is empty."}, InvalidRequest),
        ({"success": False, "error": {"message": "Too many requests"}}, RateLimited),
        ({"success": "false", "error": {"code": 402, "message": "Pay first"}}, PaymentRequired),
        ({"success": False, "message": "The remaining credits are not enough."}, PaymentRequired),
        ({"status": "error", "message": "The lyrics contain copyrighted content: x"}, Moderated),
        ({"status": "failed", "msg": "Invalid model"}, InvalidRequest),
        ({"code": 40029, "message": "API QPS limit exceeded"}, RateLimited),
        ({"code": -1, "message": "Insufficient credits"}, PaymentRequired),
        ({"success": False}, Unavailable),
        ({"status": "error", "code": 200}, Unavailable),
    ],
)
def test_a_plain_no_in_the_body_cost_nothing(body: object, expected: type[UpstreamError]) -> None:
    """Its text decides; without a text the job is not refused permanently."""
    result = error(200, body)

    assert (type(result), result.may_be_charged) == (expected, False)


@pytest.mark.parametrize(
    "body",
    [
        {"code": 500, "message": "Internal error"},
        {"code": "503", "message": "Queue is full"},
        {"success": False, "message": "Internal server error"},
        {"success": False, "error": {"message": "Gateway timeout"}},
        {"code": 40029, "message": "Something is wrong"},
        {"message": "Too many requests"},
        {"error": "Bad gateway."},
        {"code": 200, "message": "success"},
        {"code": 0},
    ],
)
def test_what_is_no_plain_refusal_may_have_been_charged(body: object) -> None:
    """An internal error, an unknown code, or a text without a code: an operator decides."""
    result = error(200, body)

    assert (type(result), result.may_be_charged) == (AmbiguousFailure, True)


def test_retry_after_is_read_of_a_rate_limit_in_other_words_too() -> None:
    """It is read as for a 429."""
    for status, body in [(403, {"message": "Queue is full"}), (200, {"code": 429, "message": "slow"})]:
        result = error(status, body, Retry_After="30")
        assert isinstance(result, RateLimited)
        assert result.retry_after == 30.0
