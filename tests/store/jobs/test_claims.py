"""Claims: at most one POST and one poll of a job at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    REACHABLE,
    accepted,
    brought_to,
    charge,
    charging,
    dump,
    everything_agrees,
    make,
    one,
    put,
)
from tests.support.jobs import SONG, numbered, sung
from voicequeue import Stage, State, VoiceJob
from voicequeue.domain.claims import Charged, Claimed, Overdue, Planned
from voicequeue.domain.job import IN_FLIGHT
from voicequeue.domain.spec import stored
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import EARLY_S, Store

DUE = NOW + 20


def pending(store: Store, count: int = 1, **fields: object) -> list[str]:
    """Return jobs whose voices upstream works on, due in 20 s."""
    job_ids = put(store, *numbered(count, **fields))
    store.admit(NOW, at_most=count)
    for job_id in job_ids:
        charging(store, job_id)
        accepted(store, job_id, due=DUE)
    return job_ids


def both(url: str, prefix: str, work: Callable[[Store, int], list[str]]) -> list[list[str]]:
    """Return the results of two clients that call at the same moment."""
    together = Barrier(2)

    def alone(number: int) -> list[str]:
        client = connect(url)
        together.wait()
        result = work(Store(client, prefix), number)
        client.close()
        return result

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(alone, range(2)))


# ── submission claims ─────────────────────────────────────────────────────────────────────────────


def test_a_charge_is_written_before_anything_is_sent(store: Store, redis: Redis, prefix: str) -> None:
    """The claim contains all that the POST needs; the record says `charging`, with its attempt."""
    job = brought_to(store, State.ADMITTED)

    claim = charge(store, job.id, Stage.VOICE, "h", NOW + 1, lease=90)

    assert claim == Charged(job.id, job.version + 1, Stage.VOICE, 1, sung().content(), None, NOW + 91)
    now = one(store, job.id)
    assert (now.state, now.version, now.attempt, now.credits) == (State.CHARGING, job.version + 1, 1, 0)
    assert redis.zscore(f"{{{prefix}}}:in_flight", job.id) == NOW + 91
    everything_agrees(redis, prefix)


def test_a_claim_for_a_song_carries_the_created_persona(store: Store) -> None:
    """A given persona is part of the spec."""
    created = brought_to(store, State.PENDING)
    make(store, created, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p-made"})
    [with_persona] = put(store, VoiceJob(persona_id="p-given", song=SONG))
    store.admit(NOW, at_most=9)

    assert charging(store, created.id).persona_id == "p-made"
    assert stored(charging(store, with_persona).content).persona_id == "p-given"


def test_a_late_retry_of_a_claim_reports_that_the_job_is_unsure(store: Store, redis: Redis, prefix: str) -> None:
    """Redis was unreachable for longer than the lease. Only the holder knows that nothing was sent, so nothing changes:
    its first call may arrive after the retry."""
    job = brought_to(store, State.CHARGING)
    unsure = make(store, job, State.UNSURE)
    before = dump(redis, prefix)

    again = charge(store, job.id, Stage.VOICE, "holder", NOW + 1, lease=90)

    assert again == Overdue(job.id, unsure.version, State.UNSURE, Stage.VOICE)
    assert dump(redis, prefix) == before


def test_a_job_named_twice_in_one_call_is_claimed_once(store: Store) -> None:
    """One claim is one POST."""
    first, second = put(store, *numbered(2))
    store.admit(NOW, at_most=2)

    claims = store.charge([first, second, first], Stage.VOICE, "h", NOW, lease=90)

    assert [isinstance(claim, Charged) for claim in claims] == [True, True, False]


def test_the_same_holder_gets_the_same_claim_again(store: Store, redis: Redis, prefix: str) -> None:
    """A lost reply from Redis causes no second attempt and changes nothing else."""
    job = brought_to(store, State.ADMITTED)
    first = charge(store, job.id, Stage.VOICE, "h", NOW, lease=90)
    before = dump(redis, prefix)

    assert charge(store, job.id, Stage.VOICE, "h", NOW + 1, lease=89) == first
    assert dump(redis, prefix) == before


def test_another_holder_gets_nothing(store: Store, redis: Redis, prefix: str) -> None:
    """A message that is delivered twice finds the job claimed, and changes nothing."""
    job = brought_to(store, State.CHARGING)
    before = dump(redis, prefix)

    assert charge(store, job.id, Stage.VOICE, "another", NOW + 1, lease=90) is None
    assert dump(redis, prefix) == before


@pytest.mark.parametrize("state", [state for state in REACHABLE if state is not State.ADMITTED])
def test_only_an_admitted_job_can_be_submitted(store: Store, redis: Redis, prefix: str, state: State) -> None:
    """In any other state a claim returns nothing and changes nothing, even for an earlier holder."""
    job = brought_to(store, state)
    before = dump(redis, prefix)

    assert charge(store, job.id, Stage.VOICE, "late", NOW + 1, lease=90) is None
    may_know = state in (State.CHARGING, State.UNSURE)
    assert may_know or charge(store, job.id, Stage.VOICE, "holder", NOW + 1, lease=90) is None
    assert dump(redis, prefix) == before


def test_a_message_of_another_stage_claims_nothing(store: Store, redis: Redis, prefix: str) -> None:
    """A late `voice.submit` finds that the job is at its song."""
    job = brought_to(store, State.PENDING)
    make(store, job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"})
    before = dump(redis, prefix)

    assert charge(store, job.id, Stage.VOICE, "h", NOW + 1, lease=90) is None
    assert dump(redis, prefix) == before


def test_an_unknown_job_is_not_claimed(store: Store, redis: Redis, prefix: str) -> None:
    """A message may outlive its job."""
    assert charge(store, "nosuchjob", Stage.VOICE, "h", NOW, lease=90) is None
    assert dump(redis, prefix) == {}


def test_of_two_concurrent_claims_exactly_one_succeeds(store: Store, valkey_url: str, prefix: str) -> None:
    """This holds for each of many jobs, in any order."""
    job_ids = put(store, *numbered(100))
    store.admit(NOW, at_most=100)

    def claimed(own: Store, number: int) -> list[str]:
        order = job_ids if number else job_ids[::-1]
        return [job_id for job_id in order if charge(own, job_id, Stage.VOICE, f"h{number}", NOW, lease=9)]

    one_got, other_got = both(valkey_url, prefix, claimed)

    assert sorted(one_got + other_got) == sorted(job_ids)
    assert {job.attempt for job in store.get(job_ids) if job} == {1}


# ── poll claims ───────────────────────────────────────────────────────────────────────────────────


def test_a_job_is_claimed_when_it_is_due_and_not_before(store: Store) -> None:
    """The claim contains the task to poll and its submission time."""
    [job_id] = pending(store)

    assert store.claim([job_id], Stage.VOICE, DUE - 1, lease=90) == []
    assert store.claim([job_id], Stage.VOICE, DUE, lease=90) == [
        Claimed(job_id, one(store, job_id).version, State.PENDING, Stage.VOICE, f"task-voice-{job_id}", NOW, None)
    ]


def test_a_claim_says_which_stage_is_next(store: Store) -> None:
    """The next stage is the song, if the job has one."""
    job = brought_to(store, State.PENDING, sung())

    [claim] = store.claim([job.id], Stage.VOICE, NOW, lease=90)

    assert claim.next_stage is Stage.MUSIC


def test_a_clock_may_be_a_little_early(store: Store) -> None:
    """A claim may be early by less than the clocks of two hosts differ."""
    [job_id] = pending(store)

    assert store.claim([job_id], Stage.VOICE, DUE - EARLY_S * 1.5, lease=90) == []
    assert len(store.claim([job_id], Stage.VOICE, DUE - EARLY_S / 2, lease=90)) == 1


def test_a_claimed_job_is_leased(store: Store) -> None:
    """A poll message delivered twice polls once; after a crash the job is claimed again."""
    [job_id] = pending(store)
    store.claim([job_id], Stage.VOICE, DUE, lease=90)

    assert store.claim([job_id], Stage.VOICE, DUE + 89, lease=90) == []
    assert len(store.claim([job_id], Stage.VOICE, DUE + 90, lease=90)) == 1


def test_only_jobs_pending_at_that_stage_are_claimed(store: Store, redis: Redis, prefix: str) -> None:
    """The jobs of a chunk may be in different states; the others stay unchanged."""
    due, cancelled, elsewhere, moved_on = pending(store, 4)
    make(store, one(store, cancelled), State.SUCCEEDED)
    make(store, one(store, elsewhere), State.ADMITTED, to_stage=Stage.MUSIC)
    make(store, one(store, moved_on), State.CANCELLED)
    chunk = [moved_on, due, "nosuchjob", cancelled, elsewhere]

    assert [claim.job_id for claim in store.claim(chunk, Stage.VOICE, DUE, lease=90)] == [due]
    before = dump(redis, prefix)
    assert store.claim(chunk, Stage.VOICE, DUE, lease=90) == []
    assert dump(redis, prefix) == before


def ids(claims: list[Claimed]) -> list[str]:
    """Return the job ids of claims."""
    return [claim.job_id for claim in claims]


def test_other_jobs_due_soon_are_claimed_too(store: Store) -> None:
    """The earliest come first, up to a full message; jobs of the other stage are excluded."""
    mine, soon, now, late, overdue, elsewhere = pending(store, 6)
    dues = {soon: DUE + 4, now: DUE, late: DUE + 6, overdue: DUE - 6}
    store.plan(Planned(job_id, one(store, job_id).version, due) for job_id, due in dues.items())
    make(store, one(store, elsewhere), State.ADMITTED, to_stage=Stage.MUSIC, due=DUE)

    def claimed(*, most: int) -> list[str]:
        return ids(store.claim([mine], Stage.VOICE, DUE, lease=90, near=5, most=most))

    assert claimed(most=3) == [mine, now, soon]
    assert claimed(most=9) == []
    assert ids(store.claim([now, late], Stage.VOICE, DUE + 90, lease=90)) == [now, late]


def test_no_more_jobs_are_claimed_than_fill_a_message(store: Store) -> None:
    """The others have messages of their own."""
    job_ids = pending(store, 5)

    full = ids(store.claim(job_ids[:1], Stage.VOICE, DUE, lease=90, near=5, most=3))
    others = [job_id for job_id in job_ids if job_id not in full]

    assert len(full) == 3
    assert ids(store.claim(others[:1], Stage.VOICE, DUE, lease=90, near=5, most=1)) == others[:1]
    assert ids(store.claim(others, Stage.VOICE, DUE, lease=90, near=5, most=1)) == others[1:]


def test_a_message_without_a_due_job_claims_no_others(store: Store) -> None:
    """It ends, and the others are left to their own messages."""
    mine, _ = pending(store, 2)
    store.claim([mine], Stage.VOICE, DUE, lease=90)

    assert store.claim([mine], Stage.VOICE, DUE, lease=90, near=5, most=9) == []


def test_no_ids_are_no_claims(store: Store) -> None:
    """An empty chunk is allowed."""
    assert store.claim([], Stage.VOICE, NOW, lease=90) == []
    assert store.plan([]) == []


def test_of_two_concurrent_polls_each_job_goes_to_one(store: Store, valkey_url: str, prefix: str) -> None:
    """Upstream is polled once for each job."""
    job_ids = pending(store, 100)

    def claim(own: Store, number: int) -> list[str]:
        chunks = [job_ids[at : at + 5] for at in range(0, 100, 5)]
        return [
            c.job_id
            for chunk in (chunks if number else chunks[::-1])
            for c in own.claim(chunk, Stage.VOICE, DUE, lease=90)
        ]

    one_got, other_got = both(valkey_url, prefix, claim)

    assert sorted(one_got + other_got) == sorted(job_ids)


# ── rescheduling ──────────────────────────────────────────────────────────────────────────────────


def test_a_job_that_is_not_ready_is_due_when_it_was_rescheduled(store: Store) -> None:
    """It is due neither at once nor only after the lease."""
    job_ids = pending(store, 2)
    claims = store.claim(job_ids, Stage.VOICE, DUE, lease=90)

    assert store.plan(Planned(claim.job_id, claim.version, DUE + 20) for claim in claims) == job_ids
    assert store.claim(job_ids, Stage.VOICE, DUE + 19, lease=90) == []
    assert len(store.claim(job_ids, Stage.VOICE, DUE + 20, lease=90)) == 2


def test_a_job_that_has_changed_is_not_rescheduled(store: Store, redis: Redis, prefix: str) -> None:
    """It no longer has a slot."""
    moved_on, waits = pending(store, 2)
    claims = store.claim([moved_on, waits], Stage.VOICE, DUE, lease=90)
    make(store, one(store, moved_on), State.SUCCEEDED)

    assert store.plan(Planned(claim.job_id, claim.version, DUE + 20) for claim in claims) == [waits]
    everything_agrees(redis, prefix)


# ── overdue jobs ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", [state for state in REACHABLE if state in IN_FLIGHT])
def test_an_overdue_job_in_flight_is_leased(store: Store, state: State) -> None:
    """An admitted, charging or pending job is returned once it is overdue for long enough, and not before."""
    job = brought_to(store, state)
    due = NOW + (90 if state is State.CHARGING else 0)

    assert store.overdue(due + 9, patience=10) == []
    assert store.overdue(due + 10, patience=10) == [Overdue(job.id, job.version, state, Stage.VOICE)]


@pytest.mark.parametrize("state", [state for state in REACHABLE if state not in IN_FLIGHT])
def test_a_job_that_holds_no_slot_is_never_overdue(store: Store, state: State) -> None:
    """It is queued, waits for a person, or is settled."""
    brought_to(store, state)

    assert store.overdue(NOW + 1e6, patience=10) == []


@pytest.mark.parametrize("state", [state for state in REACHABLE if state in IN_FLIGHT])
def test_a_job_in_flight_is_not_postponed_when_redis_clock_is_set_back(store: Store, state: State) -> None:
    """Its due time was written an hour ahead of the current time and would block it for an hour. It is not leased
    earlier than usual either: its POST may be in progress."""
    job = brought_to(store, state)
    back = NOW - 3_600

    assert store.overdue(back, patience=10, longest=120) == []
    assert store.overdue(back + 129, patience=10, longest=120) == []
    assert [stalled.job_id for stalled in store.overdue(back + 131, patience=10, longest=120)] == [job.id]


def test_an_overdue_job_is_given_to_one_caller_at_a_time(store: Store) -> None:
    """The next caller gets it after another timeout, if it is still overdue."""
    brought_to(store, State.ADMITTED)

    assert len(store.overdue(NOW + 10, patience=10)) == 1
    assert store.overdue(NOW + 19, patience=10) == []
    assert len(store.overdue(NOW + 20, patience=10)) == 1


def test_an_overdue_poll_can_be_claimed_at_once(store: Store) -> None:
    """Leasing does not postpone the job itself."""
    [job_id] = pending(store)
    store.overdue(DUE + 10, patience=10)

    assert len(store.claim([job_id], Stage.VOICE, DUE + 10, lease=90)) == 1


def test_of_two_maintenance_runs_each_overdue_job_goes_to_one(store: Store, valkey_url: str, prefix: str) -> None:
    """Concurrent maintenance does no harm."""
    job_ids = pending(store, 100)

    def look(own: Store, number: int) -> list[str]:
        return [stalled.job_id for _ in range(20) for stalled in own.overdue(DUE + 10, patience=10, at_most=7)]

    one_got, other_got = both(valkey_url, prefix, look)

    assert sorted(one_got + other_got) == sorted(job_ids)


def test_the_longest_overdue_come_first_up_to_the_limit(store: Store) -> None:
    """So maintenance works through them after an outage."""
    job_ids = put(store, *numbered(5))
    for at in range(5):
        store.admit(NOW + at, at_most=at + 1)

    stalled = store.overdue(NOW + 60, patience=10, at_most=3)

    assert [job.job_id for job in stalled] == job_ids[:3]


def test_the_slot_of_a_deleted_job_is_freed(store: Store, redis: Redis, prefix: str) -> None:
    """A record deleted by hand holds no slot."""
    [job_id] = pending(store)
    redis.delete(f"{{{prefix}}}:job:{job_id}")

    assert store.overdue(DUE + 10, patience=10) == []
    assert store.in_flight() == 0
