"""Fairness: priority first, within it batches take turns; what may not begin is passed over."""

from __future__ import annotations

from collections import Counter

import pytest
from redis import Redis

from tests.store.life import NOW, accepted, charge, charging, dump, everything_agrees, make, one, put
from tests.support.jobs import SONG, sung, voice
from voicequeue import Priority, Stage, State, VoiceJob
from voicequeue.domain.claims import Admitted
from voicequeue.domain.status import Line
from voicequeue.storage.job_store import Store


def voices(count: int, batch: str | None = None, **fields: object) -> list[VoiceJob]:
    """Voices of one batch, each with a key that tells it."""
    return [voice(batch=batch, key=f"{batch}-{fields.get('priority', '')}-{n}", **fields) for n in range(count)]


def song(**fields: object) -> VoiceJob:
    """A song alone: one stage, 15 credits."""
    return VoiceJob.model_validate({"persona_id": "p", "song": SONG, **fields})


def begun(store: Store, at_most: int = 1000, now: float = NOW) -> list[str]:
    """The batches of the jobs that are admitted, in that order."""
    admitted = store.admit(now, at_most=at_most)
    flat = [job_id for stage in admitted.by_stage.values() for job_id in stage]
    return [job.spec.batch or "" for job in store.get(flat) if job is not None]


def only(admitted: Admitted) -> str:
    """The one job that was admitted."""
    [[job_id]] = admitted.by_stage.values()
    return job_id


# ── turns ─────────────────────────────────────────────────────────────────────────────────────────


def test_batches_take_turns(store: Store, redis: Redis, prefix: str) -> None:
    """However large one of them is, and whether it came first; jobs without a batch are one among them."""
    put(store, *voices(50, "large"))
    put(store, *voices(3, "small"), *voices(3), now=NOW + 1)

    assert begun(store, 5) == ["large", "small", "", "large", "small"]
    assert begun(store, 7) == ["", "large", "small", "", "large", "large", "large"]
    everything_agrees(redis, prefix)


def test_within_a_batch_the_order_is_kept(store: Store) -> None:
    """Turns are taken by batches, not by jobs."""
    first, second = put(store, *voices(20, "a")), put(store, *voices(20, "b"))

    [found] = store.admit(NOW, at_most=30).by_stage.values()

    assert found == [job_id for pair in zip(first[:15], second[:15], strict=True) for job_id in pair]


def test_a_batch_that_comes_later_gets_its_turn_after_one_round(store: Store) -> None:
    """Though thousands were enqueued before, and however often the others had theirs."""
    for name in ("a", "b", "c"):
        put(store, *voices(40, name))
    begun(store, 50)

    put(store, *voices(20, "new"), now=NOW + 1)

    assert begun(store, 4).count("new") == 1
    assert Counter(begun(store, 16)) == {"a": 4, "b": 4, "c": 4, "new": 4}


def test_a_batch_of_fifty_is_not_starved_by_one_of_thousands(store: Store) -> None:
    """As many of each begin, while both wait."""
    put(store, *voices(2_000, "large"))
    begun(store, 10)
    put(store, *voices(50, "small"), now=NOW + 1)

    assert Counter(begun(store, 100)) == {"large": 50, "small": 50}


def test_priority_goes_before_turns(store: Store) -> None:
    """A lone high job enters next, whatever waits; bulk waits for all others."""
    put(store, *voices(30, "large", priority=Priority.BULK))
    put(store, *voices(3, "mine"))
    put(store, *voices(1, "urgent", priority=Priority.HIGH), now=NOW + 9)

    assert begun(store, 6) == ["urgent", "mine", "mine", "mine", "large", "large"]


def test_a_batch_has_its_turn_in_each_priority(store: Store) -> None:
    """Its bulk jobs do not wait behind its own high ones only."""
    put(store, *voices(2, "a", priority=Priority.HIGH), *voices(2, "a"), *voices(2, "b"))

    assert begun(store) == ["a", "a", "a", "b", "a", "b"]


def test_batches_of_one_call_take_turns_in_the_order_they_came(store: Store) -> None:
    """Whatever their names."""
    names = [f"batch-{number * 7 % 20}" for number in range(20)]
    put(store, *(job for name in names for job in voices(2, name)))

    assert begun(store, 20) == names


