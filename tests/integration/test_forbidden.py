"""A 403 in words that nobody knows: of the account, or of this job? Others go first, which tells."""

from __future__ import annotations

from collections.abc import Iterable

from tests.integration.conftest import PATIENCE, Bench, Build, audio_of, voice
from tests.scripted import Request, Script, Scripted, answer
from tests.store.life import charge
from voicequeue import Code, Stage, State
from voicequeue.claims import Charged
from voicequeue.gate import Reason
from voicequeue.job import Move

WORDS = "This is not for you."


def forbids(*names: str) -> Script:
    """Upstream forbids the voices of these names, and takes any other."""

    def script(request: Request) -> list[bytes]:
        if audio_of(request) in names:
            return [answer({"error": WORDS}, status="403 Forbidden")]
        return [answer({"task_id": f"task-{audio_of(request)}"})]

    return script


def tried(bench: Bench) -> list[str]:
    """The jobs that are let through when the gate's time is over, and sent."""
    bench.clock.now += PATIENCE.account_s + 1
    job_ids = bench.admit().get(Stage.VOICE, [])
    for job_id in job_ids:  # at once, one that is forbidden might close the gate before the other is sent
        bench.submit(Stage.VOICE, [job_id])
    return job_ids


def test_a_job_that_alone_is_forbidden_fails_when_others_were_taken(build: Build) -> None:
    """It goes to the back, another is tried, the gate opens; forbidden once more, it fails with upstream's words."""
    with Scripted(forbids("anna")) as upstream:
        bench = build(upstream.url)
        anna, *others = bench.admitted(voice("anna"), voice("ben"), voice("cleo"))
        bench.clock.now += 1
        bench.submit(Stage.VOICE, [anna])
        assert bench.store.controls.gate(bench.clock.now).closed_for(Reason.UNAUTHORIZED)
        bench.submit(Stage.VOICE, others)
        assert bench.states([anna, *others]) == [State.QUEUED] * 3

        assert tried(bench) == others[:1]
        assert bench.store.controls.gate(bench.clock.now).open
        assert tried(bench) == [others[1], anna]

    failure = bench.job(anna).failure
    assert failure is not None
    assert (failure.code, failure.message) == (Code.REFUSED, WORDS)
    assert bench.states(others) == [State.PENDING] * 2


def test_an_account_that_is_forbidden_fails_nobody(build: Build) -> None:
    """One after the other is tried, and goes to the back; when it is allowed again, all goes on."""
    names = ("anna", "ben", "cleo")
    with Scripted(forbids(*names)) as upstream:
        bench = build(upstream.url)
        job_ids = bench.admitted(*map(voice, names))
        bench.submit(Stage.VOICE, job_ids[:1])
        bench.submit(Stage.VOICE, job_ids[1:])

        turns = [tried(bench) for _ in range(6)]

    assert sorted(map(tuple, turns)) == sorted((job_id,) for job_id in job_ids * 2)
    assert bench.states(job_ids) == [State.QUEUED] * 3


def test_what_was_forbidden_once_and_taken_then_is_judged_anew(build: Build) -> None:
    """Its song that is forbidden may be the account's trouble again, whatever was taken since its voice was."""
    names = ["anna"]

    def script(request: Request) -> Iterable[bytes]:
        return forbids(*names)(request)

    with Scripted(script) as upstream:
        bench = build(upstream.url)
        anna, ben = bench.admitted(voice("anna"), voice("ben"))
        bench.clock.now += 1
        bench.submit(Stage.VOICE, [anna])
        bench.submit(Stage.VOICE, [ben])
        assert tried(bench) == [ben]
        names.clear()
        assert tried(bench) == [anna]

    job, now = bench.job(anna), bench.clock.now
    fields = {"persona_id": "p-1"}
    ready = Move(anna, job.version, job.state, job.stage, State.ADMITTED, Stage.MUSIC, due=now, fields=fields)
    assert bench.store.apply([ready], now) == [True]
    claim = charge(bench.store, anna, Stage.MUSIC, "holder", now, lease=9)

    assert isinstance(claim, Charged)
    assert not claim.others_taken
