"""Polls that one process of a worker repeats in its task, where they are seconds apart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest
from redis import Redis

from tasks.poll import PollRound, poll_orders
from tasks.process_lock import ProcessLock
from tasks.repeated_polls import (
    RELIED_ON_S,
    STAY_S,
    Messages,
    abandoned_polls,
    needs_message,
    poll_repeatedly,
)
from tests.conftest import eventually
from tests.integration.conftest import CHUNK, NOT_READY, SONGS, VOICE, Bench, Build, voice
from tests.support.forked import forked
from tests.support.scripted import Request, ScriptedServer, answer
from voicequeue import Stage, State, VoiceJob
from voicequeue.domain.poll_schedule import PollSchedulePolicy

#: Seconds between two polls, and between two rounds of polls.
APART_S, INTERVAL_S = 0.6, 0.15


@dataclass
class Upstream:
    """Upstream whose tasks are ready at the poll with the number `polls`, from 1; each answer waits for `answers`, and
    takes `takes_s` seconds. The answer to the order of a song waits for `song_answers`."""

    polls: int = 3
    takes_s: float = 0.0
    answers: threading.Event = field(default_factory=threading.Event)
    song_answers: threading.Event = field(default_factory=threading.Event)
    polled: dict[str, int] = field(default_factory=dict)
    orders: int = 0

    def __post_init__(self) -> None:
        self.answers.set()
        self.song_answers.set()

    def __call__(self, request: Request) -> Iterator[bytes]:
        """Accept an order, or answer a poll."""
        if request.method == "POST":
            self.orders += 1
            kind = "song" if "persona_id" in request.json() else "voice"
            if kind == "song":
                self.song_answers.wait(20)
            yield answer({"task_id": f"{kind}-{self.orders}"})
            return
        self.answers.wait(20)
        time.sleep(self.takes_s)
        task = request.path.rpartition("/")[2]
        self.polled[task] = self.polled.get(task, 0) + 1
        ready = SONGS if task.startswith("song") else VOICE
        yield answer(ready if self.polled[task] >= self.polls else NOT_READY)


@dataclass
class Sent:
    """The messages that a poll task sends: songs to order, and polls."""

    songs: list[str] = field(default_factory=list)
    polls: list[PollRound] = field(default_factory=list)


@pytest.fixture
def upstream() -> Iterator[tuple[Upstream, str]]:
    """Yield an upstream and its URL."""
    script = Upstream()
    with ScriptedServer(script) as server:
        yield script, server.url


@pytest.fixture
def bench(build: Build, upstream: tuple[Upstream, str]) -> Bench:
    """Return a worker with short intervals, whose sleep advances the clock."""
    plain = build(upstream[1])
    lock = ProcessLock()
    lock.open()
    return with_sleep(plain, lambda _: None, repeating=lock, poll_plan=PollSchedulePolicy(APART_S, APART_S))


def with_sleep(bench: Bench, after: Callable[[int], object], **changes: object) -> Bench:
    """Return the bench with a sleep that advances the clock, and calls `after` with the number of its calls."""
    calls = 0

    def sleep(seconds: float) -> None:
        nonlocal calls
        calls += 1
        bench.clock.now += seconds
        after(calls)

    return replace(bench, services=replace(bench.services, sleep=sleep, **changes))  # type: ignore[arg-type]


def plain_voice(name: str) -> VoiceJob:
    """Return a job without a song."""
    return voice(name, song=None)


def plain_voices(count: int) -> list[VoiceJob]:
    """Return that many jobs without songs."""
    return [plain_voice(f"voice-{number}") for number in range(count)]


def messages(sent: Sent) -> Messages:
    """Return how to send messages that are kept here."""
    return Messages(lambda job_ids, _: sent.songs.extend(job_ids), sent.polls.append)


def run(bench: Bench, job_ids: list[str], sent: Sent) -> list[PollRound]:
    """Run a poll task when the jobs are due; return the polls that it requests at its end."""
    bench.clock.now += APART_S
    return poll_repeatedly(bench.services, job_ids, messages(sent))


def test_a_task_polls_until_the_result_is_there(bench: Bench) -> None:
    """No message is needed for the second and the third poll."""
    job_ids, sent = bench.submitted(*plain_voices(2)), Sent()

    assert run(bench, job_ids, sent) == []
    assert bench.states(job_ids) == [State.SUCCEEDED] * 2
    assert sent == Sent()


def test_a_task_polls_all_that_is_due_meanwhile(bench: Bench, upstream: tuple[Upstream, str]) -> None:
    """Also orders that another process sends."""
    upstream[0].polls = 100
    job_ids = bench.submitted(plain_voice("first"))

    def submit_more(calls: int) -> None:
        if calls == 2:
            job_ids.extend(bench.submitted(plain_voice("second")))

    [remaining] = run(with_sleep(bench, submit_more), job_ids[:1], Sent())

    assert upstream[0].polled["voice-2"] >= 2
    assert sorted(remaining.job_ids) == sorted(job_ids)


def test_a_task_stays_for_two_seconds_and_requests_the_rest(bench: Bench, upstream: tuple[Upstream, str]) -> None:
    """The polls that were planned meanwhile are requested by a message for each stage, when the first is due."""
    upstream[0].polls = 100
    job_ids, sent = bench.submitted(*plain_voices(3)), Sent()
    started = bench.clock.now + APART_S

    [remaining] = run(bench, job_ids, sent)

    assert STAY_S - 2 * INTERVAL_S <= bench.clock.now - started <= STAY_S
    assert (sorted(remaining.job_ids), remaining.stage) == (sorted(job_ids), Stage.VOICE)
    assert 0 < remaining.delay_s <= APART_S
    assert bench.services.repeating.try_acquire()


def test_the_polls_of_another_process_are_requested_at_the_end_too(bench: Bench) -> None:
    """It sent no message, because this process stays."""
    [job_id], sent, later = bench.submitted(plain_voice("first")), Sent(), list[str]()

    def submit_more(calls: int) -> None:
        if calls == 8:
            later.extend(bench.submitted(plain_voice("second")))

    [remaining] = run(with_sleep(bench, submit_more), [job_id], sent)

    assert bench.states([job_id, *later]) == [State.SUCCEEDED, State.PENDING]
    assert remaining.job_ids == later


def test_while_a_process_of_the_worker_stays_the_others_request_no_polls(bench: Bench) -> None:
    """It makes them; only polls that are far off need a message."""
    job_ids, sent = bench.submitted(*plain_voices(2)), Sent()
    lock = bench.services.repeating
    with forked(lock.try_acquire):
        assert not needs_message(bench.services, APART_S)
        assert needs_message(bench.services, RELIED_ON_S + 1)
        assert run(bench, job_ids, sent) == []

    assert needs_message(bench.services, APART_S)
    assert bench.states(job_ids) == [State.PENDING] * 2
    assert run(bench, job_ids[:1], sent) == []
    assert bench.states(job_ids) == [State.SUCCEEDED] * 2


def test_a_slow_answer_delays_no_other_poll(bench: Bench, upstream: tuple[Upstream, str]) -> None:
    """The process leaves the other polls to messages, and requests its own when the answer has arrived."""
    script, _ = upstream
    slow, sent, later = bench.submitted(plain_voice("slow")), Sent(), list[str]()

    def stall(calls: int) -> None:
        if calls == 1:
            later.extend(bench.submitted(plain_voice("other")))
        if calls == 2:
            script.answers.clear()

    with ThreadPoolExecutor(1) as worker:
        staying = worker.submit(run, with_sleep(bench, stall), slow, sent)
        eventually(lambda: sent.polls)
        assert not staying.done()
        with forked(bench.services.repeating.try_acquire):
            pass  # this process no longer holds the lock
        script.answers.set()
        own = staying.result()

    assert [poll_round.job_ids for poll_round in sent.polls] == [later]
    assert [poll_round.job_ids for poll_round in own] == [slow]


def test_many_answers_are_slow_together(bench: Bench, upstream: tuple[Upstream, str]) -> None:
    """Each of them arrives soon after the one before."""
    bench.submitted(*plain_voices(CHUNK - 1))
    bench.clock.now += APART_S
    upstream[0].takes_s, slow = 0.05, list[bool]()

    poll_orders(bench.services, (), slow_after_s=0.1, on_slow=lambda: slow.append(True))

    assert slow == [True]


def test_more_polls_than_one_process_should_make_have_messages(bench: Bench) -> None:
    """Other processes make them meanwhile."""
    job_ids, sent = bench.submitted(*plain_voices(CHUNK + 3)), Sent()
    bench = with_sleep(bench, lambda _: pytest.fail("it stays"))

    [own] = run(bench, job_ids[:CHUNK], sent)

    assert own.job_ids == job_ids[:CHUNK]
    assert [sorted(polls.job_ids) for polls in sent.polls] == [sorted(job_ids[CHUNK:])]
    with forked(bench.services.repeating.try_acquire):
        bench.clock.now += APART_S
        assert [polls.job_ids for polls in run(bench, job_ids[:CHUNK], sent)] == [job_ids[:CHUNK]]


def test_a_stopping_process_requests_its_polls(bench: Bench) -> None:
    """Another worker makes them."""
    job_ids, sent, stopping = bench.submitted(*plain_voices(2)), Sent(), threading.Event()
    stopped = replace(bench, services=replace(bench.services, is_stopping=stopping.is_set))

    [remaining] = run(with_sleep(stopped, lambda _: stopping.set()), job_ids, sent)

    assert sorted(remaining.job_ids) == sorted(job_ids)
    assert bench.services.repeating.try_acquire()


def test_a_song_is_ordered_by_the_process_that_finds_its_voice(bench: Bench, upstream: tuple[Upstream, str]) -> None:
    """And polled by it: no message is needed for either."""
    upstream[0].polls = 1
    job_ids, sent = bench.submitted(voice("one"), voice("two")), Sent()

    def wait_for_orders(_: int) -> None:
        eventually(lambda: set(bench.states(job_ids)) <= {State.PENDING, State.SUCCEEDED})

    assert run(with_sleep(bench, wait_for_orders), job_ids, sent) == []

    assert bench.states(job_ids) == [State.SUCCEEDED] * 2
    assert (sent, upstream[0].orders) == (Sent(), 4)


def test_the_polls_go_on_until_a_slow_order_is_answered(bench: Bench, upstream: tuple[Upstream, str]) -> None:
    """Another song that is ready meanwhile has a message, and so have polls that become due later."""
    script, _ = upstream
    script.polls = 1
    script.song_answers.clear()
    slow, sent, later, started = bench.submitted(voice("slow")), Sent(), list[str](), bench.clock.now + APART_S

    def submit_more(calls: int) -> None:
        if calls == 1:
            eventually(lambda: script.orders == 2)
            later.extend(bench.submitted(voice("other")))
        if bench.clock.now > started + 2 * STAY_S:
            script.song_answers.set()
            eventually(lambda: bench.states(slow) == [State.PENDING])

    [remaining] = run(with_sleep(bench, submit_more), slow, sent)

    assert (sent.songs, sent.polls, script.orders) == (later, [], 3)
    assert (remaining.job_ids, remaining.stage) == (slow, Stage.MUSIC)


def test_a_stopping_process_requests_its_polls_before_a_slow_order_is_answered(
    bench: Bench, upstream: tuple[Upstream, str]
) -> None:
    """It waits for the answer all the same, because the order is paid for."""
    script, _ = upstream
    script.polls = 2
    script.song_answers.clear()
    [slow], sent, stopping = bench.submitted(voice("slow")), Sent(), threading.Event()
    other: list[str] = []

    def stop(_: int) -> None:
        if script.orders == 2:
            other.extend(bench.submitted(plain_voice("other")))
            stopping.set()

    stopped = replace(bench, services=replace(bench.services, is_stopping=stopping.is_set))
    with ThreadPoolExecutor(1) as worker:
        staying = worker.submit(run, with_sleep(stopped, stop), [slow], sent)
        eventually(lambda: sent.polls)
        assert not staying.done()
        script.song_answers.set()
        [own] = staying.result()

    assert [poll_round.job_ids for poll_round in sent.polls] == [other]
    assert (own.job_ids, own.stage) == ([slow], Stage.MUSIC)
    assert bench.states([slow]) == [State.PENDING]


def test_a_song_that_must_wait_for_the_submit_rate_has_a_message(bench: Bench, upstream: tuple[Upstream, str]) -> None:
    """It says when the rate allows the order."""
    upstream[0].polls = 1
    delays: list[float] = []
    job_ids = bench.submitted(voice("one"), voice("two"))
    bench.store.flow_control.set_limits(submit_rate=2)
    bench.clock.now += APART_S

    def sleep(seconds: float) -> None:
        eventually(lambda: State.PENDING in bench.states(job_ids) or delays)
        bench.clock.now += seconds if delays else 0.0  # the time of the stay is not that of the answers

    staying = replace(bench, services=replace(bench.services, sleep=sleep))
    poll_repeatedly(staying.services, job_ids, Messages(lambda _, delay_s: delays.append(delay_s), lambda _: None))

    assert delays == [pytest.approx(30, abs=3)]
    assert sorted(bench.states(job_ids)) == [State.ADMITTED, State.SUCCEEDED]


@pytest.mark.parametrize("is_open", [True, False])
def test_polls_that_are_far_apart_have_messages(bench: Bench, *, is_open: bool) -> None:
    """As those of a worker that has one process only."""
    plan = PollSchedulePolicy(15, 15) if is_open else bench.services.poll_plan
    lock = bench.services.repeating if is_open else ProcessLock()
    bench = with_sleep(bench, lambda _: pytest.fail("it stays"), poll_plan=plan, repeating=lock)
    job_ids, sent = bench.submitted(*plain_voices(2)), Sent()
    bench.clock.now += 15

    [poll_round] = poll_repeatedly(bench.services, job_ids, messages(sent))

    assert poll_round.job_ids == job_ids
    assert poll_round.delay_s == pytest.approx(plan.min_s)


def test_late_polls_that_no_process_makes_are_handed_out_once(bench: Bench, redis: Redis, prefix: str) -> None:
    """Also behind jobs that wait for a process, and while a process stays: it takes no polls that are as late."""
    late = bench.submitted(*plain_voices(2))
    bench.clock.now += APART_S + STAY_S - 0.1
    bench.admitted(*(plain_voice(f"waiting-{number}") for number in range(120)))
    with forked(bench.services.repeating.try_acquire):
        assert abandoned_polls(bench.services) == []
        assert redis.delete(f"{{{prefix}}}:lock:abandoned_polls")
        bench.clock.now += 0.2

        assert sorted(poll.job_id for poll in abandoned_polls(bench.services)) == sorted(late)
        assert abandoned_polls(bench.services) == []


def test_a_round_finds_due_polls_behind_jobs_that_wait_for_a_process(bench: Bench) -> None:
    """Those have earlier times."""
    pending = bench.submitted(*plain_voices(2))
    bench.admitted(*(plain_voice(f"waiting-{number}") for number in range(5 * CHUNK)))
    bench.clock.now += APART_S

    [polls] = poll_orders(bench.services, (), overdue_s=STAY_S).rounds
    assert sorted(polls.job_ids) == sorted(pending)
    due_polls = bench.store.coordination.due_polls(0, bench.clock.now + 9, at_most=9)
    assert sorted(poll.job_id for poll in due_polls) == sorted(pending)