def test_songs_go_before_the_voices_of_their_batch(store: Store) -> None:
    """What is begun is finished first, also where it came later."""
    put(store, *voices(2, "b"))
    put(store, song(batch="b", key="s"), now=NOW + 99)

    assert [store.admit(NOW + 100, at_most=1).by_stage.popitem()[0] for _ in range(3)] == [
        Stage.MUSIC,
        Stage.VOICE,
        Stage.VOICE,
    ]


# ── the backlog, told ─────────────────────────────────────────────────────────────────────────────


def test_the_backlog_is_told_by_priority_and_batch(store: Store) -> None:
    """What goes first comes first; how many there are, and since when the oldest waits, be it a song or a voice."""
    put(store, *voices(3, "a"), now=NOW)
    put(store, song(batch="a", key="s"), now=NOW - 50)
    put(store, *voices(2, priority=Priority.HIGH), now=NOW + 1)
    put(store, song(batch="b", key="t"), now=NOW + 7)

    assert store.lines() == [
        Line(Priority.HIGH, None, 2, NOW + 1),
        Line(Priority.NORMAL, "a", 4, NOW - 50, songs=1),
        Line(Priority.NORMAL, "b", 1, NOW + 7, songs=1),
    ]
    assert store.counts()[State.QUEUED] == 7


def test_an_empty_backlog_has_no_lines(store: Store) -> None:
    """Neither before the first job nor when the last has left."""
    assert store.lines() == []
    [job_id] = put(store, voice(batch="b"))
    make(store, one(store, job_id), State.CANCELLED)

    assert store.lines() == []


# ── what is passed over ───────────────────────────────────────────────────────────────────────────


def test_a_paused_batch_is_passed_over_until_it_goes_on(store: Store) -> None:
    """The others go on; its jobs keep their places."""
    put(store, *voices(3, "a"), *voices(3, "b"), *voices(1))
    store.limit_batch("a", paused=True)

    assert begun(store) == ["b", "", "b", "b"]
    assert begun(store) == []
    store.limit_batch("a", paused=False)
    assert begun(store) == ["a", "a", "a"]


def test_a_batch_has_no_more_in_flight_than_it_may(store: Store) -> None:
    """Whatever state they are in there; one that settles makes room for one."""
    put(store, *voices(5, "a"), *voices(4, "b"))
    store.limit_batch("a", max_in_flight=2)
    assert Counter(begun(store)) == {"a": 2, "b": 4}
    first, second, *_ = store.ids(batch="a")
    charging(store, first)
    accepted(store, first)
    charging(store, second)

    assert begun(store) == []
    make(store, one(store, first), State.SUCCEEDED)
    assert begun(store) == ["a"]
    make(store, one(store, second), State.UNSURE)
    assert begun(store) == ["a"]


def test_a_batch_spends_no_more_than_it_may(store: Store, redis: Redis, prefix: str) -> None:
    """Counting what its jobs in flight are still going to spend; others go on."""
    put(store, *(sung(batch="a", key=f"a-{n}") for n in range(5)), *voices(1, "b"))
    store.limit_batch("a", max_credits=3 * 19 + 18)

    assert Counter(begun(store)) == {"a": 3, "b": 1}
    for job_id in list(store.ids(batch="a"))[:3]:
        charging(store, job_id)
        pending = accepted(store, job_id)
        make(store, pending, State.ADMITTED, to_stage=Stage.MUSIC)
        assert begun(store) == []
        charging(store, job_id)
        make(store, accepted(store, job_id), State.SUCCEEDED)
        assert begun(store) == []
    assert store.credits("a") == 3 * 19
    store.limit_batch("a", max_credits=4 * 19)
    assert begun(store) == ["a"]
    everything_agrees(redis, prefix)


def test_what_a_job_did_not_spend_is_there_for_the_next(store: Store) -> None:
    """A job that fails before its song leaves the song's credits to its batch."""
    first, _ = put(store, *(sung(batch="a", key=f"a-{n}") for n in range(2)))
    store.limit_batch("a", max_credits=4 + 19)
    assert begun(store) == ["a"]
    charging(store, first)
    pending = accepted(store, first)
    assert begun(store) == []

    make(store, pending, State.FAILED)

    assert begun(store) == ["a"]


