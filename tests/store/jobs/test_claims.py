"""Claims: at most one POST and one poll of a job at a time."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.jobs.pending import DUE, both, pending
from tests.store.life import (
    NOW,
    REACHABLE,
    apply_transition,
    assert_consistent,
    claim_admitted,
    claim_submit,
    dump_keys,
    enqueue_jobs,
    get_job,
    job_in_state,
)
from tests.support.jobs import SONG, numbered_voices, voice_with_song
from voicequeue import Stage, State, VoiceJob
from voicequeue.domain.claims import PollReschedule, StalledJob, SubmitClaim
from voicequeue.domain.spec import parse_stored_spec
from voicequeue.domain.states import IN_FLIGHT
from voicequeue.storage.job_store import JobStore

# ── submission claims ─────────────────────────────────────────────────────────────────────────────


def test_a_charge_is_written_before_anything_is_sent(store: JobStore, redis: Redis, prefix: str) -> None:
    """The claim contains all that the POST needs; the record says `charging`, with its attempt."""
    job = job_in_state(store, State.ADMITTED)

    claim = claim_submit(store, job.id, Stage.VOICE, "h", NOW + 1, lease=90)

    assert claim == SubmitClaim(
        job.id, job.version + 1, Stage.VOICE, 1, voice_with_song().canonical_content(), None, NOW + 91, "h"
    )
    now = get_job(store, job.id)
    assert (now.state, now.version, now.attempt, now.credits) == (State.CHARGING, job.version + 1, 1, 0)
    assert redis.zscore(f"{{{prefix}}}:in_flight", job.id) == NOW + 91
    assert_consistent(redis, prefix)


def test_a_claim_for_a_song_carries_the_created_persona(store: JobStore) -> None:
    """A given persona is part of the spec."""
    created = job_in_state(store, State.PENDING)
    apply_transition(store, created, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p-made"})
    [with_persona] = enqueue_jobs(store, VoiceJob(persona_id="p-given", song=SONG))
    store.admit(NOW, at_most=9)

    assert claim_admitted(store, created.id).persona_id == "p-made"
    assert parse_stored_spec(claim_admitted(store, with_persona).content).persona_id == "p-given"


def test_a_late_retry_of_a_claim_reports_that_the_job_is_unsure(store: JobStore, redis: Redis, prefix: str) -> None:
    """Redis was unreachable for longer than the lease. Only the holder knows that nothing was sent, so nothing changes:
    its first call may arrive after the retry."""
    job = job_in_state(store, State.CHARGING)
    unsure = apply_transition(store, job, State.UNSURE)
    before = dump_keys(redis, prefix)

    again = claim_submit(store, job.id, Stage.VOICE, "holder", NOW + 1, lease=90)

    assert again == StalledJob(job.id, unsure.version, State.UNSURE, Stage.VOICE)
    assert dump_keys(redis, prefix) == before


def test_a_job_named_twice_in_one_call_is_claimed_once(store: JobStore) -> None:
    """One claim is one POST."""
    first, second = enqueue_jobs(store, *numbered_voices(2))
    store.admit(NOW, at_most=2)

    claims = store.claim_submit([first, second, first], Stage.VOICE, "h", NOW, lease_s=90)

    assert [isinstance(claim, SubmitClaim) for claim in claims] == [True, True, False]


def test_the_same_holder_gets_the_same_claim_again(store: JobStore, redis: Redis, prefix: str) -> None:
    """A lost reply from Redis causes no second attempt and changes nothing else."""
    job = job_in_state(store, State.ADMITTED)
    first = claim_submit(store, job.id, Stage.VOICE, "h", NOW, lease=90)
    before = dump_keys(redis, prefix)

    assert claim_submit(store, job.id, Stage.VOICE, "h", NOW + 1, lease=89) == first
    assert dump_keys(redis, prefix) == before


def test_another_holder_gets_nothing(store: JobStore, redis: Redis, prefix: str) -> None:
    """A message that is delivered twice finds the job claimed, and changes nothing."""
    job = job_in_state(store, State.CHARGING)
    before = dump_keys(redis, prefix)

    assert claim_submit(store, job.id, Stage.VOICE, "another", NOW + 1, lease=90) is None
    assert dump_keys(redis, prefix) == before


@pytest.mark.parametrize("state", [state for state in REACHABLE if state is not State.ADMITTED])
def test_only_an_admitted_job_can_be_submitted(store: JobStore, redis: Redis, prefix: str, state: State) -> None:
    """In any other state a claim returns nothing and changes nothing, even for an earlier holder."""
    job = job_in_state(store, state)
    before = dump_keys(redis, prefix)

    assert claim_submit(store, job.id, Stage.VOICE, "late", NOW + 1, lease=90) is None
    may_know = state in (State.CHARGING, State.UNSURE)
    assert may_know or claim_submit(store, job.id, Stage.VOICE, "holder", NOW + 1, lease=90) is None
    assert dump_keys(redis, prefix) == before


def test_a_message_of_another_stage_claims_nothing(store: JobStore, redis: Redis, prefix: str) -> None:
    """A late `voice.submit` finds that the job is at its song."""
    job = job_in_state(store, State.PENDING)
    apply_transition(store, job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"})
    before = dump_keys(redis, prefix)

    assert claim_submit(store, job.id, Stage.VOICE, "h", NOW + 1, lease=90) is None
    assert dump_keys(redis, prefix) == before


def test_an_unknown_job_is_not_claimed(store: JobStore, redis: Redis, prefix: str) -> None:
    """A message may outlive its job."""
    assert claim_submit(store, "nosuchjob", Stage.VOICE, "h", NOW, lease=90) is None
    assert dump_keys(redis, prefix) == {}


def test_of_two_concurrent_claims_exactly_one_succeeds(store: JobStore, valkey_url: str, prefix: str) -> None:
    """This holds for each of many jobs, in any order."""
    job_ids = enqueue_jobs(store, *numbered_voices(100))
    store.admit(NOW, at_most=100)

    def claimed(own: JobStore, number: int) -> list[str]:
        order = job_ids if number else job_ids[::-1]
        return [job_id for job_id in order if claim_submit(own, job_id, Stage.VOICE, f"h{number}", NOW, lease=9)]

    one_got, other_got = both(valkey_url, prefix, claimed)

    assert sorted(one_got + other_got) == sorted(job_ids)
    assert {job.attempt for job in store.get(job_ids) if job} == {1}


# ── rescheduling ──────────────────────────────────────────────────────────────────────────────────


def test_a_job_that_is_not_ready_is_due_when_it_was_rescheduled(store: JobStore) -> None:
    """It is due neither at once nor only after the lease."""
    job_ids = pending(store, 2)
    claims = store.claim_poll(job_ids, DUE, lease_s=90)

    assert store.reschedule_polls(PollReschedule(claim.job_id, claim.version, DUE + 20) for claim in claims) == job_ids
    assert store.claim_poll(job_ids, DUE + 19, lease_s=90) == []
    assert len(store.claim_poll(job_ids, DUE + 20, lease_s=90)) == 2


def test_a_job_that_has_changed_is_not_rescheduled(store: JobStore, redis: Redis, prefix: str) -> None:
    """It no longer has a slot."""
    moved_on, waits = pending(store, 2)
    claims = store.claim_poll([moved_on, waits], DUE, lease_s=90)
    apply_transition(store, get_job(store, moved_on), State.SUCCEEDED)

    assert store.reschedule_polls(PollReschedule(claim.job_id, claim.version, DUE + 20) for claim in claims) == [waits]
    assert_consistent(redis, prefix)


# ── overdue jobs ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", [state for state in REACHABLE if state in IN_FLIGHT])
def test_an_overdue_job_in_flight_is_leased(store: JobStore, state: State) -> None:
    """An admitted, charging or pending job is returned once it is overdue for long enough, and not before."""
    job = job_in_state(store, state)
    due = NOW + (90 if state is State.CHARGING else 0)

    assert store.lease_overdue(due + 9, overdue_s=10) == []
    assert store.lease_overdue(due + 10, overdue_s=10) == [StalledJob(job.id, job.version, state, Stage.VOICE)]


@pytest.mark.parametrize("state", [state for state in REACHABLE if state not in IN_FLIGHT])
def test_a_job_that_holds_no_slot_is_never_overdue(store: JobStore, state: State) -> None:
    """It is queued, waits for a person, or is settled."""
    job_in_state(store, state)

    assert store.lease_overdue(NOW + 1e6, overdue_s=10) == []


@pytest.mark.parametrize("state", [state for state in REACHABLE if state in IN_FLIGHT])
def test_a_job_in_flight_is_not_postponed_when_redis_clock_is_set_back(store: JobStore, state: State) -> None:
    """Its due time was written an hour ahead of the current time and would block it for an hour. It is not leased
    earlier than usual either: its POST may be in progress."""
    job = job_in_state(store, state)
    back = NOW - 3_600

    assert store.lease_overdue(back, overdue_s=10, longest_s=120) == []
    assert store.lease_overdue(back + 129, overdue_s=10, longest_s=120) == []
    assert [stalled.job_id for stalled in store.lease_overdue(back + 131, overdue_s=10, longest_s=120)] == [job.id]


def test_an_overdue_job_is_given_to_one_caller_at_a_time(store: JobStore) -> None:
    """The next caller gets it after another timeout, if it is still overdue."""
    job_in_state(store, State.ADMITTED)

    assert len(store.lease_overdue(NOW + 10, overdue_s=10)) == 1
    assert store.lease_overdue(NOW + 19, overdue_s=10) == []
    assert len(store.lease_overdue(NOW + 20, overdue_s=10)) == 1


def test_an_overdue_poll_can_be_claimed_at_once(store: JobStore) -> None:
    """Leasing does not postpone the job itself."""
    [job_id] = pending(store)
    store.lease_overdue(DUE + 10, overdue_s=10)

    assert len(store.claim_poll([job_id], DUE + 10, lease_s=90)) == 1


def test_of_two_maintenance_runs_each_overdue_job_goes_to_one(store: JobStore, valkey_url: str, prefix: str) -> None:
    """Concurrent maintenance does no harm."""
    job_ids = pending(store, 100)

    def look(own: JobStore, number: int) -> list[str]:
        return [stalled.job_id for _ in range(20) for stalled in own.lease_overdue(DUE + 10, overdue_s=10, at_most=7)]

    one_got, other_got = both(valkey_url, prefix, look)

    assert sorted(one_got + other_got) == sorted(job_ids)


def test_the_longest_overdue_come_first_up_to_the_limit(store: JobStore) -> None:
    """So maintenance works through them after an outage."""
    job_ids = enqueue_jobs(store, *numbered_voices(5))
    for at in range(5):
        store.admit(NOW + at, at_most=at + 1)

    stalled = store.lease_overdue(NOW + 60, overdue_s=10, at_most=3)

    assert [job.job_id for job in stalled] == job_ids[:3]


def test_the_slot_of_a_deleted_job_is_freed(store: JobStore, redis: Redis, prefix: str) -> None:
    """A record deleted by hand holds no slot."""
    [job_id] = pending(store)
    redis.delete(f"{{{prefix}}}:job:{job_id}")

    assert store.lease_overdue(DUE + 10, overdue_s=10) == []
    assert store.count_in_flight() == 0
