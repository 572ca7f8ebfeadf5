"""The same scenarios with a Valkey, and with the Redis in this process: a producer sees the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from tests.fake.scenarios import SCENARIOS, Scenario
from voicequeue.storage.connection.client import connect
from voicequeue.testing import FakeQueue
from voicequeue.testing.queue import InMemoryRedis

#: What differs between two runs: times, ids of jobs, tasks, events and plans.
VARIABLE = re.compile(
    r"\b1[789]\d{8}(\.\d+)?\b|\b[a-z2-7]{16}\b|task-[0-9a-f]{12}|1[789]\d{11}-\d+|previous_state_s=[\d.e-]+|"
    r"seconds_left=[\d.]+|\d{4}-\d\d-\d\dT[\d:.]+Z|\b[0-9a-f]{32}\b"
)


class InValkey(InMemoryRedis):
    """A Valkey in the place of the Redis in this process."""

    def __init__(self, url: str, prefix: str) -> None:
        self._client = connect(url, prefix=prefix)
        super().__init__(server=self._client)

    def connect(self) -> Redis:
        """Return a client of it."""
        return self._client

    def empty(self) -> None:
        """Need not be emptied: the prefix is new."""


def observed(queue: FakeQueue, scenario: Scenario) -> list[str]:
    """Return what a scenario sees, with names for what differs between two runs."""
    names: dict[str, str] = {}

    def name_of(match: re.Match[str]) -> str:
        return names.setdefault(match[0], "~") if not re.fullmatch("[a-z2-7]{16}", match[0]) else _id(names, match[0])

    return [VARIABLE.sub(name_of, repr(step)) for step in scenario(queue)]


def _id(names: dict[str, str], job_id: str) -> str:
    return names.setdefault(job_id, f"id-{sum(name != '~' for name in names.values())}")


@pytest.fixture
def on_valkey(valkey_url: str, prefix: str) -> Iterator[Any]:
    """Yield a queue whose Redis is a Valkey."""
    with FakeQueue(InValkey(valkey_url, prefix), prefix=prefix, namespace="") as queue:
        yield queue


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_producer_sees_the_same_as_with_valkey(
    scenario: Scenario, voicequeue_queue: FakeQueue, on_valkey: FakeQueue
) -> None:
    """Records, timelines, events, errors, counters, callbacks."""
    expected = observed(on_valkey, scenario)

    assert len(expected) >= 2
    assert observed(voicequeue_queue, scenario) == expected