def test_a_batch_may_be_limited_before_it_has_jobs(store: Store) -> None:
    """And is not listed for that."""
    assert store.limit_batch("later", max_in_flight=1)
    assert store.batches() == []
    assert store.batch("later") is None

    put(store, *voices(3, "later"))

    assert begun(store) == ["later"]


@pytest.mark.parametrize(
    ("limit", "value", "other"), [("paused", True, False), ("max_credits", 0, 9), ("max_in_flight", 3, 4)]
)
def test_limits_of_a_batch_are_told_and_say_whether_they_changed(
    store: Store, limit: str, value: int, other: int
) -> None:
    """Set twice is said to be so already; what is not given stays."""
    put(store, voice(batch="b"))

    assert store.limit_batch("b", **{limit: value})
    assert not store.limit_batch("b", **{limit: value})
    assert not store.limit_batch("b", **{limit: None})
    found = store.batch("b")
    assert found is not None
    assert getattr(found, limit) == value
    assert store.limit_batch("b", **{limit: other})


def test_a_batch_that_was_never_paused_is_not_unpaused(store: Store) -> None:
    """It was so already."""
    put(store, voice(batch="b"))

    assert not store.limit_batch("b", paused=False)


# ── stages ────────────────────────────────────────────────────────────────────────────────────────


def test_while_voices_are_paused_songs_begin(store: Store) -> None:
    """Also from behind voices that came before, and in batches that have both."""
    put(store, *voices(3, "a"), song(batch="a", key="s"))
    put(store, song(batch="b", key="t"))
    assert store.controls.pause(NOW, stage=Stage.VOICE, by="Ana")

    assert set(store.admit(NOW).by_stage) == {Stage.MUSIC}
    assert store.admit(NOW) == Admitted({})
    assert store.controls.resume(NOW, stage=Stage.VOICE)
    assert len(store.admit(NOW).by_stage[Stage.VOICE]) == 3


def test_while_songs_are_paused_voices_go_on_and_their_songs_wait(store: Store, redis: Redis, prefix: str) -> None:
    """A song goes back to the line once, gives up its slot, and is not taken again and again."""
    job_id, other = put(store, sung(key="1"), sung(key="2"))
    store.controls.pause(NOW, stage=Stage.MUSIC)
    assert store.admit(NOW, at_most=1).by_stage == {Stage.VOICE: [job_id]}
    charging(store, job_id)
    make(store, accepted(store, job_id), State.ADMITTED, to_stage=Stage.MUSIC)

    assert charge(store, job_id, Stage.MUSIC, "h", NOW, lease=9) is None

    assert (one(store, job_id).state, store.in_flight()) == (State.QUEUED, 0)
    moves = len(store.timeline(job_id))
    for _ in range(3):
        store.admit(NOW)
    assert one(store, other).state is State.ADMITTED
    assert len(store.timeline(job_id)) == moves
    store.controls.resume(NOW, stage=Stage.MUSIC)
    assert only(store.admit(NOW)) == job_id
    everything_agrees(redis, prefix)


def test_with_both_stages_paused_nothing_begins(store: Store) -> None:
    """And each goes on by itself."""
    put(store, voice(), song())
    for stage in Stage:
        store.controls.pause(NOW, stage=stage)

    assert store.admit(NOW) == Admitted({})
    store.controls.resume(NOW, stage=Stage.MUSIC)
    assert set(store.admit(NOW).by_stage) == {Stage.MUSIC}


@pytest.mark.parametrize("odd", ["", "b:jobs", "*", "ü", "x" * 101])
def test_what_cannot_be_a_batch_is_not_limited(store: Store, redis: Redis, prefix: str, odd: str) -> None:
    """It might be another key."""
    put(store, voice(batch="b"))
    before = dump(redis, prefix)

    with pytest.raises(ValueError, match="letters"):
        store.limit_batch(odd, paused=True)

    assert dump(redis, prefix) == before
