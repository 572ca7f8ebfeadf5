"""Restart every process in turns while jobs run, each time with another release, then compare ledger and records.

    python -m tests.tools.rolling --rounds 10 --jobs 2000 --seed 1

Each process is stopped by SIGTERM and waited for, as docs/guides/upgrading.md says. It then runs the other release: in
odd rounds this one (an upgrade), in even rounds the previous one (going back).
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from config.settings import Settings
from tests.support.callback_receiver import CallbackReceiver
from tests.support.releases import Deployments, PreviousProducer, audit_by_previous, previous_producer, unpack_previous
from tests.tools.run import Run
from tests.tools.torture_setup import ENV, dials, without_faults
from voicequeue import State
from workers.local.stack import FILES_HOST, Stack
from workers.local.supervisor import Supervisor

#: The processes, in the order in which they are restarted, by their kind in the Procfile.
PROCESSES = {
    "worker.1": "worker",
    "callbacks": "callbacks",
    "web": "web",
    "archive": "archive",
    "worker.2": "worker",
    "flower": "flower",
}

#: Intervals at which a busy machine loses no time with polls and repeated messages.
PACE = {
    "VOICEQUEUE_POLL_MIN_INTERVAL_S": "1",
    "VOICEQUEUE_POLL_MAX_INTERVAL_S": "1.5",
    "VOICEQUEUE_MAINTENANCE_INTERVAL_S": "1",
    "VOICEQUEUE_OVERDUE_AFTER_S": "8",
    "VOICEQUEUE_TASK_CHUNK_SIZE": "25",
    "VOICEQUEUE_UPSTREAM_RESPONSE_TIMEOUT_S": "5",
    "VOICEQUEUE_SUBMIT_LEASE_S": "15",
    "VOICEQUEUE_INITIAL_IN_FLIGHT": "150",
}

#: Jobs that the producer enqueues at once.
BURST = 5


@dataclass
class Rolling(Run):
    """One run, whose only faults are restarts."""

    deployments: Deployments = field(kw_only=True)
    rounds: int = field(kw_only=True)
    jobs: int = field(kw_only=True)
    processes: Sequence[str] = field(kw_only=True, default=tuple(PROCESSES))
    restarted: Sequence[str] = field(kw_only=True, default=tuple(PROCESSES))
    stops: list[float] = field(default_factory=list)
    previous_producer: PreviousProducer = field(init=False)

    def start_simulator(self) -> str:
        """Start an upstream without faults that takes its time; return the URL of its controls."""
        healthy = {**dials(self.seed, webhooks=True), **without_faults(), "clip_failure": 0, "clip_stall": 0}
        _, control = self.stack.start_simulator({**healthy, "latency_s": 0.15, "webhook": "once"})
        return control

    def start_workers(self) -> list[str]:
        """Start all processes with the previous release; return the names of the workers."""
        self.web = self.stack.start_gateway(webhooks=True)
        self.supervisor.remove("web")
        if "flower" in self.processes:
            self.stack.start_flower()
            self.supervisor.remove("flower")
        for name in self.processes:
            self.stack.start(name, self.deployments.command(name, PROCESSES[name], is_previous=True), stop_s=60)
        workers = [name for name in self.processes if PROCESSES[name] == "worker"]
        self.stack.wait_for_workers(len(workers))
        return workers

    def run(self) -> list[str]:
        """Restart each process in turns, wait until all jobs are settled, and return the findings."""
        with self.producing_evenly():
            for number in range(1, self.rounds + 1):
                for name in self.restarted:
                    self.restart(name, is_previous=number % 2 == 0)
                print(
                    f"round {number}: {self.enqueued} jobs so far, stops took {max(self.stops):.1f} s at most",
                    flush=True,
                )
        is_settled = self.wait_until_settled()
        findings = ([] if is_settled else ["some jobs are not settled"]) + self.check() + self.check_callbacks()
        findings += [f"{count} jobs are {state}" for state, count in self.states.items() if state != State.SUCCEEDED]
        findings += self.check_archive() if "archive" in self.processes else []
        findings += filter(None, [audit_by_previous(self.deployments.previous, self.redis_url)])
        self.report({})
        return findings

    def restart(self, name: str, *, is_previous: bool) -> None:
        """Stop a process as a deployment does, and start the other release. Raises TimeoutError if it does not stop."""
        stopped_at = time.monotonic()
        with self.supervisor.held_down(name, signal.SIGTERM, whole_group=False):
            self.stops.append(time.monotonic() - stopped_at)
            self.deployments.deploy(name, is_previous=is_previous)
        self.done[f"{PROCESSES[name]} restarted"] += 1
        if PROCESSES[name] == "worker":
            self.stack.wait_for_workers(len(self.workers))

    @contextmanager
    def producing_evenly(self) -> Iterator[None]:
        """Enqueue jobs from a thread meanwhile, evenly, and the rest of them afterwards."""
        stopping, restarts = threading.Event(), self.rounds * len(self.restarted)

        def produce() -> None:
            while not stopping.is_set() and self.enqueued < self.jobs:
                self.enqueue(BURST)
                # About three seconds for each restart.
                stopping.wait(3 * restarts * BURST / self.jobs)

        with previous_producer(self.deployments.previous, self.redis_url) as self.previous_producer:
            thread = threading.Thread(target=produce)
            thread.start()
            try:
                yield
            finally:
                stopping.set()
                thread.join()
            while self.enqueued < self.jobs:
                self.enqueue(min(10 * BURST, self.jobs - self.enqueued))

    def enqueue(self, count: int) -> None:
        """Enqueue by the library of this or of the previous release, or by HTTP, in turns."""
        bodies = [voice.model_dump(mode="json", exclude_defaults=True) for voice in self.voices(count)]
        match self.random.randrange(3):
            case 0:
                super().enqueue(count)
                return
            case 1:
                self.previous_producer.enqueue(bodies)
            case _:
                for body in bodies:
                    while not self.posted(body):  # the gateway is restarting
                        time.sleep(0.1)
        self.enqueued += count

    def posted(self, body: dict[str, Any]) -> bool:
        """Post a job; return whether it was accepted."""
        headers = {"Authorization": f"Bearer {self.stack.gateway_token()}"}
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            response = requests.post(f"{self.web}/v1/jobs", json=body, headers=headers, timeout=5)
            if response.status_code not in (502, 503):
                response.raise_for_status()
                return True
        return False

    def check_archive(self) -> list[str]:
        """Check that the songs of all jobs were archived."""
        with self.queue() as queue:
            deadline = time.monotonic() + 60
            while (counts := queue.archive_counts()).pending and time.monotonic() < deadline:
                time.sleep(0.2)
        return [f"the archive: {counts}"] if counts.pending or counts.failed else []


def run(
    *,
    rounds: int,
    jobs: int,
    seed: int,
    home: Path,
    say: Callable[[str], None],
    processes: Sequence[str] = tuple(PROCESSES),
    restarted: Sequence[str] = tuple(PROCESSES),
) -> list[str]:
    """Run once in the folder `home`; return the findings."""
    receiver = CallbackReceiver(ENV["VOICEQUEUE_SECRET"], seed=seed, bad=0.0)
    deployments = Deployments(home / "current", unpack_previous(home / "previous"))
    env = {**ENV, **PACE}
    if "archive" in processes:
        env |= {
            "VOICEQUEUE_ARCHIVE_URL": f"file://{home}/songs",
            "VOICEQUEUE_AUDIO_ALLOWED_HOSTS": f"{FILES_HOST} 127.0.0.1",
        }
    with receiver.server, Supervisor(say) as supervisor:
        stack = Stack(supervisor, Settings(_env_file=None), home=home, env=env)
        started = Rolling(
            0,
            seed,
            True,
            supervisor,
            stack,
            home,
            receiver,
            deployments=deployments,
            rounds=rounds,
            jobs=jobs,
            processes=processes,
            restarted=restarted,
        )
        return started.run()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.rolling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="rolling-"))
    print(f"seed {options.seed}; logs: {home / 'log'}", flush=True)
    findings = run(rounds=options.rounds, jobs=options.jobs, seed=options.seed, home=home, say=lambda _: None)
    print("\n".join(findings) or "nothing lost, nothing charged twice, nothing unsure, ledger and records agree")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
