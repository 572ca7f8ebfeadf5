"""Polls of orders: not ready, ready, and in groups."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random

import pytest

from simulator.engine.faults import GET_FAULTS
from simulator.process import Simulator
from tasks.poll import PollResult, PollRound
from tests.integration.conftest import (
    POLL_S,
    TIMEOUTS,
    Bench,
    Build,
    charges_match,
    voice,
    voices,
)
from tests.support.scripted import Request, ScriptedServer, answer
from voicequeue import Job, Stage, State, VoiceQueue
from voicequeue.domain.poll_schedule import PollSchedulePolicy
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


# ── not ready ──────────────────────────────────────────────────────────────────────────────────


def test_a_task_in_progress_is_rescheduled_and_a_second_message_finds_nothing_due(
    bench: Bench, simulator: Simulator
) -> None:
    """Messages never multiply: one polls and is repeated when the time has come, the other ends."""
    simulator.set_dials(voice_s=60)
    job_ids = bench.submitted(*voices(3))
    bench.clock.now += POLL_S

    assert bench.poll(job_ids) == PollResult(rounds=[PollRound(job_ids, POLL_S, Stage.VOICE)])
    assert bench.poll(job_ids) == PollResult()
    assert polls_sent(simulator) == 3

    assert scheduled_ids(bench.poll_when_due(job_ids)) == job_ids
    assert polls_sent(simulator) == 6
    assert bench.states(job_ids) == [State.PENDING] * 3


def test_jobs_due_at_about_the_same_time_share_a_message_from_then_on(bench: Bench, simulator: Simulator) -> None:
    """The jobs were submitted one by one; the message of the second finds it polled already."""
    simulator.set_dials(voice_s=60)
    first, second = bench.submitted(voice("a")), bench.submitted(voice("b"))
    bench.clock.now += POLL_S

    assert bench.poll(first) == PollResult(rounds=[PollRound([*first, *second], POLL_S, Stage.VOICE)])
    assert bench.poll(second) == PollResult()
    assert polls_sent(simulator) == 2


def test_jobs_due_at_different_times_get_separate_messages(build: Build, simulator: Simulator) -> None:
    """Each job is polled when it is due, as the orders of one message may have different ages."""
    simulator.set_dials(voice_s=600)
    plain = build(simulator.api_url)
    plain.store.poll_history.set_schedule("voice", [40, 60, 100])
    bench = Bench(replace(plain.services, poll_plan=PollSchedulePolicy(12, 20, Random(1))), plain.clock)
    old = bench.submitted(voice("a"), voice("b"))
    bench.clock.now += 30
    young = bench.submitted(voice("c"))
    bench.clock.now += 42

    rounds = bench.poll([*young, *old]).rounds

    assert [poll_round.job_ids for poll_round in rounds] == [young, old]
    assert [poll_round.delay_s for poll_round in rounds] == [pytest.approx(18, abs=1), pytest.approx(28, abs=1)]
    assert [bench.poll(poll_round.job_ids) for poll_round in rounds] == [PollResult(), PollResult()]
    bench.clock.now += rounds[0].delay_s
    assert scheduled_ids(bench.poll(young)) == young


def test_a_poll_before_its_time_sends_nothing(bench: Bench, simulator: Simulator) -> None:
    """Neither does a poll of an unknown job."""
    job_ids = bench.submitted(*voices(2))

    assert bench.poll([*job_ids, "unknown"]) == PollResult()
    assert polls_sent(simulator) == 0


def test_two_workers_with_the_same_chunk_poll_each_job_once(bench: Bench, simulator: Simulator) -> None:
    """A job that one worker polls is not due for the other."""
    simulator.set_dials(voice_s=60)
    job_ids = bench.submitted(*voices(10))
    bench.clock.now += POLL_S
    both_ready = threading.Barrier(2)

    def work() -> PollResult:
        both_ready.wait()
        return bench.poll(job_ids)

    with ThreadPoolExecutor(2) as workers:
        outcomes = [future.result() for future in [workers.submit(work), workers.submit(work)]]

    assert sorted(scheduled_ids(outcomes[0]) + scheduled_ids(outcomes[1])) == sorted(job_ids)
    assert polls_sent(simulator) == 10


def test_a_poll_whose_worker_died_is_made_by_another_one(bench: Bench) -> None:
    """The job is due again when the lease of the dead worker's claim has expired."""
    job_ids = bench.submitted(voice(song=None))
    bench.clock.now += POLL_S
    assert bench.store.claim_poll(job_ids, bench.clock.now, lease_s=90)

    bench.clock.now += 80
    bench.poll(job_ids)
    assert bench.states(job_ids) == [State.PENDING]
    bench.clock.now += 10
    bench.poll(job_ids)
    assert bench.states(job_ids) == [State.SUCCEEDED]


