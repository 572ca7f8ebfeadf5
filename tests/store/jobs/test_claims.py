"""Claims: one POST and one poll of a job at a time, whoever asks, however often."""

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
    """Jobs that wait for their voices, due in 20 s."""
    job_ids = put(store, *numbered(count, **fields))
    store.admit(NOW, at_most=count)
    for job_id in job_ids:
        charging(store, job_id)
        accepted(store, job_id, due=DUE)
    return job_ids


def both(url: str, prefix: str, work: Callable[[Store, int], list[str]]) -> list[list[str]]:
    """What two clients get that begin at the same moment."""
    together = Barrier(2)

    def alone(number: int) -> list[str]:
        client = connect(url)
        together.wait()
        found = work(Store(client, prefix), number)
        client.close()
        return found

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(alone, range(2)))


# ── charge ────────────────────────────────────────────────────────────────────────────────────────


def test_a_charge_is_written_before_anything_is_sent(store: Store, redis: Redis, prefix: str) -> None:
    """The claim carries all that the POST needs; the record says `charging`, with its attempt."""
    job = brought_to(store, State.ADMITTED)

    claim = charge(store, job.id, Stage.VOICE, "h", NOW + 1, lease=90)

    assert claim == Charged(job.id, job.version + 1, Stage.VOICE, 1, sung().content(), None, NOW + 91)
    now = one(store, job.id)
    assert (now.state, now.version, now.attempt, now.credits) == (State.CHARGING, job.version + 1, 1, 0)
    assert redis.zscore(f"{{{prefix}}}:in_flight", job.id) == NOW + 91
    everything_agrees(redis, prefix)


