"""Consumption of queues, as processes report it with their heartbeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from voicequeue.cli.alive import Snapshot, find_problems
from voicequeue.diagnostics import consumption as checks
from voicequeue.diagnostics.check_result import Level
from voicequeue.storage.celery_queues import consumed_by
from voicequeue.storage.heartbeats import ProcessHeartbeat
from voicequeue.storage.monitoring.consumption import (
    STALLED_AFTER_S,
    consumed_queues,
    stalled_consumers,
    unconsumed_queues,
)
from workers.messaging.consumption import Consumption

#: The queue's time when the monotonic clock of the process is 0.
START = 1_000_000.0

QUEUES = consumed_by("worker")


@dataclass
class Process:
    """A process whose heartbeat comes each second, and whose event loop the test turns."""

    name: str = "w1@host"
    queues: tuple[str, ...] = QUEUES
    now: float = 0.0

    def __post_init__(self) -> None:
        self.log = Consumption(lambda: self.now)
        self.log.start(self.queues)
        self.facts = self.log.facts(self.queues, START + self.now)

    def run(self, seconds: int, **loop: Any) -> ProcessHeartbeat:
        """Turn the event loop and send a heartbeat for each second; return the last one."""
        for _ in range(seconds):
            self.now += 1
            self.turn(**loop)
            self.facts = self.log.facts(self.queues, START + self.now)
        return ProcessHeartbeat("worker", self.name, START + self.now, self.facts)

    def turn(self, *, active: tuple[str, ...] | None = None, is_full: bool = False, is_answered: bool = True) -> None:
        """Turn the event loop, and answer its read."""
        queues = self.queues if active is None else active
        self.log.turn(queues, is_full=is_full)
        if is_answered and not is_full:
            self.log.record(queues)


class Hanging(Process):
    """A process whose event loop hangs; its thread sends heartbeats."""

    def turn(self, **loop: Any) -> None:
        """Do nothing."""


def problems(*processes: ProcessHeartbeat) -> list[str]:
    """Return the consumers that do not consume, as text."""
    return list(map(str, stalled_consumers(processes)))


def test_a_worker_whose_reads_are_answered_consumes_whether_or_not_messages_arrive() -> None:
    """So a paused queue, a held gate and an empty backlog are no alert."""
    worker = Process().run(300)

    assert problems(worker) == []
    assert consumed_queues(worker) == dict.fromkeys(QUEUES, 0.0)


def test_a_worker_that_is_busy_for_long_consumes() -> None:
    """It holds as many messages as it may, and reads no more until a POST has ended; its event loop turns."""
    assert problems(Process().run(900, is_full=True)) == []


def test_a_worker_that_runs_a_long_task_itself_consumes() -> None:
    """With `--pool solo`, its event loop reads no messages until the task ends."""
    worker = Hanging()
    with worker.log.busy():
        assert problems(worker.run(900)) == []

    assert problems(worker.run(int(STALLED_AFTER_S) - 1)) == []
    assert len(problems(worker.run(2))) == len(QUEUES)


@pytest.mark.parametrize(
    ("process", "loop"),
    [(Process(), {"is_answered": False}), (Hanging(), {})],
    ids=["its connection is lost", "its event loop hangs"],
)
def test_a_worker_that_stops_consuming_is_found_after_a_minute(process: Process, loop: dict[str, Any]) -> None:
    """Each queue is named, with the time."""
    assert problems(process.run(int(STALLED_AFTER_S), **loop)) == []

    assert problems(process.run(1, **loop)) == [
        f"w1@host has not consumed the queue {queue} for 61 s" for queue in sorted(QUEUES)
    ]


def test_a_consumer_that_was_cancelled_is_found_at_once_and_named() -> None:
    """The others of the process are in order."""
    process = Process()
    process.run(5)

    worker = process.run(1, active=("submit", "intake"))

    assert problems(worker) == ["w1@host no longer consumes the queue poll: its consumer was cancelled"]
    assert problems(process.run(1)) == []


def test_a_stalled_process_is_found_although_the_clock_of_redis_was_set_back() -> None:
    """A failover may lead to a host whose clock is behind; the minute then starts again."""
    process = Hanging()
    process.run(5)
    start = START - 3600

    def facts_after(seconds: int) -> list[str]:
        for _ in range(seconds):
            process.now += 1
            process.facts = process.log.facts(QUEUES, start + process.now)
        return problems(ProcessHeartbeat("worker", process.name, start + process.now, process.facts))

    assert facts_after(50) == []
    assert len(facts_after(15)) == len(QUEUES)


def test_an_outage_of_redis_does_not_count() -> None:
    """Nothing can be consumed or reported during it. Afterwards the consumer has a minute to reconnect."""
    process = Process()
    process.run(5)
    process.now += 600

    assert problems(process.run(60, is_answered=False)) == []
    assert len(problems(process.run(2, is_answered=False))) == len(QUEUES)


def test_a_process_of_an_older_release_counts_as_consuming() -> None:
    """It reports nothing about it; both run side by side during a deploy."""
    old = ProcessHeartbeat("worker", "w0@host", START)

    assert (problems(old), unconsumed_queues([old], {"poll": 5})) == ([], [])
    assert consumed_queues(ProcessHeartbeat("gateway", "g@host", START)) == {}


def test_a_queue_is_unconsumed_if_no_process_consumes_it() -> None:
    """One that does is enough, of those that were started for it."""
    stalled, sound = Hanging().run(61), Process("w2@host").run(61)
    submitter = Process("w3@host", queues=("submit",)).run(5)

    assert unconsumed_queues([stalled], {}) == list(QUEUES)
    assert unconsumed_queues([stalled, sound], {}) == []
    assert unconsumed_queues([stalled, submitter], {}) == ["poll", "intake"]
    assert unconsumed_queues([submitter], {"poll": 0, "intake": 0}) == []
    assert unconsumed_queues([submitter], {"poll": 2}) == ["poll"]


def test_the_doctor_reports_a_stalled_consumer_by_its_consequence() -> None:
    """A warning while another process consumes the queue, an error if none does."""
    stalled, sound = Hanging(queues=("poll",)).run(61), Process("w2@host").run(61)

    [warning] = checks.results([stalled, sound], {})
    [error] = checks.results([stalled], {})
    [missing] = checks.results([Process(queues=("submit",)).run(5)], {"poll": 2, "callbacks": 9})

    assert (warning.level, error.level, missing.level) == (Level.WARNING, Level.ERROR, Level.ERROR)
    assert warning.message == error.message == "w1@host has not consumed the queue poll for 61 s"
    assert "runbook.md#voicequeueconsumerstalled" in error.action
    assert missing.message == "2 messages in the queue poll, which no running process consumes"
    assert missing.action.endswith("-Q poll")
    assert list(checks.results([sound], {"poll": 10})) == []


def test_the_probe_checks_the_named_queues_and_processes() -> None:
    """Each problem is one sentence."""
    stalled = Hanging("w1@host", queues=("poll",)).run(61)
    submitter = Process("w2@host", queues=("submit",)).run(61)
    of_host = Snapshot(START + 61, [stalled, submitter])

    assert find_problems(of_host, ["submit"]).problems == []
    assert find_problems(of_host, []).problems == ["w1@host has not consumed the queue poll for 61 s"]
    assert find_problems(of_host, ["poll"], name="w2@host").problems == ["no process w2@host consumes the queue poll"]
    assert find_problems(of_host, ["intake"]).problems == ["no running process of this host consumes the queue intake"]
    assert find_problems(Snapshot(START, []), []).problems == ["no running process of this host consumes a queue"]
    assert find_problems(None, ["poll"]).problems == ()


def test_the_probe_ignores_a_stalled_process_that_was_killed() -> None:
    """Its last heartbeat remains for a while; the one that replaced it is checked."""
    killed, successor = Hanging("w1@host").run(61), Process("w2@host").run(81)

    assert find_problems(Snapshot(START + 81, [killed, successor]), ["poll"]).problems == []
