"""Maintenance reconciles overdue jobs, reads the balance, plans polls and purges old jobs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf

import pytest
from redis import Redis

from simulator.process import Simulator
from tasks import decisions
from tests.conftest import eventually
from tests.integration.processes.worker_bench import SONG, WorkerBench, enqueue, worker_bench
from tests.store.life import claim_submit, report_order
from voicequeue import Filter, InvalidJobError, Page, Stage, State, VoiceJob, VoiceQueue
from voicequeue.domain import transitions
from voicequeue.domain.claims import SubmitClaim
from voicequeue.domain.job import Transition
from voicequeue.domain.poll_schedule import MIN_DURATIONS, DurationInterval, PollSchedulePolicy
from voicequeue.domain.serialization import task_field
from voicequeue.domain.states import FailureCode
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.audit_log import AuditLogRetention
from voicequeue.storage.summaries import SETTLED_S


@pytest.fixture
def bench(store: JobStore, simulator: Simulator) -> Iterator[WorkerBench]:
    """Return a worker with ten slots and chunks of four jobs."""
    with worker_bench(store, simulator) as bench:
        yield bench


def charging(bench: WorkerBench, job_id: str) -> SubmitClaim:
    """Claim an admitted job's submission."""
    claim = claim_submit(bench.store, job_id, Stage.VOICE, "holder", bench.clock.now, lease=30)
    assert isinstance(claim, SubmitClaim)
    return claim


def make_pending(bench: WorkerBench, job_id: str, *, due: float) -> None:
    """Submit a queued job."""
    bench.dispatcher.admit()
    bench.messages.clear()
    claim = charging(bench, job_id)
    fields = {task_field(Stage.VOICE): "t1", "submitted_at": str(bench.clock.now)}
    move = Transition(
        job_id, claim.version, State.CHARGING, Stage.VOICE, State.PENDING, due=due, fields=fields, credits=4
    )
    assert bench.store.apply_transitions([move], bench.clock.now) == [True]


# ── overdue jobs ──────────────────────────────────────────────────────────────────────────────────


def test_a_lost_submit_message_is_sent_again(bench: WorkerBench, queue: VoiceQueue) -> None:
    """An admitted job that no worker claimed is handed out again, once per timeout."""
    ids = enqueue(queue, 2)
    bench.dispatcher.admit()
    bench.messages.clear()

    bench.clock.now += 9
    bench.maintenance.reconcile()
    assert bench.messages == []

    bench.clock.now += 2
    bench.maintenance.reconcile()
    bench.maintenance.reconcile()
    assert [(task, sorted(job_ids)) for task, job_ids in bench.messages] == [("voice.submit", sorted(ids))]


def test_a_lost_poll_message_is_sent_again_and_can_be_claimed(bench: WorkerBench, queue: VoiceQueue) -> None:
    """A pending job whose poll message was lost is polled after all."""
    [job_id] = enqueue(queue, 1)
    make_pending(bench, job_id, due=bench.clock.now + 20)

    bench.clock.now += 31
    bench.maintenance.reconcile()

    assert bench.messages == [("voice.poll", [job_id])]
    assert bench.store.claim_poll([job_id], bench.clock.now, lease_s=5)


def test_a_pending_job_is_polled_within_minutes_after_redis_clock_was_set_back(
    bench: WorkerBench, queue: VoiceQueue
) -> None:
    """The maintenance does not wait until the clock reaches the poll's due time again."""
    [job_id] = enqueue(queue, 1)
    make_pending(bench, job_id, due=bench.clock.now + 20)

    bench.clock.now -= 3_600
    bench.maintenance.reconcile()
    bench.clock.now += 140
    bench.maintenance.reconcile()

    assert bench.messages == [("voice.poll", [job_id])]
    assert bench.store.claim_poll([job_id], bench.clock.now, lease_s=5)


def test_a_stalled_charge_becomes_unsure_and_is_not_handed_out(bench: WorkerBench, queue: VoiceQueue) -> None:
    """If a worker is killed while charging, it is unknown whether the job was charged."""
    [job_id] = enqueue(queue, 1)
    bench.dispatcher.admit()
    charging(bench, job_id)
    bench.messages.clear()

    bench.clock.now += 41
    bench.maintenance.reconcile()
    bench.clock.now += 1000
    bench.maintenance.reconcile()

    assert queue.get(job_id).state is State.UNSURE
    assert "while charging" in queue.timeline(job_id)[-1].reason
    assert bench.messages == []
    assert queue.status().in_flight == 0


def test_a_job_that_has_not_started_in_time_fails_as_expired(bench: WorkerBench, queue: VoiceQueue) -> None:
    """Other jobs stay queued; no credits were spent, and the job can be retried."""
    bench.store.flow_control.pause(bench.clock.now)
    short = queue.enqueue(VoiceJob(audio_url="https://a.example/s.wav", start_within_s=60))
    long = queue.enqueue(VoiceJob(audio_url="https://a.example/l.wav", start_within_s=6_000))

    bench.clock.now += 50
    bench.maintenance.reconcile()
    assert queue.get(short.id).state is State.QUEUED
    bench.clock.now += 20
    bench.maintenance.reconcile()

    job = queue.get(short.id)
    assert job.failure is not None
    assert (job.state, job.failure.code, job.credits) == (State.FAILED, FailureCode.EXPIRED, 0)
    assert job.settled_at is not None
    assert queue.get(long.id).state is State.QUEUED
    assert queue.status().failures == {"expired": 1}
    assert queue.retry(short.id).state is State.QUEUED
    bench.clock.now += 3_600
    bench.maintenance.reconcile()
    assert queue.get(short.id).state is State.QUEUED


