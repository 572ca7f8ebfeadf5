"""Polls of orders that fail or exceed their deadline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.process import Simulator
from tasks.poll import PollResult
from tests.integration.conftest import (
    DEADLINE_S,
    FAILED,
    NOT_READY,
    POLL_S,
    SONG,
    SONGS,
    VOICE,
    Bench,
    Build,
    Saying,
    books_agree,
    voice,
)
from tests.support.scripted import Scripted
from voicequeue import Job, Stage, State, VoiceJob, VoiceQueue
from voicequeue.domain import transitions
from voicequeue.domain.claims import Planned
from voicequeue.domain.job import Code


def asked(simulator: Simulator) -> int:
    """How many polls upstream got."""
    return int(simulator.ledger(charges=False)["calls"]["task"])


def asked_again(done: PollResult) -> list[str]:
    """Ids that are to be asked about again, at whatever time."""
    return [job_id for each in done.rounds for job_id in each.job_ids]


def why(job: Job) -> tuple[Code, Stage] | None:
    """Why and where a job failed."""
    return (job.failure.code, job.failure.stage) if job.failure else None


# ── failures that upstream may take back ───────────────────────────────────────────────────────


def fails_for_certain(bench: Bench, stage: Stage, job_id: str) -> None:
    """Upstream says that a job's order failed, and says so again."""
    for state in (State.PENDING, State.FAILED):
        bench.poll_when_due(stage, [job_id])
        assert bench.job(job_id).state is state
    assert why(bench.job(job_id)) == (Code.UPSTREAM_FAILED, stage)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_failure_that_upstream_takes_back_is_none(build: Build, stage: Stage) -> None:
    """One answer says that the order failed, the next that it is ready: it is, and nothing is paid again."""
    with Scripted(Saying(FAILED, VOICE if stage is Stage.VOICE else SONGS)) as upstream:
        bench = build(upstream.url)
        [job_id] = bench.ordered(voice(song=None) if stage is Stage.VOICE else VoiceJob(persona_id="p1", song=SONG))

        assert asked_again(bench.poll_when_due(stage, [job_id])) == [job_id]

        assert bench.job(job_id).state is State.PENDING
        assert bench.poll_when_due(stage, [job_id]) == PollResult()
        assert bench.job(job_id).state is State.SUCCEEDED


def test_reports_of_a_failure_count_only_if_nothing_else_was_said_between_them(build: Build) -> None:
    """Each time that upstream says "not ready", what it said before is void; no answer changes nothing."""
    unreadable = {"ok": True}
    with Scripted(Saying(FAILED, NOT_READY, FAILED, NOT_READY, FAILED, unreadable, FAILED)) as upstream:
        bench = build(upstream.url)
        [job_id] = bench.ordered(voice())
        for _ in range(6):
            bench.poll_when_due(Stage.VOICE, [job_id])
            assert bench.job(job_id).state is State.PENDING

        bench.poll_when_due(Stage.VOICE, [job_id])

        assert why(bench.job(job_id)) == (Code.UPSTREAM_FAILED, Stage.VOICE)


def test_a_webhook_does_not_make_a_failure_certain_by_asking_at_once(bench: Bench, simulator: Simulator) -> None:
    """However many come: it is the time between two answers that counts."""
    simulator.turn(voice_failure=1)
    [job_id] = bench.ordered(voice())
    for _ in range(4):
        bench.clock.now += 1
        bench.store.plan([Planned(job_id, bench.job(job_id).version, due=bench.clock.now)])
        bench.poll(Stage.VOICE, [job_id])

    assert asked(simulator) == 4
    assert bench.job(job_id).state is State.PENDING


def test_a_failure_that_is_reported_at_the_deadline_is_told_with_it(build: Build) -> None:
    """Upstream said it once, and there is no time left to ask again: retrying it asks, and pays nothing."""
    with Scripted(Saying(NOT_READY, FAILED)) as upstream:
        plain = build(upstream.url)
        bench = replace(plain, services=replace(plain.services, deadlines=dict.fromkeys(Stage, 1.5 * POLL_S)))
        [job_id] = bench.ordered(voice())
        for _ in range(2):
            bench.poll_when_due(Stage.VOICE, [job_id])

    job = bench.job(job_id)
    assert why(job) == (Code.DEADLINE, Stage.VOICE)
    assert job.failure is not None
    assert "could not be extracted" in job.failure.message
    assert transitions.cost(job) == 15


# ── deadlines and retries ──────────────────────────────────────────────────────────────────────


