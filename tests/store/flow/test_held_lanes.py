"""Jobs and lanes that their owners' limits hold hide no others, and an admission passes over them at a bounded cost."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from redis import Redis

from tests.store.life import NOW, assert_consistent, enqueue_jobs
from tests.support.jobs import voice, voice_with_song
from voicequeue.domain.spec import VoiceJob
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.job_store import JobStore


def voices(count: int, name: str, batch: str) -> list[VoiceJob]:
    """Return voices of one batch, with keys that begin with a name."""
    return [voice(key=f"{name}-{number}", batch=batch) for number in range(count)]


def admit(store: JobStore, at: float = NOW + 2) -> list[str]:
    """Admit jobs once, and return their ids."""
    return [job_id for ids in store.admit(at, at_most=1000).by_stage.values() for job_id in ids]


def calls(redis: Redis, store: JobStore) -> int:
    """Return how many commands one admission runs."""

    def total() -> int:
        return sum(command["calls"] for command in redis.info("commandstats").values())

    before = total()
    assert admit(store) == []
    return total() - before


def with_lanes(store: JobStore, names: Iterable[str]) -> None:
    """Enqueue one job into each of these batches."""
    enqueue_jobs(store, *[voice_with_song(key=name, batch=name) for name in names], source="http:app")


@pytest.mark.parametrize("ahead", [1_000, 1_001, 2_500])
def test_jobs_of_a_held_key_do_not_hide_those_behind_them(
    store: JobStore, redis: Redis, prefix: str, ahead: int
) -> None:
    """An admission passes over 1,000 of them, and the next one continues there."""
    store.flow_control.set_budget("key/app", day=0)
    enqueue_jobs(store, *voices(ahead, "app", "b"), source="http:app")
    others = enqueue_jobs(store, *voices(10, "web", "b"), now=NOW + 1, source="http:web")
    started = [job_id for _ in range(ahead // 1_001 + 1) for job_id in admit(store)]
    assert sorted(started) == sorted(others)

    store.flow_control.set_budget("key/app", day=None)
    assert sum(len(admit(store)) for _ in range(4)) == ahead
    assert_consistent(redis, prefix)
    assert audit(redis, prefix) == []


def test_jobs_of_a_held_key_in_one_lane_do_not_end_another(store: JobStore) -> None:
    """Those that were passed over in one batch do not keep the other batch's from being passed over."""
    store.flow_control.set_budget("key/app", day=0)
    enqueue_jobs(store, *voices(1_100, "app", "large"), *voices(2, "small", "small"), source="http:app")
    others = enqueue_jobs(store, *voices(10, "web", "small"), now=NOW + 1, source="http:web")
    assert admit(store) == []
    assert sorted(admit(store)) == sorted(others)


@pytest.mark.parametrize(("owner", "commands"), [("account", 40), ("namespace/", 100)])
def test_lanes_of_a_held_owner_are_passed_over_without_a_look(
    store: JobStore, redis: Redis, owner: str, commands: int
) -> None:
    """Two thousand batches of an app that has spent its budget cost the queue nothing at each interval."""
    store.flow_control.set_budget(owner, day=3)
    with_lanes(store, (f"b{number}" for number in range(2_000)))
    assert calls(redis, store) < commands


@pytest.mark.parametrize("owner", ["account", "namespace/", "key/app"])
def test_lanes_that_give_no_job_are_visited_in_portions(store: JobStore, redis: Redis, prefix: str, owner: str) -> None:
    """What remains pays no job of 1,200 lanes, but that of the last one; it starts at the third admission."""
    store.flow_control.set_budget(owner, day=4)
    with_lanes(store, (f"b{number}" for number in range(1_200)))
    [cheap] = enqueue_jobs(store, voice(key="cheap", batch="last"), now=NOW + 1, source="http:app")
    assert calls(redis, store) < 2_200
    assert admit(store) == []
    assert admit(store) == [cheap]
    assert_consistent(redis, prefix)


def test_lanes_keep_their_turns_after_they_were_held(store: JobStore) -> None:
    """When the limit is raised, every lane starts its job within a few admissions."""
    store.flow_control.set_budget("namespace/", day=4)
    with_lanes(store, (f"b{number}" for number in range(1_200)))
    assert admit(store) == []
    store.flow_control.set_budget("namespace/", day=None)
    assert sum(len(admit(store)) for _ in range(3)) == 1_200
