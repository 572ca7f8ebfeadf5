"""Refusals that may apply to all orders: those of one job never stop the others."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Bench, Build, audio_of, voice
from tests.support.scripted import Request, Script, ScriptedServer, answer
from voicequeue import FailureCode, Stage, State
from voicequeue.domain.gate import HoldReason

#: Refusals of one job by upstream or a proxy: status line, body, headers, and the message that is kept.
REFUSALS = {
    "no such persona": ("404 Not Found", {"error": "persona not found"}, [], "HTTP 404: persona not found"),
    "a firewall's page": ("403 Forbidden", "<html>no</html>", [], "HTTP 403 without a readable text"),
    "too large": ("413 Too Large", "<html>no</html>", [], "HTTP 413 without a readable text"),
    "unknown words": ("403 Forbidden", {"error": "This is not for you."}, [], "This is not for you."),
    "the model": (
        "403 Forbidden",
        {"error": "Your subscription does not include the model sonic-v9."},
        [],
        "Your subscription does not include the model sonic-v9.",
    ),
    "payment": ("402 Payment Required", {"error": "Pay for this one."}, [], "Pay for this one."),
    "the key": ("401 Unauthorized", {"error": "Not your persona."}, [], "Not your persona."),
    "busy": ("429 Too Many", {"error": "This persona is busy"}, ["Retry-After: 1000000000"], "This persona is busy"),
}


def refuses(refusal: str, *names: str) -> Script:
    """Return the script of an upstream that refuses the voices with these names and accepts any other."""
    status, body, headers, _ = REFUSALS[refusal]

    def script(request: Request) -> list[bytes]:
        if request.method == "GET":
            return [answer({"type": "not_ready"})]
        if audio_of(request) in names:
            return [answer(body, status=status, headers=headers)]
        return [answer({"task_id": f"task-{audio_of(request)}"})]

    return script


def beat(bench: Bench, seconds: float = 1.0) -> list[str]:
    """Advance the time and submit the jobs that are admitted then, one by one."""
    bench.clock.now += seconds
    job_ids = bench.admit().get(Stage.VOICE, [])
    for job_id in job_ids:
        bench.submit(Stage.VOICE, [job_id])
    return job_ids


@pytest.mark.endurance
@pytest.mark.parametrize("refusal", REFUSALS)
def test_one_job_that_upstream_refuses_does_not_hold_the_others_up(build: Build, refusal: str) -> None:
    """Twenty others are submitted within six seconds.

    The refused job is tried a few times, is listed meanwhile, and fails with upstream's message.
    """
    with ScriptedServer(refuses(refusal, "poison")) as upstream:
        bench = build(upstream.url)
        bench.store.flow_control.record_balance(
            10_000, spent_before=0, requested_at=bench.clock.now, now=bench.clock.now
        )
        bench.store.flow_control.set_limits(in_flight=500)
        poison, *good = bench.admitted(voice("poison"), *(voice(f"good-{n}") for n in range(20)))
        bench.submit(Stage.VOICE, [poison])
        [hold] = bench.store.flow_control.gate(bench.clock.now).holds
        assert f"(job {poison})" in hold.detail
        bench.submit(Stage.VOICE, good)
        for _ in range(6):  # a cooldown takes five seconds
            beat(bench)
        assert bench.states(good) == [State.PENDING] * 20

        seconds, is_named = 0, False
        while bench.job(poison).state is not State.FAILED:
            seconds += 10
            assert seconds < 3_600
            more = voice(f"more-{seconds}")
            bench.store.enqueue([(more.job_id(), more)], bench.clock.now)
            beat(bench, 10)
            is_named |= [job.job_id for job in bench.store.flow_control.refused_jobs()] == [poison]

    failure = bench.job(poison).failure
    assert failure is not None
    assert (failure.code, failure.message) == (FailureCode.REFUSED, REFUSALS[refusal][-1])
    assert is_named
    posts = [audio_of(request) for request in upstream.requests if request.method == "POST"]
    assert posts.count("poison") <= 10


def test_an_account_that_is_forbidden_fails_no_job(build: Build) -> None:
    """Jobs are tried one by one, at growing intervals, and all are submitted when access is restored."""
    names = [f"v{n}" for n in range(5)]
    with ScriptedServer(refuses("unknown words", *names)) as upstream:
        bench = build(upstream.url)
        job_ids = bench.admitted(*map(voice, names))
        bench.submit(Stage.VOICE, job_ids)
        for _ in range(600):
            beat(bench)

        posts = len(upstream.requests)
        assert bench.store.flow_control.gate(bench.clock.now).hold_for(HoldReason.UNAUTHORIZED)
        assert posts < 25
        assert bench.states(job_ids) == [State.QUEUED] * 5


def test_jobs_whose_tasks_cannot_be_polled_hold_no_order_up(build: Build) -> None:
    """They are polled until their deadline and fail with upstream's message; others are submitted all the time."""

    def script(request: Request) -> list[bytes]:
        if request.method == "POST":
            return [answer({"task_id": f"task-{audio_of(request)}"})]
        if request.path.endswith("task-poison"):
            return [answer({"error": "You may not see this."}, status="401 Unauthorized")]
        return [answer({"type": "not_ready"})]

    with ScriptedServer(script) as upstream:
        bench = build(upstream.url)
        [poison] = bench.submitted(voice("poison"))
        while bench.job(poison).state is State.PENDING:
            bench.poll_when_due([poison])
            assert bench.store.flow_control.gate(bench.clock.now).is_open

    failure = bench.job(poison).failure
    assert failure is not None
    assert failure.code is FailureCode.DEADLINE
    assert "You may not see this." in failure.message
