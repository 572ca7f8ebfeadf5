"""Concurrent requests: each completes once, with its own result."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tasks.musicapi import InvalidRequest, MusicApi, RequestPool, requests
from tasks.musicapi.requests import ApiRequest
from tests.contract.conftest import Connect
from tests.support.scripted import Request, ScriptedServer, answer

NUMBERS = range(9)


def order(number: int) -> tuple[int, ApiRequest[str]]:
    """Return the request that orders a voice from the recording with this number."""
    return number, requests.create_voice(f"https://recordings.example/{number}.mp3")


def echo(request: Request) -> Iterator[bytes]:
    """Answer an order with the recording URL as its task id."""
    yield answer({"task_id": request.json()["audio_url"]})


def collect_all(pool: RequestPool[int, Any]) -> dict[int, Any]:
    """Return the outcomes of all requests by key."""
    outcomes: dict[int, Any] = {}
    while pool.is_open:
        for completed in pool.collect():
            assert completed.key not in outcomes
            assert completed.duration_s >= 0
            outcomes[completed.key] = completed.outcome
    return outcomes


def test_each_request_completes_once_with_its_own_answer(connect: Connect) -> None:
    """This includes requests that are sent while others are in flight."""
    with ScriptedServer(echo) as upstream:
        pool = RequestPool[int, str](connect(upstream.url, connections=4))
        pool.send([order(number) for number in NUMBERS[:5]])
        pool.send([order(number) for number in NUMBERS[5:]])
        outcomes = collect_all(pool)

    assert outcomes == {number: f"https://recordings.example/{number}.mp3" for number in NUMBERS}
    assert pool.collect() == []


def test_as_many_requests_are_sent_at_once_as_there_are_connections(connect: Connect) -> None:
    """Three requests arrive before any is answered, and no fourth."""
    all_sent = threading.Barrier(3, timeout=10)

    def together(request: Request) -> Iterator[bytes]:
        all_sent.wait()
        yield from echo(request)

    with ScriptedServer(together) as upstream:
        pool = RequestPool[int, str](connect(upstream.url, connections=3))
        assert pool.free_slots == 3
        pool.send([order(number) for number in NUMBERS])
        assert pool.free_slots == 0
        assert len(collect_all(pool)) == 9
        assert pool.free_slots == 3

    assert upstream.accepted == 3


def test_an_error_is_the_outcome_of_its_own_request(connect: Connect) -> None:
    """An upstream error is a result; a defect raises its exception."""

    def second_is_refused(request: Request) -> Iterator[bytes]:
        refused = request.json()["audio_url"].endswith("/1.mp3")
        yield answer({"error": "no"}, status="400 Bad Request") if refused else next(echo(request))

    def defect(_: Any) -> str:
        raise KeyError("a defect")

    with ScriptedServer(second_is_refused) as upstream:
        pool = RequestPool[int, str](connect(upstream.url))
        pool.send([order(0), order(1), (2, ApiRequest("create_voice", "POST", "/", defect, {"audio_url": "x"}))])
        results: dict[int, Any] = {}
        while pool.is_open:
            for completed in pool.collect():
                try:
                    results[completed.key] = completed.result
                except KeyError:
                    results[completed.key] = "raised"

    assert results[0] == "https://recordings.example/0.mp3"
    assert isinstance(results[1], InvalidRequest)
    assert results[2] == "raised"


def test_each_request_runs_in_its_own_span(connect: Connect) -> None:
    """Each request runs in its span."""
    within: list[tuple[str, int]] = []

    @contextmanager
    def noted(number: int) -> Iterator[None]:
        within.append(("in", number))
        yield
        within.append(("out", number))

    with ScriptedServer(echo) as upstream:
        pool = RequestPool[int, str](connect(upstream.url, connections=1), noted)
        pool.send([order(0), order(1)])
        collect_all(pool)

    assert within == [("in", 0), ("out", 0), ("in", 1), ("out", 1)]


def test_a_client_is_closed_with_its_thread() -> None:
    """Closing a client ends its thread."""
    before = set(threading.enumerate())
    MusicApi("http://127.0.0.1:9", "any").close()

    assert set(threading.enumerate()) == before
