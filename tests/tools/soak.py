"""`make soak`: a steady load on the whole stack for an hour, then the slopes of memory and of latency.

    make soak SECONDS=3600 SEED=7

Jobs of all kinds arrive, some of which fail, lose a response, or are cancelled; batches report by callbacks, songs are
archived, and all is purged after a twelfth of the time, so that memory is to stay as it is. The exit code is 1 if a
figure grows, a job is lost, or an order is charged twice.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from redis import Redis

from benchmarks.running_stack import Crew
from config.settings import Settings
from tests.support.callback_receiver import CallbackReceiver
from tests.tools.soak_trends import Figures, trends
from voicequeue import Filter, InvalidStateError, Song, State, VoiceJob, VoiceQueue
from voicequeue.domain.states import ACTIVE
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

#: Jobs a second, seconds between two portions of them, and jobs of a batch.
RATE, PAUSE_S, BATCH_SIZE = 5, 0.5, 100

#: Recordings, whose voices are never purged, and the first of them, whose voices are used by their ids.
RECORDINGS, PERSONAS = 50, 5

#: Samples of a run, the seconds between two at least, and the part of the run for which settled jobs are kept.
SAMPLES, SAMPLE_MIN_S, RETAINED_SHARE = 120, 1.0, 1 / 12

#: The timeout until all jobs are settled, from the last one on (seconds).
SETTLE_TIMEOUT_S = 120.0

SECRET = "a long secret of the soak's stack"

ENV = {
    "VOICEQUEUE_POLL_MIN_INTERVAL_S": "1",
    "VOICEQUEUE_POLL_MAX_INTERVAL_S": "1.5",
    "VOICEQUEUE_MAINTENANCE_INTERVAL_S": "1",
    "VOICEQUEUE_UPSTREAM_RESPONSE_TIMEOUT_S": "3",
    "VOICEQUEUE_SUBMIT_LEASE_S": "10",
    "VOICEQUEUE_COOLDOWN_S": "0.5",
    "VOICEQUEUE_INITIAL_IN_FLIGHT": "150",
    "VOICEQUEUE_SECRET": SECRET,
    "VOICEQUEUE_CALLBACK_ALLOWED_HOSTS": "127.0.0.1",
    "VOICEQUEUE_CALLBACK_BACKOFF_INITIAL_S": "0.5",
    "VOICEQUEUE_ARCHIVE_ALLOWED_HOSTS": "127.0.0.1",
    "VOICEQUEUE_LATE_RESULT_TTL_S": "20",
    "VOICEQUEUE_LOG_LEVEL": "WARNING",
}

DIALS: dict[str, object] = {
    "voice_s": 2,
    "music_s": 4,
    "jitter": 0.3,
    "credits": 10**8,
    "webhook": "never",
    "media_bytes": 2_000,
    "fail_match": "doomed",
    "moderate_match": "indecent",
    "post_faults": {"reset_after": 0.003, "error_before": 0.01, "rate_limited": 0.003},
    "get_faults": {"error": 0.01, "reset": 0.01, "false_failure": 0.005},
}

#: Streams and lists that grow to a limit of their own.
CAPPED = ("events", "purged", "audit_log", "samples:hour", "samples:day", "samples:week", "balances")


@dataclass
class Soak:
    """One run on a running stack; `crews` are its processes."""

    seconds: float
    random: random.Random
    queue: VoiceQueue
    redis: Redis
    gateway: tuple[str, str]
    receiver: str
    crews: dict[str, Crew]
    enqueued: int = 0
    persona_ids: list[str] = field(default_factory=list)
    samples: list[tuple[float, Figures]] = field(default_factory=list)

    def run(self) -> None:
        """Enqueue jobs until the time is over, and take samples."""
        self.create_personas()
        started = sampled = time.monotonic()
        interval_s = max(SAMPLE_MIN_S, self.seconds / SAMPLES)
        while (now := time.monotonic()) < started + self.seconds:
            self.enqueue(round(RATE * PAUSE_S + self.random.uniform(-0.5, 0.5)))
            if now >= sampled + interval_s:
                sampled = now
                self.samples.append((now - started, self.sample()))
                self.operate()
            time.sleep(max(0.0, now + PAUSE_S - time.monotonic()))

    def create_personas(self) -> None:
        """Create the voices that jobs use by their ids."""
        ids = [self.queue.enqueue(VoiceJob(audio_url=f"{_SITE}/{it}.wav")).id for it in range(PERSONAS)]
        jobs = [self.queue.wait(job_id, timeout=60) for job_id in ids]
        self.persona_ids = [job.persona_id for job in jobs if job.persona_id]
        self.enqueued += PERSONAS

    def enqueue(self, count: int) -> None:
        """Enqueue jobs of a random kind; each batch calls back."""
        for number in range(self.enqueued, self.enqueued + count):
            batch = f"soak-{number // BATCH_SIZE}"
            if number % BATCH_SIZE == 0:
                self.queue.set_batch_callback(batch, f"{self.receiver}/batch")
            kind = self.random.choice([self.voice, self.song, self.song, self.of_persona, self.reusing, self.sharing])
            self.queue.enqueue(
                VoiceJob(**kind(), batch=batch, key=f"soak-{number}", callback_url=f"{self.receiver}/jobs")
            )
        self.enqueued += count

    def voice(self) -> dict[str, Any]:
        """Return a job without a song."""
        return {"audio_url": self.recording(), "name": f"Voice {self.enqueued}"}

    def song(self) -> dict[str, Any]:
        """Return a job with a song, which may fail."""
        title = self.random.choice([*["A song"] * 20, "A doomed song", "An indecent song"])
        return {"audio_url": self.recording(), "song": Song(prompt="la la", title=f"{title} {self.enqueued}")}

    def of_persona(self) -> dict[str, Any]:
        """Return a job with a voice that exists."""
        return {"persona_id": self.random.choice(self.persona_ids), "song": Song(prompt="la la", title="A song")}

    def reusing(self) -> dict[str, Any]:
        """Return a job that uses the voice of its recording."""
        return {**self.song(), "reuse": True}

    def sharing(self) -> dict[str, Any]:
        """Return a job that shares a voice with others of its batch."""
        return {"audio_url": f"{_SITE}/choir.wav", "voice": "choir", "song": Song(prompt="la la", title="A choir")}

    def recording(self) -> str:
        """Return the URL of a recording."""
        return f"{_SITE}/{self.random.randrange(RECORDINGS)}.wav"

    def operate(self) -> None:
        """Change jobs as operators do: cancel one, retry one that failed, and give up those that are unsure."""
        for state, change in ((State.PENDING, self.queue.cancel), (State.FAILED, self.queue.retry)):
            self.change(state, change, at_most=1)
        self.change(State.UNSURE, self.queue.abandon)

    def change(self, state: State, change: Callable[[str], object], *, at_most: int = 100) -> None:
        """Change the latest jobs in this state."""
        for job in self.queue.search(Filter(state=state), limit=at_most).items:
            with suppress(InvalidStateError):
                change(job.id)

    def sample(self) -> Figures:
        """Return the figures of this moment."""
        memory = {("MB", f"memory of {name}"): crew.memory() / 1e6 for name, crew in self.crews.items()}
        operations: dict[str, Callable[[], object]] = {
            "enqueue": lambda: self.enqueue(1),
            "status": self.queue.status,
            "list": lambda: self.queue.search(Filter(), limit=50),
            "search": lambda: self.queue.search(Filter(text="no such name")),
            "GET /v1/jobs": self.get_jobs,
        }
        return {
            **memory,
            ("MB", "memory of Redis"): self.redis_memory() / 1e6,
            **{("ms", name): _duration_ms(operation) for name, operation in operations.items()},
            ("s", "delay of the latest poll"): self.delay(),
        }

    def get_jobs(self) -> None:
        """List jobs by HTTP."""
        url, token = self.gateway
        headers = {"Authorization": f"Bearer {token}"}
        requests.get(f"{url}/v1/jobs", headers=headers, timeout=30).raise_for_status()

    def redis_memory(self) -> int:
        """Return the bytes that Redis uses for what has no limit of its own."""
        used = int(self.redis.info("memory")["used_memory"])
        return used - sum(self.redis.memory_usage(f"{{{DEFAULT_PREFIX}}}:{name}") or 0 for name in CAPPED)

    def delay(self) -> float:
        """Return by how many seconds the job in flight that was due first is late."""
        due = self.redis.zrange(f"{{{DEFAULT_PREFIX}}}:in_flight", 0, 0, withscores=True)
        return max(0.0, time.time() - float(due[0][1])) if due else 0.0

    def finish(self, control: str) -> list[str]:
        """Wait until all jobs are settled, and return what is wrong."""
        healthy: dict[str, object] = {"post_faults": {}, "get_faults": {}}
        requests.patch(f"{control}/dials", json=healthy, timeout=10).raise_for_status()
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while (remaining := self.unsettled()) and time.monotonic() < deadline:
            self.change(State.UNSURE, self.queue.abandon)
            time.sleep(0.5)
        findings = [f"not settled: {remaining}"] if remaining else []
        findings += [str(finding) for finding in audit(self.redis, DEFAULT_PREFIX)]
        return findings + list(self.differences(control))

    def unsettled(self) -> dict[str, int]:
        """Return how many jobs and callbacks are in progress."""
        states = self.queue.status().states
        counts = {str(state): states[state] for state in (*ACTIVE, State.UNSURE)}
        counts["callbacks"] = self.queue.callback_counts().pending
        return {name: count for name, count in counts.items() if count}

    def differences(self, control: str) -> Iterator[str]:
        """Yield the differences between what was enqueued and charged, and what the records and counters say."""
        status = self.queue.status()
        counters = Counter({name: int(it) for name, it in self.redis.hgetall(f"{{{DEFAULT_PREFIX}}}:counters").items()})
        count = sum(status.states.values()) + sum(counters[f"purged.{state}"] for state in State)
        if count != self.enqueued:
            yield f"{self.enqueued} jobs were enqueued, {count} are there or were purged"
        spent = requests.get(f"{control}/ledger?charges=0", timeout=60).json()["credits_spent"]
        if not status.credits <= spent <= status.credits + counters["unsettled"]:
            yield f"{spent} credits were charged, {status.credits} are counted, {counters['unsettled']} may be lost"


_SITE = "https://recordings.example"


def _duration_ms(operation: Callable[[], object]) -> float:
    started = time.perf_counter()
    operation()
    return (time.perf_counter() - started) * 1000


def soak(*, seconds: float, seed: int, home: Path, say: Callable[[str], None]) -> list[str]:
    """Run once in the folder `home`, and print the trends; return the findings."""
    with ExitStack() as resources:
        receiver = CallbackReceiver(SECRET, seed=seed, bad=0.02)
        resources.enter_context(receiver.server)
        supervisor = resources.enter_context(Supervisor(say))
        env = {
            **ENV,
            "VOICEQUEUE_RETENTION_DAYS": str(seconds * RETAINED_SHARE / 86_400),
            "VOICEQUEUE_ARCHIVE_URL": f"file://{home}/songs",
        }
        stack = Stack(supervisor, Settings(_env_file=None), home=home, env=env)
        redis_url = stack.start_valkey()
        _, control = stack.start_simulator({**DIALS, "seed": seed})
        gateway = stack.start_gateway(webhooks=False)
        stack.start_callbacks()
        stack.start_archive()
        workers = stack.start_workers(2)
        token = stack.gateway_token() or ""
        queue = resources.enter_context(VoiceQueue(redis_url, namespace="*"))
        redis = resources.enter_context(connect(redis_url))
        crews = dict(_crews(supervisor, [*workers, "callbacks", "archive", "web"]))
        run = Soak(seconds, random.Random(seed), queue, redis, (gateway, token), receiver.server.url, crews)
        run.run()
        findings = run.finish(control)
        print(f"seed {seed}, {seconds:g} s: {run.enqueued:,} jobs, {receiver.received:,} callbacks")
    for figure in trends(run.samples):
        print(figure)
        findings += [f"{figure.name} grows by {figure.hourly:.1f} {figure.unit} an hour"] if figure.grows else []
    return findings


def _crews(supervisor: Supervisor, names: list[str]) -> Iterator[tuple[str, Crew]]:
    for name in names:
        pid = supervisor.pid(name)
        assert pid is not None, f"{name} does not run"
        yield name, Crew([pid])


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"seed {options.seed}; logs: {home / 'log'}", flush=True)
    findings = soak(**vars(options), home=home, say=lambda _: None)
    print("\n".join(findings) or "nothing grows, nothing lost, nothing charged twice")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