def test_a_job_past_its_deadline_is_asked_about_again_by_a_retry_and_pays_nothing(
    bench: Bench, simulator: Simulator, queue: VoiceQueue
) -> None:
    """Its task may have finished meanwhile: what was paid for is taken."""
    simulator.turn(music_s=60)
    [job_id] = bench.ordered(VoiceJob(persona_id="p1", song=SONG))
    hasty = replace(bench, services=replace(bench.services, deadlines=dict.fromkeys(Stage, POLL_S)))
    assert asked_again(hasty.poll_when_due(Stage.MUSIC, [job_id])) == [job_id]
    assert hasty.poll_when_due(Stage.MUSIC, [job_id]).rounds == []
    assert why(bench.job(job_id)) == (Code.DEADLINE, Stage.MUSIC)
    assert bench.store.in_flight() == 0

    retried = queue.retry(job_id)
    [charge] = simulator.ledger()["charges"]
    simulator.finish(charge["task_id"])
    bench.poll(Stage.MUSIC, [job_id])

    job = bench.job(job_id)
    assert (retried.state, retried.failure) == (State.PENDING, None)
    assert (job.state, len(job.clips), job.failure, job.credits) == (State.SUCCEEDED, 2, None, 15)
    assert simulator.ledger()["charged"] == 1
    assert books_agree(bench, simulator)


def test_a_result_that_comes_after_the_deadline_is_still_taken(bench: Bench) -> None:
    """Nobody asked for long, and it is there: the deadline is for what is not. How long it took is not known."""
    [job_id] = bench.ordered(voice(song=None))
    bench.clock.now += 10 * DEADLINE_S

    bench.poll(Stage.VOICE, [job_id])

    assert bench.job(job_id).state is State.SUCCEEDED
    assert bench.store.controls.spans(Stage.VOICE) == []


def test_an_upstream_that_does_not_answer_until_the_deadline_fails_the_job(bench: Bench, simulator: Simulator) -> None:
    """It is the deadline that ends a job, not a number of polls."""
    [job_id] = bench.ordered(voice())
    simulator.turn(get_faults={"error": 1})
    for _ in range(3):
        assert asked_again(bench.poll_when_due(Stage.VOICE, [job_id])) == [job_id]

    assert bench.poll_for(Stage.VOICE, [job_id], DEADLINE_S).rounds == []

    assert why(bench.job(job_id)) == (Code.DEADLINE, Stage.VOICE)


@pytest.mark.parametrize("handed_out", [False, True], ids=["by its message", "by the pulse"])
@pytest.mark.parametrize("asked_before", [0, 3])
def test_when_redis_clock_is_set_an_hour_ahead_a_paid_order_still_has_all_its_time(
    bench: Bench, simulator: Simulator, asked_before: int, handed_out: bool
) -> None:
    """Time in which nothing asked is not upstream's; so it is after an hour without a worker."""
    simulator.turn(voice_s=600)
    [job_id] = bench.ordered(voice(song=None))
    for _ in range(asked_before):
        bench.poll_when_due(Stage.VOICE, [job_id])
    bench.clock.now += 3_600
    if handed_out:
        assert [job.job_id for job in bench.store.overdue(bench.clock.now, patience=10)] == [job_id]
    left_s = DEADLINE_S - (asked_before + 2) * POLL_S

    assert asked_again(bench.poll(Stage.VOICE, [job_id])) == [job_id]
    assert asked_again(bench.poll_for(Stage.VOICE, [job_id], left_s)) == [job_id]
    simulator.finish(simulator.ledger()["charges"][0]["task_id"])
    bench.poll_when_due(Stage.VOICE, [job_id])

    assert bench.job(job_id).state is State.SUCCEEDED
    [span] = bench.store.controls.spans(Stage.VOICE)
    assert span.within <= DEADLINE_S


def test_after_redis_clock_was_set_ahead_the_deadline_ends_an_order_all_the_same(
    bench: Bench, simulator: Simulator
) -> None:
    """It has its time once, not for ever."""
    simulator.turn(voice_s=6_000)
    [job_id] = bench.ordered(voice(song=None))
    bench.clock.now += 3_600
    bench.poll(Stage.VOICE, [job_id])

    bench.poll_for(Stage.VOICE, [job_id], DEADLINE_S)

    assert why(bench.job(job_id)) == (Code.DEADLINE, Stage.VOICE)


def test_a_retry_after_a_song_failed_pays_for_the_song_and_not_for_the_voice(
    bench: Bench, simulator: Simulator, queue: VoiceQueue
) -> None:
    """It resumes at the first stage that has no result."""
    simulator.turn(music_failure=1)
    [job_id] = bench.ordered(voice())
    bench.poll_when_due(Stage.VOICE, [job_id])
    bench.submit(Stage.MUSIC, [job_id])
    fails_for_certain(bench, Stage.MUSIC, job_id)
    failed = bench.job(job_id)

    simulator.turn(music_failure=0)
    queue.retry(job_id)
    assert bench.poll_when_due(Stage.MUSIC, [job_id]) == PollResult()
    assert bench.job(job_id).task_ids.keys() == {Stage.VOICE}
    assert bench.admit() == {Stage.MUSIC: [job_id]}
    bench.submit(Stage.MUSIC, [job_id])
    bench.poll_when_due(Stage.MUSIC, [job_id])

    job = bench.job(job_id)
    assert (job.state, job.persona_id, job.credits) == (State.SUCCEEDED, failed.persona_id, 4 + 15 + 15)
    assert [charge["kind"] for charge in simulator.ledger()["charges"]] == ["voice", "music", "music"]
    assert bench.store.credits() == simulator.ledger()["credits_spent"]
