"""The queue's time is Redis's, independent of this host's clock, and without a query for each reading."""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import ConnectionError, Redis

from voicequeue.storage.connection.clock import DRIFT, EXACT_S, FIRST_ATTEMPTS, RESYNC_S, RETRY_S, STEP_S, RedisClock

#: Redis's time at counter 0 of this host.
OFFSET = 1_800_000_000.0


@dataclass
class Host:
    """A host with a counter; a command takes `there_s` to Redis, and the reply `back_s`."""

    counter: float = 1_000.0
    offset: float = OFFSET
    there_s: float = 0.0
    back_s: float = 0.0
    is_away: bool = False
    queries: int = 0

    def time(self) -> tuple[int, int]:
        """Answer Redis's TIME."""
        self.queries += 1
        if self.is_away:
            raise ConnectionError
        self.counter += self.there_s
        seconds, microseconds = divmod(round((self.counter + self.offset) * 1e6), 1_000_000)
        self.counter += self.back_s
        return seconds, microseconds

    def now(self) -> float:
        """Return Redis's time."""
        return self.counter + self.offset

    def clock(self) -> RedisClock:
        """Return a clock on this host."""
        return RedisClock(cast(Redis, self), counter=lambda: self.counter)


def test_the_time_is_independent_of_this_hosts_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a wrong clock nor a changed one affects it."""
    host = Host()
    clock = host.clock()
    for shown in (0.0, OFFSET + 3_600, OFFSET - 60):
        monkeypatch.setattr(time, "time", lambda shown=shown: shown)
        host.counter += 5
        assert clock() == pytest.approx(host.now(), abs=1e-5)


def test_redis_is_queried_once_in_ten_seconds_for_any_number_of_readings() -> None:
    """Reading the time causes no round trip."""
    host = Host()
    clock = host.clock()
    for _ in range(1_000):
        host.counter += 0.1
        clock()

    assert 100 / RESYNC_S - 1 <= host.queries <= 100 / RESYNC_S + 1


@given(there_s=st.floats(0, 3), back_s=st.floats(0, 3), later=st.lists(st.floats(0, 60), max_size=20))
def test_the_error_is_below_half_a_round_trip(there_s: float, back_s: float, later: list[float]) -> None:
    """For any distribution of the delay; readings never decrease."""
    host = Host(there_s=there_s, back_s=back_s)
    clock, readings = host.clock(), [0.0]
    for seconds in later:
        host.counter += seconds
        readings.append(clock())
        assert abs(readings[-1] - host.now()) <= (there_s + back_s) / 2 + DRIFT * seconds + 1e-3

    assert readings == sorted(readings)


def test_a_slow_first_reply_is_repeated() -> None:
    """A new connection is slower than later commands on it."""
    host = Host(back_s=1.0)
    clock = host.clock()
    query_time = host.time
    answers = iter((1.0, 0.0))

    def slow_at_first() -> tuple[int, int]:
        host.back_s = next(answers)
        return query_time()

    host.time = slow_at_first  # type: ignore[method-assign]

    assert clock() == pytest.approx(host.now(), abs=EXACT_S)
    assert host.queries == 2 <= FIRST_ATTEMPTS


def test_a_slow_reply_is_ignored_and_repeated_soon() -> None:
    """The previous value is more exact."""
    host = Host()
    clock = host.clock()
    clock()
    host.back_s = 2.0
    host.counter += RESYNC_S
    assert clock() == pytest.approx(host.now(), abs=1e-3)

    host.back_s = 0.0
    host.counter += RETRY_S
    clock()

    assert host.queries == 3


def test_the_time_continues_while_redis_is_away() -> None:
    """It continues from the last known value; nothing fails."""
    host = Host()
    clock = host.clock()
    clock()
    host.is_away = True
    for _ in range(600):
        host.counter += 1
        assert clock() == pytest.approx(host.now(), abs=1e-3)


def test_without_a_first_reply_there_is_no_time() -> None:
    """An error is better than this host's time; the caller needs Redis anyway."""
    host = Host(is_away=True)
    clock = host.clock()
    with pytest.raises(ConnectionError):
        clock()

    host.is_away = False
    assert clock() == pytest.approx(host.now())


@pytest.mark.parametrize("step", [3_600.0, -60.0, -3_600.0])
def test_a_change_of_redis_clock_is_followed_and_logged_once(step: float, caplog: pytest.LogCaptureFixture) -> None:
    """Hosts agree again after each has queried Redis; steps back are followed too."""
    host = Host()
    clock = host.clock()
    clock()
    host.offset += step
    with caplog.at_level(logging.WARNING):
        for _ in range(30):
            host.counter += 1
            now = clock()

    assert now == pytest.approx(host.now(), abs=1e-3)
    assert [record.getMessage() for record in caplog.records] == [
        f"Redis's clock was set by {step:+.1f} s, or this host was suspended"
    ]


def test_small_corrections_never_decrease_the_time() -> None:
    """It nearly stops instead; all readings differ."""
    host = Host()
    clock = host.clock()
    clock()
    host.counter += RESYNC_S - 0.01
    before = clock()
    host.offset -= STEP_S / 2
    host.counter += 0.01
    readings = [before, *(clock() for _ in range(100))]

    assert sorted(set(readings)) == readings
    assert host.queries == 2


def test_threads_do_not_wait_for_the_querying_thread() -> None:
    """Redis may be slow; the known value suffices meanwhile."""
    host, gate, slow = Host(), threading.Event(), threading.Event()
    clock, answer = host.clock(), host.time

    def stuck() -> tuple[int, int]:
        slow.set()
        assert gate.wait(10)
        return answer()

    clock()
    host.counter += RESYNC_S
    host.time = stuck  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as threads:
        query = threads.submit(clock)
        assert slow.wait(10)
        assert clock() == pytest.approx(host.now(), abs=1e-3)
        gate.set()
        assert query.result() == pytest.approx(host.now(), abs=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_queries_although_a_thread_of_its_parent_did() -> None:
    """The parent's thread does not exist in the child, so its query never ends there."""
    host, gate, slow = Host(), threading.Event(), threading.Event()
    clock, answer, parent = host.clock(), host.time, os.getpid()

    def stuck_in_the_parent() -> tuple[int, int]:
        slow.set()
        assert os.getpid() != parent or gate.wait(10)
        return answer()

    clock()
    host.counter += RESYNC_S
    host.time = stuck_in_the_parent  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as threads:
        threads.submit(clock)
        assert slow.wait(10)
        if not (child := os.fork()):
            clock()
            os._exit(0 if host.queries == 2 else 1)
        _, status = os.waitpid(child, 0)
        gate.set()

    assert os.waitstatus_to_exitcode(status) == 0
