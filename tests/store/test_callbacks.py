"""Callbacks in the store: written with the move they tell of, in order, until they are delivered or given up."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from redis import Redis

from tests.store.life import NOW, REACHABLE, accepted, brought_to, charging, dump, failed, make, move, one, put
from tests.support.jobs import voice
from voicequeue import Code, Job, State, VoiceQueue
from voicequeue.domain import transitions
from voicequeue.domain.job import iso
from voicequeue.domain.status import CallbackCounts
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.audit.repair import repair
from voicequeue.storage.callbacks import Call, Callbacks, Undeliverable
from voicequeue.storage.job_store import Store

HOOK = "https://hooks.example/voices"
LEASE = 60.0


def due(callbacks: Callbacks, now: float = NOW) -> list[Call]:
    """Those whose time has come, handed out and claimed."""
    return callbacks.claim(callbacks.hand_out(now, patience=LEASE), now, lease=LEASE)


def only(calls: Iterable[Call]) -> Call:
    """The one that there is."""
    [found] = calls
    return found


def payload(call: Call) -> dict[str, Any]:
    """What the receiver gets."""
    found: dict[str, Any] = json.loads(call.body())
    return found


def types(calls: Iterable[Call]) -> list[str]:
    """What they tell."""
    return [call.type for call in calls]


def told(**fields: Any) -> Any:
    """A voice whose caller wants to be told."""
    return voice(callback_url=HOOK, **fields)


def delivered(store: Store, now: float = NOW) -> list[str]:
    """Deliver all that can be, one after the other; what they told."""
    found: list[str] = []
    while calls := due(store.callbacks, now):
        for call in calls:
            assert store.callbacks.delivered(call.id, now)
            found.append(call.type)
    return found


def retried(store: Store, job: Job, now: float = NOW) -> Job:
    """The failed job is queued again."""
    assert store.apply([transitions.retry(job, now, resubmit=True)], now) == [True]
    return one(store, job.id)


def again_pending(store: Store, job_id: str, now: float = NOW) -> Job:
    """A job that is queued again is ordered again."""
    store.admit(now)
    charging(store, job_id, now)
    return accepted(store, job_id, now)


# ── what is told ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", REACHABLE)
def test_success_failure_and_doubt_are_told_and_nothing_else(store: Store, state: State) -> None:
    """Cancelling is somebody's own deed."""
    job = brought_to(store, state, told())

    tells = [f"job.{state}"] if state in {State.SUCCEEDED, State.FAILED, State.UNSURE} else []
    assert types(due(store.callbacks)) == tells
    assert (one(store, job.id).callback_id is not None) is bool(tells)


def test_who_did_not_ask_is_told_nothing_and_costs_no_key(store: Store, redis: Redis, prefix: str) -> None:
    """Not even where the word stands in the job's own content."""
    brought_to(store, State.SUCCEEDED, voice(metadata={'"callback_url"': "x"}, name='"callback_url"', batch="b"))

    assert due(store.callbacks) == []
    assert not [key for key in dump(redis, prefix) if "callback" in key]


def test_a_callback_has_the_job_as_it_stood_whatever_becomes_of_it(store: Store) -> None:
    """The same bytes at each try, and a stable id; `data` is what the command line shows of a job."""
    job = brought_to(store, State.FAILED, told(name="Ana", metadata={"order": "17"}))
    call = only(due(store.callbacks))
    retried(store, job, NOW + 5)

    assert (call.url(), call.job_id, call.type) == (HOOK, job.id, "job.failed")
    assert payload(call) == {"type": "job.failed", "timestamp": iso(NOW), "data": job.as_dict()}
    again = only(due(store.callbacks, NOW + LEASE))
    assert (again.id, again.body()) == (call.id, call.body())


