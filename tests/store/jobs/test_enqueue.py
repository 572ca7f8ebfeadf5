"""Enqueueing: the outcome of each job, and the order of the backlog."""

from __future__ import annotations

import random
import re

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    apply_transition,
    assert_consistent,
    claim_submit,
    dump_keys,
    enqueue_jobs,
    fail_job,
    get_job,
    ids,
    job_in_state,
)
from tests.support.jobs import SONG, URL, numbered_voices, voice, voice_with_song
from voicequeue import FailureCode, Priority, Stage, State, VoiceJob
from voicequeue.domain.claims import EnqueueOutcome
from voicequeue.storage import scripts
from voicequeue.storage.enqueue_call import EnqueueReply
from voicequeue.storage.job_queries import SONG_SCORE_OFFSET
from voicequeue.storage.job_store import JobStore


def enqueue(store: JobStore, *specs: VoiceJob, now: float = NOW) -> list[EnqueueReply]:
    """Return the outcomes of jobs enqueued in one call."""
    return store.enqueue([(spec.job_id(), spec) for spec in specs], now)


def line(store: JobStore) -> list[str]:
    """Return the ids of the backlog from its head."""
    return list(store.list_ids(state=State.QUEUED))


# ── outcomes ──────────────────────────────────────────────────────────────────────────────────────


def test_a_job_is_new_once_and_known_from_then_on(store: JobStore) -> None:
    """The same key with the same content is the same job, in one call or another."""
    job = voice_with_song(key="k")

    assert enqueue(store, job, job) == [EnqueueOutcome.NEW, EnqueueOutcome.EXISTING]
    assert enqueue(store, job, now=NOW + 1) == [EnqueueOutcome.EXISTING]


def test_a_job_keeps_the_first_row_that_it_came_from(store: JobStore) -> None:
    """The record has the row in the caller's file, and the same row at another place changes nothing."""
    first, moved, unnumbered = voice(key="k", source_row=7), voice(key="k", source_row=9), voice(key="none")

    assert enqueue(store, first, unnumbered) == [EnqueueOutcome.NEW, EnqueueOutcome.NEW]
    assert enqueue(store, moved, voice(key="none", source_row=4)) == [EnqueueOutcome.EXISTING] * 2

    assert get_job(store, first.job_id()).source_row == 7
    assert get_job(store, first.job_id()).as_dict()["source_row"] == 7
    assert get_job(store, unnumbered.job_id()).source_row is None


def test_the_same_key_with_other_content_is_a_conflict(store: JobStore) -> None:
    """Any difference counts: the recording, the song, the batch, the metadata."""
    enqueue(store, voice_with_song(key="k"))

    others = [
        voice(key="k"),
        voice_with_song(key="k", name="Ana"),
        voice_with_song(key="k", batch="b"),
        voice_with_song(key="k", metadata={"a": "1"}),
    ]

    assert enqueue(store, *others) == [EnqueueOutcome.CONFLICT] * 4


def test_an_existing_job_is_left_unchanged(store: JobStore, redis: Redis, prefix: str) -> None:
    """Enqueueing it again, with the same or other content, changes nothing."""
    apply_transition(
        store, get_job(store, enqueue_jobs(store, voice_with_song(key="k", batch="b"))[0]), State.CANCELLED
    )
    before = dump_keys(redis, prefix)

    enqueue(store, voice_with_song(key="k", batch="b"), voice(key="k", batch="c"), now=NOW + 9)

    assert dump_keys(redis, prefix) == before


@pytest.mark.parametrize("state", [state for state in State if state is not State.WAITING])
def test_a_key_denotes_its_job_in_every_state(store: JobStore, state: State) -> None:
    """A succeeded or failed job is not run again."""
    job = job_in_state(store, state, voice_with_song(key="k"))

    assert enqueue(store, voice_with_song(key="k")) == [EnqueueOutcome.EXISTING]
    assert get_job(store, job.id).state is state


def test_each_job_of_a_call_has_its_own_outcome(store: JobStore) -> None:
    """One call may contain new, known and conflicting jobs."""
    enqueue(store, *numbered_voices(2))
    a, b, c = numbered_voices(3)

    outcomes = enqueue(store, a, voice(key="key-1", name="another"), c)

    assert outcomes == [EnqueueOutcome.EXISTING, EnqueueOutcome.CONFLICT, EnqueueOutcome.NEW]
    assert b.job_id() in line(store)


def test_an_empty_call_writes_nothing(store: JobStore, redis: Redis, prefix: str) -> None:
    """An empty call is allowed and writes no key."""
    assert store.enqueue([], NOW) == []
    assert dump_keys(redis, prefix) == {}


def test_a_job_is_stored_as_given(store: JobStore) -> None:
    """Its record contains its creation time, its stage and the whole spec."""
    spec = voice_with_song(name="Åse [bold] \x1b[31m", batch="b", priority="high", metadata={"ключ": "значение\n\0"})

    job = get_job(store, *enqueue_jobs(store, spec))

    assert job.spec == spec
    assert (job.state, job.stage, job.version) == (State.QUEUED, Stage.VOICE, 1)
    assert (job.created_at, job.updated_at, job.settled_at) == (NOW, NOW, None)
    assert (job.attempt, job.credits, job.failure, job.clips) == (0, 0, None, ())