def test_a_voice_whose_creator_is_paused_is_created_by_a_waiting_job(bench: WorkerBench, queue: VoiceQueue) -> None:
    """The creator's batch is paused; a waiting job of another batch takes its place."""
    paused, free = (
        queue.enqueue(VoiceJob(audio_url="https://a.example/1.wav", song=SONG, reuse=True, batch=batch))
        for batch in ("paused", "free")
    )
    queue.pause(batch="paused")

    bench.maintenance.reconcile()
    bench.dispatcher.admit()

    assert bench.messages == [("voice.submit", [free.id])]
    assert [job.state for job in map(queue.get, (paused.id, free.id))] == [State.WAITING, State.ADMITTED]


def test_the_policy_abandons_an_unsure_job_that_is_to_be_cancelled(bench: WorkerBench, queue: VoiceQueue) -> None:
    """Other unsure jobs are resubmitted."""
    ids = enqueue(queue, 2)
    bench.dispatcher.admit()
    for job_id in ids:
        claim = charging(bench, job_id)
        lost = Transition(job_id, claim.version, State.CHARGING, Stage.VOICE, State.UNSURE, reason="no answer")
        assert bench.store.apply_transitions([lost], bench.clock()) == [True]
    assert queue.cancel(ids[0]).is_cancelling
    bench.messages.clear()
    bench.clock.now += 61

    bench.maintain(resubmit_after_s=60).reconcile()

    abandoned = queue.get(ids[0])
    assert abandoned.failure is not None
    assert (abandoned.state, abandoned.failure.code) == (State.FAILED, FailureCode.ABANDONED)
    assert bench.messages == [("voice.submit", [ids[1]])]


# ── retention ─────────────────────────────────────────────────────────────────────────────────────


def cancelled(bench: WorkerBench, queue: VoiceQueue, count: int, *, since_s: float) -> None:
    """Enqueue jobs that were cancelled `since_s` seconds ago."""
    for job_id in enqueue(queue, count):
        bench.store.apply_transitions([transitions.cancel(queue.get(job_id), 0.0)], bench.clock.now - since_s)


