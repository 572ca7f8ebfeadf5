"""Enqueueing: the outcome of each job, and the order of the backlog."""

from __future__ import annotations

import random
import re

import pytest
from redis import Redis

from tests.store.life import NOW, brought_to, charge, dump, everything_agrees, failed, ids, make, one, put
from tests.support.jobs import SONG, URL, numbered, sung, voice
from voicequeue import Code, Priority, Stage, State, VoiceJob
from voicequeue.domain.claims import Outcome
from voicequeue.storage import scripts
from voicequeue.storage.job_queries import SONGS_AHEAD
from voicequeue.storage.job_store import Store


def enqueue(store: Store, *specs: VoiceJob, now: float = NOW) -> list[Outcome]:
    """Return the outcomes of jobs enqueued in one call."""
    return store.enqueue([(spec.id(), spec) for spec in specs], now)


def line(store: Store) -> list[str]:
    """Return the ids of the backlog from its head."""
    return list(store.ids(state=State.QUEUED))


# ── outcomes ──────────────────────────────────────────────────────────────────────────────────────


def test_a_job_is_new_once_and_known_from_then_on(store: Store) -> None:
    """The same key with the same content is the same job, in one call or another."""
    job = sung(key="k")

    assert enqueue(store, job, job) == [Outcome.NEW, Outcome.KNOWN]
    assert enqueue(store, job, now=NOW + 1) == [Outcome.KNOWN]


def test_the_same_key_with_other_content_is_a_conflict(store: Store) -> None:
    """Any difference counts: the recording, the song, the batch, the metadata."""
    enqueue(store, sung(key="k"))

    others = [voice(key="k"), sung(key="k", name="Ana"), sung(key="k", batch="b"), sung(key="k", metadata={"a": "1"})]

    assert enqueue(store, *others) == [Outcome.CONFLICT] * 4


def test_an_existing_job_is_left_unchanged(store: Store, redis: Redis, prefix: str) -> None:
    """Enqueueing it again, with the same or other content, changes nothing."""
    make(store, one(store, put(store, sung(key="k", batch="b"))[0]), State.CANCELLED)
    before = dump(redis, prefix)

    enqueue(store, sung(key="k", batch="b"), voice(key="k", batch="c"), now=NOW + 9)

    assert dump(redis, prefix) == before


@pytest.mark.parametrize("state", [state for state in State if state is not State.WAITING])
def test_a_key_denotes_its_job_in_every_state(store: Store, state: State) -> None:
    """A succeeded or failed job is not run again."""
    job = brought_to(store, state, sung(key="k"))

    assert enqueue(store, sung(key="k")) == [Outcome.KNOWN]
    assert one(store, job.id).state is state


def test_each_job_of_a_call_has_its_own_outcome(store: Store) -> None:
    """One call may contain new, known and conflicting jobs."""
    enqueue(store, *numbered(2))
    a, b, c = numbered(3)

    outcomes = enqueue(store, a, voice(key="key-1", name="another"), c)

    assert outcomes == [Outcome.KNOWN, Outcome.CONFLICT, Outcome.NEW]
    assert b.id() in line(store)


def test_an_empty_call_writes_nothing(store: Store, redis: Redis, prefix: str) -> None:
    """An empty call is allowed and writes no key."""
    assert store.enqueue([], NOW) == []
    assert dump(redis, prefix) == {}


def test_a_job_is_stored_as_given(store: Store) -> None:
    """Its record contains its creation time, its stage and the whole spec."""
    spec = sung(name="Åse [bold] \x1b[31m", batch="b", priority="high", metadata={"ключ": "значение\n\0"})

    job = one(store, *put(store, spec))

    assert job.spec == spec
    assert (job.state, job.stage, job.version) == (State.QUEUED, Stage.VOICE, 1)
    assert (job.created_at, job.updated_at, job.settled_at) == (NOW, NOW, None)
    assert (job.attempt, job.credits, job.failure, job.clips) == (0, 0, None, ())


def test_a_job_with_a_persona_starts_at_the_song(store: Store) -> None:
    """Its voice exists already."""
    job = one(store, *put(store, VoiceJob(persona_id="p-1", song=SONG)))

    assert (job.stage, job.persona_id) == (Stage.MUSIC, "p-1")


