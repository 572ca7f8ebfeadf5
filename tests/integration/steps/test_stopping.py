"""Submission and polls in a stopping process: requests in flight are finished, other jobs are released at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tasks.poll import PollRound
from tasks.submit import SubmitResult
from tests.conftest import eventually
from tests.integration.conftest import POLL_S, THREADS, Bench, Build, voices
from tests.support.scripted import Request, ScriptedServer, answer
from voicequeue import Stage, State


class Slow:
    """Upstream that answers when the test releases it."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def __call__(self, request: Request) -> Iterator[bytes]:
        """Accept an order, or report that it is not ready."""
        self.release.wait(20)
        yield answer({"task_id": "any"} if request.method == "POST" else {"status": "running"})


def stops(bench: Bench, when: Callable[[], bool]) -> Bench:
    """Return the bench of a process that stops on this condition."""
    return replace(bench, services=replace(bench.services, is_stopping=when))


def test_jobs_that_were_not_sent_are_queued_again_while_posts_are_in_flight(build: Build) -> None:
    """Other workers do not wait for the answers in flight, which are written when they arrive."""
    slow, stop = Slow(), threading.Event()
    with ScriptedServer(slow) as upstream, ThreadPoolExecutor(1) as worker:
        bench = stops(build(upstream.url), stop.is_set)
        job_ids = bench.admitted(*voices(2 * THREADS))
        submitting = worker.submit(bench.submit, Stage.VOICE, job_ids)
        eventually(lambda: len(upstream.requests) == THREADS)
        stop.set()
        eventually(lambda: bench.states(job_ids) == [State.CHARGING] * THREADS + [State.QUEUED] * THREADS)
        assert not submitting.done()
        slow.release.set()
        done = submitting.result()
        sent = len(upstream.requests)

    assert (done.pending, done.deferred) == (job_ids[:THREADS], [])
    assert sent == THREADS
    assert bench.states(job_ids) == [State.PENDING] * THREADS + [State.QUEUED] * THREADS


def test_a_stop_between_claim_and_post_sends_nothing(build: Build) -> None:
    """Claimed jobs are queued again, and the next worker submits them once."""
    slow = Slow()
    slow.release.set()
    with ScriptedServer(slow) as upstream:
        bench = build(upstream.url)
        job_ids = bench.admitted(*voices(2))
        stopping = iter([False, True])

        done = stops(bench, lambda: next(stopping, True)).submit(Stage.VOICE, job_ids)

        assert done == SubmitResult()
        assert upstream.requests == []
        assert bench.state_history(job_ids[0]) == [State.QUEUED, State.ADMITTED, State.CHARGING, State.QUEUED]
        assert bench.submit(Stage.VOICE, bench.admit()[Stage.VOICE]).pending == job_ids
        assert len(upstream.requests) == 2


def test_a_message_in_a_stopping_process_affects_no_job_of_another_stage(build: Build) -> None:
    """Only jobs admitted to the stage of the message are queued again."""
    with ScriptedServer(Slow()) as upstream:
        bench = stops(build(upstream.url), lambda: True)
        first, second = job_ids = bench.admitted(*voices(2))

        assert bench.submit(Stage.MUSIC, job_ids) == SubmitResult()
        assert bench.states(job_ids) == [State.ADMITTED] * 2
        assert bench.submit(Stage.VOICE, [first, "gone"]) == SubmitResult()
        assert bench.states([first, second]) == [State.QUEUED, State.ADMITTED]
        assert upstream.requests == []


def test_jobs_that_were_not_polled_are_due_at_once_and_miss_no_deadline(build: Build) -> None:
    """A stopping process waits for the polls in flight and sends no others."""
    slow, stop = Slow(), threading.Event()
    slow.release.set()
    with ScriptedServer(slow) as upstream, ThreadPoolExecutor(1) as worker:
        bench = stops(build(upstream.url), stop.is_set)
        bench = replace(bench, services=replace(bench.services, deadlines=dict.fromkeys(Stage, POLL_S / 2)))
        job_ids = bench.submitted(*voices(2 * THREADS))
        upstream.requests.clear()
        slow.release.clear()
        bench.clock.now += POLL_S
        polling = worker.submit(bench.poll, job_ids)
        eventually(lambda: len(upstream.requests) == THREADS)
        stop.set()
        slow.release.set()
        done = polling.result()
        polls = len(upstream.requests)

    assert polls == THREADS
    assert bench.states(job_ids).count(State.FAILED) == THREADS
    [next_round] = done.rounds
    pending = [job_id for job_id in job_ids if bench.job(job_id).state is State.PENDING]
    assert next_round == PollRound(pending, 0.0, Stage.VOICE)