@pytest.mark.parametrize("fault", [fault for fault in GET_FAULTS if fault not in ("lost_task", "hang", "drip")])
def test_a_poll_without_an_answer_is_made_again(bench: Bench, simulator: Simulator, fault: str) -> None:
    """A failed poll neither fails a job nor lowers the limit; a rate limit also holds back orders."""
    job_ids = bench.submitted(*voices(2))
    simulator.set_dials(get_faults={fault: 1})
    before = bench.store.flow_control.in_flight_limit()

    assert bench.poll_when_due(job_ids) == PollResult(rounds=[PollRound(job_ids, POLL_S, Stage.VOICE)])

    slow = [("cooldown", bench.clock.now + TIMEOUTS.cooldown_s)] if fault == "rate_limited" else []
    holds = bench.store.flow_control.gate(bench.clock.now).holds
    assert [(hold.reason, hold.until) for hold in holds if not hold.is_on_trial] == slow
    assert bench.store.flow_control.in_flight_limit() == before
    simulator.set_dials(get_faults={})
    assert bench.poll_when_due(job_ids).to_music == job_ids
    assert bench.store.flow_control.gate(bench.clock.now).is_open


# ── settled ────────────────────────────────────────────────────────────────────────────────────


def test_a_voice_without_a_song_has_succeeded_with_its_persona(bench: Bench, simulator: Simulator) -> None:
    """Nothing else is submitted, and its slot is free."""
    [job_id] = bench.submitted(voice(song=None))

    assert bench.poll_when_due([job_id]) == PollResult()

    job = bench.job(job_id)
    assert (job.state, job.credits, job.voice_name) == (State.SUCCEEDED, 4, "Anna")
    assert job.persona_id
    assert job.settled_at == bench.clock.now
    assert bench.store.count_in_flight() == 0
    assert charges_match(bench, simulator)


@pytest.mark.parametrize("shape", ["clips", "object", "answer"])
def test_a_task_that_failed_upstream_fails_its_job_with_upstreams_words(
    bench: Bench, simulator: Simulator, shape: str
) -> None:
    """Its credits are spent and counted."""
    simulator.set_dials(voice_failure=1, failure_shape=shape)
    [job_id] = bench.submitted(voice())

    assert bench.poll_when_due([job_id]) == PollResult(rounds=[PollRound([job_id], POLL_S, Stage.VOICE)])
    assert bench.job(job_id).state is State.PENDING
    assert bench.poll_when_due([job_id]) == PollResult()

    job = bench.job(job_id)
    assert (job.state, failure_of(job)) == (State.FAILED, (FailureCode.UPSTREAM_FAILED, Stage.VOICE))
    assert job.failure is not None
    assert ("no clear speaker" in job.failure.message) == (shape != "clips")
    assert bench.store.count_in_flight() == 0
    assert charges_match(bench, simulator)


def test_each_job_of_a_chunk_has_its_own_answer(bench: Bench, simulator: Simulator) -> None:
    """One job is ready, one failed, one is in progress."""
    simulator.set_dials(fail_match="bad", stall_match="slow")
    good, bad, slow = job_ids = bench.submitted(voice("good"), voice("bad"), voice("slow"))

    done = bench.poll_when_due(job_ids)

    assert done == PollResult(rounds=[PollRound([bad, slow], POLL_S, Stage.VOICE)], to_music=[good])
    assert bench.poll_when_due([bad, slow]) == PollResult(rounds=[PollRound([slow], POLL_S, Stage.VOICE)])
    assert bench.states([good, bad, slow]) == [State.ADMITTED, State.FAILED, State.PENDING]


def test_an_answer_for_a_job_that_was_cancelled_meanwhile_is_dropped(build: Build, queue: VoiceQueue) -> None:
    """No song is submitted although its voice is ready."""

    def cancelling(request: Request) -> Iterator[bytes]:
        if request.method == "GET":
            queue.cancel(voice().job_id())
        yield answer({"task_id": "t1", "data": {"persona_id": "p1"}})

    with ScriptedServer(cancelling) as upstream:
        bench = build(upstream.url)
        [job_id] = bench.submitted(voice())
        assert bench.poll_when_due([job_id]) == PollResult()

    assert bench.job(job_id).state is State.CANCELLED
    assert bench.submit(Stage.MUSIC, [job_id]).pending == []