def test_a_job_that_fails_and_then_succeeds_is_told_twice_in_order(store: Store) -> None:
    """The second waits for the first."""
    job = brought_to(store, State.FAILED, told())
    retried(store, job)
    make(store, again_pending(store, job.id), State.SUCCEEDED, NOW, fields={"settled": str(NOW)})

    first = only(due(store.callbacks))
    assert first.type == "job.failed"
    assert due(store.callbacks) == []
    store.callbacks.delivered(first.id, NOW)
    second = only(due(store.callbacks))
    assert (second.type, payload(second)["data"]["state"]) == ("job.succeeded", "succeeded")
    assert second.id != first.id
    store.callbacks.delivered(second.id, NOW)
    assert store.callbacks.counted(NOW) == CallbackCounts(delivered=2)


def test_nothing_is_left_of_what_was_delivered(store: Store, redis: Redis, prefix: str) -> None:
    """Neither a record nor a place in any line."""
    brought_to(store, State.FAILED, told())
    delivered(store)

    left = [key for key in dump(redis, prefix) if ":callback" in key]
    assert left == []


# ── batches ───────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_is_told_of_when_its_last_job_has_come_to_rest(store: Store, queue: VoiceQueue) -> None:
    """Once, with its numbers, whichever way the last one ended."""
    queue.call_back_batch("b", HOOK)
    put(store, *(voice(batch="b", key=f"k{n}") for n in range(2)))
    first, last = store.get(list(store.ids(batch="b")))
    assert first is not None
    assert last is not None
    make(store, first, State.CANCELLED)
    assert due(store.callbacks) == []
    make(store, last, State.CANCELLED, NOW + 1)

    call = only(due(store.callbacks, NOW + 1))
    assert (call.url(), call.job_id, call.type) == (HOOK, None, "batch.settled")
    assert payload(call) == {
        "type": "batch.settled",
        "timestamp": iso(NOW + 1),
        "data": {
            "batch": "b",
            "states": {state.value: 2 if state is State.CANCELLED else 0 for state in State},
            "total": 2,
            "settled": True,
            "credits": 0,
            "credits_committed": 0,
            "origin": "library",
        },
    }
    assert {**queue.batch("b").as_dict(), "origin": "library"} == payload(call)["data"]


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED, State.UNSURE])
def test_whichever_way_the_last_job_ends_its_batch_has_settled(store: Store, queue: VoiceQueue, state: State) -> None:
    """An unsure one waits for a person, and nothing else will happen by itself."""
    queue.call_back_batch("b", HOOK)
    brought_to(store, state, voice(batch="b"))

    assert types(due(store.callbacks)) == ["batch.settled"]


def test_a_job_that_expires_is_told_and_so_is_its_batch(store: Store, queue: VoiceQueue) -> None:
    """Nobody began it in time."""
    queue.call_back_batch("b", HOOK)
    [job_id] = put(store, told(batch="b", start_within_s=5))
    failed(store, one(store, job_id), Code.EXPIRED, NOW + 6)

    assert sorted(types(due(store.callbacks, NOW + 6))) == ["batch.settled", "job.failed"]


def test_a_batch_is_told_of_again_when_more_jobs_have_come_to_rest(store: Store, queue: VoiceQueue) -> None:
    """In order, like those of a job; nobody else's batch is meant."""
    queue.call_back_batch("b", HOOK)
    brought_to(store, State.CANCELLED, voice(batch="b", key="1"))
    brought_to(store, State.CANCELLED, voice(batch="other", key="2"))
    brought_to(store, State.CANCELLED, voice(batch="b", key="3"), NOW + 1)

    first = only(due(store.callbacks, NOW + 1))
    store.callbacks.delivered(first.id, NOW + 1)
    second = only(due(store.callbacks, NOW + 1))
    assert [payload(call)["data"]["total"] for call in (first, second)] == [1, 2]


