"""The limits of the account: credits, subscription, tasks in progress, calls a minute."""

import socket
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests

from simulator.engine.limits import Rate
from simulator.process import Simulator

VOICE = "/api/v1/sonic/create-voice"


def record(api: requests.Session, number: int = 0) -> requests.Response:
    """Order one more voice, and return the response."""
    return api.post(VOICE, json={"audio_url": f"https://example.com/{number}.mp3"})


def test_a_charge_beyond_the_credits_is_refused(simulator: Simulator, api: requests.Session) -> None:
    """HTTP 403 until the account is topped up; the balance is never negative."""
    simulator.set_dials(credits=7)
    answers = [record(api, number) for number in range(2)]
    assert [answer.status_code for answer in answers] == [200, 403]
    assert answers[1].json()["error"].startswith("The remaining credits are not enough. ")

    simulator.add_credits(1)

    assert record(api, 2).status_code == 200
    assert simulator.ledger()["credits_left"] == 0


def test_an_account_without_subscription_is_charged_nothing(simulator: Simulator, api: requests.Session) -> None:
    """HTTP 403 with its own text."""
    simulator.set_dials(subscription=False)
    answer = record(api)
    assert (answer.status_code, answer.json()["error"][:42]) == (403, "You do not have an active subscription. Pl")


def test_tasks_beyond_the_concurrency_are_refused(simulator: Simulator, api: requests.Session) -> None:
    """HTTP 429 while too many are in progress; a settled one makes room."""
    simulator.set_dials(voice_s=1000, concurrency=2)
    answers = [record(api, number) for number in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "Retry-After" not in answers[2].headers

    simulator.fail_task(answers[0].json()["task_id"])

    assert [record(api, number).status_code for number in (3, 4)] == [200, 429]


def test_tasks_that_got_ready_make_room(simulator: Simulator, api: requests.Session) -> None:
    """Only tasks in progress count, also if the ready ones were not polled."""
    simulator.set_dials(voice_s=0, concurrency=1)
    assert [record(api, number).status_code for number in range(5)] == [200] * 5


def test_posts_beyond_the_rate_are_refused_with_the_wait(simulator: Simulator, api: requests.Session) -> None:
    """HTTP 429; without a dial for it Retry-After is the real wait in whole seconds. Polls do not count."""
    simulator.set_dials(rate_per_minute=30, rate_burst=2)
    assert [api.get("/api/v1/get-credits").status_code for _ in range(5)] == [200] * 5
    answers = [record(api, number) for number in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["Retry-After"] == "2"


def test_the_rate_lets_calls_through_as_time_goes_by() -> None:
    """A burst is accepted at once, then one call per interval."""
    rate = Rate()
    waits = [rate.wait(now, 60, 2) for now in (0, 0, 0, 0.5, 1, 1)]
    assert waits == [0, 0, 1, 0.5, 0, 1]


def test_retry_after_comes_in_both_forms(simulator: Simulator, api: requests.Session) -> None:
    """Seconds (fractions too, if the dial says so), or the date when they are over."""
    simulator.set_dials(concurrency=0, retry_after=0.25)
    assert record(api).headers["Retry-After"] == "0.25"

    simulator.set_dials(retry_after=90, retry_after_form="date")

    again_at = parsedate_to_datetime(record(api).headers["Retry-After"]).timestamp()
    assert 89 <= again_at - time.time() <= 91


def test_every_answer_takes_the_latency(simulator: Simulator, api: requests.Session) -> None:
    """This covers polls and charges."""
    simulator.set_dials(latency_s=0.1)
    started_at = time.monotonic()
    assert record(api).status_code == 200
    assert api.get("/api/v1/get-credits").status_code == 200
    assert time.monotonic() - started_at >= 0.2


def test_five_hundred_connections_are_served_at_once(simulator: Simulator) -> None:
    """All are opened before the first response is read, and each gets its response."""
    address = urlsplit(simulator.api_url)
    request = b"GET /api/v1/get-credits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nConnection: close\r\n\r\n"
    sockets = [socket.create_connection((address.hostname, address.port), timeout=10) for _ in range(500)]
    for connection in sockets:
        connection.sendall(request)
    answers = []
    for connection in sockets:
        with connection, connection.makefile("rb") as stream:
            answers.append(stream.readline())
    assert set(answers) == {b"HTTP/1.1 200 OK\r\n"}
