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
    PollScript,
    charges_match,
    voice,
)
from tests.support.scripted import ScriptedServer
from voicequeue import Job, Stage, State, VoiceJob, VoiceQueue
from voicequeue.domain import transitions
from voicequeue.domain.claims import PollReschedule
from voicequeue.domain.states import FailureCode


def polls_sent(simulator: Simulator) -> int:
    """Return the number of polls that upstream received."""
    return int(simulator.ledger(charges=False)["calls"]["task"])


def scheduled_ids(done: PollResult) -> list[str]:
    """Return the ids of the jobs to poll again, at any time."""
    return [job_id for poll_round in done.rounds for job_id in poll_round.job_ids]


def failure_of(job: Job) -> tuple[FailureCode, Stage] | None:
    """Return the code and stage of a failure."""
    return (job.failure.code, job.failure.stage) if job.failure else None


# ── failures that upstream may revoke ──────────────────────────────────────────────────────────


def fail_twice(bench: Bench, stage: Stage, job_id: str) -> None:
    """Poll twice while upstream reports a failure, so that the job fails."""
    for state in (State.PENDING, State.FAILED):
        bench.poll_when_due([job_id])
        assert bench.job(job_id).state is state
    assert failure_of(bench.job(job_id)) == (FailureCode.UPSTREAM_FAILED, stage)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_failure_that_upstream_revokes_does_not_count(build: Build, stage: Stage) -> None:
    """One poll reports a failure, the next a result: the result counts, and nothing is paid again."""
    with ScriptedServer(PollScript(FAILED, VOICE if stage is Stage.VOICE else SONGS)) as upstream:
        bench = build(upstream.url)
        [job_id] = bench.submitted(voice(song=None) if stage is Stage.VOICE else VoiceJob(persona_id="p1", song=SONG))

        assert scheduled_ids(bench.poll_when_due([job_id])) == [job_id]

        assert bench.job(job_id).state is State.PENDING
        assert bench.poll_when_due([job_id]) == PollResult()
        assert bench.job(job_id).state is State.SUCCEEDED


def test_reports_of_a_failure_must_follow_each_other(build: Build) -> None:
    """A "not ready" revokes an earlier report; a missing answer changes nothing."""
    unreadable = {"ok": True}
    with ScriptedServer(PollScript(FAILED, NOT_READY, FAILED, NOT_READY, FAILED, unreadable, FAILED)) as upstream:
        bench = build(upstream.url)
        [job_id] = bench.submitted(voice())
        for _ in range(6):
            bench.poll_when_due([job_id])
            assert bench.job(job_id).state is State.PENDING

        bench.poll_when_due([job_id])

        assert failure_of(bench.job(job_id)) == (FailureCode.UPSTREAM_FAILED, Stage.VOICE)


def test_webhooks_do_not_confirm_a_failure_by_polling_at_once(bench: Bench, simulator: Simulator) -> None:
    """The time between two reports counts, not the number of polls."""
    simulator.set_dials(voice_failure=1)
    [job_id] = bench.submitted(voice())
    for _ in range(4):
        bench.clock.now += 1
        bench.store.reschedule_polls([PollReschedule(job_id, bench.job(job_id).version, due=bench.clock.now)])
        bench.poll([job_id])

    assert polls_sent(simulator) == 4
    assert bench.job(job_id).state is State.PENDING


def test_a_failure_that_is_reported_at_the_deadline_is_part_of_its_message(build: Build) -> None:
    """Upstream reported it once, with no time left to confirm it: a retry polls and pays nothing."""
    with ScriptedServer(PollScript(NOT_READY, FAILED)) as upstream:
        plain = build(upstream.url)
        bench = replace(plain, services=replace(plain.services, deadlines=dict.fromkeys(Stage, 1.5 * POLL_S)))
        [job_id] = bench.submitted(voice())
        for _ in range(2):
            bench.poll_when_due([job_id])

    job = bench.job(job_id)
    assert failure_of(job) == (FailureCode.DEADLINE, Stage.VOICE)
    assert job.failure is not None
    assert "could not be extracted" in job.failure.message
    assert transitions.retry_cost(job) == 15


# ── deadlines and retries ──────────────────────────────────────────────────────────────────────