def test_a_batch_with_unsure_jobs_is_told_of_once_more_when_none_is_left(store: Store, queue: VoiceQueue) -> None:
    """Not at each decision: the last one tells the final numbers."""
    queue.call_back_batch("b", HOOK)
    unsure = [brought_to(store, State.UNSURE, voice(batch="b", key=str(n))) for n in range(3)]
    assert delivered(store) == ["batch.settled"] * 3  # each came alone

    for job in unsure[:2]:
        make(store, job, State.FAILED)
        assert due(store.callbacks) == []
    make(store, unsure[2], State.FAILED)

    call = only(due(store.callbacks))
    assert payload(call)["data"]["states"]["failed"] == 3


def test_a_batch_that_nobody_wants_to_hear_of_any_more_is_given_up(store: Store, queue: VoiceQueue) -> None:
    """The URL counts that stands when it is delivered."""
    queue.call_back_batch("b", HOOK)
    brought_to(store, State.CANCELLED, voice(batch="b"))
    queue.call_back_batch("b", f"{HOOK}/new")
    call = only(due(store.callbacks))
    assert call.url() == f"{HOOK}/new"

    queue.call_back_batch("b", None)
    with pytest.raises(Undeliverable, match="has no callback URL"):
        only(due(store.callbacks, NOW + LEASE)).url()


@pytest.mark.parametrize(("name", "url"), [("b", "ftp://x"), ("b", "hooks.example"), ("no name", HOOK)])
def test_a_batch_is_given_a_url_and_has_a_name(queue: VoiceQueue, name: str, url: str) -> None:
    """Anything else is said at once."""
    with pytest.raises(ValueError, match="must be"):
        queue.call_back_batch(name, url)


# ── handing out ───────────────────────────────────────────────────────────────────────────────────


def test_each_callback_is_handed_out_once_until_its_claim_has_run_out(store: Store) -> None:
    """Whether the message was lost or the process died with it: then it is due again, with the same id."""
    brought_to(store, State.FAILED, told())
    callbacks = store.callbacks

    [handed] = callbacks.hand_out(NOW, patience=LEASE)
    assert callbacks.hand_out(NOW + 1, patience=LEASE) == []
    assert callbacks.hand_out(NOW + LEASE, patience=LEASE) == [handed]
    call = only(callbacks.claim([handed], NOW + LEASE, lease=LEASE))
    assert callbacks.claim([handed], NOW + LEASE + 1, lease=LEASE) == []
    assert only(due(callbacks, NOW + 2 * LEASE)).id == call.id


def test_no_more_are_out_than_may_be_until_they_are_claimed(store: Store) -> None:
    """So that messages do not pile up where nobody takes them."""
    for number in range(5):
        brought_to(store, State.FAILED, told(key=str(number)))
    callbacks = store.callbacks

    out = callbacks.hand_out(NOW, patience=LEASE, at_most=3)
    assert len(out) == 3
    assert callbacks.hand_out(NOW, patience=LEASE, at_most=3) == []
    callbacks.claim(out[:2], NOW, lease=LEASE)
    assert len(callbacks.hand_out(NOW, patience=LEASE, at_most=3)) == 2


def test_what_failed_is_tried_again_at_its_time(store: Store) -> None:
    """With the reason, and how often it was tried."""
    brought_to(store, State.FAILED, told())
    call = only(due(store.callbacks))

    assert store.callbacks.later(call.id, NOW + 1, NOW + 20, "HTTP 500", tried=True)

    [listed] = store.callbacks.pending()
    assert (listed.tries, listed.reason, listed.due) == (1, "HTTP 500", NOW + 20)
    assert due(store.callbacks, NOW + 19) == []
    again = only(due(store.callbacks, NOW + 20))
    assert (again.tries, again.since) == (1, NOW)


def test_what_became_of_a_callback_that_is_over_is_not_written(store: Store) -> None:
    """Somebody whose claim had run out comes too late."""
    brought_to(store, State.FAILED, told())
    call = only(due(store.callbacks))
    assert store.callbacks.delivered(call.id, NOW)

    assert not store.callbacks.delivered(call.id, NOW)
    assert not store.callbacks.later(call.id, NOW, NOW + 5, "HTTP 500", tried=True)
    assert not store.callbacks.give_up(call.id, NOW, "HTTP 500", tried=True)
    assert store.callbacks.counted(NOW) == CallbackCounts(delivered=1)


