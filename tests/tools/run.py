"""A run of real processes: its jobs, and what must be true of them after its faults."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.skewed_clock import SkewedClock
from tests.support.callback_receiver import CallbackReceiver, expected
from tests.support.sentinels import FailoverGroup
from tests.tools.torture_setup import (
    BUDGET,
    BUDGETED,
    ENV,
    LIMIT,
    LIMITED,
    SHARING,
    dials,
    differences,
    recording_number,
    songs_of,
    spent_by,
    without_faults,
)
from voicequeue import FailureCode, InvalidStateError, Song, State, StoreUnavailableError, VoiceJob, VoiceQueue
from voicequeue.domain.states import ACTIVE
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX
from workers.local.stack import Stack, procfile
from workers.local.supervisor import Supervisor

#: After the last fault the run fails if nothing settles for this many seconds.
SETTLE_TIMEOUT_S = 60.0

#: The last callback of a batch may take this many seconds.
CALLBACK_TIMEOUT_S = 15.0

#: Work resumes within this time after a fault of Redis or of the network (seconds).
RESUMES_WITHIN_S = 30.0

#: A steady producer enqueues so many jobs at once, and then waits (seconds).
PORTION, PAUSE_S = 2, 0.25

#: The event that a worker logs for an order that it has sent.
SUBMITTED = b'"event": "submitted"'


def environment(group: FailoverGroup | None = None) -> dict[str, str]:
    """Return the environment of the processes: no claim is forgotten by a failover."""
    return ENV if group is None else {**ENV, "VOICEQUEUE_REPLICAS_ACK": str(group.replicas_ack)}


@dataclass
class Run:
    """One run. With `group`, its Redis fails over."""

    seconds: float
    seed: int
    webhooks: bool
    supervisor: Supervisor
    stack: Stack
    home: Path
    receiver: CallbackReceiver
    group: FailoverGroup | None = None
    done: Counter[str] = field(default_factory=Counter)
    enqueued: int = 0
    title: str = "Song"

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.clock = SkewedClock(self.home / "clock")
        self.redis_url = self.start_redis()
        self.control = self.start_simulator()
        self.workers = self.start_workers()
        with self.queue() as queue:
            queue.set_batch_callback("torture", f"{self.receiver.server.url}/batch")
            queue.set_batch_limits(LIMITED, max_credits=LIMIT)
            queue.enqueue_many(songs_of(LIMITED))
            queue.set_budget(f"namespace/{BUDGETED}", day=BUDGET, month=BUDGET)
        with self.queue(namespace=BUDGETED) as app:
            app.enqueue_many(songs_of(BUDGETED, batches=3))

    def queue(self, *, wait_s: float = 0.0, namespace: str = "*") -> VoiceQueue:
        """Connect as a producer and operator, whose changes no failover may forget."""
        replicas = self.group.replicas_ack if self.group else 0
        return VoiceQueue(self.redis_url, wait_for_redis_s=wait_s, namespace=namespace, replicas_ack=replicas)

    def start_redis(self) -> str:
        """Start the Redis of the run; return its URL."""
        if self.group is None:
            return self.stack.start_valkey()
        self.group.start()
        self.stack.use_redis(self.group.url)
        return self.group.url

    def start_simulator(self) -> str:
        """Start the simulator; return the URL of its controls."""
        _, control = self.stack.start_simulator(dials(self.seed, webhooks=self.webhooks))
        return control

    def start_workers(self) -> list[str]:
        """Start the other processes, with a second worker whose clock can be set; return the names of the workers."""
        if self.webhooks:
            self.stack.start_gateway(webhooks=True)
        self.stack.start_callbacks()
        workers = self.stack.start_workers(1)
        self.stack.start("worker.2", self.clock.command(procfile()["worker"]))
        self.stack.wait_for_workers(2)
        return [*workers, "worker.2"]

    def inject(self, faults: Sequence[Callable[[], bool]]) -> list[str]:
        """Inject faults at random while jobs arrive, until the time is over; return the findings."""
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            self.enqueue(self.random.randint(5, 25))
            fault = self.random.choice(faults)
            if fault():  # a signal to a worker that is down does not count
                self.done[fault.__name__] += 1
            time.sleep(self.random.uniform(0.5, 2.5))
        return self.finish()

    def finish(self) -> list[str]:
        """End the faults of the simulator, wait until all jobs are settled, and return the findings."""
        faults = self.ledger()["faults"]
        self.dial(**without_faults())
        self.resume()
        is_settled = self.wait_until_settled()
        findings = ([] if is_settled else ["some jobs are not settled"]) + self.check() + self.check_callbacks()
        self.report(faults)
        return findings

    def enqueue(self, count: int) -> None:
        """Enqueue more voices; each has a key, so a retry is safe."""
        voices = self.voices(count)
        while True:
            with contextlib.suppress(StoreUnavailableError), self.queue() as queue:
                queue.enqueue_many(voices)
                self.enqueued += count
                return

    def voices(self, count: int) -> list[VoiceJob]:
        """Return the next jobs."""
        return [
            VoiceJob(
                audio_url=f"https://recordings.example/{recording_number(number)}.wav",
                reuse=number % SHARING == 0,
                song=Song(prompt="la la", title=f"{self.title} {number}"),
                batch="torture",
                key=f"torture-{number}",
                callback_url=f"{self.receiver.server.url}/jobs",
            )
            for number in range(self.enqueued, self.enqueued + count)
        ]

    @contextmanager
    def producing(self, *, at_least: int = 0) -> Iterator[None]:
        """Enqueue jobs all the time, also while Redis does not accept them, and at least so many."""
        is_over = threading.Event()

        def produce() -> None:
            while not (is_over.wait(PAUSE_S) and self.enqueued >= at_least):
                self.enqueue(PORTION)

        thread = threading.Thread(target=produce, name="producer")
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def resume(self) -> None:
        """Resume the queue, as the runbook says; repeat it until replicas have recorded it."""
        while True:
            with contextlib.suppress(StoreUnavailableError), self.queue(wait_s=30) as queue:
                queue.resume()
                return

    def wait_until_resumed(self, *, until: float) -> None:
        """Wait until each worker has sent another order, at most until this time of the monotonic clock."""
        waiting = {log: log.stat().st_size for name in self.workers if (log := self.home / "log" / f"{name}.log")}
        while waiting and time.monotonic() < until:
            time.sleep(0.05)
            waiting = {log: size for log, size in waiting.items() if SUBMITTED not in log.read_bytes()[size:]}

    def worker(self) -> int | None:
        """Return the process id of one of the workers, or None if it is down."""
        return self.supervisor.pid(self.random.choice(self.workers))

    def wait_until_settled(self) -> bool:
        """Wait until every job is final or unsure and every callback is delivered; return whether that happened in
        time.

        The deadline moves as long as there is progress.
        """
        unsettled, deadline = self.unsettled(), time.monotonic() + SETTLE_TIMEOUT_S
        while unsettled and time.monotonic() < deadline:
            time.sleep(0.1)
            with contextlib.suppress(StoreUnavailableError):
                self.review()
            if (remaining := self.unsettled()) < unsettled:
                unsettled, deadline = remaining, time.monotonic() + SETTLE_TIMEOUT_S
        return not unsettled

    def review(self) -> None:
        """Retry jobs that failed during the faults (free if upstream has the order), and settle unsure voices that
        other jobs wait for, as an operator does who asks upstream whether they were charged."""
        with self.queue() as queue:
            for job in queue.jobs(state=State.FAILED):
                if job.failure and job.failure.code is not FailureCode.ABANDONED:
                    with contextlib.suppress(InvalidStateError):  # a late result was faster
                        queue.retry(job.id)
            creators = {creator for job in queue.jobs(state=State.WAITING) if (creator := queue.voice_creator(job))}
            unsure = [job for job in map(queue.get, creators) if job.state is State.UNSURE]
            paid = self.ledger()["charges"] if unsure else []
            for job in unsure:
                orders = [charge["task_id"] for charge in paid if charge["subject"] == job.spec.audio_url]
                with contextlib.suppress(InvalidStateError):  # a webhook was faster
                    if orders:
                        queue.confirm_charged(job.id, orders[-1])
                    elif job.is_cancelling:
                        queue.abandon(job.id)
                    else:
                        queue.resubmit(job.id)

    def unsettled(self) -> int:
        """Return how many jobs and callbacks are in progress; more than there are if Redis does not answer."""
        with contextlib.suppress(StoreUnavailableError), self.queue() as queue:
            batch = queue.batch("torture")
            return sum(batch.states[state] for state in ACTIVE) + queue.callback_counts().pending
        return 3 * self.enqueued

    def check(self) -> list[str]:
        """Check the invariants against the simulator's ledger and the records; return the findings."""
        with self.queue() as queue, connect(self.redis_url) as client:
            jobs = list(queue.jobs(batch="torture"))
            reasons = {job.id: queue.timeline(job.id)[-1].reason for job in jobs if job.state is State.UNSURE}
            findings = [str(finding) for finding in audit(client, DEFAULT_PREFIX)]
        ledger = self.ledger()
        findings += [f"charged twice: {fingerprint}" for fingerprint in ledger["double_charges"]]
        findings += [f"job {job_id} is unsure without a reason" for job_id, reason in reasons.items() if not reason]
        failed = (job for job in jobs if job.failure and job.failure.code is not FailureCode.ABANDONED)
        findings += [f"job {job.id} failed: {job.failure}" for job in failed]
        for owner, limit in {LIMITED: LIMIT, BUDGETED: BUDGET}.items():
            if (spent := spent_by(owner, ledger)) > limit:
                findings.append(f"{spent} credits were spent by {owner} with a limit of {limit}")
        if len(jobs) != self.enqueued:
            findings.append(f"{self.enqueued} jobs were enqueued, {len(jobs)} are there")
        self.states = Counter(str(job.state) for job in jobs)
        return findings + list(differences(jobs, ledger))

    def notified_states(self, queue: VoiceQueue) -> dict[State, int]:
        """Return the batch's states once they match the last callback, or as they are after a timeout.

        A late webhook may change an unsure job while the others are read; the callback for it follows a moment later.
        """
        deadline = time.monotonic() + CALLBACK_TIMEOUT_S
        while (states := queue.batch("torture").states) != self.receiver.last_batch and time.monotonic() < deadline:
            time.sleep(0.1)
        return states

    def check_callbacks(self) -> list[str]:
        """Check that each job's callbacks match its timeline, in order."""
        with self.queue() as queue:
            states = self.notified_states(queue)
            expected_events = {job.id: expected(queue.timeline(job.id)) for job in queue.jobs(batch="torture")}
            given_up = [str(callback) for callback in queue.callbacks(undelivered=True)]
        of_jobs = self.receiver.of_jobs
        findings = [
            f"job {job_id}: callbacks {of_jobs.get(job_id, [])}, expected {expected_events.get(job_id, [])}"
            for job_id in {**expected_events, **of_jobs}
            if of_jobs.get(job_id, []) != expected_events.get(job_id, [])
        ]
        if self.receiver.last_batch != states:
            findings.append(f"the batch's last callback says {self.receiver.last_batch}")
        if self.receiver.unsigned:
            findings.append(f"{self.receiver.unsigned} callbacks had an invalid signature")
        return findings + given_up

    def report(self, faults: dict[str, int]) -> None:
        """Print a summary."""
        print(f"seed {self.seed}, {self.seconds:g} s, webhooks {'on' if self.webhooks else 'off'}")
        print(f"jobs {self.enqueued}: {dict(self.states)}")
        print(f"callbacks {sum(map(len, self.receiver.of_jobs.values()))}, received {self.receiver.received}")
        print(f"faults injected {dict(self.done)}")
        print(f"simulator faults {sum(faults.values())}: {faults}")

    def ledger(self) -> dict[str, Any]:
        """Return the simulator's ledger."""
        ledger: dict[str, Any] = requests.get(f"{self.control}/ledger", timeout=60).json()
        return ledger

    def dial(self, **dials: object) -> None:
        """Set the simulator's dials."""
        requests.patch(f"{self.control}/dials", json=dials, timeout=10).raise_for_status()