def test_a_retry_of_a_job_past_its_deadline_polls_and_pays_nothing(
    bench: Bench, simulator: Simulator, queue: VoiceQueue
) -> None:
    """Its task may have finished meanwhile, and its paid result is used."""
    simulator.set_dials(music_s=60)
    [job_id] = bench.submitted(VoiceJob(persona_id="p1", song=SONG))
    hasty = replace(bench, services=replace(bench.services, deadlines=dict.fromkeys(Stage, POLL_S)))
    assert scheduled_ids(hasty.poll_when_due([job_id])) == [job_id]
    assert hasty.poll_when_due([job_id]).rounds == []
    assert failure_of(bench.job(job_id)) == (FailureCode.DEADLINE, Stage.MUSIC)
    assert bench.store.count_in_flight() == 0

    retried = queue.retry(job_id)
    [charge] = simulator.ledger()["charges"]
    simulator.complete_task(charge["task_id"])
    bench.poll([job_id])

    job = bench.job(job_id)
    assert (retried.state, retried.failure) == (State.PENDING, None)
    assert (job.state, len(job.clips), job.failure, job.credits) == (State.SUCCEEDED, 2, None, 15)
    assert simulator.ledger()["charged"] == 1
    assert charges_match(bench, simulator)


def test_a_result_after_the_deadline_is_accepted(bench: Bench) -> None:
    """The deadline applies to missing results only. The duration of the order is unknown."""
    [job_id] = bench.submitted(voice(song=None))
    bench.clock.now += 10 * DEADLINE_S

    bench.poll([job_id])

    assert bench.job(job_id).state is State.SUCCEEDED
    assert bench.store.poll_history.durations(Stage.VOICE) == []


def test_an_upstream_that_does_not_answer_until_the_deadline_fails_the_job(bench: Bench, simulator: Simulator) -> None:
    """The deadline fails a job, not a number of polls."""
    [job_id] = bench.submitted(voice())
    simulator.set_dials(get_faults={"error": 1})
    for _ in range(3):
        assert scheduled_ids(bench.poll_when_due([job_id])) == [job_id]

    assert bench.poll_for([job_id], DEADLINE_S).rounds == []

    assert failure_of(bench.job(job_id)) == (FailureCode.DEADLINE, Stage.VOICE)


@pytest.mark.parametrize("is_dispatched", [False, True], ids=["by its message", "by maintenance"])
@pytest.mark.parametrize("polls_before", [0, 3])
def test_when_redis_clock_is_set_an_hour_ahead_a_paid_order_still_has_all_its_time(
    bench: Bench, simulator: Simulator, polls_before: int, is_dispatched: bool
) -> None:
    """Time without polls does not count towards the deadline; the same applies after an hour without a worker."""
    simulator.set_dials(voice_s=600)
    [job_id] = bench.submitted(voice(song=None))
    for _ in range(polls_before):
        bench.poll_when_due([job_id])
    bench.clock.now += 3_600
    if is_dispatched:
        assert [job.job_id for job in bench.store.lease_overdue(bench.clock.now, overdue_s=10)] == [job_id]
    left_s = DEADLINE_S - (polls_before + 2) * POLL_S

    assert scheduled_ids(bench.poll([job_id])) == [job_id]
    assert scheduled_ids(bench.poll_for([job_id], left_s)) == [job_id]
    simulator.complete_task(simulator.ledger()["charges"][0]["task_id"])
    bench.poll_when_due([job_id])

    assert bench.job(job_id).state is State.SUCCEEDED
    [span] = bench.store.poll_history.durations(Stage.VOICE)
    assert span.upper_s <= DEADLINE_S


def test_after_redis_clock_was_set_ahead_the_deadline_still_ends_an_order(bench: Bench, simulator: Simulator) -> None:
    """The order gets its full time once only."""
    simulator.set_dials(voice_s=6_000)
    [job_id] = bench.submitted(voice(song=None))
    bench.clock.now += 3_600
    bench.poll([job_id])

    bench.poll_for([job_id], DEADLINE_S)

    assert failure_of(bench.job(job_id)) == (FailureCode.DEADLINE, Stage.VOICE)


def test_a_retry_after_a_song_failed_pays_for_the_song_and_not_for_the_voice(
    bench: Bench, simulator: Simulator, queue: VoiceQueue
) -> None:
    """It resumes at the first stage without a result."""
    simulator.set_dials(music_failure=1)
    [job_id] = bench.submitted(voice())
    bench.poll_when_due([job_id])
    bench.submit(Stage.MUSIC, [job_id])
    fail_twice(bench, Stage.MUSIC, job_id)
    failed = bench.job(job_id)

    simulator.set_dials(music_failure=0)
    queue.retry(job_id)
    assert bench.poll_when_due([job_id]) == PollResult()
    assert bench.job(job_id).task_ids.keys() == {Stage.VOICE}
    assert bench.admit() == {Stage.MUSIC: [job_id]}
    bench.submit(Stage.MUSIC, [job_id])
    bench.poll_when_due([job_id])

    job = bench.job(job_id)
    assert (job.state, job.persona_id, job.credits) == (State.SUCCEEDED, failed.persona_id, 4 + 15 + 15)
    assert [charge["kind"] for charge in simulator.ledger()["charges"]] == ["voice", "music", "music"]
    assert bench.store.credits_spent() == simulator.ledger()["credits_spent"]