# ── undelivered ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def two(store: Store) -> list[Call]:
    """A job's first callback, given up, and its second, claimed."""
    job = brought_to(store, State.FAILED, told(batch="b"))
    retried(store, job)
    failed(store, again_pending(store, job.id), Code.UPSTREAM_FAILED, NOW)
    first = only(due(store.callbacks))
    assert store.callbacks.give_up(first.id, NOW, "HTTP 500", tried=True)
    return [first, only(due(store.callbacks))]


def test_what_is_given_up_is_kept_and_does_not_hold_up_the_next(store: Store, two: list[Call]) -> None:
    """It is listed with the reason, and nobody tries it."""
    first, second = two

    [kept] = store.callbacks.undelivered()
    assert (kept.id, kept.given_up_at, kept.reason, kept.tries, kept.due) == (first.id, NOW, "HTTP 500", 1, None)
    assert first.id != second.id
    assert store.callbacks.counted(NOW) == CallbackCounts(pending=1, undelivered=1)
    assert due(store.callbacks, NOW + 1e6)[0].id == second.id


def test_what_was_given_up_goes_before_what_came_later_when_it_is_wanted_again(store: Store, two: list[Call]) -> None:
    """It has a day of its own again; the later one waits, also if somebody is at it and fails."""
    first, second = two
    assert store.callbacks.redeliver([first.id, "gone"], NOW + 100) == [True, False]

    assert store.callbacks.later(second.id, NOW + 101, NOW + 102, "HTTP 500", tried=True)
    again = only(due(store.callbacks, NOW + 110))
    assert (again.id, again.tries, again.since) == (first.id, 0, NOW + 100)
    assert due(store.callbacks, NOW + 120) == []
    store.callbacks.delivered(first.id, NOW + 120)
    assert only(due(store.callbacks, NOW + 120)).id == second.id


def test_a_later_one_that_is_just_delivered_does_not_hurry_the_earlier(store: Store, two: list[Call]) -> None:
    """Whoever has claimed that is left in peace."""
    first, second = two
    store.callbacks.redeliver([first.id], NOW + 1)
    assert only(due(store.callbacks, NOW + 1)).id == first.id

    assert store.callbacks.delivered(second.id, NOW + 2)

    assert due(store.callbacks, NOW + 3) == []
    assert only(due(store.callbacks, NOW + 1 + LEASE)).id == first.id


def test_a_pending_one_is_tried_at_once_when_it_is_wanted(store: Store) -> None:
    """Its count goes on: its day is not begun anew."""
    brought_to(store, State.FAILED, told())
    call = only(due(store.callbacks))
    store.callbacks.later(call.id, NOW, NOW + 3_600, "HTTP 500", tried=True)

    assert store.callbacks.redeliver([call.id], NOW + 5) == [True]

    again = only(due(store.callbacks, NOW + 5))
    assert (again.since, again.tries) == (NOW, 1)


# ── records of other rules ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("field", "value"),
    [("spec", "{"), ("spec", '{"callback_url": "x"}'), ("spec", '{"new": 1}'), ("spec", "[]")],
)
def test_a_job_that_this_release_cannot_read_is_said_to_be_so(
    store: Store, redis: Redis, prefix: str, field: str, value: str
) -> None:
    """One error, which nobody tries again."""
    job = brought_to(store, State.FAILED, told())
    redis.hset(f"{{{prefix}}}:job:{job.id}", field, value)

    with pytest.raises(Undeliverable, match="cannot read"):
        only(due(store.callbacks)).url()


