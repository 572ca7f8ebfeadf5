"""Wake-ups of dispatchers, and deadlines for the start of jobs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from tests.conftest import eventually
from tests.store.life import NOW, accepted, brought_to, charging, everything_agrees, failed, make, one, put
from tests.support.jobs import SONG, numbered, sung, voice
from voicequeue import Code, Stage, State, VoiceJob
from voicequeue.domain.claims import Overdue
from voicequeue.storage.job_store import Store

#: A wait that ends at once where nothing wakes it (seconds).
NO_TIME = 0.001


def awake(store: Store) -> bool:
    """Return whether a waiting dispatcher would be woken now."""
    return store.coordination.wait_for_wakeup(NO_TIME)


# ── wake-ups ──────────────────────────────────────────────────────────────────────────────────────


def test_a_new_job_wakes_one_waiting_dispatcher(store: Store, redis: Redis) -> None:
    """It wakes at once; the others keep waiting."""
    with ThreadPoolExecutor(3) as pulses:
        waiting = [pulses.submit(store.coordination.wait_for_wakeup, 4.0) for _ in range(3)]
        eventually(lambda: sum(item["cmd"] == "blpop" and "b" in item["flags"] for item in redis.client_list()) == 3)
        for woken in (1, 2, 3):
            put(store, voice())
            eventually(lambda woken=woken: sum(item.done() for item in waiting) == woken)  # type: ignore[misc]
            store.admit(NOW)

    assert [item.result() for item in waiting] == [True, True, True]


def test_no_new_job_is_no_wakeup(store: Store) -> None:
    """An empty call and a known job wake no dispatcher."""
    assert not awake(store)
    put(store, voice(key="k"))
    assert [awake(store), awake(store)] == [True, False]

    put(store, voice(key="k"))
    put(store)

    assert not awake(store)


def test_many_calls_wake_once(store: Store) -> None:
    """The woken dispatcher admits everything."""
    for job in numbered(5):
        put(store, job)

    assert [awake(store), awake(store)] == [True, False]


def test_an_admission_consumes_the_wakeup(store: Store) -> None:
    """Admitted jobs wake no other dispatcher."""
    put(store, voice())
    store.admit(NOW)

    assert not awake(store)


@pytest.mark.parametrize("to", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_a_freed_slot_is_no_wakeup(store: Store, to: State) -> None:
    """The next interval fills many at once; otherwise each settled job would cost an admission."""
    job = brought_to(store, State.PENDING)
    put(store, *numbered(1))
    awake(store)

    make(store, job, to)

    assert not awake(store)
    assert len(store.admit(NOW).by_stage[Stage.VOICE]) == 1


def test_a_freed_slot_wakes_for_a_job_of_high_priority(store: Store) -> None:
    """It does not wait for the interval."""
    job = brought_to(store, State.PENDING)
    put(store, voice(priority="high", key="high"))
    awake(store)

    make(store, job, State.SUCCEEDED)

    assert awake(store)


def test_a_job_that_continues_is_no_wakeup(store: Store) -> None:
    """It passes from stage to stage."""
    job = brought_to(store, State.PENDING, sung())
    put(store, *numbered(1))
    awake(store)

    make(store, job, State.ADMITTED, to_stage=Stage.MUSIC)
    charging(store, job.id)
    accepted(store, job.id)

    assert not awake(store)


def test_a_requeued_job_is_a_wakeup(store: Store) -> None:
    """For example a retry."""
    job = brought_to(store, State.FAILED)

    make(store, job, State.QUEUED)

    assert awake(store)


@pytest.mark.parametrize("what", ["resume", "balance", "proven"])
def test_opening_the_gate_is_a_wakeup(store: Store, what: str) -> None:
    """No job waits for the next interval."""
    job = brought_to(store, State.CHARGING)
    put(store, *numbered(3))
    store.controls.close("out_of_credits", "403", NOW)
    awake(store)

    match what:
        case "resume":
            store.controls.resume(NOW)
        case "balance":
            store.controls.note_balance(900, spent_before=0, asked=NOW, now=NOW)
        case "proven":
            store.controls.resume(NOW)
            awake(store)
            accepted(store, job.id)

    assert awake(store)


def test_a_wait_is_shorter_than_the_timeout_of_a_connection(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a long dispatch interval, each wait would otherwise end with an error and no job would be admitted."""
    waits: list[float] = []

    def blpop(_: Redis, keys: list[str], timeout: float) -> Any:
        waits.append(timeout)

    monkeypatch.setattr(Redis, "blpop", blpop)

    assert not store.coordination.wait_for_wakeup(3_600)
    assert not store.coordination.wait_for_wakeup(0.5)

    assert waits == [5.0, 0.5]


