"""Submission of orders, and what makes each of them happen once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from random import Random

import pytest

from simulator.process import Simulator
from tasks import decisions
from tasks.submit import WAITED_S, SubmitResult, fill_up, submit_orders
from tests.conftest import eventually
from tests.integration.conftest import (
    POLL_S,
    SONG,
    THREADS,
    Bench,
    Build,
    audio_of,
    charges_match,
    voice,
    voices,
)
from tests.support.losing import lossy_proxy
from tests.support.scripted import Request, ScriptedServer, answer
from voicequeue import Limits, Stage, State, VoiceJob
from voicequeue.domain.poll_schedule import PollSchedulePolicy
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore

MANY = Limits(in_flight=1000, initial_in_flight=1000)


def charges(simulator: Simulator) -> list[tuple[str, str]]:
    """Return the kind and subject of every charge."""
    return [(charge["kind"], charge["subject"]) for charge in simulator.ledger()["charges"]]


# ── jobs that wait for a process ───────────────────────────────────────────────────────────────


def test_a_process_takes_the_jobs_that_wait_as_long_as_it_can_send_their_orders_at_once(
    bench: Bench, simulator: Simulator
) -> None:
    """Jobs that arrive one by one share the time of slow answers. The message of each finds nothing left to do."""
    job_ids = bench.admitted(*voices(2 * THREADS - 1))
    last = job_ids[-1]
    assert fill_up(bench.services, Stage.VOICE, [last]) == [last]
    bench.clock.now += WAITED_S + 0.1
    assert fill_up(bench.services, Stage.MUSIC, []) == []

    chunk = fill_up(bench.services, Stage.VOICE, [last])

    assert (chunk[0], len(chunk), len(set(chunk))) == (last, THREADS, THREADS)
    assert bench.submit(Stage.VOICE, chunk).pending == chunk
    rest = fill_up(bench.services, Stage.VOICE, [chunk[1]])
    assert bench.submit(Stage.VOICE, rest).pending == [job_id for job_id in rest if job_id not in chunk]
    assert sorted([*chunk, *rest[1:]]) == sorted(job_ids)
    assert len(charges(simulator)) == len(job_ids)
    assert charges_match(bench, simulator)


def test_a_process_that_stops_takes_no_further_jobs(bench: Bench) -> None:
    """Others have time to send their orders."""
    job_ids = bench.admitted(*voices(2))
    bench.clock.now += WAITED_S + 0.1
    stopping = replace(bench.services, is_stopping=lambda: True)

    assert fill_up(stopping, Stage.VOICE, job_ids[:1]) == job_ids[:1]


# ── without errors ─────────────────────────────────────────────────────────────────────────────


def test_a_job_goes_all_the_way_from_recording_to_songs(bench: Bench, simulator: Simulator) -> None:
    """Each step leads to the next; 19 credits are spent and counted."""
    job_id = voice().job_id()

    assert bench.submitted(voice()) == [job_id]
    assert bench.poll_when_due([job_id]).to_music == [job_id]
    assert bench.submit(Stage.MUSIC, [job_id]) == SubmitResult([job_id], poll_in_s=POLL_S)
    done = bench.poll_when_due([job_id])

    job = bench.job(job_id)
    assert (done.rounds, done.to_music) == ([], [])
    assert (job.state, job.credits, job.voice_name, len(job.clips)) == (State.SUCCEEDED, 19, "Anna", 2)
    assert charges(simulator) == [("voice", "https://recordings.example/anna.mp3"), ("music", job.persona_id)]
    assert {charge["task_id"] for charge in simulator.ledger()["charges"]} == set(job.task_ids.values())
    assert bench.state_history(job_id) == [
        State.QUEUED,
        State.ADMITTED,
        State.CHARGING,
        State.PENDING,
        State.ADMITTED,
        State.CHARGING,
        State.PENDING,
        State.SUCCEEDED,
    ]
    assert charges_match(bench, simulator)
    assert bench.store.count_in_flight() == 0


def test_a_job_with_a_persona_goes_to_its_song_at_once(bench: Bench, simulator: Simulator) -> None:
    """No voice is created or paid for."""
    spec = VoiceJob(persona_id="p1", song=SONG)
    [job_id] = bench.submitted(spec)

    bench.poll_when_due([job_id])

    assert bench.job(job_id).state is State.SUCCEEDED
    assert charges(simulator) == [("music", "p1")]
    assert charges_match(bench, simulator)


def test_an_accepted_order_is_due_when_its_poll_is(bench: Bench) -> None:
    """The countdown of the message equals the due time of the record."""
    [job_id] = bench.admitted(voice())

    assert bench.submit(Stage.VOICE, [job_id]) == SubmitResult([job_id], poll_in_s=POLL_S)

    assert bench.store.claim_poll([job_id], bench.clock.now + POLL_S - 1, lease_s=1) == []
    assert bench.store.claim_poll([job_id], bench.clock.now + POLL_S, lease_s=1) != []


def test_orders_that_are_polled_together_share_one_delay(bench: Bench) -> None:
    """They share one jitter value; otherwise the earliest of many draws would decide for all."""
    plan = PollSchedulePolicy(10, 20, Random(7))
    drawn = replace(bench, services=replace(bench.services, poll_plan=plan))
    job_ids = drawn.admitted(*voices(12))

    assert drawn.submit(Stage.VOICE, job_ids).poll_in_s == pytest.approx(10 + 10 * Random(7).random())


def test_a_task_id_is_written_before_the_rest_of_its_chunk_is_answered(build: Build) -> None:
    """A worker that dies now loses nothing that was paid for."""
    first, second = voice("first"), voice("second")
    stored_in_time: list[bool] = []

    def in_order(request: Request) -> Iterator[bytes]:
        if audio_of(request) == "second":
            eventually(lambda: bench.job(first.job_id()).state is State.PENDING)
            stored_in_time.append(bench.job(first.job_id()).task_ids == {Stage.VOICE: "task of first"})
        yield answer({"task_id": f"task of {audio_of(request)}"})

    with ScriptedServer(in_order) as upstream:
        bench = build(upstream.url)
        bench.submitted(first, second)

    assert stored_in_time == [True]


def test_an_order_is_polled_on_time_while_others_of_its_chunk_are_still_unanswered(build: Build) -> None:
    """One slow answer delays no result: the first poll of each other order is handed out when it is due."""
    first, second = voice("first"), voice("second")
    polled: list[str] = []

    def in_order(request: Request) -> Iterator[bytes]:
        if audio_of(request) == "second":
            eventually(lambda: polled == [first.job_id()], within_s=5)
        yield answer({"task_id": f"task of {audio_of(request)}"})

    with ScriptedServer(in_order) as upstream:
        bench = build(upstream.url)
        job_ids = bench.admitted(first, second)
        services = replace(bench.services, poll_plan=PollSchedulePolicy(0.05, 0.05), clock=time.time)
        done = submit_orders(services, Stage.VOICE, job_ids, poll=polled.extend)

    assert (polled, done.pending) == ([first.job_id()], [second.job_id()])


def test_the_orders_of_a_chunk_are_with_upstream_at_the_same_time(build: Build) -> None:
    """As many requests as there are threads arrive before any is answered."""
    all_there = threading.Barrier(THREADS, timeout=20)

    def together(request: Request) -> Iterator[bytes]:
        all_there.wait()
        yield answer({"task_id": f"task of {audio_of(request)}"})

    with ScriptedServer(together) as upstream:
        bench = build(upstream.url)
        job_ids = bench.submitted(*voices(2 * THREADS))

    assert [bench.job(job_id).task_ids[Stage.VOICE] for job_id in job_ids] == [
        f"task of voice-{number}" for number in range(2 * THREADS)
    ]


# ── once ───────────────────────────────────────────────────────────────────────────────────────


def test_a_message_that_comes_again_finds_nothing_to_do(bench: Bench, simulator: Simulator) -> None:
    """Each job is charged once, whether it is repeated in a chunk, in a second message or in a message of the other
    stage."""
    first, second = job_ids = bench.admitted(*voices(2))

    assert bench.submit(Stage.MUSIC, job_ids) == SubmitResult()
    done = bench.submit(Stage.VOICE, [first, second, first, "unknown"])
    assert bench.submit(Stage.VOICE, job_ids) == SubmitResult()

    assert sorted(done.pending) == sorted(job_ids)
    assert len(charges(simulator)) == 2
    assert charges_match(bench, simulator)


def test_two_workers_with_the_same_chunk_charge_each_job_once(bench: Bench, simulator: Simulator) -> None:
    """Each job is claimed by one worker, which also polls it."""
    job_ids = bench.admitted(*voices(12))
    both_ready = threading.Barrier(2)

    def work() -> SubmitResult:
        both_ready.wait()
        return bench.submit(Stage.VOICE, job_ids)

    with ThreadPoolExecutor(2) as workers:
        outcomes = [future.result() for future in [workers.submit(work), workers.submit(work)]]

    assert sorted(outcomes[0].pending + outcomes[1].pending) == sorted(job_ids)
    assert len(charges(simulator)) == 12
    assert charges_match(bench, simulator)


def test_an_order_whose_answer_was_lost_is_unsure_and_never_sent_again(bench: Bench, simulator: Simulator) -> None:
    """The ledger shows the charge, and a repeated message has no effect."""
    simulator.set_dials(post_faults={"reset_after": 1})
    job_ids = bench.admitted(*voices(3))

    first = bench.submit(Stage.VOICE, job_ids)
    simulator.set_dials(post_faults={})
    again = bench.submit(Stage.VOICE, job_ids)

    assert first == again == SubmitResult()
    assert bench.states(job_ids) == [State.UNSURE] * 3
    assert len(charges(simulator)) == 3
    assert simulator.ledger()["double_charges"] == []
    assert (bench.store.credits_spent(), bench.store.count_in_flight()) == (0, 0)
    assert bench.store.flow_control.gate(bench.clock.now).is_open
    assert bench.admit() == {}


def test_a_job_whose_claim_reply_was_lost_is_submitted_again_though_it_became_unsure(
    bench: Bench, simulator: Simulator, valkey_url: str, prefix: str
) -> None:
    """Redis was unavailable for longer than the lease. The worker without a claim has sent nothing."""
    [first, job_id] = bench.admitted(voice("first"), voice())
    bench.submit(Stage.VOICE, [first])  # Redis has loaded the scripts

    def expire_claim() -> None:
        job = bench.job(job_id)
        assert bench.store.apply_transitions(
            [decisions.worker_died(job_id, job.version, Stage.VOICE)], bench.clock.now
        ) == [True]

    with lossy_proxy(valkey_url) as way, closing(connect(way.url)) as client:
        cut_off = replace(bench, services=replace(bench.services, store=JobStore(client, prefix, limits=MANY)))
        way.drop_reply_to(job_id, expire_claim)
        done = cut_off.submit(Stage.VOICE, [job_id])

    assert way.dropped == 1
    assert done == SubmitResult(deferred=[job_id])
    assert charges(simulator) == [("voice", "https://recordings.example/first.mp3")]
    assert bench.submit(Stage.VOICE, [job_id]).pending == [job_id]
    assert bench.state_history(job_id)[2:] == [
        State.CHARGING,
        State.UNSURE,
        State.ADMITTED,
        State.CHARGING,
        State.PENDING,
    ]
    assert charges_match(bench, simulator)


# ── beside a newer release ────────────────────────────────────────────────────────────────────


def test_a_job_with_content_of_a_newer_release_is_left_to_its_workers(bench: Bench, simulator: Simulator) -> None:
    """An order without the content that this release does not know would be paid, and not be what was asked for."""
    job_id, other = bench.admitted(*voices(2))
    record = bench.store._space.key(f"job:{job_id}")
    content = json.loads(str(bench.store._redis.hget(record, "spec")))
    bench.store._redis.hset(record, "spec", json.dumps({**content, "newer": True}))

    assert bench.submit(Stage.VOICE, [job_id, other]).pending == [other]

    assert bench.states([job_id, other]) == [State.QUEUED, State.PENDING]
    assert bench.store.timeline(job_id)[-1].reason == decisions.NEWER_RELEASE
    assert bench.admit() == {}  # it rests, so that its slot is free for others
    bench.clock.now += decisions.NEWER_RELEASE_REST_S
    bench.store._redis.hset(record, "spec", json.dumps(content))  # a worker of that release understands it
    assert bench.submit(Stage.VOICE, bench.admit()[Stage.VOICE]).pending == [job_id]
    assert charges_match(bench, simulator)
