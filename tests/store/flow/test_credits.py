"""Credits: no job starts that cannot be paid, and no credits are reserved twice."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    REACHABLE,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    enqueue_jobs,
    fail_job,
    get_job,
    job_in_state,
)
from tests.support.jobs import voice, voice_with_song
from voicequeue import FailureCode, Job, Stage, State, VoiceJob
from voicequeue.domain.claims import Admitted
from voicequeue.domain.gate import Account, Limits
from voicequeue.domain.stage import PRICES
from voicequeue.storage import scripts
from voicequeue.storage.job_store import JobStore


def songs(count: int, **fields: object) -> list[VoiceJob]:
    """Return jobs with a voice and a song, 19 credits each."""
    return [voice_with_song(key=f"{fields}-{n}", **fields) for n in range(count)]


def record_balance(store: JobStore, credits: int, now: float = NOW) -> None:
    """Record a balance report by upstream."""
    store.flow_control.record_balance(credits, spent_before=store.credits_spent(), requested_at=now, now=now)


def count(admitted: Admitted) -> int:
    """Return the number of admitted jobs."""
    return sum(map(len, admitted.by_stage.values()))


def finish_stage(store: JobStore, job_id: str) -> None:
    """Submit and finish the job's current stage."""
    claim_admitted(store, job_id)
    job = accept_order(store, job_id)
    if job.stage is Stage.VOICE and job.spec.song is not None:
        apply_transition(store, job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"})
    else:
        apply_transition(store, job, State.SUCCEEDED)


def test_prices_are_the_same_in_python_and_in_lua() -> None:
    """Different prices would reserve other amounts than are spent."""
    program = scripts.load("admit").source.split("-- admit: ")[0].partition("local PRICE = {")[2].partition("}")[0]

    assert {name.strip(): int(price) for name, price in (pair.split("=") for pair in program.split(","))} == PRICES


def test_nothing_is_held_before_the_first_report(store: JobStore) -> None:
    """An unknown balance is no reason: upstream refuses if it must."""
    enqueue_jobs(store, *songs(9))

    assert count(store.admit(NOW)) == 9
    assert store.flow_control.account() == Account(None, None, reserved=9 * 19)


def test_no_more_jobs_start_than_can_be_paid_to_their_end(store: JobStore, redis: Redis, prefix: str) -> None:
    """Songs count, although only voices are submitted so far."""
    enqueue_jobs(store, *songs(9))
    record_balance(store, 3 * 19 + 18)

    assert count(store.admit(NOW)) == 3

    assert store.flow_control.account().reserved == 3 * 19
    assert count(store.admit(NOW)) == 0
    assert_consistent(redis, prefix)


def test_the_minimum_balance_is_kept(store: JobStore, redis: Redis, prefix: str) -> None:
    """It is set by the settings or at run time."""
    own = JobStore(redis, prefix, limits=Limits(in_flight=99, initial_in_flight=99, min_balance=10))
    enqueue_jobs(own, *(voice(key=f"{n}") for n in range(9)))
    record_balance(own, 10 + 2 * 4 + 3)

    assert count(own.admit(NOW)) == 2
    own.flow_control.set_limits(min_balance=5)
    assert count(own.admit(NOW)) == 2
    own.flow_control.set_limits(min_balance=None)
    assert count(own.admit(NOW)) == 0


def test_credits_for_40_of_100_jobs_finish_40(store: JobStore, redis: Redis, prefix: str) -> None:
    """Exactly those credits are spent, in any order of submission, and 60 jobs stay queued."""
    enqueue_jobs(store, *songs(100))
    record_balance(store, 40 * 19 + 18)
    store.flow_control.set_limits(in_flight=7)

    for _ in range(200):
        store.admit(NOW)
        account = store.flow_control.account()
        assert account.balance is not None
        assert account.balance - account.reserved >= 0
        for job_id in list(store.list_ids(state=State.ADMITTED))[:5]:
            finish_stage(store, job_id)

    counts = {state: n for state, n in store.counts_by_state().items() if n}
    assert counts == {State.SUCCEEDED: 40, State.QUEUED: 60}
    assert store.credits_spent() == 40 * 19
    assert store.flow_control.account().balance == 18
    assert store.flow_control.account().reserved == 0
    assert_consistent(redis, prefix)


def test_a_shortage_and_its_end_are_reported_once(store: JobStore) -> None:
    """Repeated admissions report nothing."""
    enqueue_jobs(store, *songs(4))
    record_balance(store, 2 * 19)

    assert [store.admit(NOW + n).balance_change for n in range(4)] == ["short", "", "", ""]
    record_balance(store, 19)
    assert store.admit(NOW + 4).balance_change == ""
    record_balance(store, 500)
    assert [store.admit(NOW + 5).balance_change, store.admit(NOW + 6).balance_change] == ["enough", ""]
    enqueue_jobs(store, *songs(30, batch="b"))
    assert store.admit(NOW + 7).balance_change == "short"


def send_two_orders(store: JobStore, credits: int) -> None:
    """Claim two jobs for submission, after a report of these credits."""
    store.flow_control.set_limits(in_flight=2)
    record_balance(store, credits)
    for job_id in store.admit(NOW).by_stage[Stage.VOICE]:
        claim_admitted(store, job_id)


def test_a_report_during_orders_causes_no_false_shortage(store: JobStore) -> None:
    """It may include their cost already, which is subtracted all the same until the next report."""
    enqueue_jobs(store, *songs(4))
    send_two_orders(store, credits=4 * 19)
    record_balance(store, 4 * 19 - 2 * 4)  # upstream has charged both voices
    for job_id in list(store.list_ids(state=State.CHARGING)):
        accept_order(store, job_id)
    store.flow_control.set_limits(in_flight=9)

    admitted = [store.admit(NOW) for _ in range(2)]
    assert [(count(batch), batch.balance_change) for batch in admitted] == [(1, ""), (0, "")]

    record_balance(store, 4 * 19 - 2 * 4)
    assert count(store.admit(NOW)) == 1


def test_an_uncertain_report_does_not_hide_a_shortage(store: JobStore) -> None:
    """With all credits that may have been subtracted twice, the next job could not be paid either."""
    enqueue_jobs(store, *songs(5))
    send_two_orders(store, credits=4 * 19)
    record_balance(store, 2 * 19)
    store.flow_control.set_limits(in_flight=9)

    assert store.admit(NOW).balance_change == "short"


def test_a_full_queue_keeps_the_shortage(store: JobStore) -> None:
    """The shortage stays while the next job cannot be examined."""
    enqueue_jobs(store, *songs(4))
    store.flow_control.set_limits(in_flight=2)
    record_balance(store, 19)
    assert store.admit(NOW).balance_change == "short"
    record_balance(store, 2 * 19)
    assert store.admit(NOW).balance_change == ""
    record_balance(store, 500)

    assert store.admit(NOW).balance_change == ""

    store.flow_control.set_limits(in_flight=9)
    assert store.admit(NOW).balance_change == "enough"


def test_the_gate_explains_a_shortage(store: JobStore) -> None:
    """It states the balance, the reserved credits, the minimum balance and the price of the next job."""
    enqueue_jobs(store, *songs(4))
    store.flow_control.set_limits(min_balance=5)
    record_balance(store, 1_030)
    store.admit(NOW, at_most=1)
    record_balance(store, 30)
    store.admit(NOW + 1)

    [hold] = store.flow_control.gate(NOW + 2).holds

    assert (hold.reason, hold.since, hold.until, hold.is_on_trial) == ("out_of_credits", NOW + 1, None, False)
    for part in ("30 credits left", "19 of them reserved", "the minimum balance is 5", "costs 19"):
        assert part in hold.detail


def test_a_refused_payment_is_the_reported_reason(store: JobStore) -> None:
    """Only one of the two reasons is reported."""
    enqueue_jobs(store, *songs(2))
    record_balance(store, 10)
    store.admit(NOW)
    store.flow_control.add_hold("out_of_credits", "403: top up", NOW + 1)

    assert [hold.detail for hold in store.flow_control.gate(NOW + 1).holds] == ["403: top up"]


@pytest.mark.parametrize(
    ("state", "reserved"),
    [
        (State.QUEUED, 0),
        (State.ADMITTED, 19),
        (State.CHARGING, 19),
        (State.PENDING, 15),
        (State.UNSURE, 19),
        (State.SUCCEEDED, 0),
        (State.FAILED, 0),
        (State.CANCELLED, 0),
    ],
)
def test_reserved_credits_follow_from_the_state(
    store: JobStore, redis: Redis, prefix: str, state: State, reserved: int
) -> None:
    """In flight or unsure, because its order may be charged; a paid stage is no longer reserved."""
    job_in_state(store, state, voice_with_song(batch="b"))

    assert store.flow_control.account().reserved == reserved
    assert_consistent(redis, prefix)


@pytest.mark.parametrize(
    ("state", "queued"), [(State.QUEUED, 19), *((state, 0) for state in REACHABLE if state is not State.QUEUED)]
)
def test_queued_credits_follow_from_the_state(
    store: JobStore, redis: Redis, prefix: str, state: State, queued: int
) -> None:
    """Beyond the reserved credits only a job in the backlog takes more; its batch counts the same."""
    job_in_state(store, state, voice_with_song(batch="b"))

    batch = store.batch("b")
    assert batch is not None
    assert store.flow_control.account().queued_credits == batch.queued_credits == queued
    assert_consistent(redis, prefix)


def test_reserved_and_queued_credits_are_what_a_queue_will_spend(store: JobStore) -> None:
    """Jobs that share a voice pay for it once, retried jobs pay only what is left, and marked jobs no further stage."""
    enqueue_jobs(store, *songs(3, voice="ana", batch="b"), *songs(1), voice(key="only a voice"))
    assert store.flow_control.account().queued_credits == (4 + 3 * 15) + 19 + 4

    store.admit(NOW)  # one that creates the voice "ana", and the two others
    account = store.flow_control.account()
    assert (account.reserved, account.queued_credits) == (19 + 19 + 4, 2 * 15)
    for job_id in list(store.list_ids(state=State.ADMITTED)):
        finish_stage(store, job_id)
    store.admit(NOW)
    songs_in_flight = list(store.list_ids(state=State.ADMITTED))
    assert store.flow_control.account().reserved == 4 * 15
    failed = fail_job(store, accept_order_of(store, songs_in_flight[0]), FailureCode.UPSTREAM_FAILED)
    apply_transition(store, failed, State.QUEUED, fields={"failure": None, "settled": None})
    account = store.flow_control.account()
    assert (account.reserved, account.queued_credits) == (3 * 15, 15)
    claim_admitted(store, songs_in_flight[1])
    store.request_cancellation([get_job(store, songs_in_flight[1])], NOW)
    assert store.flow_control.account().queued_credits == 15


def accept_order_of(store: JobStore, job_id: str) -> Job:
    """Submit the order of an admitted job; upstream accepts it."""
    claim_admitted(store, job_id)
    return accept_order(store, job_id)


def test_a_claim_sees_what_others_of_its_call_have_released(store: JobStore, redis: Redis, prefix: str) -> None:
    """If the balance has fallen, only as many orders are given up as cannot be paid."""
    job_ids = enqueue_jobs(store, *songs(4))
    record_balance(store, 4 * 19)
    assert count(store.admit(NOW)) == 4
    record_balance(store, 2 * 19 + 5, now=NOW + 1)

    claims = store.claim_submit(job_ids, Stage.VOICE, "holder", NOW + 2, lease_s=90.0)

    assert [claim is not None for claim in claims] == [False, False, True, True]
    assert store.flow_control.account().reserved == 2 * 19
    assert_consistent(redis, prefix)


def test_released_credits_are_available_to_others(store: JobStore) -> None:
    """A job that fails or is queued again releases its reserved credits."""
    enqueue_jobs(store, *songs(3))
    record_balance(store, 19)
    store.admit(NOW)
    [job_id] = store.list_ids(state=State.ADMITTED)
    assert count(store.admit(NOW)) == 0

    apply_transition(store, get_job(store, job_id), State.CANCELLED)

    assert count(store.admit(NOW)) == 1


def test_failed_jobs_are_counted_by_code(store: JobStore, redis: Redis, prefix: str) -> None:
    """A retry decrements the count; another code replaces the first."""
    jobs = [job_in_state(store, State.PENDING) for _ in range(3)]
    first = fail_job(store, jobs[0], FailureCode.DEADLINE)
    fail_job(store, jobs[1], FailureCode.DEADLINE)
    fail_job(store, jobs[2], FailureCode.UPSTREAM_FAILED)
    assert store.failures_by_code() == {"deadline": 2, "upstream_failed": 1}

    first = fail_job(store, first, FailureCode.UPSTREAM_FAILED)
    assert store.failures_by_code() == {"deadline": 1, "upstream_failed": 2}
    apply_transition(store, first, State.QUEUED, fields={"failure": None, "settled": None})
    assert store.failures_by_code() == {"deadline": 1, "upstream_failed": 1}
    assert_consistent(redis, prefix)


def test_recent_successes_are_counted(store: JobStore) -> None:
    """They are counted by the time of success."""
    for at in range(5):
        job = job_in_state(store, State.PENDING)
        apply_transition(store, job, State.SUCCEEDED, NOW + at)

    assert store.count_succeeded(NOW + 2) == 3
    assert store.count_succeeded(NOW + 9) == 0


def test_spent_credits_are_counted_by_day(store: JobStore) -> None:
    """Days are in UTC."""
    midnight = NOW // 86_400 * 86_400
    for now in (midnight - 1, midnight, midnight + 86_399):
        [job_id] = enqueue_jobs(store, voice(), now=now)
        store.admit(now)
        claim_admitted(store, job_id, now)
        accept_order(store, job_id, now)

    assert store.flow_control.account(midnight + 5).spent_today == 8
    assert store.flow_control.account(midnight - 5).spent_today == 4
    assert store.flow_control.account(midnight + 86_400).spent_today == 0
