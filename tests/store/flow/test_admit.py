"""Admission: from the backlog into flight, within the limit, while the gate is open."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    claim_submit,
    dump_keys,
    enqueue_jobs,
    get_job,
)
from tests.support.jobs import SONG, numbered_voices, voice
from voicequeue import Gate, Hold, Stage, State, VoiceJob
from voicequeue.domain.claims import Admitted
from voicequeue.domain.gate import Limits
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore


def flat(admitted: Admitted) -> list[str]:
    """Return all admitted ids, of both stages."""
    return [job_id for job_ids in admitted.by_stage.values() for job_id in job_ids]


# ── the limit ─────────────────────────────────────────────────────────────────────────────────────


def test_the_head_of_the_backlog_is_admitted_up_to_the_limit(store: JobStore, redis: Redis, prefix: str) -> None:
    """Jobs are admitted in order, as many as there are slots."""
    job_ids = enqueue_jobs(store, *numbered_voices(10))
    store.flow_control.set_limits(in_flight=4)

    assert store.admit(NOW) == Admitted({Stage.VOICE: job_ids[:4]})
    assert store.count_in_flight() == 4
    assert store.admit(NOW) == Admitted({})
    store.flow_control.set_limits(in_flight=6)
    assert store.admit(NOW) == Admitted({Stage.VOICE: job_ids[4:6]})
    assert_consistent(redis, prefix)


def test_one_call_admits_no_more_than_its_maximum(store: JobStore) -> None:
    """The number of free slots may be larger."""
    job_ids = enqueue_jobs(store, *numbered_voices(10))

    assert flat(store.admit(NOW, at_most=3)) == job_ids[:3]


def test_a_slot_is_held_until_the_job_settles_or_goes_back(store: JobStore) -> None:
    """An admitted, charging or pending job holds a slot; an unsure job holds none."""
    store.flow_control.set_limits(in_flight=4)
    first, second, third, fourth, _ = enqueue_jobs(store, *numbered_voices(5))
    store.admit(NOW)
    for job_id in (first, second, third):
        claim_admitted(store, job_id)
    accept_order(store, first)
    assert store.count_in_flight() == 4

    apply_transition(store, get_job(store, first), State.SUCCEEDED)
    apply_transition(store, get_job(store, second), State.UNSURE)
    apply_transition(store, get_job(store, third), State.FAILED)
    apply_transition(store, get_job(store, fourth), State.QUEUED)

    assert store.count_in_flight() == 0


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_lowered_limit_admits_nothing_until_there_is_a_free_slot(store: JobStore, limit: int) -> None:
    """Jobs in flight continue."""
    enqueue_jobs(store, *numbered_voices(5))
    store.admit(NOW, at_most=3)

    store.flow_control.set_limits(in_flight=limit)

    assert store.admit(NOW) == Admitted({})
    assert store.count_in_flight() == 3


def test_jobs_are_returned_by_their_stage(store: JobStore) -> None:
    """A job with a persona is at its song, one with a recording at its voice."""
    with_recording, with_persona = enqueue_jobs(store, voice(), VoiceJob(persona_id="p", song=SONG))

    assert store.admit(NOW) == Admitted({Stage.VOICE: [with_recording], Stage.MUSIC: [with_persona]})


def test_an_empty_backlog_admits_nothing(store: JobStore, redis: Redis, prefix: str) -> None:
    """Nothing is written."""
    assert store.admit(NOW) == Admitted({})
    assert dump_keys(redis, prefix) == {}


def test_two_concurrent_admissions_share_the_slots(store: JobStore, valkey_url: str, prefix: str) -> None:
    """No job is admitted twice, and the limit is never exceeded."""
    enqueue_jobs(store, *numbered_voices(200))
    both = Barrier(2)

    def admit() -> list[str]:
        client = connect(valkey_url)
        own = JobStore(client, prefix, limits=Limits(in_flight=150, initial_in_flight=150))
        both.wait()
        admitted = [job_id for _ in range(40) for job_id in flat(own.admit(NOW, at_most=5))]
        client.close()
        return admitted

    with ThreadPoolExecutor(2) as threads:
        admitted = [job_id for share in [threads.submit(admit), threads.submit(admit)] for job_id in share.result()]

    assert len(admitted) == len(set(admitted)) == store.count_in_flight() == 150


# ── the gate ──────────────────────────────────────────────────────────────────────────────────────


def test_the_gate_is_open_by_default(store: JobStore) -> None:
    """A new queue works at once."""
    assert store.flow_control.gate(NOW) == Gate()
    assert store.flow_control.gate(NOW).is_open


def test_a_closed_gate_admits_nothing_until_its_time(store: JobStore) -> None:
    """The hold has a reason, a start and an end, and ends by itself."""
    enqueue_jobs(store, voice())
    store.flow_control.add_hold("cooldown", "429: slow down", NOW, NOW + 5)

    assert store.flow_control.gate(NOW + 4.9) == Gate((Hold("cooldown", "429: slow down", NOW, NOW + 5),))
    assert not store.flow_control.gate(NOW + 4.9).is_open
    assert store.admit(NOW + 4.9) == Admitted({})
    assert store.flow_control.gate(NOW + 5).is_open
    assert flat(store.admit(NOW + 5))


def test_a_hold_without_an_end_stays(store: JobStore) -> None:
    """It ends when it is resumed."""
    enqueue_jobs(store, voice())
    store.flow_control.add_hold("paused", "by Ana", NOW)

    assert store.flow_control.gate(NOW + 1e6) == Gate((Hold("paused", "by Ana", NOW),))
    assert store.admit(NOW + 1e6) == Admitted({})


@pytest.mark.parametrize("until", [NOW + 60, None], ids=["for a minute", "for good"])
def test_a_shorter_hold_does_not_end_a_longer_one(store: JobStore, until: float | None) -> None:
    """A late 429 ends neither a pause nor a hold for lack of credits: each hold has its own end."""
    enqueue_jobs(store, voice())
    store.flow_control.add_hold("out_of_credits", "403", NOW, until)

    store.flow_control.add_hold("cooldown", "429", NOW + 1, NOW + 6)

    longer = Hold("out_of_credits", "403", NOW, until)
    assert store.flow_control.gate(NOW + 2) == Gate((Hold("cooldown", "429", NOW + 1, NOW + 6), longer))
    assert store.flow_control.gate(NOW + 6) == Gate((longer,))
    assert store.admit(NOW + 59) == Admitted({})


@pytest.mark.parametrize("until", [NOW + 60, None], ids=["for a minute", "for good"])
def test_a_longer_hold_outlasts_a_shorter_one(store: JobStore, until: float | None) -> None:
    """It has its own reason and leaves nothing of the other."""
    enqueue_jobs(store, voice())
    store.flow_control.add_hold("cooldown", "429", NOW, NOW + 5)

    store.flow_control.add_hold("unauthorized", "401", NOW + 1, until)

    longer = Hold("unauthorized", "401", NOW + 1, until)
    assert store.flow_control.gate(NOW + 2).holds == (Hold("cooldown", "429", NOW, NOW + 5), longer)
    assert store.flow_control.gate(NOW + 5) == Gate((longer,))
    assert store.admit(NOW + 59) == Admitted({})


def test_an_ended_hold_has_no_effect_on_the_next(store: JobStore) -> None:
    """The next hold counts, however short."""
    store.flow_control.add_hold("cooldown", "429", NOW, NOW + 60)

    assert store.flow_control.add_hold("cooldown", "429", NOW + 61, NOW + 62)

    assert store.flow_control.gate(NOW + 61.5) == Gate((Hold("cooldown", "429", NOW + 61, NOW + 62),))
    assert store.flow_control.gate(NOW + 62).is_open


def test_a_closed_gate_returns_an_admitted_job_to_the_backlog(store: JobStore, redis: Redis, prefix: str) -> None:
    """Nothing is charged; the job is at the head of the backlog again."""
    first, second = enqueue_jobs(store, *numbered_voices(2))
    store.admit(NOW, at_most=1)
    store.flow_control.add_hold("out_of_credits", "403", NOW, NOW + 60)

    assert claim_submit(store, first, Stage.VOICE, "h", NOW + 1, lease=9) is None

    job = get_job(store, first)
    assert (job.state, job.attempt) == (State.QUEUED, 0)
    assert list(store.list_ids(state=State.QUEUED)) == [first, second]
    assert store.timeline(first)[-1].reason == "gate closed"
    assert_consistent(redis, prefix)
