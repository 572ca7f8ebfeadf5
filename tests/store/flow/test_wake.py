"""Wake-ups of dispatchers, and deadlines for the start of jobs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from tests.conftest import eventually
from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    enqueue_jobs,
    fail_job,
    get_job,
    job_in_state,
)
from tests.support.jobs import SONG, numbered_voices, voice, voice_with_song
from voicequeue import FailureCode, Stage, State, VoiceJob
from voicequeue.domain.claims import StalledJob
from voicequeue.storage.job_store import JobStore

#: A wait that ends at once where nothing wakes it (seconds).
NO_TIME = 0.001


def awake(store: JobStore) -> bool:
    """Return whether a waiting dispatcher would be woken now."""
    return store.coordination.wait_for_wakeup(NO_TIME)


# ── wake-ups ──────────────────────────────────────────────────────────────────────────────────────


def test_a_new_job_wakes_one_waiting_dispatcher(store: JobStore, redis: Redis) -> None:
    """It wakes at once; the others keep waiting."""
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(store.coordination.wait_for_wakeup, 4.0) for _ in range(3)]
        eventually(lambda: sum(item["cmd"] == "blpop" and "b" in item["flags"] for item in redis.client_list()) == 3)
        for woken in (1, 2, 3):
            enqueue_jobs(store, voice())
            eventually(lambda woken=woken: sum(item.done() for item in waiting) == woken)  # type: ignore[misc]
            store.admit(NOW)

    assert [item.result() for item in waiting] == [True, True, True]


def test_no_new_job_is_no_wakeup(store: JobStore) -> None:
    """An empty call and a known job wake no dispatcher."""
    assert not awake(store)
    enqueue_jobs(store, voice(key="k"))
    assert [awake(store), awake(store)] == [True, False]

    enqueue_jobs(store, voice(key="k"))
    enqueue_jobs(store)

    assert not awake(store)


def test_many_calls_wake_once(store: JobStore) -> None:
    """The woken dispatcher admits everything."""
    for job in numbered_voices(5):
        enqueue_jobs(store, job)

    assert [awake(store), awake(store)] == [True, False]


def test_an_admission_consumes_the_wakeup(store: JobStore) -> None:
    """Admitted jobs wake no other dispatcher."""
    enqueue_jobs(store, voice())
    store.admit(NOW)

    assert not awake(store)


@pytest.mark.parametrize("to", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_a_freed_slot_is_no_wakeup(store: JobStore, to: State) -> None:
    """The next interval fills many at once; otherwise each settled job would cost an admission."""
    job = job_in_state(store, State.PENDING)
    enqueue_jobs(store, *numbered_voices(1))
    awake(store)

    apply_transition(store, job, to)

    assert not awake(store)
    assert len(store.admit(NOW).by_stage[Stage.VOICE]) == 1


def test_a_freed_slot_wakes_for_a_job_of_high_priority(store: JobStore) -> None:
    """It does not wait for the interval."""
    job = job_in_state(store, State.PENDING)
    enqueue_jobs(store, voice(priority="high", key="high"))
    awake(store)

    apply_transition(store, job, State.SUCCEEDED)

    assert awake(store)


def test_a_job_that_continues_is_no_wakeup(store: JobStore) -> None:
    """It passes from stage to stage."""
    job = job_in_state(store, State.PENDING, voice_with_song())
    enqueue_jobs(store, *numbered_voices(1))
    awake(store)

    apply_transition(store, job, State.ADMITTED, to_stage=Stage.MUSIC)
    claim_admitted(store, job.id)
    accept_order(store, job.id)

    assert not awake(store)


def test_a_requeued_job_is_a_wakeup(store: JobStore) -> None:
    """For example a retry."""
    job = job_in_state(store, State.FAILED)

    apply_transition(store, job, State.QUEUED)

    assert awake(store)


@pytest.mark.parametrize("what", ["resume", "balance", "proven"])
def test_opening_the_gate_is_a_wakeup(store: JobStore, what: str) -> None:
    """No job waits for the next interval."""
    job = job_in_state(store, State.CHARGING)
    enqueue_jobs(store, *numbered_voices(3))
    store.flow_control.add_hold("out_of_credits", "403", NOW)
    awake(store)

    match what:
        case "resume":
            store.flow_control.resume(NOW)
        case "balance":
            store.flow_control.record_balance(900, spent_before=0, requested_at=NOW, now=NOW)
        case "proven":
            store.flow_control.resume(NOW)
            awake(store)
            accept_order(store, job.id)

    assert awake(store)


def test_a_wait_is_shorter_than_the_timeout_of_a_connection(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a long dispatch interval, each wait would otherwise end with an error and no job would be admitted."""
    waits: list[float] = []

    def blpop(_: Redis, keys: list[str], timeout: float) -> Any:
        waits.append(timeout)

    monkeypatch.setattr(Redis, "blpop", blpop)

    assert not store.coordination.wait_for_wakeup(3_600)
    assert not store.coordination.wait_for_wakeup(0.5)

    assert waits == [5.0, 0.5]


