"""Submission of orders that fail: one job at a time, for all jobs, and without Redis."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from simulator.process import Simulator
from tasks import decisions
from tasks.submit import SubmitResult
from tests.integration.conftest import (
    POLL_S,
    TIMEOUTS,
    Bench,
    Build,
    audio_of,
    charges_match,
    voice,
    voices,
)
from tests.support.rights import url_with_rights
from tests.support.scripted import HANG_UP, ScriptedServer, answer
from voicequeue import Limits, Stage, State
from voicequeue.domain.gate import Hold, HoldReason
from voicequeue.domain.states import FailureCode
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.refusals import RedisRefusalError
from voicequeue.storage.job_store import JobStore

MANY = Limits(in_flight=1000, initial_in_flight=1000)


def charges(simulator: Simulator) -> list[tuple[str, str]]:
    """Return the kind and subject of every charge."""
    return [(charge["kind"], charge["subject"]) for charge in simulator.ledger()["charges"]]


# ── errors of one job ──────────────────────────────────────────────────────────────────────────

ANSWERS = {
    "fine": answer({"task_id": "t1"}),
    "refused": answer({"error": "The audio is too short."}, status="400 Bad Request"),
    "moderated": answer({"error": "The audio contains inappropriate content: hate."}, status="403 Forbidden"),
    "lost": HANG_UP,
    "unreadable": answer("OK"),
    "also-fine": answer({"data": {"task_id": "t2"}}),
}


def test_the_error_of_one_job_does_not_affect_others_of_its_chunk(build: Build) -> None:
    """Each job of a chunk has its own outcome and is sent once."""
    specs = [voice(name) for name in ANSWERS]
    with ScriptedServer(lambda request: [ANSWERS[audio_of(request)]]) as upstream:
        bench = build(upstream.url)
        job_ids = bench.admitted(*specs)
        done = bench.submit(Stage.VOICE, job_ids)

    assert dict(zip(ANSWERS, bench.states(job_ids), strict=True)) == {
        "fine": State.PENDING,
        "refused": State.FAILED,
        "moderated": State.FAILED,
        "lost": State.UNSURE,
        "unreadable": State.UNSURE,
        "also-fine": State.PENDING,
    }
    assert done.pending == [job_ids[0], job_ids[-1]]
    assert sorted(audio_of(request) for request in upstream.requests) == sorted(ANSWERS)
    assert bench.store.credits_spent() == 2 * 4


def test_a_refused_job_has_failed_with_upstreams_words(build: Build) -> None:
    """The failure contains code, stage and message; nothing was paid."""
    refused, moderated = voice("refused"), voice("moderated")
    with ScriptedServer(lambda request: [ANSWERS[audio_of(request)]]) as upstream:
        bench = build(upstream.url)
        bench.submit(Stage.VOICE, bench.admitted(refused, moderated))

    failures = [bench.job(spec.job_id()).failure for spec in (refused, moderated)]
    assert [failure and (failure.code, failure.stage, failure.message) for failure in failures] == [
        (FailureCode.REFUSED, Stage.VOICE, "The audio is too short."),
        (FailureCode.MODERATED, Stage.VOICE, "The audio contains inappropriate content: hate."),
    ]
    assert bench.job(refused.job_id()).settled_at == bench.clock.now
    assert bench.store.flow_control.gate(bench.clock.now).is_open


def test_an_unreadable_record_does_not_affect_others_of_its_chunk(
    bench: Bench, simulator: Simulator, valkey_url: str, prefix: str
) -> None:
    """The defect is logged and deferred to maintenance; nothing is sent for the job."""
    first, spoilt, last = job_ids = bench.admitted(*voices(3))
    with connect(valkey_url) as redis:
        redis.hset(f"{{{prefix}}}:job:{spoilt}", "spec", "{")

    assert bench.submit(Stage.VOICE, job_ids).pending == [first, last]

    assert len(charges(simulator)) == 2
    assert charges_match(bench, simulator)


# ── errors for all jobs ────────────────────────────────────────────────────────────────────────


def wait(bench: Bench, seconds: float) -> None:
    """Advance the time."""
    bench.clock.now += seconds


def request_balance(bench: Bench, _: float) -> None:
    """Request the balance, as maintenance does every minute."""
    now, spent = bench.clock.now, bench.store.credits_spent()
    bench.store.flow_control.record_balance(
        bench.services.upstream.get_credits(), spent_before=spent, requested_at=now, now=now
    )


def resume(bench: Bench, _: float) -> None:
    """Resume after the key was replaced."""
    bench.store.flow_control.resume(bench.clock.now)


#: Dials, the reason of the hold, its duration in seconds, and what ends it.
CLOSINGS: dict[str, tuple[dict[str, object], str, float | None, Callable[[Bench, float], None]]] = {
    "429": ({"concurrency": 0}, "cooldown", TIMEOUTS.cooldown_s, wait),
    "429 with Retry-After": ({"concurrency": 0, "retry_after": 30}, "cooldown", 30, wait),
    "no credits": ({"credits": 3}, "out_of_credits", TIMEOUTS.cooldown_s, request_balance),
    "no subscription": ({"subscription": False}, "out_of_credits", TIMEOUTS.cooldown_s, request_balance),
    "a wrong key": ({"api_key": "another key"}, "unauthorized", None, resume),
}


@pytest.mark.parametrize(("dials", "reason", "for_s", "end"), CLOSINGS.values(), ids=CLOSINGS)
def test_an_error_for_all_jobs_closes_the_gate_and_fails_no_job(
    bench: Bench,
    simulator: Simulator,
    dials: dict[str, object],
    reason: str,
    for_s: float | None,
    end: Callable[[Bench, float], None],
) -> None:
    """The jobs are queued again, and are charged once when the hold has ended."""
    before = simulator.dials()
    simulator.set_dials(**dials)
    job_ids = bench.admitted(*voices(2))

    assert bench.submit(Stage.VOICE, job_ids) == SubmitResult()

    now = bench.clock.now
    [hold] = bench.store.flow_control.gate(now).holds
    for job in map(bench.job, job_ids):
        assert (job.state, job.failure, job.credits) == (State.QUEUED, None, 0)
    assert bench.store.count_in_flight() == 0
    assert (hold.reason, hold.since, hold.until) == (reason, now, for_s and now + for_s)
    assert any(f"(job {job_id})" in hold.detail for job_id in job_ids)
    assert bench.admit() == {}
    bench.clock.now += 1e6 if for_s is None else for_s - 0.01
    assert bench.admit() == {}

    simulator.set_dials(**before)
    end(bench, 0.01)
    bench.clock.now += TIMEOUTS.account_hold_s
    pending = [job_id for _ in job_ids for job_id in bench.submit(Stage.VOICE, _admitted(bench)).pending]
    assert pending  # after "slow down" only one is sent at once
    assert bench.store.flow_control.gate(bench.clock.now).is_open
    assert len(charges(simulator)) == len(pending)
    assert charges_match(bench, simulator)


def _admitted(bench: Bench) -> list[str]:
    """Return the voices that may be submitted now."""
    return bench.admit().get(Stage.VOICE, [])


def test_an_upstream_that_is_away_closes_the_gate_for_a_while(bench: Bench, build: Build, simulator: Simulator) -> None:
    """A refused connection is not charged, and the job returns to the backlog.

    After five in a row the gate closes, and one job is tried later.
    """
    with ScriptedServer(lambda _: []) as stopped:
        pass
    away = replace(bench, services=replace(bench.services, upstream=build(stopped.url).services.upstream))
    job_ids = away.admitted(*voices(5))

    away.submit(Stage.VOICE, job_ids[:4])
    assert bench.states(job_ids) == [State.QUEUED] * 4 + [State.ADMITTED]
    assert bench.store.flow_control.gate(bench.clock.now).is_open
    away.submit(Stage.VOICE, job_ids[4:])

    [hold] = bench.store.flow_control.gate(bench.clock.now).holds
    assert bench.states(job_ids) == [State.QUEUED] * 5
    assert (hold.reason, hold.detail) == ("upstream_down", f"no connection (job {job_ids[4]})")
    assert bench.admit() == {}
    bench.clock.now += TIMEOUTS.cooldown_s
    assert bench.submit(Stage.VOICE, bench.admit()[Stage.VOICE]).pending == job_ids[:1]
    assert bench.submit(Stage.VOICE, bench.admit()[Stage.VOICE]).pending == job_ids[1:]
    assert charges_match(bench, simulator)


def test_behind_a_closed_gate_nothing_is_sent(bench: Bench, simulator: Simulator) -> None:
    """Jobs that were admitted earlier return to the backlog in their order."""
    job_ids = bench.admitted(*voices(5))
    bench.store.flow_control.add_hold("paused", "by an operator", bench.clock.now)

    assert bench.submit(Stage.VOICE, job_ids) == SubmitResult()

    assert bench.states(job_ids) == [State.QUEUED] * 5
    assert simulator.ledger()["calls"]["create_voice"] == 0
    assert list(bench.store.list_ids(state=State.QUEUED)) == job_ids
    assert bench.store.count_in_flight() == 0


def test_a_limit_that_is_reached_within_a_chunk_holds_back_the_rest(bench: Bench, simulator: Simulator) -> None:
    """Accepted orders are pending, the others are queued again; none fails or is paid twice."""
    simulator.set_dials(concurrency=2, voice_s=60)
    job_ids = bench.admitted(*(voice(f"voice-{number}", song=None) for number in range(8)))

    done = bench.submit(Stage.VOICE, job_ids)

    states = bench.states(job_ids)
    assert (states.count(State.PENDING), states.count(State.QUEUED), len(done.pending)) == (2, 6, 2)
    assert bench.store.flow_control.in_flight_limit().limit in (1, 2)
    simulator.set_dials(concurrency=None, voice_s=0)
    for charge in simulator.ledger()["charges"]:
        simulator.complete_task(charge["task_id"])
    for _ in range(8):
        bench.clock.now += POLL_S
        bench.poll(job_ids)
        bench.submit(Stage.VOICE, bench.admit().get(Stage.VOICE, []))
    assert bench.states(job_ids) == [State.SUCCEEDED] * 8
    assert len(charges(simulator)) == 8
    assert charges_match(bench, simulator)


def test_jobs_beyond_the_time_limit_stay_admitted(bench: Bench, simulator: Simulator) -> None:
    """A task that reaches its time limit defers the remaining jobs, and nothing was sent for them."""
    job_ids = bench.admitted(*voices(3))

    assert bench.with_timeouts(submit_s=-1).submit(Stage.VOICE, job_ids) == SubmitResult(deferred=job_ids)

    assert bench.states(job_ids) == [State.ADMITTED] * 3
    assert simulator.ledger()["calls"]["create_voice"] == 0
    assert bench.submit(Stage.VOICE, job_ids).pending == job_ids


# ── Redis refuses writes ───────────────────────────────────────────────────────────────────────


def test_an_answer_is_written_though_its_health_report_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The order was paid for, so its task id is stored and logged."""

    def refuse(*_: object) -> None:
        raise RedisRefusalError("OOM command not allowed")

    monkeypatch.setattr(bench.services.health, "report_order", refuse)
    [job_id] = bench.admitted(voice())

    with caplog.at_level(logging.INFO, "voicequeue"):
        assert bench.submit(Stage.VOICE, [job_id]).pending == [job_id]

    task_id = bench.job(job_id).task_ids[Stage.VOICE]
    assert [vars(record)["task_id"] for record in caplog.records if record.message == "submitted"] == [task_id]