def test_a_charge_for_a_song_carries_the_persona(store: Store) -> None:
    """The one that was made; one that was given stands in what was asked for."""
    made = brought_to(store, State.PENDING)
    make(store, made, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p-made"})
    [given] = put(store, VoiceJob(persona_id="p-given", song=SONG))
    store.admit(NOW, at_most=9)

    assert charging(store, made.id).persona_id == "p-made"
    assert stored(charging(store, given).content).persona_id == "p-given"


def test_who_asks_again_when_the_job_is_unsure_by_then_is_told_so(store: Store, redis: Redis, prefix: str) -> None:
    """Redis was away for longer than the claim was trusted. Only the holder knows that nothing was sent, so
    nothing changes: what he asked at first may arrive after the POST."""
    job = brought_to(store, State.CHARGING)
    unsure = make(store, job, State.UNSURE)
    before = dump(redis, prefix)

    again = charge(store, job.id, Stage.VOICE, "holder", NOW + 1, lease=90)

    assert again == Overdue(job.id, unsure.version, State.UNSURE, Stage.VOICE)
    assert dump(redis, prefix) == before


def test_a_job_that_is_named_twice_in_one_asking_is_claimed_once(store: Store) -> None:
    """One claim is one POST."""
    first, second = put(store, *numbered(2))
    store.admit(NOW, at_most=2)

    found = store.charge([first, second, first], Stage.VOICE, "h", NOW, lease=90)

    assert [isinstance(each, Charged) for each in found] == [True, True, False]


def test_the_same_holder_gets_the_same_answer_again(store: Store, redis: Redis, prefix: str) -> None:
    """An answer that was lost on its way from Redis costs no second attempt; nothing else changes."""
    job = brought_to(store, State.ADMITTED)
    first = charge(store, job.id, Stage.VOICE, "h", NOW, lease=90)
    before = dump(redis, prefix)

    assert charge(store, job.id, Stage.VOICE, "h", NOW + 1, lease=89) == first
    assert dump(redis, prefix) == before


def test_another_holder_gets_nothing(store: Store, redis: Redis, prefix: str) -> None:
    """A message that was delivered twice finds the job taken, and changes nothing."""
    job = brought_to(store, State.CHARGING)
    before = dump(redis, prefix)

    assert charge(store, job.id, Stage.VOICE, "another", NOW + 1, lease=90) is None
    assert dump(redis, prefix) == before


@pytest.mark.parametrize("state", [state for state in REACHABLE if state is not State.ADMITTED])
def test_only_an_admitted_job_can_be_charged(store: Store, redis: Redis, prefix: str, state: State) -> None:
    """In any other state a claim gets nothing and changes nothing, even by a holder of before."""
    job = brought_to(store, state)
    before = dump(redis, prefix)

    assert charge(store, job.id, Stage.VOICE, "late", NOW + 1, lease=90) is None
    may_know = state in (State.CHARGING, State.UNSURE)
    assert may_know or charge(store, job.id, Stage.VOICE, "holder", NOW + 1, lease=90) is None
    assert dump(redis, prefix) == before


def test_a_message_of_another_stage_charges_nothing(store: Store, redis: Redis, prefix: str) -> None:
    """A late `voice.submit` finds that the job stands at its song."""
    job = brought_to(store, State.PENDING)
    make(store, job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"})
    before = dump(redis, prefix)

    assert charge(store, job.id, Stage.VOICE, "h", NOW + 1, lease=90) is None
    assert dump(redis, prefix) == before


def test_a_job_that_nobody_knows_charges_nothing(store: Store, redis: Redis, prefix: str) -> None:
    """A message may outlive its job."""
    assert charge(store, "nosuchjob", Stage.VOICE, "h", NOW, lease=90) is None
    assert dump(redis, prefix) == {}


def test_of_two_that_charge_at_once_exactly_one_does(store: Store, valkey_url: str, prefix: str) -> None:
    """For each of many jobs, whatever the order in which the two come."""
    job_ids = put(store, *numbered(100))
    store.admit(NOW, at_most=100)

    def claimed(own: Store, number: int) -> list[str]:
        order = job_ids if number else job_ids[::-1]
        return [each for each in order if charge(own, each, Stage.VOICE, f"h{number}", NOW, lease=9)]

    one_got, other_got = both(valkey_url, prefix, claimed)

    assert sorted(one_got + other_got) == sorted(job_ids)
    assert {job.attempt for job in store.get(job_ids) if job} == {1}


# ── claim ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_is_claimed_when_it_is_due_and_not_before(store: Store) -> None:
    """The claim says which task to ask about, and since when it was paid."""
    [job_id] = pending(store)

    assert store.claim([job_id], Stage.VOICE, DUE - 1, lease=90) == []
    assert store.claim([job_id], Stage.VOICE, DUE, lease=90) == [
        Claimed(job_id, one(store, job_id).version, State.PENDING, Stage.VOICE, f"task-voice-{job_id}", NOW, None)
    ]


def test_a_claim_says_which_stage_is_next(store: Store) -> None:
    """The song, where one was asked for."""
    job = brought_to(store, State.PENDING, sung())

    [claim] = store.claim([job.id], Stage.VOICE, NOW, lease=90)

    assert claim.next_stage is Stage.MUSIC


def test_a_clock_may_be_a_little_early(store: Store) -> None:
    """By less than clocks of two machines differ."""
    [job_id] = pending(store)

    assert store.claim([job_id], Stage.VOICE, DUE - EARLY_S * 1.5, lease=90) == []
    assert len(store.claim([job_id], Stage.VOICE, DUE - EARLY_S / 2, lease=90)) == 1


def test_a_claimed_job_is_nobody_elses_until_the_lease_is_over(store: Store) -> None:
    """A poll that was delivered twice asks upstream once; a dead one is taken over."""
    [job_id] = pending(store)
    store.claim([job_id], Stage.VOICE, DUE, lease=90)

    assert store.claim([job_id], Stage.VOICE, DUE + 89, lease=90) == []
    assert len(store.claim([job_id], Stage.VOICE, DUE + 90, lease=90)) == 1


def test_only_those_that_wait_for_that_stage_are_claimed(store: Store, redis: Redis, prefix: str) -> None:
    """Of a chunk whose jobs have gone different ways; the others stay as they are."""
    due, gone, elsewhere, moved_on = pending(store, 4)
    make(store, one(store, gone), State.SUCCEEDED)
    make(store, one(store, elsewhere), State.ADMITTED, to_stage=Stage.MUSIC)
    make(store, one(store, moved_on), State.CANCELLED)
    chunk = [moved_on, due, "nosuchjob", gone, elsewhere]

    assert [claim.job_id for claim in store.claim(chunk, Stage.VOICE, DUE, lease=90)] == [due]
    before = dump(redis, prefix)
    assert store.claim(chunk, Stage.VOICE, DUE, lease=90) == []
    assert dump(redis, prefix) == before


def ids(claims: list[Claimed]) -> list[str]:
    """Whose they are."""
    return [claim.job_id for claim in claims]


def test_others_that_are_due_about_now_are_claimed_along(store: Store) -> None:
    """The soonest first, and as many as make a full message; those of the other stage are not among them."""
    mine, soon, now, late, overdue, elsewhere = pending(store, 6)
    dues = {soon: DUE + 4, now: DUE, late: DUE + 6, overdue: DUE - 6}
    store.plan(Planned(job_id, one(store, job_id).version, due) for job_id, due in dues.items())
    make(store, one(store, elsewhere), State.ADMITTED, to_stage=Stage.MUSIC, due=DUE)

    def claimed(*, most: int) -> list[str]:
        return ids(store.claim([mine], Stage.VOICE, DUE, lease=90, near=5, most=most))

    assert claimed(most=3) == [mine, now, soon]
    assert claimed(most=9) == []
    assert ids(store.claim([now, late], Stage.VOICE, DUE + 90, lease=90)) == [now, late]


def test_no_more_are_claimed_along_than_make_a_message(store: Store) -> None:
    """What is left over has messages of its own."""
    job_ids = pending(store, 5)

    full = ids(store.claim(job_ids[:1], Stage.VOICE, DUE, lease=90, near=5, most=3))
    others = [job_id for job_id in job_ids if job_id not in full]

    assert len(full) == 3
    assert ids(store.claim(others[:1], Stage.VOICE, DUE, lease=90, near=5, most=1)) == others[:1]
    assert ids(store.claim(others, Stage.VOICE, DUE, lease=90, near=5, most=1)) == others[1:]


def test_a_message_that_has_nothing_to_ask_claims_nothing_along(store: Store) -> None:
    """It ends, and the others are left to theirs."""
    mine, _ = pending(store, 2)
    store.claim([mine], Stage.VOICE, DUE, lease=90)

    assert store.claim([mine], Stage.VOICE, DUE, lease=90, near=5, most=9) == []


def test_no_ids_are_no_claims(store: Store) -> None:
    """An empty chunk is allowed."""
    assert store.claim([], Stage.VOICE, NOW, lease=90) == []
    assert store.plan([]) == []


def test_of_two_that_claim_at_once_each_job_goes_to_one(store: Store, valkey_url: str, prefix: str) -> None:
    """Upstream is asked once about each."""
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


# ── plan ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_that_is_not_ready_is_due_again_when_it_was_planned(store: Store) -> None:
    """Neither at once nor only after the lease."""
    job_ids = pending(store, 2)
    claims = store.claim(job_ids, Stage.VOICE, DUE, lease=90)

    assert store.plan(Planned(claim.job_id, claim.version, DUE + 20) for claim in claims) == job_ids
    assert store.claim(job_ids, Stage.VOICE, DUE + 19, lease=90) == []
    assert len(store.claim(job_ids, Stage.VOICE, DUE + 20, lease=90)) == 2


def test_a_job_that_moved_on_is_not_planned(store: Store, redis: Redis, prefix: str) -> None:
    """Its slot is gone, and stays gone."""
    moved_on, waits = pending(store, 2)
    claims = store.claim([moved_on, waits], Stage.VOICE, DUE, lease=90)
    make(store, one(store, moved_on), State.SUCCEEDED)

    assert store.plan(Planned(claim.job_id, claim.version, DUE + 20) for claim in claims) == [waits]
    everything_agrees(redis, prefix)


# ── overdue ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", [state for state in REACHABLE if state in IN_FLIGHT])
def test_a_job_in_flight_that_nobody_looks_after_is_found(store: Store, state: State) -> None:
    """Admitted, charging or pending: once its due time is a patience ago, and not before."""
    job = brought_to(store, state)
    due = NOW + (90 if state is State.CHARGING else 0)

    assert store.overdue(due + 9, patience=10) == []
    assert store.overdue(due + 10, patience=10) == [Overdue(job.id, job.version, state, Stage.VOICE)]


@pytest.mark.parametrize("state", [state for state in REACHABLE if state not in IN_FLIGHT])
def test_a_job_that_holds_no_slot_is_never_overdue(store: Store, state: State) -> None:
    """It waits in the line, for a person, or for nothing."""
    brought_to(store, state)

    assert store.overdue(NOW + 1e6, patience=10) == []


@pytest.mark.parametrize("state", [state for state in REACHABLE if state in IN_FLIGHT])
def test_when_redis_clock_is_set_back_a_job_in_flight_waits_no_longer_than_any_does(store: Store, state: State) -> None:
    """Its time was noted an hour ahead of what is the time now; without a look it would be frozen for that hour. It is
    not looked after earlier than it might be otherwise: its POST may be on the way."""
    job = brought_to(store, state)
    back = NOW - 3_600

    assert store.overdue(back, patience=10, longest=120) == []
    assert store.overdue(back + 129, patience=10, longest=120) == []
    assert [found.job_id for found in store.overdue(back + 131, patience=10, longest=120)] == [job.id]


def test_an_overdue_job_is_given_to_one_caller_at_a_time(store: Store) -> None:
    """The next one gets it after another patience, if still nobody looked after it."""
    brought_to(store, State.ADMITTED)

    assert len(store.overdue(NOW + 10, patience=10)) == 1
    assert store.overdue(NOW + 19, patience=10) == []
    assert len(store.overdue(NOW + 20, patience=10)) == 1


def test_an_overdue_poll_can_be_claimed_at_once(store: Store) -> None:
    """Being found does not put the job itself off."""
    [job_id] = pending(store)
    store.overdue(DUE + 10, patience=10)

    assert len(store.claim([job_id], Stage.VOICE, DUE + 10, lease=90)) == 1


def test_of_two_pulses_at_once_each_overdue_job_goes_to_one(store: Store, valkey_url: str, prefix: str) -> None:
    """Two pulses do no harm."""
    job_ids = pending(store, 100)

    def look(own: Store, number: int) -> list[str]:
        return [found.job_id for _ in range(20) for found in own.overdue(DUE + 10, patience=10, at_most=7)]

    one_got, other_got = both(valkey_url, prefix, look)

    assert sorted(one_got + other_got) == sorted(job_ids)


def test_the_longest_overdue_come_first_and_no_more_than_asked_for(store: Store) -> None:
    """So that after an outage the pulse works through them."""
    job_ids = put(store, *numbered(5))
    for at in range(5):
        store.admit(NOW + at, at_most=at + 1)

    found = store.overdue(NOW + 60, patience=10, at_most=3)

    assert [job.job_id for job in found] == job_ids[:3]


def test_a_slot_of_a_job_that_is_gone_is_given_back(store: Store, redis: Redis, prefix: str) -> None:
    """A record that somebody deleted holds no slot for ever."""
    [job_id] = pending(store)
    redis.delete(f"{{{prefix}}}:job:{job_id}")

    assert store.overdue(DUE + 10, patience=10) == []
    assert store.in_flight() == 0