@pytest.mark.parametrize(
    "data", ["{", "[]", "{}", '{"state": "odd"}', '{"state": "failed", "stage": "voice", "v": "x", "created": "1"}']
)
def test_a_callback_that_this_release_cannot_read_is_said_to_be_so(
    store: Store, redis: Redis, prefix: str, data: str
) -> None:
    """Of whatever kind the trouble is."""
    brought_to(store, State.FAILED, told())
    [callback] = store.callbacks.pending()
    redis.hset(f"{{{prefix}}}:callback:{callback.id}", "data", data)

    with pytest.raises(Undeliverable, match="cannot read"):
        only(due(store.callbacks)).body()


def test_a_move_is_made_though_the_content_cannot_be_read(store: Store, redis: Redis, prefix: str) -> None:
    """Callbacks never stand in a job's way."""
    job = brought_to(store, State.PENDING, told())
    redis.hset(f"{{{prefix}}}:job:{job.id}", "spec", '{"callback_url": ')

    assert store.apply([move(job, State.FAILED)], NOW) == [True]
    assert store.counts()[State.FAILED] == 1


def test_the_workers_that_deliver_are_counted_while_they_are_heard(store: Store) -> None:
    """Those of long ago are forgotten."""
    store.pulses["callbacks"].heard("a", NOW)
    store.pulses["callbacks"].heard("b", NOW + 20)

    assert store.callbacks.counted(NOW + 5).workers == 1
    store.pulses["callbacks"].heard("b", NOW + 90_000)
    assert store.callbacks.counted(0).workers == 1


# ── damage ────────────────────────────────────────────────────────────────────────────────────────

#: What is done to the two callbacks of one job (the first is due, the second waits), and what the audit says.
DAMAGE = {
    "the first has no place": (("ZREM", "callbacks:pending", "FIRST"), "FIRST is not delivered by anybody"),
    "the first waits for ever": (("ZADD", "callbacks:pending", "+inf", "FIRST"), "FIRST is not delivered by anybody"),
    "the second left its line": (("ZREM", "callbacks:of:job:JOB", "SECOND"), "SECOND is not delivered by anybody"),
    "the first has no record": (("DEL", "callback:FIRST"), "FIRST has no record"),
    "a ghost is pending": (("ZADD", "callbacks:pending", "1", "ghost"), "ghost has no record"),
    "a ghost was given up": (("ZADD", "callbacks:undelivered", "1", "ghost"), "ghost has no record"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_audit_finds_callbacks_that_would_never_be_delivered(
    store: Store, redis: Redis, prefix: str, damage: str
) -> None:
    """And the repair mends it: what has a record is delivered in order."""
    job = retried(store, brought_to(store, State.FAILED, told()))
    failed(store, again_pending(store, job.id), Code.UPSTREAM_FAILED, NOW + 1)
    first, second = (each.id for each in store.callbacks.pending())
    command, expected = DAMAGE[damage]
    assert audit(redis, prefix) == []

    def named(text: str) -> str:
        return text.replace("FIRST", first).replace("SECOND", second).replace("JOB", job.id)

    run: Any = redis.execute_command
    run(command[0], f"{{{prefix}}}:{named(command[1])}", *map(named, command[2:]))

    findings = audit(redis, prefix)
    assert f"callbacks: {named(expected)}" in [str(finding) for finding in findings]
    while findings := audit(redis, prefix):
        assert repair(redis, prefix, findings, NOW + 2)
    assert len(delivered(store, NOW + 2)) == (1 if damage == "the first has no record" else 2)
    assert store.callbacks.counted(NOW).pending == 0


def test_callbacks_of_a_job_that_is_not_there_are_dropped_by_the_repair(
    store: Store, redis: Redis, prefix: str
) -> None:
    """Nobody knows any more where they should go."""
    job = brought_to(store, State.FAILED, told())
    redis.delete(f"{{{prefix}}}:job:{job.id}")

    findings = [finding for finding in audit(redis, prefix) if finding.kind == "callbacks"]

    assert [str(finding).rpartition(" tells ")[2] for finding in findings] == ["of a job that is not there"]
    assert repair(redis, prefix, findings, NOW) == findings
    assert store.callbacks.counted(NOW) == CallbackCounts()
