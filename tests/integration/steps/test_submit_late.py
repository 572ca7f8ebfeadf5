"""Answers to a POST that come after its claim has run out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, repeat

from tasks import decisions
from tasks.submit import SubmitResult, submit_orders
from tests.conftest import eventually
from tests.integration.conftest import PATIENCE, POLL_S, Bench, Build, voice
from tests.support.scripted import HANG_UP, Request, Scripted, answer
from voicequeue import Stage, State
from voicequeue.domain.job import Move


class Held:
    """A script that answers the first request only when it is told to, all others at once."""

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


def give_up_silent_charges(bench: Bench) -> None:
    """What the pulse does when a charge's time has run out."""
    bench.clock.now += PATIENCE.charge_s + 1
    silent = bench.store.overdue(bench.clock.now, patience=0)
    moves = [decisions.lost(each.job_id, each.version, each.stage) for each in silent]
    assert bench.store.apply(moves, bench.clock.now) == [True]


def test_an_answer_that_comes_after_its_claim_ran_out_is_taken_all_the_same(build: Build) -> None:
    """The job went unsure meanwhile; its task id was paid for, so it is pending now, credits counted."""
    held = Held(answer({"task_id": "late task"}))
    with Scripted(held) as upstream, ThreadPoolExecutor(1) as worker:
        bench = build(upstream.url)
        [job_id] = bench.admitted(voice())
        submitted = worker.submit(bench.submit, Stage.VOICE, [job_id])
        eventually(lambda: upstream.requests)
        give_up_silent_charges(bench)
        assert bench.job(job_id).state is State.UNSURE
        held.released.set()
        assert submitted.result() == SubmitResult([job_id], poll_in_s=POLL_S)

    job = bench.job(job_id)
    assert (job.state, job.task_ids, job.credits) == (State.PENDING, {Stage.VOICE: "late task"}, 4)
    assert bench.store.timeline(job_id)[-1].reason == "the answer came late"
    assert (bench.store.credits(), bench.store.in_flight()) == (4, 1)
    assert len(bench.store.claim([job_id], Stage.VOICE, bench.clock.now + POLL_S, lease=1)) == 1


def test_an_answer_that_comes_after_a_person_ordered_again_is_counted(build: Build) -> None:
    """The newer order stands; the older one's task id is kept on the job, for it was paid too."""
    held = Held(answer({"task_id": "late task"}))
    with Scripted(held) as upstream, ThreadPoolExecutor(1) as worker:
        bench = build(upstream.url)
        [job_id] = bench.admitted(voice())
        submitted = worker.submit(bench.submit, Stage.VOICE, [job_id])
        eventually(lambda: upstream.requests)
        give_up_silent_charges(bench)
        to_be_ordered_again(bench, job_id)
        assert bench.submit(Stage.VOICE, [job_id]).pending == [job_id]
        held.released.set()
        assert submitted.result() == SubmitResult()

    job = bench.job(job_id)
    assert (job.state, job.task_ids, job.attempt) == (State.PENDING, {Stage.VOICE: "task 2"}, 2)
    assert (job.orders, job.credits, bench.store.credits()) == ({1: "late task", 2: "task 2"}, 8, 8)


def test_an_answer_that_comes_before_a_new_order_is_sent_is_taken_up(build: Build) -> None:
    """A person ordered it again, but nothing was sent yet: nothing is sent, and it is paid once."""
    held = Held(answer({"task_id": "late task"}))
    with Scripted(held) as upstream, ThreadPoolExecutor(1) as worker:
        bench = build(upstream.url)
        [job_id] = bench.admitted(voice())
        submitted = worker.submit(bench.submit, Stage.VOICE, [job_id])
        eventually(lambda: upstream.requests)
        give_up_silent_charges(bench)
        to_be_ordered_again(bench, job_id)
        held.released.set()
        assert submitted.result().pending == [job_id]
        assert bench.submit(Stage.VOICE, [job_id]) == SubmitResult()
        assert len(upstream.requests) == 1

    job = bench.job(job_id)
    assert (job.state, job.task_ids, job.credits) == (State.PENDING, {Stage.VOICE: "late task"}, 4)


def to_be_ordered_again(bench: Bench, job_id: str) -> None:
    """What a person does who knows that an unsure job was not charged."""
    job = bench.job(job_id)
    move = Move(job_id, job.version, State.UNSURE, job.stage, State.ADMITTED, due=bench.clock.now)
    assert bench.store.apply([move], bench.clock.now) == [True]


def test_a_late_answer_that_says_nothing_leaves_the_job_unsure(build: Build) -> None:
    """The connection broke after the claim had run out: nothing is known that was not known before."""
    held = Held(HANG_UP)
    with Scripted(held) as upstream, ThreadPoolExecutor(1) as worker:
        bench = build(upstream.url)
        [job_id] = bench.admitted(voice())
        submitted = worker.submit(bench.submit, Stage.VOICE, [job_id])
        eventually(lambda: upstream.requests)
        give_up_silent_charges(bench)
        held.released.set()
        assert submitted.result() == SubmitResult()

    assert bench.job(job_id).state is State.UNSURE
    assert bench.store.credits() == 0


def test_a_process_that_was_frozen_after_its_claim_sends_nothing(build: Build) -> None:
    """Somebody may have ordered again meanwhile: the late one leaves it, and the job goes back in line."""
    with Scripted(lambda _: [answer({"task_id": "never"})]) as upstream:
        bench = build(upstream.url)
        [job_id] = bench.admitted(voice())
        frozen = replace(bench.services, clock=Thawed(bench.clock.now, PATIENCE.charge_s))
        submit_orders(frozen, Stage.VOICE, [job_id])
        assert upstream.requests == []

    assert bench.job(job_id).state is State.QUEUED
    assert bench.store.controls.gate(bench.clock.now).open


class Thawed:
    """A clock that stands still for the first looks, and then has jumped: the claim was made before."""

    def __init__(self, now: float, jump_s: float) -> None:
        self._times = chain([now, now, now], repeat(now + jump_s))

    def __call__(self) -> float:
        return next(self._times)