def test_jobs_are_purged_after_their_retention(
    bench: WorkerBench, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, over several scripts; by default jobs are never purged."""
    monkeypatch.setattr("workers.maintenance.PURGE_MAX_S", 60.0)
    purging = bench.maintain(retention_s=60.0)
    cancelled(bench, queue, 250, since_s=70)
    [recent] = enqueue(queue, 1)
    queue.cancel(recent)

    for maintenance in (bench.maintenance, bench.maintenance):
        maintenance.purge()
    assert queue.status().states[State.CANCELLED] == 251
    for maintenance in (purging, purging):
        maintenance.purge()

    assert [job.id for job in queue.jobs()] == [recent]
    assert bench.store.purged_by_state()[State.CANCELLED] == 250


def test_a_marked_job_is_erased_when_it_has_settled(bench: WorkerBench, queue: VoiceQueue) -> None:
    """Marked jobs that are still unsure stay, and do not delay those that were marked later."""
    first, second = enqueue(queue, 2)
    bench.dispatcher.admit()
    for job_id in (first, second):
        claim = charging(bench, job_id)
        lost = decisions.worker_died(job_id, claim.version, Stage.VOICE)
        assert bench.store.apply_transitions([lost], bench.clock.now) == [True]
    assert bench.store.erasure.erase([first, second], bench.clock.now).pending_ids == (first, second)

    queue.abandon(second)
    bench.maintenance.erase()

    assert [job.id for job in queue.jobs()] == [first]
    assert bench.store.erasure.due() == [first]
    assert bench.store.erasure.are_erased([first, second]) == [False, True]


def test_the_workers_publish_whether_a_consent_is_required(bench: WorkerBench, queue: VoiceQueue) -> None:
    """The store then requires it from every interface, until workers without the setting have started."""
    for requires_consent in (True, False):
        bench.maintain(requires_consent=requires_consent).publish_policy()
        assert bench.store.erasure.is_consent_required() is requires_consent
        [preview] = queue.preview([VoiceJob(audio_url="https://a.example/a.wav")])
        assert isinstance(preview.error, InvalidJobError) is requires_consent


def test_a_purge_stops_at_its_time_limit_and_continues_in_the_next_run(
    bench: WorkerBench, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other maintenance is not delayed."""
    monkeypatch.setattr("workers.maintenance.PURGE_MAX_S", 0.0)
    maintenance = bench.maintain(retention_s=60.0)
    cancelled(bench, queue, 250, since_s=70)

    remaining = []
    for _ in range(5):
        maintenance.purge()
        remaining.append(queue.status().states[State.CANCELLED])

    assert remaining == [250, 150, 50, 0, 0]


def test_summaries_for_searches_are_built_step_by_step(
    bench: WorkerBench, queue: VoiceQueue, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one worker, which continues where its time limit interrupted it."""
    monkeypatch.setattr("workers.maintenance.SUMMARIZE_MAX_S", 0.0)
    enqueue(queue, 250)
    bench.clock.now += 2 * SETTLED_S
    other = bench.maintain()

    steps = 0
    while not list(redis.scan_iter(f"{{{prefix}}}:summary:*")):
        bench.maintenance.summarize()
        other.summarize()
        steps += 1
        assert steps < 20

    assert steps >= 3  # a hundred jobs each
    assert queue.search(Filter(text="no such name")) == Page((), None)


def test_the_audit_log_is_trimmed_to_its_retention(bench: WorkerBench, queue: VoiceQueue) -> None:
    """Without a retention it is kept."""
    for number in range(3):
        queue.set_batch_limits("b", max_credits=number + 1)

    bench.maintain().trim_audit_log()
    assert len(queue.audit_log().items) == 3
    bench.maintain(audit_log=AuditLogRetention(inf, 2)).trim_audit_log()
    assert [entry.details["max_credits"] for entry in queue.audit_log().items] == [3, 2]


# ── polls ─────────────────────────────────────────────────────────────────────────────────────────


def test_polls_are_planned_by_one_worker_from_the_durations_of_all(bench: WorkerBench) -> None:
    """Within the interval no other worker plans them."""
    bench.services = replace(bench.services, poll_plan=PollSchedulePolicy(1, 2))
    history, first, second = bench.store.poll_history, bench.maintain(), bench.maintain()
    history.add_durations({"voice": [DurationInterval(9, 10)] * MIN_DURATIONS})

    first.plan_polls()
    history.add_durations({"music": [DurationInterval(19, 20)] * MIN_DURATIONS})
    second.plan_polls()

    [first_poll_s, *_] = history.schedules()["voice"]
    assert 9 < first_poll_s < 12
    assert history.schedules().keys() == {"voice"}


# ── samples ───────────────────────────────────────────────────────────────────────────────────────


def test_one_worker_samples_the_queue_for_all(bench: WorkerBench, queue: VoiceQueue) -> None:
    """Within a minute no other worker does."""
    first, second = bench.maintain(), bench.maintain()
    enqueue(queue, 2)

    first.take_sample()
    second.take_sample()

    [sample] = bench.store.samples.read("hour", 0)
    assert sample.states[State.QUEUED] == 2
    assert (sample.in_flight, sample.spent, sample.balance) == (0, 0, None)
    assert sample.in_flight_limit > 0


# ── the balance ───────────────────────────────────────────────────────────────────────────────────


def test_the_balance_is_read_once_per_interval(bench: WorkerBench, simulator: Simulator) -> None:
    """Further calls within the interval read nothing."""
    simulator.set_dials(credits=321)

    for _ in range(3):
        bench.maintenance.refresh_balance()

    eventually(bench.store.flow_control.balances)
    assert [balance.credits for balance in bench.store.flow_control.balances()] == [321]
    assert simulator.ledger(charges=False)["calls"]["credits"] == 1


def test_the_balance_is_read_once_by_all_workers_together(bench: WorkerBench, simulator: Simulator) -> None:
    """The first worker in an interval reads it."""
    workers = [(bench.dispatcher, bench.maintenance), (bench.another("w2"), bench.maintain())]

    for dispatcher, maintenance in workers * 2:
        maintenance.refresh_balance()
        dispatcher.send_heartbeat()

    eventually(bench.store.flow_control.balances)
    assert simulator.ledger(charges=False)["calls"]["credits"] == 1
    assert [heartbeat.name for heartbeat in bench.store.heartbeats["worker"].since(0)] == ["w1", "w2"]


def test_an_error_of_upstream_leaves_the_balance_unknown(bench: WorkerBench, simulator: Simulator) -> None:
    """The maintenance continues, and reads the balance in the next interval."""
    simulator.set_dials(get_faults={"error": 1})
    bench.maintenance.refresh_balance()
    eventually(lambda: simulator.ledger(charges=False)["calls"]["credits"])

    assert bench.store.flow_control.balances() == []


def test_a_changed_price_is_logged_once(
    bench: WorkerBench, queue: VoiceQueue, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Upstream charges 5 credits for a voice instead of 4; reading the balance again logs nothing new."""
    ids = enqueue(queue, 5)
    read_balance = bench.maintenance._read_balance
    simulator.set_dials(credits=1_000)
    read_balance()
    bench.dispatcher.admit()
    for job_id in ids:
        charging(bench, job_id)
        assert bench.store.apply_transitions([report_order(queue.get(job_id), "t")], bench.clock()) == [True]
    simulator.set_dials(credits=1_000 - 25)

    for _ in range(3):
        read_balance()

    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == (
        "the account fell by 25 while 20 were counted: another user of the account, or a changed price "
        "(5 instead of 4 a voice?)"
    )
