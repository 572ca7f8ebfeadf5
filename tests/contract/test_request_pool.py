"""Many calls at once: who begins them hears of each once, with what came of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tasks.musicapi import InvalidRequest, MusicApi, RequestPool, requests
from tasks.musicapi.requests import ApiRequest
from tests.contract.conftest import Connect
from tests.support.scripted import Request, Scripted, answer

NUMBERS = range(9)


def order(number: int) -> tuple[int, ApiRequest[str]]:
    """The call that orders a voice of this number's recording."""
    return number, requests.create_voice(f"https://recordings.example/{number}.mp3")


def echo(request: Request) -> Iterator[bytes]:
    """An order's task id is the URL that it came with."""
    yield answer({"task_id": request.json()["audio_url"]})


def told(pool: RequestPool[int, Any]) -> dict[int, Any]:
    """What came of all calls, by what they were for."""
    found: dict[int, Any] = {}
    while pool.is_open:
        for each in pool.collect():
            assert each.key not in found
            assert each.duration_s >= 0
            found[each.key] = each.outcome
    return found


def test_each_call_is_told_of_once_with_its_own_answer(connect: Connect) -> None:
    """Also those that are begun while others are on their way."""
    with Scripted(echo) as upstream:
        pool = RequestPool[int, str](connect(upstream.url, connections=4))
        pool.send([order(number) for number in NUMBERS[:5]])
        pool.send([order(number) for number in NUMBERS[5:]])
        found = told(pool)

    assert found == {number: f"https://recordings.example/{number}.mp3" for number in NUMBERS}
    assert pool.collect() == []


def test_as_many_calls_are_made_at_once_as_there_are_connections(connect: Connect) -> None:
    """All three must be there before any is answered, and nobody else comes meanwhile."""
    everybody = threading.Barrier(3, timeout=10)

    def together(request: Request) -> Iterator[bytes]:
        everybody.wait()
        yield from echo(request)

    with Scripted(together) as upstream:
        pool = RequestPool[int, str](connect(upstream.url, connections=3))
        assert pool.free_slots == 3
        pool.send([order(number) for number in NUMBERS])
        assert pool.free_slots == 0
        assert len(told(pool)) == 9
        assert pool.free_slots == 3

    assert upstream.accepted == 3


def test_what_goes_wrong_with_one_is_told_of_that_one(connect: Connect) -> None:
    """Upstream's error as a result, a defect of ours as the exception that it is."""

    def second_is_refused(request: Request) -> Iterator[bytes]:
        refused = request.json()["audio_url"].endswith("/1.mp3")
        yield answer({"error": "no"}, status="400 Bad Request") if refused else next(echo(request))

    def defect(_: Any) -> str:
        raise KeyError("a defect")

    with Scripted(second_is_refused) as upstream:
        pool = RequestPool[int, str](connect(upstream.url))
        pool.send([order(0), order(1), (2, ApiRequest("create_voice", "POST", "/", defect, {"audio_url": "x"}))])
        results: dict[int, Any] = {}
        while pool.is_open:
            for each in pool.collect():
                try:
                    results[each.key] = each.result
                except KeyError:
                    results[each.key] = "raised"

    assert results[0] == "https://recordings.example/0.mp3"
    assert isinstance(results[1], InvalidRequest)
    assert results[2] == "raised"


def test_each_call_is_made_within_what_is_given_for_it(connect: Connect) -> None:
    """Spans of traces, say."""
    within: list[tuple[str, int]] = []

    @contextmanager
    def noted(number: int) -> Iterator[None]:
        within.append(("in", number))
        yield
        within.append(("out", number))

    with Scripted(echo) as upstream:
        pool = RequestPool[int, str](connect(upstream.url, connections=1), noted)
        pool.send([order(0), order(1)])
        told(pool)

    assert within == [("in", 0), ("out", 0), ("in", 1), ("out", 1)]


def test_a_client_is_closed_with_its_thread() -> None:
    """Nothing stays behind."""
    before = set(threading.enumerate())
    MusicApi("http://127.0.0.1:9", "any").close()

    assert set(threading.enumerate()) == before
