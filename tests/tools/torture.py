"""`make torture`: kill every process, again and again, then compare the simulator's ledger with the records.

    make torture SECONDS=180 SEED=7

Seeded, so that a run can be repeated as far as real processes allow.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
from redis.exceptions import RedisError

from config.settings import Settings
from tests.skewed_clock import SkewedClock
from tests.support.callback_receiver import CallbackReceiver, expected
from tests.support.refusing import CODES, rejecting_writes
from tests.tools.torture_setup import (
    BUDGET,
    BUDGETED,
    ENV,
    LIMIT,
    LIMITED,
    REFUSALS,
    REFUSED,
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
from voicequeue.storage.connection.retry import UNREACHABLE
from workers.local.stack import Stack, procfile
from workers.local.supervisor import Supervisor

#: After the last fault the run fails if nothing settles for this many seconds.
SETTLE_TIMEOUT_S = 60.0

#: The last callback of a batch may take this many seconds.
CALLBACK_TIMEOUT_S = 15.0


@dataclass
class Torture:
    """One run."""

    seconds: float
    seed: int
    webhooks: bool
    supervisor: Supervisor
    stack: Stack
    home: Path
    receiver: CallbackReceiver
    done: Counter[str] = field(default_factory=Counter)
    enqueued: int = 0
    title: str = "Song"

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.redis_url = self.start_redis()
        _, self.control = self.stack.start_simulator(dials(self.seed, webhooks=self.webhooks))
        if self.webhooks:
            self.stack.start_gateway(webhooks=True)
        self.stack.start_callbacks()
        self.workers = self.stack.start_workers(1)
        self.clock = SkewedClock(self.home / "clock")
        self.stack.start("worker.2", self.clock.command(procfile()["worker"]))
        self.workers.append("worker.2")
        self.stack.wait_for_workers(2)
        with VoiceQueue(self.redis_url, namespace="*") as queue:
            queue.set_batch_callback("torture", f"{self.receiver.server.url}/batch")
            queue.set_batch_limits(LIMITED, max_credits=LIMIT)
            queue.enqueue_many(songs_of(LIMITED))
            queue.set_budget(f"namespace/{BUDGETED}", day=BUDGET, month=BUDGET)
        with VoiceQueue(self.redis_url, namespace=BUDGETED) as app:
            app.enqueue_many(songs_of(BUDGETED, batches=3))

    def start_redis(self) -> str:
        """Start the Redis of the run; return its URL."""
        return self.stack.start_valkey()

    def run(self) -> list[str]:
        """Run the faults, wait until all jobs are settled, and return the findings."""
        injections = [self.kill_worker, self.kill_child, self.stop_worker, self.freeze_worker, self.kill_valkey]
        injections += [self.cut_connections, self.refuse, self.cancel, self.kill_callbacks, self.refuse_writes]
        injections += [self.set_clock, self.reject_some_jobs, self.pause_limited]
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            self.enqueue(self.random.randint(5, 25))
            fault = self.random.choice(injections)
            if fault():  # a signal to a worker that is down does not count
                self.done[fault.__name__] += 1
            time.sleep(self.random.uniform(0.5, 2.5))
        faults = self.ledger()["faults"]
        self.dial(**without_faults())
        self.resume()
        is_settled = self.wait_until_settled()
        findings = ([] if is_settled else ["some jobs are not settled"]) + self.check() + self.check_callbacks()
        self.report(faults)
        return findings

    # ── faults ─────────────────────────────────────────────────────────────────────────────────────

    def enqueue(self, count: int) -> None:
        """Enqueue more voices; each has a key, so a retry is safe."""
        voices = self.voices(count)
        while True:
            with contextlib.suppress(StoreUnavailableError), VoiceQueue(self.redis_url, namespace="*") as queue:
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

    def kill_worker(self) -> bool:
        """Kill a worker with SIGKILL, with or without its children."""
        return self.send_signal(self.random.choice([os.kill, os.killpg]), signal.SIGKILL)

    def kill_callbacks(self) -> bool:
        """Kill or freeze the process that delivers callbacks."""
        pid = self.supervisor.pid("callbacks")
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            if self.random.random() < 0.5:
                os.killpg(pid, signal.SIGKILL)
            else:
                os.killpg(pid, signal.SIGSTOP)
                time.sleep(self.random.uniform(0.5, 5))
                os.killpg(pid, signal.SIGCONT)
        return True

    def stop_worker(self) -> bool:
        """Stop a worker as a deploy, systemd or a closed terminal does."""
        number = self.random.choice([signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
        return self.send_signal(self.random.choice([os.kill, os.killpg]), number)

    def send_signal(self, send: Callable[[int, int], None], number: signal.Signals) -> bool:
        """Send the signal to a worker; return whether one was running."""
        if pid := self.worker():
            with contextlib.suppress(ProcessLookupError):
                send(pid, number)
                return True
        return False

    def kill_child(self) -> bool:
        """Kill one prefork child."""
        with contextlib.suppress(psutil.Error):
            if (pid := self.worker()) and (children := psutil.Process(pid).children()):
                self.random.choice(children).kill()
                return True
        return False

    def freeze_worker(self) -> bool:
        """Freeze a worker for a while; its later actions may be late."""
        if pid := self.worker():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGSTOP)
                time.sleep(self.random.uniform(0.5, 8))
                os.killpg(pid, signal.SIGCONT)
                return True
        return False

    def kill_valkey(self) -> bool:
        """Kill Valkey, which restarts from its file."""
        if pid := self.supervisor.pid("valkey"):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    def cut_connections(self) -> bool:
        """Cut every connection to Valkey, which keeps running."""
        with contextlib.suppress(*UNREACHABLE), connect(self.redis_url) as client:
            cut = client.client_kill_filter(_type="normal", skipme=True) + client.client_kill_filter(_type="pubsub")
            return bool(cut)
        return False

    def refuse(self) -> bool:
        """Make upstream refuse connections for a while."""
        for_s = self.random.uniform(0.3, 2)
        requests.post(f"{self.control}/refuse", json={"for_s": for_s}, timeout=10).raise_for_status()
        return True

    def cancel(self) -> bool:
        """Cancel a job that is pending, charging or unsure, if there is one."""
        state = self.random.choice([State.PENDING, State.PENDING, State.CHARGING, State.UNSURE])
        with (
            contextlib.suppress(StoreUnavailableError, InvalidStateError),
            VoiceQueue(self.redis_url, namespace="*") as queue,
        ):
            for job in queue.jobs(state=state):
                queue.cancel(job.id)
                return True
        return False

    def refuse_writes(self) -> bool:
        """Make Redis reject writes for a while: out of memory, too few replicas, or a replica itself."""
        with contextlib.suppress(RedisError), connect(self.redis_url) as client:
            with rejecting_writes(client, self.random.choice(CODES)):
                time.sleep(self.random.uniform(0.3, 4))
            return True
        return False

    def set_clock(self) -> bool:
        """Set the clock of a worker's host ahead or behind."""
        self.clock.set(self.random.choice([-90, -5, 0, 5, 90, 3600]))
        return True

    def reject_some_jobs(self) -> bool:
        """Make upstream reject a few jobs from now on, with an error that could apply to all."""
        self.dial(refuse_match=REFUSED, refuse_with=self.random.choice(REFUSALS))
        self.title = REFUSED
        self.enqueue(self.random.randint(1, 3))
        self.title = "Song"
        self.resume()
        return True

    def pause_limited(self) -> bool:
        """Pause or resume the batch with limited credits."""
        with contextlib.suppress(StoreUnavailableError), VoiceQueue(self.redis_url, namespace="*") as queue:
            queue.set_batch_limits(LIMITED, paused=self.random.random() < 0.3)
            return True
        return False

    def resume(self) -> None:
        """Resume the queue, as the runbook says."""
        with VoiceQueue(self.redis_url, wait_for_redis_s=30, namespace="*") as queue:
            queue.resume()

    def worker(self) -> int | None:
        """Return the process id of one of the workers, or None if it is down."""
        return self.supervisor.pid(self.random.choice(self.workers))

    # ── invariants ─────────────────────────────────────────────────────────────────────────────────

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
        with VoiceQueue(self.redis_url, namespace="*") as queue:
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
        with contextlib.suppress(StoreUnavailableError), VoiceQueue(self.redis_url, namespace="*") as queue:
            batch = queue.batch("torture")
            return sum(batch.states[state] for state in ACTIVE) + queue.callback_counts().pending
        return 3 * self.enqueued

    def check(self) -> list[str]:
        """Check the invariants against the simulator's ledger and the records; return the findings."""
        with VoiceQueue(self.redis_url, namespace="*") as queue, connect(self.redis_url) as client:
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
        with VoiceQueue(self.redis_url, namespace="*") as queue:
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


def torture(*, seconds: float, seed: int, webhooks: bool, home: Path, say: Callable[[str], None]) -> list[str]:
    """Run once in the folder `home`; return the findings."""
    receiver = CallbackReceiver(ENV["VOICEQUEUE_SECRET"], seed=seed, bad=0.05)
    with receiver.server, Supervisor(say) as supervisor:
        stack = Stack(supervisor, Settings(_env_file=None), home=home, env=ENV)
        return Torture(seconds, seed, webhooks, supervisor, stack, home, receiver).run()


def main() -> int:
    """Run from the command line: with webhooks for an even seed, without for an odd one."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="torture-"))
    print(f"seed {options.seed}; logs: {home / 'log'}", flush=True)
    webhooks = options.seed % 2 == 0
    findings = torture(seconds=options.seconds, seed=options.seed, webhooks=webhooks, home=home, say=lambda _: None)
    print("\n".join(findings) or "nothing lost, nothing charged twice, ledger and records agree")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
