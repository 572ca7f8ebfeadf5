"""The steps of a process that is stopping: what is on its way is finished, the rest goes to others at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tasks.poll import PollRound
from tasks.submit import SubmitResult
from tests.conftest import eventually
from tests.integration.conftest import POLL_S, THREADS, Bench, Build, voices
from tests.support.scripted import Request, Scripted, answer
from voicequeue import Stage, State


class Slow:
    """An upstream that answers when the test says so."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def __call__(self, request: Request) -> Iterator[bytes]:
        """Take an order, or say that it is not ready."""
        self.release.wait(20)
        yield answer({"task_id": "any"} if request.method == "POST" else {"status": "running"})


def stops(bench: Bench, when: Callable[[], bool]) -> Bench:
    """The same worker, which stops then."""
    return replace(bench, services=replace(bench.services, stopping=when))


def test_what_is_not_begun_is_queued_again_while_posts_are_on_their_way(build: Build) -> None:
    """Other workers need not wait for those answers; they come, and are written."""
    slow, stop = Slow(), threading.Event()
    with Scripted(slow) as upstream, ThreadPoolExecutor(1) as worker:
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
    """What was claimed is queued again, and the next worker orders it once."""
    slow = Slow()
    slow.release.set()
    with Scripted(slow) as upstream:
        bench = build(upstream.url)
        job_ids = bench.admitted(*voices(2))
        stopping = iter([False, True])

        done = stops(bench, lambda: next(stopping, True)).submit(Stage.VOICE, job_ids)

        assert done == SubmitResult()
        assert upstream.requests == []
        assert bench.story(job_ids[0]) == [State.QUEUED, State.ADMITTED, State.CHARGING, State.QUEUED]
        assert bench.submit(Stage.VOICE, bench.admit()[Stage.VOICE]).pending == job_ids
        assert len(upstream.requests) == 2


def test_a_message_that_reaches_a_stopping_process_touches_no_job_of_another_stage(build: Build) -> None:
    """Only what is admitted to its stage goes back."""
    with Scripted(Slow()) as upstream:
        bench = stops(build(upstream.url), lambda: True)
        first, second = job_ids = bench.admitted(*voices(2))

        assert bench.submit(Stage.MUSIC, job_ids) == SubmitResult()
        assert bench.states(job_ids) == [State.ADMITTED] * 2
        assert bench.submit(Stage.VOICE, [first, "gone"]) == SubmitResult()
        assert bench.states([first, second]) == [State.QUEUED, State.ADMITTED]
        assert upstream.requests == []


def test_what_was_not_asked_about_is_due_at_once_and_fails_of_no_deadline(build: Build) -> None:
    """A stopping process waits for the polls on their way, and begins no others."""
    slow, stop = Slow(), threading.Event()
    slow.release.set()
    with Scripted(slow) as upstream, ThreadPoolExecutor(1) as worker:
        bench = stops(build(upstream.url), stop.is_set)
        bench = replace(bench, services=replace(bench.services, deadlines=dict.fromkeys(Stage, POLL_S / 2)))
        job_ids = bench.ordered(*voices(2 * THREADS))
        upstream.requests.clear()
        slow.release.clear()
        bench.clock.now += POLL_S
        polling = worker.submit(bench.poll, Stage.VOICE, job_ids)
        eventually(lambda: len(upstream.requests) == THREADS)
        stop.set()
        slow.release.set()
        done = polling.result()
        asked = len(upstream.requests)

    assert asked == THREADS
    assert bench.states(job_ids).count(State.FAILED) == THREADS
    [again] = done.rounds
    assert again == PollRound([job_id for job_id in job_ids if bench.job(job_id).state is State.PENDING], 0.0)
