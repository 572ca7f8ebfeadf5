"""The admission of requests that last: checked again, and kept while Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from starlette.requests import Request
from starlette.types import Message

from voicequeue import ApiKey, KeyLimits, Priority, Scope, StoreUnavailableError
from workers.gateway.problems import ProblemError
from workers.gateway.security import admission
from workers.gateway.security.admission import CHECK_S, Admission, while_admitted
from workers.gateway.server.large_responses import LargeResponses

KEY = ApiKey("shop", frozenset({Scope.READ}), "digest", "shop", KeyLimits(5))


class Time:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def admitted(find: Callable[[], ApiKey | None]) -> tuple[Admission, Time]:
    """Return an admission that is due for its next check, and its clock."""
    clock = Time()
    shop_admission = Admission(KEY, find, monotonic=clock)
    clock.now += CHECK_S
    return shop_admission, clock


@pytest.mark.parametrize(
    "now",
    [
        None,
        replace(KEY, name="other"),
        replace(KEY, namespace="*"),
        replace(KEY, scopes=frozenset(Scope)),
        replace(KEY, limits=KeyLimits(5, max_priority=Priority.BULK)),
        replace(KEY, limits=KeyLimits(5, batch_pattern="a*")),
    ],
)
def test_a_request_ends_with_the_rights_of_its_key(now: ApiKey | None) -> None:
    """Also if it would have more of them: then it is sent again."""
    with pytest.raises(ProblemError) as refused:
        admitted(lambda: now)[0].check()

    assert refused.value.status_code == 401


@pytest.mark.parametrize(
    "now",
    [replace(KEY, last_used_at=1.0, previous_digest="digest", digest="next"), replace(KEY, limits=KeyLimits(9))],
    ids=["used and rotated", "another rate"],
)
def test_changes_that_concern_no_open_request_do_not_end_it(now: ApiKey) -> None:
    """The secret that was sent is still accepted, and each request is counted when it comes."""
    admitted(lambda: now)[0].check()


def test_a_key_is_looked_up_once_in_a_few_seconds() -> None:
    """A check costs nothing in between; a failed one is repeated."""
    lookups: list[float] = []

    def find() -> ApiKey:
        lookups.append(clock.now)
        return KEY

    shop_admission, clock = admitted(find)
    for _ in range(3):
        shop_admission.check()
    clock.now += CHECK_S
    shop_admission.check()

    assert lookups == [CHECK_S, 2 * CHECK_S]


def test_a_stream_sends_nothing_while_its_key_cannot_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It continues where it was when Redis is back, and ends when the key has ended."""
    monkeypatch.setattr(admission, "RETRY_S", 0.0)
    answers: list[ApiKey | Exception | None] = [KEY, *[StoreUnavailableError("away")] * 5, KEY, None]
    closed: list[bool] = []

    def find() -> ApiKey | None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def pieces() -> AsyncIterator[str]:
        try:
            for number in range(9):
                clock.now += CHECK_S if number else 0
                yield str(number)
        finally:
            closed.append(True)

    shop_admission, clock = admitted(find)

    async def read() -> list[str]:
        return [piece async for piece in while_admitted(pieces(), shop_admission)]

    assert asyncio.run(read()) == ["0", *[": Redis is unavailable\n\n"] * 5, "1"]
    assert answers == []
    assert closed == [True]


def test_a_stream_that_has_ended_ends() -> None:
    """The admission does not keep it open."""

    async def pieces() -> AsyncIterator[str]:
        yield "only"

    async def read() -> list[str]:
        return [piece async for piece in while_admitted(pieces(), Admission(KEY, lambda: KEY))]

    assert asyncio.run(read()) == ["only"]


def test_a_request_that_has_waited_for_its_turn_is_checked_again() -> None:
    """A key cannot queue requests that are answered after it was revoked."""
    built: list[bool] = []
    scope = {"type": "http", "state": {"caller": "shop", "admission": admitted(lambda: None)[0]}}

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    with pytest.raises(ProblemError):
        asyncio.run(LargeResponses().respond(Request(scope, receive), lambda: built.append(True)))

    assert built == []
