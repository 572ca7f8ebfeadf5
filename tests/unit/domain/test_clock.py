"""The queue's time: Redis's, whatever this host's clock shows, and without asking each time."""

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

from voicequeue.storage.clock import DRIFT, EVERY_S, EXACT_S, FIRST_TRIES, SOON_S, STEP_S, RedisClock

#: Redis's time when the counter of this host is 0.
OFFSET = 1_800_000_000.0


@dataclass
class Host:
    """A host with a counter, and a Redis that is `there_s` away and answers after another `back_s` seconds."""

    counter: float = 1_000.0
    offset: float = OFFSET
    there_s: float = 0.0
    back_s: float = 0.0
    is_away: bool = False
    asked: int = 0

    def time(self) -> tuple[int, int]:
        """Answer Redis's TIME."""
        self.asked += 1
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


def test_the_time_is_that_of_redis_whatever_this_hosts_clock_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a clock that is off nor one that is set is read."""
    host = Host()
    clock = host.clock()
    for shown in (0.0, OFFSET + 3_600, OFFSET - 60):
        monkeypatch.setattr(time, "time", lambda shown=shown: shown)
        host.counter += 5
        assert clock() == pytest.approx(host.now(), abs=1e-5)


def test_redis_is_asked_once_in_ten_seconds_however_often_the_time_is_read() -> None:
    """Reading the time costs no round trip."""
    host = Host()
    clock = host.clock()
    for _ in range(1_000):
        host.counter += 0.1
        clock()

    assert 100 / EVERY_S - 1 <= host.asked <= 100 / EVERY_S + 1


@given(there_s=st.floats(0, 3), back_s=st.floats(0, 3), later=st.lists(st.floats(0, 60), max_size=20))
def test_the_error_is_below_half_a_round_trip(there_s: float, back_s: float, later: list[float]) -> None:
    """Wherever on the way it was lost; readings never go back."""
    host = Host(there_s=there_s, back_s=back_s)
    clock, readings = host.clock(), [0.0]
    for seconds in later:
        host.counter += seconds
        readings.append(clock())
        assert abs(readings[-1] - host.now()) <= (there_s + back_s) / 2 + DRIFT * seconds + 1e-3

    assert readings == sorted(readings)


def test_a_first_answer_that_took_long_is_asked_for_again() -> None:
    """A new connection takes longer than what follows on it."""
    host = Host(back_s=1.0)
    clock = host.clock()
    taken = host.time
    answers = iter((1.0, 0.0))

    def slow_at_first() -> tuple[int, int]:
        host.back_s = next(answers)
        return taken()

    host.time = slow_at_first  # type: ignore[method-assign]

    assert clock() == pytest.approx(host.now(), abs=EXACT_S)
    assert host.asked == 2 <= FIRST_TRIES


def test_an_answer_that_took_long_changes_nothing_and_is_asked_for_again_soon() -> None:
    """What is known is more exact."""
    host = Host()
    clock = host.clock()
    clock()
    host.back_s = 2.0
    host.counter += EVERY_S
    assert clock() == pytest.approx(host.now(), abs=1e-3)

    host.back_s = 0.0
    host.counter += SOON_S
    clock()

    assert host.asked == 3


def test_while_redis_is_away_the_time_goes_on() -> None:
    """The time that was known is counted on from; nothing fails."""
    host = Host()
    clock = host.clock()
    clock()
    host.is_away = True
    for _ in range(600):
        host.counter += 1
        assert clock() == pytest.approx(host.now(), abs=1e-3)


def test_without_a_first_answer_there_is_no_time() -> None:
    """Rather an error than this host's time: what needs the time needs Redis, too."""
    host = Host(is_away=True)
    clock = host.clock()
    with pytest.raises(ConnectionError):
        clock()

    host.is_away = False
    assert clock() == pytest.approx(host.now())


@pytest.mark.parametrize("step", [3_600.0, -60.0, -3_600.0])
def test_when_redis_clock_is_set_the_time_follows_and_says_so_once(
    step: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Hosts agree again as soon as each has asked; a step back is followed as well."""
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


def test_small_corrections_never_turn_the_time_back() -> None:
    """It nearly stops instead; no two readings are the same."""
    host = Host()
    clock = host.clock()
    clock()
    host.counter += EVERY_S - 0.01
    before = clock()
    host.offset -= STEP_S / 2
    host.counter += 0.01
    readings = [before, *(clock() for _ in range(100))]

    assert sorted(set(readings)) == readings
    assert host.asked == 2


def test_threads_do_not_wait_for_the_one_that_asks() -> None:
    """Redis may be slow to answer; what is known is good enough meanwhile."""
    host, gate, slow = Host(), threading.Event(), threading.Event()
    clock, answer = host.clock(), host.time

    def stuck() -> tuple[int, int]:
        slow.set()
        assert gate.wait(10)
        return answer()

    clock()
    host.counter += EVERY_S
    host.time = stuck  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(clock)
        assert slow.wait(10)
        assert clock() == pytest.approx(host.now(), abs=1e-3)
        gate.set()
        assert asking.result() == pytest.approx(host.now(), abs=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_asks_although_a_thread_of_its_parent_was_asking() -> None:
    """The parent's thread, and with it the end of its question, is not there any more."""
    host, gate, slow = Host(), threading.Event(), threading.Event()
    clock, answer, parent = host.clock(), host.time, os.getpid()

    def stuck_in_the_parent() -> tuple[int, int]:
        slow.set()
        assert os.getpid() != parent or gate.wait(10)
        return answer()

    clock()
    host.counter += EVERY_S
    host.time = stuck_in_the_parent  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as threads:
        threads.submit(clock)
        assert slow.wait(10)
        if not (child := os.fork()):
            clock()
            os._exit(0 if host.asked == 2 else 1)
        _, status = os.waitpid(child, 0)
        gate.set()

    assert os.waitstatus_to_exitcode(status) == 0