def test_a_job_with_a_persona_starts_at_the_song(store: JobStore) -> None:
    """Its voice exists already."""
    job = get_job(store, *enqueue_jobs(store, VoiceJob(persona_id="p-1", song=SONG)))

    assert (job.stage, job.persona_id) == (Stage.MUSIC, "p-1")


# ── the backlog ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("priority", Priority)
def test_jobs_of_one_call_keep_their_order(store: JobStore, priority: Priority) -> None:
    """Jobs of a chunk keep their order at every priority, though they are created in the same microsecond."""
    assert enqueue_jobs(store, *numbered_voices(500, priority=priority)) == line(store)


def test_jobs_are_ordered_by_priority_then_creation(store: JobStore) -> None:
    """Priority goes before age."""
    chance = random.Random(3)
    at = [NOW + n * 86_400 for n in range(30)]
    order = [(priority, now) for priority in Priority for now in at]
    specs = {pair: voice(key=f"{pair}", priority=pair[0]) for pair in order}
    for pair in chance.sample(order, len(order)):
        enqueue_jobs(store, specs[pair], now=pair[1])

    assert line(store) == [specs[pair].job_id() for pair in order]


def test_a_decade_in_the_backlog_does_not_outweigh_a_priority(store: JobStore) -> None:
    """Priority always goes first."""
    [old] = enqueue_jobs(store, voice(priority="bulk"), now=NOW - 10 * 365 * 86_400)
    [young] = enqueue_jobs(store, voice(priority="high"), now=NOW)

    assert line(store) == [young, old]


def test_a_job_returns_to_its_old_position(store: JobStore) -> None:
    """A retry precedes later jobs, also those of the same call."""
    first, second, third = enqueue_jobs(store, *numbered_voices(3))
    store.admit(NOW, at_most=2)
    claim_submit(store, second, Stage.VOICE, "h", NOW, lease=9)
    fail_job(store, get_job(store, second), FailureCode.REFUSED)
    apply_transition(store, get_job(store, second), State.QUEUED, now=NOW + 99)
    apply_transition(store, get_job(store, first), State.QUEUED, now=NOW + 99)

    assert line(store) == [first, second, third]


@pytest.mark.parametrize("now", [NOW, 1_234_567_890.123457, 3_999_999_999.0], ids=["now", "a crooked time", "2096"])
@pytest.mark.parametrize("stage", Stage)
def test_songs_precede_voices_and_both_keep_their_order(store: JobStore, stage: Stage, now: float) -> None:
    """A difference of a microsecond is not lost in rounding."""
    spec: dict[str, str] = {"audio_url": URL} if stage is Stage.VOICE else {"persona_id": "p"}
    [other] = enqueue_jobs(
        store, voice_with_song() if stage is Stage.MUSIC else VoiceJob(persona_id="p", song=SONG), now=now - 1
    )

    job_ids = enqueue_jobs(store, *(VoiceJob(**spec, song=SONG, key=f"key-{n}") for n in range(500)), now=now)

    assert line(store) == ([other, *job_ids] if stage is Stage.VOICE else [*job_ids, other])
    assert [lane.oldest_at for lane in store.lanes()] == [pytest.approx(now - 1, abs=1e-6)]


def test_songs_are_as_far_ahead_in_python_as_in_lua() -> None:
    """Python and Lua use the same offset of scores."""
    [offset] = set(re.findall(r"local SONGS_AHEAD = (\S+)", scripts.load("enqueue").source))

    assert float(offset) == SONG_SCORE_OFFSET


# ── batches ───────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_counts_and_lists_its_jobs_in_creation_order(store: JobStore) -> None:
    """Jobs may be enqueued over several calls, together with other batches."""
    first = enqueue_jobs(store, *numbered_voices(3, batch="spring"))
    enqueue_jobs(store, voice(batch="summer"), voice())
    second = enqueue_jobs(store, *(voice(batch="spring") for _ in range(2)), now=NOW + 1)

    assert list(store.list_ids(batch="spring")) == first + second
    assert store.counts_by_state("spring")[State.QUEUED] == 5
    assert store.counts_by_state("summer")[State.QUEUED] == 1
    assert store.counts_by_state()[State.QUEUED] == 7


def test_batches_are_listed_newest_first(store: JobStore) -> None:
    """A batch is as old as its first job."""
    for at, name in enumerate(["spring", "summer", "autumn", "spring"]):
        enqueue_jobs(store, voice(batch=name), now=NOW + at)

    assert store.batches() == ["autumn", "summer", "spring"]
    assert store.batch("spring")
    assert not store.batch("winter")


def test_the_indexes_agree_after_many_calls(store: JobStore, redis: Redis, prefix: str) -> None:
    """This holds for all outcomes, with and without batches."""
    for n in range(3):
        enqueue(store, *numbered_voices(n + 2, batch="b"), *numbered_voices(n + 3), voice(batch="c"))

    assert_consistent(redis, prefix)
    assert len(ids(store.get(line(store)))) == store.counts_by_state()[State.QUEUED]
