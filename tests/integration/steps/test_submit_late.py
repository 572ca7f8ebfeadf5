"""Answers to a POST that arrive after its claim has expired."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, repeat

from tasks import decisions
from tasks.submit import SubmitResult, submit_orders
from tests.conftest import eventually
from tests.integration.conftest import POLL_S, TIMEOUTS, Bench, Build, voice
from tests.support.scripted import HANG_UP, Request, ScriptedServer, answer
from voicequeue import Stage, State
from voicequeue.domain.job import Transition


class DelayedAnswer:
    """Script that delays the first response until it is released, and answers all others at once."""

    def __init__(self, late: bytes) -> None:
        self._late = late
        self._number = 0
        self.released = threading.Event()

    def __call__(self, _: Request) -> Iterator[bytes]:
        self._number += 1
        if self._number > 1:
            yield answer({"task_id": f"task {self._number}"})
            return
        self.released.wait(20)
        yield self._late


def expire_charges(bench: Bench) -> None:
    """Make unanswered charges unsure, as maintenance does when their lease has expired."""
    bench.clock.now += TIMEOUTS.submit_lease_s + 1
    overdue_jobs = bench.store.lease_overdue(bench.clock.now, overdue_s=0)
    transitions = [decisions.worker_died(job.job_id, job.version, job.stage) for job in overdue_jobs]
    assert bench.store.apply_transitions(transitions, bench.clock.now) == [True]


def test_an_answer_after_its_claim_expired_is_accepted(build: Build) -> None:
    """The job has become unsure; its task id was paid for, so it is pending again and its credits are counted."""
    script = DelayedAnswer(answer({"task_id": "late task"}))
    with ScriptedServer(script) as upstream, ThreadPoolExecutor(1) as worker:
        bench = build(upstream.url)
        [job_id] = bench.admitted(voice())
        submitted = worker.submit(bench.submit, Stage.VOICE, [job_id])
        eventually(lambda: upstream.requests)
        expire_charges(bench)
        assert bench.job(job_id).state is State.UNSURE
        script.released.set()
        assert submitted.result() == SubmitResult([job_id], poll_in_s=POLL_S)

    job = bench.job(job_id)
    assert (job.state, job.task_ids, job.credits) == (State.PENDING, {Stage.VOICE: "late task"}, 4)
    assert bench.store.timeline(job_id)[-1].reason == "late answer"
    assert (bench.store.credits_spent(), bench.store.count_in_flight()) == (4, 1)
    assert len(bench.store.claim_poll([job_id], bench.clock.now + POLL_S, lease_s=1)) == 1


def test_an_answer_after_a_resubmission_is_counted(build: Build) -> None:
    """The newer order continues; the older one was paid too, so its task id is kept on the job."""
    script = DelayedAnswer(answer({"task_id": "late task"}))
    with ScriptedServer(script) as upstream, ThreadPoolExecutor(1) as worker:
        bench = build(upstream.url)
        [job_id] = bench.admitted(voice())
        submitted = worker.submit(bench.submit, Stage.VOICE, [job_id])
        eventually(lambda: upstream.requests)
        expire_charges(bench)
        readmit(bench, job_id)
        assert bench.submit(Stage.VOICE, [job_id]).pending == [job_id]
        script.released.set()
        assert submitted.result() == SubmitResult()

    job = bench.job(job_id)
    assert (job.state, job.task_ids, job.attempt) == (State.PENDING, {Stage.VOICE: "task 2"}, 2)
    assert (job.charged_task_ids, job.credits, bench.store.credits_spent()) == ({1: "late task", 2: "task 2"}, 8, 8)


def test_an_answer_before_the_new_order_is_sent_continues_the_job(build: Build) -> None:
    """An operator has resubmitted the job, but its POST was not sent yet.

    It is never sent, and the job is paid once.
    """
    script = DelayedAnswer(answer({"task_id": "late task"}))
    with ScriptedServer(script) as upstream, ThreadPoolExecutor(1) as worker:
        bench = build(upstream.url)
        [job_id] = bench.admitted(voice())
        submitted = worker.submit(bench.submit, Stage.VOICE, [job_id])
        eventually(lambda: upstream.requests)
        expire_charges(bench)
        readmit(bench, job_id)
        script.released.set()
        assert submitted.result().pending == [job_id]
        assert bench.submit(Stage.VOICE, [job_id]) == SubmitResult()
        assert len(upstream.requests) == 1

    job = bench.job(job_id)
    assert (job.state, job.task_ids, job.credits) == (State.PENDING, {Stage.VOICE: "late task"}, 4)


def readmit(bench: Bench, job_id: str) -> None:
    """Admit an unsure job again, as an operator does who knows that it was not charged."""
    job = bench.job(job_id)
    transition = Transition(job_id, job.version, State.UNSURE, job.stage, State.ADMITTED, due=bench.clock.now)
    assert bench.store.apply_transitions([transition], bench.clock.now) == [True]


def test_a_late_answer_that_says_nothing_leaves_the_job_unsure(build: Build) -> None:
    """The connection was lost after the claim had expired, so the charge stays unknown."""
    script = DelayedAnswer(HANG_UP)
    with ScriptedServer(script) as upstream, ThreadPoolExecutor(1) as worker:
        bench = build(upstream.url)
        [job_id] = bench.admitted(voice())
        submitted = worker.submit(bench.submit, Stage.VOICE, [job_id])
        eventually(lambda: upstream.requests)
        expire_charges(bench)
        script.released.set()
        assert submitted.result() == SubmitResult()

    assert bench.job(job_id).state is State.UNSURE
    assert bench.store.credits_spent() == 0


def test_a_process_that_was_suspended_after_its_claim_sends_nothing(build: Build) -> None:
    """An operator may have resubmitted the job meanwhile, so it is queued again instead."""
    with ScriptedServer(lambda _: [answer({"task_id": "never"})]) as upstream:
        bench = build(upstream.url)
        [job_id] = bench.admitted(voice())
        suspended = replace(bench.services, clock=SuspendedClock(bench.clock.now, TIMEOUTS.submit_lease_s))
        submit_orders(suspended, Stage.VOICE, [job_id])
        assert upstream.requests == []

    assert bench.job(job_id).state is State.QUEUED
    assert bench.store.flow_control.gate(bench.clock.now).is_open


class SuspendedClock:
    """Clock that returns one time three times, and then a later one: the process was suspended after its claim."""

    def __init__(self, now: float, jump_s: float) -> None:
        self._times = chain([now, now, now], repeat(now + jump_s))

    def __call__(self) -> float:
        return next(self._times)