# ── the backlog ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("priority", Priority)
def test_jobs_of_one_call_keep_their_order(store: Store, priority: Priority) -> None:
    """Jobs of a chunk keep their order at every priority, though they are created in the same microsecond."""
    assert put(store, *numbered(500, priority=priority)) == line(store)


def test_jobs_are_ordered_by_priority_then_creation(store: Store) -> None:
    """Priority goes before age."""
    chance = random.Random(3)
    at = [NOW + n * 86_400 for n in range(30)]
    order = [(priority, now) for priority in Priority for now in at]
    specs = {pair: voice(key=f"{pair}", priority=pair[0]) for pair in order}
    for pair in chance.sample(order, len(order)):
        put(store, specs[pair], now=pair[1])

    assert line(store) == [specs[pair].id() for pair in order]


def test_a_decade_in_the_backlog_does_not_outweigh_a_priority(store: Store) -> None:
    """Priority always goes first."""
    [old] = put(store, voice(priority="bulk"), now=NOW - 10 * 365 * 86_400)
    [young] = put(store, voice(priority="high"), now=NOW)

    assert line(store) == [young, old]


def test_a_job_returns_to_its_old_position(store: Store) -> None:
    """A retry precedes later jobs, also those of the same call."""
    first, second, third = put(store, *numbered(3))
    store.admit(NOW, at_most=2)
    charge(store, second, Stage.VOICE, "h", NOW, lease=9)
    failed(store, one(store, second), Code.REFUSED)
    make(store, one(store, second), State.QUEUED, now=NOW + 99)
    make(store, one(store, first), State.QUEUED, now=NOW + 99)

    assert line(store) == [first, second, third]


@pytest.mark.parametrize("now", [NOW, 1_234_567_890.123457, 3_999_999_999.0], ids=["now", "a crooked time", "2096"])
@pytest.mark.parametrize("stage", Stage)
def test_songs_precede_voices_and_both_keep_their_order(store: Store, stage: Stage, now: float) -> None:
    """A difference of a microsecond is not lost in rounding."""
    spec: dict[str, str] = {"audio_url": URL} if stage is Stage.VOICE else {"persona_id": "p"}
    [other] = put(store, sung() if stage is Stage.MUSIC else VoiceJob(persona_id="p", song=SONG), now=now - 1)

    job_ids = put(store, *(VoiceJob(**spec, song=SONG, key=f"key-{n}") for n in range(500)), now=now)

    assert line(store) == ([other, *job_ids] if stage is Stage.VOICE else [*job_ids, other])
    assert [lane.oldest for lane in store.lines()] == [pytest.approx(now - 1, abs=1e-6)]


def test_songs_are_as_far_ahead_in_python_as_in_lua() -> None:
    """Python and Lua use the same offset of scores."""
    [offset] = re.findall(r"local SONGS_AHEAD = (\S+)", scripts.load("enqueue").source)

    assert float(offset) == SONGS_AHEAD


# ── batches ───────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_counts_and_lists_its_jobs_in_creation_order(store: Store) -> None:
    """Jobs may be enqueued over several calls, together with other batches."""
    first = put(store, *numbered(3, batch="spring"))
    put(store, voice(batch="summer"), voice())
    second = put(store, *(voice(batch="spring") for _ in range(2)), now=NOW + 1)

    assert list(store.ids(batch="spring")) == first + second
    assert store.counts("spring")[State.QUEUED] == 5
    assert store.counts("summer")[State.QUEUED] == 1
    assert store.counts()[State.QUEUED] == 7


def test_batches_are_listed_newest_first(store: Store) -> None:
    """A batch is as old as its first job."""
    for at, name in enumerate(["spring", "summer", "autumn", "spring"]):
        put(store, voice(batch=name), now=NOW + at)

    assert store.batches() == ["autumn", "summer", "spring"]
    assert store.batch("spring")
    assert not store.batch("winter")


def test_the_indexes_agree_after_many_calls(store: Store, redis: Redis, prefix: str) -> None:
    """This holds for all outcomes, with and without batches."""
    for n in range(3):
        enqueue(store, *numbered(n + 2, batch="b"), *numbered(n + 3), voice(batch="c"))

    everything_agrees(redis, prefix)
    assert len(ids(store.get(line(store)))) == store.counts()[State.QUEUED]