# ── deadlines ─────────────────────────────────────────────────────────────────────────────────────


def test_an_expired_job_is_leased_to_one_caller(store: Store, redis: Redis, prefix: str) -> None:
    """Not before its deadline; again after a minute, if the caller crashes."""
    [job_id] = put(store, voice(start_within_s=60, batch="b"))
    put(store, voice())

    assert store.expired(NOW + 59.9) == []
    assert store.expired(NOW + 60) == [Overdue(job_id, 1, State.QUEUED, Stage.VOICE)]
    assert store.expired(NOW + 61) == []
    assert store.expired(NOW + 120) == [Overdue(job_id, 1, State.QUEUED, Stage.VOICE)]
    everything_agrees(redis, prefix)


def test_no_more_expired_jobs_are_returned_than_requested(store: Store) -> None:
    """The earliest come first."""
    put(store, *numbered(5, start_within_s=60))

    assert [len(store.expired(NOW + 61, at_most=2)) for _ in range(3)] == [2, 2, 1]


@pytest.mark.parametrize("state", [state for state in State if state not in (State.WAITING, State.QUEUED)])
def test_a_started_job_does_not_expire(store: Store, state: State) -> None:
    """Neither does one whose first order is being sent or may be charged."""
    brought_to(store, state, sung(start_within_s=60))

    assert store.expired(NOW + 1e6) == []


def test_a_requeued_uncharged_job_expires(store: Store) -> None:
    """It had a slot at its deadline, and no order was sent."""
    job = brought_to(store, State.ADMITTED, sung(start_within_s=60))
    assert store.expired(NOW + 60) == []
    make(store, job, State.QUEUED, NOW + 61)

    assert [stalled.job_id for stalled in store.expired(NOW + 120)] == [job.id]


def test_a_song_whose_voice_is_paid_does_not_expire(store: Store) -> None:
    """It has started, although it is queued again."""
    job = brought_to(store, State.PENDING, sung(start_within_s=60))
    song = make(store, job, State.ADMITTED, to_stage=Stage.MUSIC)
    make(store, song, State.QUEUED)

    assert store.expired(NOW + 60) == []
    assert store.expired(NOW + 1e6) == []


def test_a_song_alone_expires_too(store: Store) -> None:
    """The song is its first stage."""
    [job_id] = put(store, VoiceJob(persona_id="p", song=SONG, start_within_s=1))

    assert store.expired(NOW + 1) == [Overdue(job_id, 1, State.QUEUED, Stage.MUSIC)]


def test_a_retried_job_does_not_expire_again(store: Store, redis: Redis, prefix: str) -> None:
    """The retry shows that it is still needed."""
    [job_id] = put(store, voice(start_within_s=60))
    store.expired(NOW + 60)
    failed(store, one(store, job_id), Code.EXPIRED, NOW + 60)
    make(store, one(store, job_id), State.QUEUED, NOW + 70, fields={"failure": None, "settled": None})

    assert store.expired(NOW + 1e6) == []
    everything_agrees(redis, prefix)


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_settled_jobs_have_no_deadline(store: Store, redis: Redis, prefix: str, state: State) -> None:
    """The deadlines of a hundred thousand settled jobs are not stored."""
    brought_to(store, state, voice(start_within_s=86_400))

    assert redis.exists(f"{{{prefix}}}:start_by") == 0