# ── Redis that fails over ──────────────────────────────────────────────────────────────────────


def unreplicated_hold(bench: Bench) -> Hold:
    """Return the hold, which has a time at which an order is tried."""
    hold = bench.store.flow_control.gate(bench.clock.now).hold_for(HoldReason.UNREPLICATED)
    assert hold is not None
    return hold


def test_nothing_is_sent_until_replicas_have_recorded_the_claim(
    bench: Bench, simulator: Simulator, valkey_url: str, prefix: str
) -> None:
    """This Redis has no replica: the job is queued again, the gate says why, and a failover can forget no charge. It is
    tried the more rarely the longer this lasts. The next time without replicas counts from its own start."""
    with connect(url_with_rights(valkey_url, "worker", prefix)) as client:
        store = JobStore(client, prefix, limits=MANY, replicas_ack=1)
        careful = replace(bench, services=replace(bench.services, store=store))
        [job_id] = bench.admitted(voice())

        done = careful.submit(Stage.VOICE, [job_id])

        assert done == SubmitResult()
        assert simulator.ledger()["charges"] == []
        assert careful.job(job_id).state is State.QUEUED
        assert careful.store.timeline(job_id)[-1].reason == decisions.UNREPLICATED
        hold = unreplicated_hold(careful)
        careful.clock.now = hold.since + 40
        careful.admit()
        careful.submit(Stage.VOICE, [job_id])
        hold = unreplicated_hold(careful)
        assert hold.until == pytest.approx(careful.clock.now + 20, abs=1)
        careful.clock.now += 21
        careful.admit()
        store._space.replicas_ack = 0  # as if a replica were back
        assert careful.submit(Stage.VOICE, [job_id]).pending == [job_id]
        store._space.replicas_ack = 1
        careful.submit(Stage.VOICE, bench.admitted(voice("next")))
        hold = unreplicated_hold(careful)
        assert hold.until == pytest.approx(careful.clock.now + bench.services.timeouts.cooldown_s, abs=1)
