"""The pulse as plain steps: what it hands out, and what it finds forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from config.settings import BadSettings
from simulator.process import Simulator
from tasks.context import Services
from tasks.musicapi import MusicApi
from tests.conftest import eventually
from tests.store.life import charge, named
from voicequeue import Song, Stage, State, VoiceJob, VoiceQueue
from voicequeue.domain import transitions
from voicequeue.domain.claims import Charged
from voicequeue.domain.job import Code, Move
from voicequeue.domain.poll_schedule import ENOUGH, PollPlan, Span
from voicequeue.domain.serialization import task_field
from voicequeue.domain.timeouts import Patience
from voicequeue.storage.job_store import Store
from workers.pulse import HEARD_S, PROCESSES, Beating, Pulse

SONG = Song(prompt="la la")


@dataclass
class Clock:
    """Time that passes when the test says so."""

    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A pulse, and what it handed out."""

    pulse: Pulse
    store: Store
    clock: Clock
    handed_out: list[tuple[str, list[str]]]
    another: Callable[..., Pulse]


@pytest.fixture
def bench(store: Store, simulator: Simulator) -> Iterator[Bench]:
    """A pulse with ten slots and chunks of four, whose messages are written down."""
    clock = Clock()
    handed_out: list[tuple[str, list[str]]] = []
    with closing(MusicApi(simulator.api_url, "key")) as upstream:
        services = Services(
            store, upstream, PollPlan(1, 1), Patience(stale_s=10), 4, dict.fromkeys(Stage, 60.0), clock=clock
        )

        def build(worker: str, **more: Any) -> Pulse:
            return Pulse(services, lambda task, ids: handed_out.append((task, ids)), worker=worker, chunk=4, **more)

        store.controls.set_limits(in_flight=10)
        yield Bench(build("w1"), store, clock, handed_out, build)


def enqueue(queue: VoiceQueue, count: int) -> list[str]:
    """Voices with songs, in the backlog."""
    return [
        queue.enqueue(VoiceJob(audio_url=f"https://a.example/{number}.wav", song=SONG)).id for number in range(count)
    ]


def test_a_beat_fills_the_slots_and_hands_out_chunks(bench: Bench, queue: VoiceQueue) -> None:
    """Ten slots are filled in order, in chunks of at most four; the rest stays queued."""
    ids = enqueue(queue, 12)

    bench.pulse.admit()
    bench.pulse.admit()

    assert bench.handed_out == [("voice.submit", ids[0:4]), ("voice.submit", ids[4:8]), ("voice.submit", ids[8:10])]
    assert queue.status().states[State.QUEUED] == 2


def test_a_few_jobs_are_shared_out_among_all_processes(bench: Bench, queue: VoiceQueue) -> None:
    """Of every worker that lives; a full message would leave some of them with nothing to do."""
    old, other = bench.another("w0", facts={PROCESSES: 8}), bench.another("w2", facts={PROCESSES: 2})
    mine = bench.another("w3", facts={PROCESSES: 3})
    old.heard()
    bench.clock.now += HEARD_S + 1
    other.heard()
    mine.heard()
    ids = enqueue(queue, 9)

    mine.admit()

    assert [chunk for _, chunk in bench.handed_out] == [ids[0:2], ids[2:4], ids[4:6], ids[6:8], ids[8:]]


def test_what_one_process_does_at_once_shares_a_message(bench: Bench, queue: VoiceQueue) -> None:
    """However many others have nothing to do."""
    pulse = bench.another("w2", facts={PROCESSES: 20}, at_once=3)
    pulse.heard()
    ids = enqueue(queue, 7)

    pulse.admit()

    assert [chunk for _, chunk in bench.handed_out] == [ids[0:3], ids[3:6], ids[6:]]


def test_jobs_that_need_no_voice_are_handed_out_as_songs(bench: Bench, queue: VoiceQueue) -> None:
    """Voices and songs never share a message."""
    voice = queue.enqueue(VoiceJob(audio_url="https://a.example/1.wav"))
    song = queue.enqueue(VoiceJob(persona_id="p1", song=SONG))

    bench.pulse.admit()

    assert sorted(bench.handed_out) == [("music.submit", [song.id]), ("voice.submit", [voice.id])]


def test_a_lost_submit_message_is_handed_out_again(bench: Bench, queue: VoiceQueue) -> None:
    """An admitted job that nobody charged is given to a worker again, once per patience."""
    ids = enqueue(queue, 2)
    bench.pulse.admit()
    bench.handed_out.clear()

    bench.clock.now += 9
    bench.pulse.reconcile()
    assert bench.handed_out == []

    bench.clock.now += 2
    bench.pulse.reconcile()
    bench.pulse.reconcile()
    assert [(task, sorted(found)) for task, found in bench.handed_out] == [("voice.submit", sorted(ids))]


