"""Responses byte for byte: unusual transfers, and responses outside the contract."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.engine.faults import GARBAGE
from tasks.musicapi import (
    AmbiguousFailure,
    InvalidRequest,
    Moderated,
    NotReady,
    PaymentRequired,
    RateLimited,
    Unauthorized,
    Unavailable,
    UpstreamError,
    VoiceReady,
    Webhook,
)
from tasks.musicapi.client import EXCERPT_MAX
from tasks.musicapi.transport import BODY_MAX
from tests.contract.conftest import KEY, Connect, upstream_error
from tests.support.scripted import HANG_UP, Request, ScriptedServer, always, answer

AUDIO_URL = "https://recordings.example/anna.mp3"
ACCEPTED = answer({"code": 200, "message": "success", "task_id": "t1"})
PAGE = "<html><h1>We will be back soon</h1></html>"

#: Timeout in seconds for responses that never end.
HASTY_S = 0.3


# ── answers that can be read ───────────────────────────────────────────────────────────────────


def compressed(body: object) -> tuple[bytes, ...]:
    """Return a gzipped response, byte by byte."""
    payload = gzip.compress(json.dumps(body).encode())
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(payload)}\r\n\r\n"
    return (head.encode(), *(bytes((byte,)) for byte in payload))


CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"tas\r\nd\r\nk_id": "t1" }\r\n0\r\n\r\n'


@pytest.mark.parametrize(
    "pieces",
    [
        (ACCEPTED,),
        (answer({"task_id": "t1"}, status="201 Created"),),
        (answer({"task_id": "t1"}, status="202 Accepted"),),
        (answer({"task_id": "t1"}, headers=["Content-Type: text/html", "Set-Cookie: a=b; Path=/"]),),
        (answer({"task_id": "t1"}, headers=["Connection: close"]), HANG_UP),
        (b'HTTP/1.0 200 OK\r\n\r\n{"task_id": "t1"}', HANG_UP),
        (b"HTTP/1.1 100 Continue\r\n\r\n", ACCEPTED),
        tuple(bytes((byte,)) for byte in ACCEPTED),
        (CHUNKED,),
        (CHUNKED[:60], CHUNKED[60:]),
        compressed({"task_id": "t1"}),
    ],
    ids=[
        "plain",
        "201",
        "202",
        "cookies",
        "connection closed after it",
        "no length",
        "100 first",
        "byte by byte",
        "chunked",
        "chunked in pieces",
        "gzipped byte by byte",
    ],
)
def test_an_answer_is_read_however_it_travels(connect: Connect, pieces: tuple[bytes, ...]) -> None:
    """A paid order survives the behaviour of proxies, and the next request works too."""
    with ScriptedServer(always(*pieces)) as upstream:
        client = connect(upstream.url)
        assert [client.create_voice(AUDIO_URL), client.create_voice(AUDIO_URL)] == ["t1", "t1"]


def test_a_poll_is_read_with_any_success(connect: Connect) -> None:
    """A 202 with `not_ready` and a persona with 201 are read."""
    with ScriptedServer(always(answer({"type": "not_ready"}, status="202 Accepted"))) as upstream:
        assert connect(upstream.url).get_task("t1") == NotReady()
    with ScriptedServer(always(answer({"data": {"persona_id": "p1"}}, status="201 Created"))) as upstream:
        assert connect(upstream.url).get_task("t1") == VoiceReady("p1", None)


# ── answers that cannot ────────────────────────────────────────────────────────────────────────


LOST: dict[str, tuple[bytes, ...]] = {
    "closed before the answer": (HANG_UP,),
    "half a status line": (b"HTTP/1.1 20", HANG_UP),
    "half of the headers": (ACCEPTED[:30], HANG_UP),
    "half of the body": (ACCEPTED[:-10], HANG_UP),
    "half of the chunks": (CHUNKED[:-20], HANG_UP),
    "a chunk of no size": (CHUNKED.replace(b"5\r\n", b"x\r\n"), HANG_UP),
    "two lengths": (answer({"task_id": "t1"}, headers=["Content-Length: 7"]), HANG_UP),
    "no HTTP": (b"220 mail.example ESMTP\r\n", HANG_UP),
    "too many headers": (answer({"task_id": "t1"}, headers=[f"X-{n}: 1" for n in range(200)]), HANG_UP),
    "gzip that is none": (answer({"task_id": "t1"}, headers=["Content-Encoding: gzip"]),),
    "an oversized body": (answer('"' + "x" * BODY_MAX + '"'),),
    "a body nested too deep": (answer("[" * 100_000),),
    "half a character": (answer("").replace(b"Length: 0", b"Length: 2") + b'"\xc3',),
    "no content": (answer("", status="204 No Content"),),
    "see other": (answer("", status="303 See Other", headers=["Location: /task/t1"]),),
    "not modified": (answer("", status="304 Not Modified"),),
    "a page with 200": (answer(PAGE),),
    "a page with 500": (answer(PAGE, status="500 Internal Server Error"),),
    "a page with 503": (answer(PAGE, status="503 Service Unavailable", headers=["Retry-After: 5"]),),
    "504 with JSON": (answer({"error": "Gateway timeout."}, status="504 Gateway Timeout"),),
    "a upstream_error of its own with 200": (answer({"code": 500, "message": "Internal error."}),),
    **{f"garbage {body!r}": (answer(body),) for body in GARBAGE},
}


@pytest.mark.parametrize("pieces", LOST.values(), ids=LOST)
def test_an_answer_that_was_lost_may_have_cost_something(connect: Connect, pieces: tuple[bytes, ...]) -> None:
    """The request was sent once and may have been charged; polls raise the same error."""
    with ScriptedServer(always(*pieces)) as upstream:
        client = connect(upstream.url)
        error = upstream_error(lambda: client.create_voice(AUDIO_URL))
        assert (type(error), error.may_be_charged) == (AmbiguousFailure, True)
        assert len(upstream.requests) == 1
        assert type(upstream_error(lambda: client.get_task("t1"))) is AmbiguousFailure
        assert type(upstream_error(client.get_credits)) is AmbiguousFailure


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"code": 400, "message": "The prompt is empty."}, InvalidRequest),
        ({"code": "403", "message": "The remaining credits are not enough."}, PaymentRequired),
        ({"code": 403, "message": "The lyrics contain copyrighted content: x"}, Moderated),
        ({"code": 429, "message": "Queue is full"}, RateLimited),
        ({"success": False, "error": {"message": "The prompt is empty."}}, InvalidRequest),
    ],
)
def test_a_refusal_with_a_success_cost_nothing(connect: Connect, body: object, expected: type[UpstreamError]) -> None:
    """The response is read as the status that its body names, and the request is sent once."""
    with ScriptedServer(always(answer(body))) as upstream:
        error = upstream_error(lambda: connect(upstream.url).create_voice(AUDIO_URL))
        assert (type(error), error.may_be_charged, len(upstream.requests)) == (expected, False, 1)


@pytest.mark.parametrize(
    "body", [{"taskId": "t1"}, {"task_ids": ["t1"]}, {"data": "t1"}, {"code": 429, "task_id": "t1"}]
)
def test_an_order_that_has_a_task_was_charged_whatever_else_is_said(connect: Connect, body: object) -> None:
    """The task id counts wherever it is."""
    with ScriptedServer(always(answer(body))) as upstream:
        assert connect(upstream.url).create_voice(AUDIO_URL) == "t1"


WEBHOOK = Webhook("https://me.example/hooks/j1?attempt=1&token=0123456789abcdef/+", "secret-of-the-webhook")


def test_what_cannot_be_read_is_kept_for_a_person_without_our_secrets(connect: Connect) -> None:
    """Its beginning is kept on one line, without the key and the secrets of the request."""

    def quoting(request: Request) -> Iterator[bytes]:
        quoted = {"we got": request.json(), "with": request.headers["authorization"]}
        slashed = json.dumps(quoted).replace("/", "\\/")
        yield answer(f"<html>\n\x00We will be back\u2028 soon {json.dumps(quoted)} {slashed}" + "x" * 2_000)

    with ScriptedServer(quoting) as upstream:
        error = upstream_error(lambda: connect(upstream.url).create_voice(AUDIO_URL, WEBHOOK))

    assert isinstance(error, AmbiguousFailure)
    assert error.answer is not None
    assert error.answer.startswith('<html> We will be back soon {"we got"')
    assert (len(error.answer), error.answer.isprintable()) == (EXCERPT_MAX, True)
    for secret in (KEY, WEBHOOK.secret, "0123456789abcdef"):
        assert secret not in error.answer + error.message
    assert error.answer.count("(secret)") == 4


def test_where_nothing_came_nothing_is_kept(connect: Connect) -> None:
    """The response is empty or missing."""
    for pieces in [(answer(""),), (HANG_UP,)]:
        with ScriptedServer(always(*pieces)) as upstream:
            error = upstream_error(lambda url=upstream.url: connect(url).create_voice(AUDIO_URL))  # type: ignore[misc]
        assert isinstance(error, AmbiguousFailure)
        assert error.answer is None


UNCHARGED: dict[str, tuple[bytes, type[UpstreamError]]] = {
    "moved for good": (answer("", status="301 Moved Permanently", headers=["Location: /elsewhere"]), Unavailable),
    "found elsewhere": (answer("", status="302 Found", headers=["Location: /elsewhere"]), Unavailable),
    "moved for now": (answer("", status="307 Temporary Redirect", headers=["Location: /elsewhere"]), Unavailable),
    "moved, as it is": (answer("", status="308 Permanent Redirect", headers=["Location: /elsewhere"]), Unavailable),
    "a page with 400": (answer(PAGE, status="400 Bad Request"), Unavailable),
    "a page with 403": (answer(PAGE, status="403 Forbidden"), Unavailable),
    "a page with 404": (answer(PAGE, status="404 Not Found"), Unavailable),
    "404 with JSON": (answer({"error": "Not found."}, status="404 Not Found"), Unavailable),
    "405 with JSON": (answer({"error": "Method not allowed."}, status="405 Method Not Allowed"), Unavailable),
    "a page with 413": (answer(PAGE, status="413 Content Too Large"), Unavailable),
    "a page with 429": (answer(PAGE, status="429 Too Many Requests", headers=["Retry-After: 7"]), RateLimited),
    "a page with 401": (answer(PAGE, status="401 Unauthorized"), Unauthorized),
    "400 with JSON of no text": (answer("[]", status="400 Bad Request"), InvalidRequest),
}


@pytest.mark.parametrize(("piece", "expected"), UNCHARGED.values(), ids=UNCHARGED)
def test_an_answer_that_says_no_cost_nothing(connect: Connect, piece: bytes, expected: type[UpstreamError]) -> None:
    """The client neither follows redirects nor sends the request again."""
    with ScriptedServer(always(piece)) as upstream:
        error = upstream_error(lambda: connect(upstream.url).create_voice(AUDIO_URL))
    assert (type(error), error.may_be_charged) == (expected, False)
    assert len(upstream.requests) == 1


def test_a_key_that_upstream_quotes_is_not_passed_on(connect: Connect) -> None:
    """Upstream's message is shown to operators and stored."""
    body = {"error": f"Invalid API key: {KEY}", "type": "unauthorized"}
    with ScriptedServer(always(answer(body, status="401 Unauthorized"))) as upstream:
        error = upstream_error(lambda: connect(upstream.url).create_voice(AUDIO_URL))
    assert error.message == "Invalid API key: (key)"


@pytest.mark.hypothesis
def test_no_text_that_quotes_the_key_gets_through(connect: Connect) -> None:
    """This holds for any text around the key and any status."""
    response = [b""]
    with ScriptedServer(lambda _: response) as upstream:
        client = connect(upstream.url)

        @given(st.sampled_from([301, 400, 401, 402, 403, 404, 422, 429, 500, 503]), st.text(), st.text())
        def quoted(status: int, before: str, after: str) -> None:
            response[0] = answer({"message": before + KEY + after}, status=f"{status} Error")
            upstream_error(lambda: client.create_voice(AUDIO_URL))

        quoted()