# ── deadlines ─────────────────────────────────────────────────────────────────────────────────────


def test_an_expired_job_is_leased_to_one_caller(store: JobStore, redis: Redis, prefix: str) -> None:
    """Not before its deadline; again after a minute, if the caller crashes."""
    [job_id] = enqueue_jobs(store, voice(start_within_s=60, batch="b"))
    enqueue_jobs(store, voice())

    assert store.lease_expired(NOW + 59.9) == []
    assert store.lease_expired(NOW + 60) == [StalledJob(job_id, 1, State.QUEUED, Stage.VOICE)]
    assert store.lease_expired(NOW + 61) == []
    assert store.lease_expired(NOW + 120) == [StalledJob(job_id, 1, State.QUEUED, Stage.VOICE)]
    assert_consistent(redis, prefix)


def test_no_more_expired_jobs_are_returned_than_requested(store: JobStore) -> None:
    """The earliest come first."""
    enqueue_jobs(store, *numbered_voices(5, start_within_s=60))

    assert [len(store.lease_expired(NOW + 61, at_most=2)) for _ in range(3)] == [2, 2, 1]


@pytest.mark.parametrize("state", [state for state in State if state not in (State.WAITING, State.QUEUED)])
def test_a_started_job_does_not_expire(store: JobStore, state: State) -> None:
    """Neither does one whose first order is being sent or may be charged."""
    job_in_state(store, state, voice_with_song(start_within_s=60))

    assert store.lease_expired(NOW + 1e6) == []


def test_a_requeued_uncharged_job_expires(store: JobStore) -> None:
    """It had a slot at its deadline, and no order was sent."""
    job = job_in_state(store, State.ADMITTED, voice_with_song(start_within_s=60))
    assert store.lease_expired(NOW + 60) == []
    apply_transition(store, job, State.QUEUED, NOW + 61)

    assert [stalled.job_id for stalled in store.lease_expired(NOW + 120)] == [job.id]


def test_a_song_whose_voice_is_paid_does_not_expire(store: JobStore) -> None:
    """It has started, although it is queued again."""
    job = job_in_state(store, State.PENDING, voice_with_song(start_within_s=60))
    song = apply_transition(store, job, State.ADMITTED, to_stage=Stage.MUSIC)
    apply_transition(store, song, State.QUEUED)

    assert store.lease_expired(NOW + 60) == []
    assert store.lease_expired(NOW + 1e6) == []


def test_a_song_alone_expires_too(store: JobStore) -> None:
    """The song is its first stage."""
    [job_id] = enqueue_jobs(store, VoiceJob(persona_id="p", song=SONG, start_within_s=1))

    assert store.lease_expired(NOW + 1) == [StalledJob(job_id, 1, State.QUEUED, Stage.MUSIC)]


def test_a_retried_job_does_not_expire_again(store: JobStore, redis: Redis, prefix: str) -> None:
    """The retry shows that it is still needed."""
    [job_id] = enqueue_jobs(store, voice(start_within_s=60))
    store.lease_expired(NOW + 60)
    fail_job(store, get_job(store, job_id), FailureCode.EXPIRED, NOW + 60)
    apply_transition(store, get_job(store, job_id), State.QUEUED, NOW + 70, fields={"failure": None, "settled": None})

    assert store.lease_expired(NOW + 1e6) == []
    assert_consistent(redis, prefix)


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_settled_jobs_have_no_deadline(store: JobStore, redis: Redis, prefix: str, state: State) -> None:
    """The deadlines of a hundred thousand settled jobs are not stored."""
    job_in_state(store, state, voice(start_within_s=86_400))

    assert redis.exists(f"{{{prefix}}}:start_by") == 0