def test_a_lost_poll_message_is_handed_out_again_and_can_be_claimed(bench: Bench, queue: VoiceQueue) -> None:
    """A pending job whose poll never came is polled after all."""
    [job_id] = enqueue(queue, 1)
    make_pending(bench, job_id, due=bench.clock.now + 20)

    bench.clock.now += 31
    bench.pulse.reconcile()

    assert bench.handed_out == [("voice.poll", [job_id])]
    assert bench.store.claim([job_id], Stage.VOICE, bench.clock.now, lease=5)


def test_a_pending_job_is_polled_within_minutes_after_redis_clock_was_set_back(bench: Bench, queue: VoiceQueue) -> None:
    """Whoever's message it was came too early; the pulse does not wait until the time has come again."""
    [job_id] = enqueue(queue, 1)
    make_pending(bench, job_id, due=bench.clock.now + 20)

    bench.clock.now -= 3_600
    bench.pulse.reconcile()
    bench.clock.now += 140
    bench.pulse.reconcile()

    assert bench.handed_out == [("voice.poll", [job_id])]
    assert bench.store.claim([job_id], Stage.VOICE, bench.clock.now, lease=5)


def test_a_beat_fills_all_slots_also_where_one_script_does_not(
    bench: Bench, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would wake it for the rest."""
    monkeypatch.setattr("workers.pulse.AT_ONCE", 3)
    enqueue(queue, 12)

    bench.pulse.admit()

    assert sum(len(job_ids) for _, job_ids in bench.handed_out) == 10
    assert queue.status().states[State.QUEUED] == 2


def test_a_silent_charge_becomes_unsure_and_is_handed_out_to_nobody(bench: Bench, queue: VoiceQueue) -> None:
    """A worker that died while charging leaves a job of which nobody knows whether it was paid."""
    [job_id] = enqueue(queue, 1)
    bench.pulse.admit()
    charge(bench.store, job_id, Stage.VOICE, "a worker that dies", bench.clock.now, lease=30)
    bench.handed_out.clear()

    bench.clock.now += 41
    bench.pulse.reconcile()
    bench.clock.now += 1000
    bench.pulse.reconcile()

    assert queue.get(job_id).state is State.UNSURE
    assert "died" in queue.timeline(job_id)[-1].reason
    assert bench.handed_out == []
    assert queue.status().in_flight == 0


def over(bench: Bench, queue: VoiceQueue, count: int, *, since_s: float) -> None:
    """Jobs that were cancelled so long ago."""
    for job_id in enqueue(queue, count):
        bench.store.apply([transitions.cancel(queue.get(job_id), 0.0)], bench.clock.now - since_s)


def test_jobs_that_have_been_over_for_longer_than_they_are_kept_go(bench: Bench, queue: VoiceQueue) -> None:
    """All of them, however many scripts it takes; by default none ever does."""
    keeping = bench.another("w2", keep=60.0)
    over(bench, queue, 250, since_s=70)
    [stays] = enqueue(queue, 1)
    queue.cancel(stays)

    for pulse in (bench.pulse, bench.pulse):
        pulse.purge()
    assert queue.status().states[State.CANCELLED] == 251
    for pulse in (keeping, keeping):
        pulse.purge()

    assert [job.id for job in queue.jobs()] == [stays]
    assert bench.store.purged()[State.CANCELLED] == 250


def test_letting_go_of_jobs_leaves_time_for_all_else(
    bench: Bench, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left goes the next time."""
    monkeypatch.setattr("workers.pulse.PURGING_S", 0.0)
    keeping = bench.another("w2", keep=60.0)
    over(bench, queue, 250, since_s=70)

    left = []
    for _ in range(5):
        keeping.purge()
        left.append(queue.status().states[State.CANCELLED])

    assert left == [250, 150, 50, 0, 0]


def test_a_pulse_is_heard(bench: Bench, queue: VoiceQueue) -> None:
    """Status counts workers by their pulses."""
    assert queue.status().workers == 0

    bench.pulse.heard()

    assert queue.status().workers == 1


def make_pending(bench: Bench, job_id: str, *, due: float) -> None:
    """Take a queued job through its charge."""
    bench.pulse.admit()
    bench.handed_out.clear()
    claim = charge(bench.store, job_id, Stage.VOICE, "holder", bench.clock.now, lease=30)
    assert isinstance(claim, Charged)
    fields = {task_field(Stage.VOICE): "t1", "since": str(bench.clock.now)}
    move = Move(job_id, claim.version, State.CHARGING, Stage.VOICE, State.PENDING, due=due, fields=fields, credits=4)
    assert bench.store.apply([move], bench.clock.now) == [True]


# ── the account ────────────────────────────────────────────────────────────────────────────────


def test_the_account_is_looked_at_by_one_of_all_workers(bench: Bench, simulator: Simulator) -> None:
    """Once in its time, and what upstream says is noted."""
    simulator.turn(credits=321)

    for _ in range(3):
        bench.pulse.look_at_the_account()

    eventually(bench.store.controls.balances)
    assert [balance.credits for balance in bench.store.controls.balances()] == [321]
    assert simulator.ledger(charges=False)["calls"]["credits"] == 1


def test_an_account_that_cannot_be_looked_at_is_looked_at_later(bench: Bench, simulator: Simulator) -> None:
    """Upstream's trouble is not the pulse's."""
    simulator.turn(get_faults={"error": 1})
    bench.pulse.look_at_the_account()
    eventually(lambda: simulator.ledger(charges=False)["calls"]["credits"])

    assert bench.store.controls.balances() == []


def test_two_workers_look_at_the_account_in_turns(bench: Bench, simulator: Simulator) -> None:
    """Whoever comes first; the other one does not ask as well."""
    other = replace(bench, pulse=bench.another("w2"))

    for each in (bench, other, bench, other):
        each.pulse.look_at_the_account()
        each.pulse.heard()

    eventually(bench.store.controls.balances)
    assert simulator.ledger(charges=False)["calls"]["credits"] == 1
    assert [heard.name for heard in bench.store.pulses["worker"].since(0)] == ["w1", "w2"]


# ── the beat ───────────────────────────────────────────────────────────────────────────────────


def test_a_beat_begins_at_once_what_comes_while_it_waits(bench: Bench, queue: VoiceQueue) -> None:
    """A lone job does not wait for the next beat."""
    with ThreadPoolExecutor(1) as thread:
        began = time.monotonic()
        beat = thread.submit(bench.pulse.beat, 4.0)
        [job_id] = enqueue(queue, 1)
        beat.result()

    assert time.monotonic() - began < 3
    assert bench.handed_out == [("voice.submit", [job_id])]


def test_a_beat_admits_what_nothing_woke_it_for(bench: Bench, queue: VoiceQueue) -> None:
    """A cooldown passes without anybody telling."""
    [job_id] = enqueue(queue, 1)
    bench.store.controls.close("cooldown", "429", bench.clock.now, bench.clock.now + 5)
    bench.pulse.beat(0.01)
    assert bench.handed_out == []

    bench.clock.now += 5
    bench.pulse.beat(0.01)

    assert bench.handed_out == [("voice.submit", [job_id])]


def test_a_slot_that_is_free_again_is_filled_by_the_next_beat(bench: Bench, queue: VoiceQueue) -> None:
    """Though nothing woke it."""
    ids = enqueue(queue, 12)
    bench.pulse.beat(0.01)
    bench.handed_out.clear()

    for job_id in ids[:2]:
        queue.cancel(job_id)
    bench.pulse.beat(0.01)

    assert bench.handed_out == [("voice.submit", ids[10:])]


# ── credits ────────────────────────────────────────────────────────────────────────────────────


def test_that_credits_are_short_is_logged_once_and_that_there_are_enough_again_too(
    bench: Bench, queue: VoiceQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """Not once a job, nor once a beat, nor once a worker."""
    caplog.set_level("INFO", "voicequeue.pulse")
    ids, other = enqueue(queue, 5), bench.another("w2")
    bench.store.controls.note_balance(2 * 19, spent_before=0, asked=bench.clock.now, now=bench.clock.now)

    for _ in range(3):
        bench.pulse.admit()
        other.admit()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "credits do not suffice" in caplog.text

    bench.store.controls.note_balance(900, spent_before=0, asked=bench.clock.now, now=bench.clock.now)
    for _ in range(3):
        bench.pulse.admit()
        other.admit()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert sorted(job_id for _, chunk in bench.handed_out for job_id in chunk) == sorted(ids)


# ── jobs that did not begin in time ────────────────────────────────────────────────────────────


def test_a_job_that_has_not_begun_in_its_time_fails_as_expired(bench: Bench, queue: VoiceQueue) -> None:
    """While others go on; nothing was spent, and a person may still retry it."""
    bench.store.controls.pause(bench.clock.now)
    short = queue.enqueue(VoiceJob(audio_url="https://a.example/s.wav", start_within_s=60))
    long = queue.enqueue(VoiceJob(audio_url="https://a.example/l.wav", start_within_s=6_000))

    bench.clock.now += 50
    bench.pulse.reconcile()
    assert queue.get(short.id).state is State.QUEUED
    bench.clock.now += 20
    bench.pulse.reconcile()

    job = queue.get(short.id)
    assert job.failure is not None
    assert (job.state, job.failure.code, job.credits) == (State.FAILED, Code.EXPIRED, 0)
    assert job.settled_at is not None
    assert queue.get(long.id).state is State.QUEUED
    assert queue.status().failures == {"expired": 1}
    assert queue.retry(short.id).state is State.QUEUED
    bench.clock.now += 3_600
    bench.pulse.reconcile()
    assert queue.get(short.id).state is State.QUEUED


def test_a_voice_whose_maker_is_held_back_is_made_by_one_who_waits(bench: Bench, queue: VoiceQueue) -> None:
    """Somebody paused the first one's batch; the other's goes on."""
    held, free = (
        queue.enqueue(VoiceJob(audio_url="https://a.example/1.wav", song=SONG, reuse=True, batch=batch))
        for batch in ("held", "free")
    )
    queue.pause(batch="held")

    bench.pulse.reconcile()
    bench.pulse.admit()

    assert bench.handed_out == [("voice.submit", [free.id])]
    assert [job.state for job in map(queue.get, (held.id, free.id))] == [State.WAITING, State.ADMITTED]


def test_polls_are_planned_by_one_worker_from_what_all_have_seen(bench: Bench) -> None:
    """Once in a while: the next to look finds that it is not his turn."""
    controls = bench.store.controls
    one, other = bench.another("w2"), bench.another("w3")
    for pulse in (one, other):
        pulse._services = replace(pulse._services, plan=PollPlan(1, 2))
    controls.note_spans("voice", [Span(9, 10)] * ENOUGH)

    one.plan_polls()
    controls.note_spans("music", [Span(19, 20)] * ENOUGH)
    other.plan_polls()

    [first, *_] = controls.schedules()["voice"]
    assert 9 < first < 12
    assert controls.schedules().keys() == {"voice"}


def test_the_policy_orders_nothing_for_a_job_that_is_to_be_cancelled(bench: Bench, queue: VoiceQueue) -> None:
    """It is given up when its time is over: the others are ordered again."""
    ids = enqueue(queue, 2)
    bench.pulse.admit()
    for job_id in ids:
        claim = charge(bench.store, job_id, Stage.VOICE, "w", bench.clock(), lease=90)
        assert isinstance(claim, Charged)
        lost = Move(job_id, claim.version, State.CHARGING, Stage.VOICE, State.UNSURE, reason="no answer")
        assert bench.store.apply([lost], bench.clock()) == [True]
    assert queue.cancel(ids[0]).cancelling
    bench.handed_out.clear()
    bench.clock.now += 61

    bench.another("w2", resubmit_after=60).reconcile()

    given_up = queue.get(ids[0])
    assert given_up.failure is not None
    assert (given_up.state, given_up.failure.code) == (State.FAILED, Code.ABANDONED)
    assert bench.handed_out == [("voice.submit", [ids[1]])]


def test_a_price_that_has_changed_is_logged_once(
    bench: Bench, queue: VoiceQueue, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Upstream takes 5 credits a voice where 4 are counted: however often the account is looked at."""
    ids = enqueue(queue, 5)
    note = bench.pulse._note_balance
    simulator.turn(credits=1_000)
    note()
    bench.pulse.admit()
    for job_id in ids:
        claim = charge(bench.store, job_id, Stage.VOICE, "w", bench.clock(), lease=90)
        assert isinstance(claim, Charged)
        job = queue.get(job_id)
        taken = named(job, "t")
        assert bench.store.apply([taken], bench.clock()) == [True]
    simulator.turn(credits=1_000 - 25)

    for _ in range(3):
        note()

    [said] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == (
        "the account fell by 25 while 20 were counted: another user of the account, or a changed price "
        "(5 instead of 4 a voice?)"
    )


# ── a pulse that ends ──────────────────────────────────────────────────────────────────────────────


class Failing(Beating):
    """A pulse that raises: when it is built, or later."""

    def __init__(self, *, later: bool) -> None:
        super().__init__(SimpleNamespace())
        self._later = later

    def prepare(self, app: Any, worker: str, processes: int) -> Callable[[], None]:  # noqa: ARG002  it fails
        """Build what fails, or fail."""
        if not self._later:
            raise BadSettings("REDIS_URL: is wrong")
        return self._fail

    def _fail(self) -> None:
        raise RuntimeError("a defect")


@pytest.mark.parametrize(("later", "says"), [(False, "BadSettings: REDIS_URL: is wrong"), (True, "RuntimeError")])
def test_a_worker_ends_with_its_pulse_and_says_why(
    later: bool, says: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take messages, and no other process would know that it lives."""
    monkeypatch.setattr(state, "should_stop", None)
    pulse, worker = Failing(later=later), SimpleNamespace(app=None, hostname="w1", concurrency=1)

    with nullcontext() if later else pytest.raises(SystemExit, match="1"):
        pulse.start(worker)

    pulse.stop(worker)
    assert state.should_stop == (1 if later else None)
    [record] = caplog.records
    assert record.getMessage().endswith(f"so the worker ends: {says}")
