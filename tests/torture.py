"""`make torture`: everything that can die dies, again and again; then the ledger and the records are compared.

    make torture SECONDS=180 SEED=7

Seeded, so that a run can be repeated (as far as real processes let themselves be repeated).
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
from tests.support.refusing import CODES, refusing
from tests.support.told import Told, expected
from tests.torture_setup import (
    ENV,
    LIMIT,
    LIMITED,
    REFUSALS,
    REFUSED,
    dials,
    differences,
    spent_by_limited,
    without_faults,
)
from voicequeue import Code, NotAllowed, Song, State, StoreUnreachable, VoiceJob, VoiceQueue
from voicequeue.client.reading import UNSETTLED
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.connection import UNREACHABLE
from voicequeue.storage.job_store import connect
from voicequeue.storage.keyspace import DEFAULT_PREFIX
from workers.local.stack import Stack, procfile
from workers.local.supervisor import Supervisor

#: When all faults are over, so many seconds may pass without anything coming to rest.
REST_S = 60.0

#: How long (seconds) a batch may take to be told of its last move.
TOLD_S = 15.0


#: Of so many jobs one shares its voice, with as many others.
SHARING = 4


def _singer(number: int) -> int:
    """Whose recording a job is about."""
    return number if number % SHARING else number - number % (SHARING * SHARING)


@dataclass
class Torture:
    """One run."""

    seconds: float
    seed: int
    webhooks: bool
    supervisor: Supervisor
    stack: Stack
    home: Path
    told: Told
    done: Counter[str] = field(default_factory=Counter)
    enqueued: int = 0
    title: str = "Song"

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.redis_url = self.stack.start_valkey()
        _, self.control = self.stack.start_simulator(dials(self.seed, webhooks=self.webhooks))
        if self.webhooks:
            self.stack.start_web(webhooks=True)
        self.stack.start_callbacks()
        self.workers = self.stack.start_workers(1)
        self.clock = SkewedClock(self.home / "clock")
        self.stack.start("worker.2", self.clock.command(procfile()["worker"]))
        self.workers.append("worker.2")
        self.stack.wait_for_workers(2)
        with VoiceQueue(self.redis_url) as queue:
            queue.call_back_batch("torture", f"{self.told.receiver.url}/batch")
            queue.limit_batch(LIMITED, max_credits=LIMIT)
            queue.enqueue_many(
                {"audio_url": f"https://recordings.example/{LIMITED}-{number}.wav", "batch": LIMITED,
                 "song": {"prompt": "la la", "title": f"Limited {number}"}, "key": f"{LIMITED}-{number}"}
                for number in range(60)
            )  # fmt: skip

    def run(self) -> list[str]:
        """Torture, let everything come to rest, and say what is wrong."""
        deeds = [self.kill_worker, self.kill_child, self.end_worker, self.freeze_worker, self.kill_valkey]
        deeds += [self.cut_connections, self.refuse, self.cancel, self.kill_callbacks, self.refuse_writes]
        deeds += [self.set_clock, self.refuse_some, self.pause_limited]
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            self.enqueue(self.chance.randint(5, 25))
            deed = self.chance.choice(deeds)
            if deed():  # a worker that is down already cannot be killed, and does not count
                self.done[deed.__name__] += 1
            time.sleep(self.chance.uniform(0.5, 2.5))
        faults = self.ledger()["faults"]
        self.dial(**without_faults())
        self.resume()
        rested = self.come_to_rest()
        findings = ([] if rested else ["jobs are still on their way"]) + self.check() + self.check_callbacks()
        self.tell(faults)
        return findings

    # ── what is done ───────────────────────────────────────────────────────────────────────────

    def enqueue(self, count: int) -> None:
        """Put more voices in; every one has a key, so trying again is safe."""
        numbers = range(self.enqueued, self.enqueued + count)
        voices = [
            VoiceJob(
                audio_url=f"https://recordings.example/{_singer(number)}.wav",
                reuse=number % SHARING == 0,
                song=Song(prompt="la la", title=f"{self.title} {number}"),
                batch="torture",
                key=f"torture-{number}",
                callback_url=f"{self.told.receiver.url}/jobs",
            )
            for number in numbers
        ]
        while True:
            with contextlib.suppress(StoreUnreachable), VoiceQueue(self.redis_url) as queue:
                queue.enqueue_many(voices)
                self.enqueued += count
                return

    def kill_worker(self) -> bool:
        """SIGKILL of a worker, with its children or without."""
        return self.signalled(self.chance.choice([os.kill, os.killpg]), signal.SIGKILL)

    def kill_callbacks(self) -> bool:
        """SIGKILL, or a freeze, of the process that delivers callbacks."""
        pid = self.supervisor.pid("callbacks")
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            if self.chance.random() < 0.5:
                os.killpg(pid, signal.SIGKILL)
            else:
                os.killpg(pid, signal.SIGSTOP)
                time.sleep(self.chance.uniform(0.5, 5))
                os.killpg(pid, signal.SIGCONT)
        return True

    def end_worker(self) -> bool:
        """A stop of a worker, as a deploy, systemd or a closed terminal does it."""
        number = self.chance.choice([signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
        return self.signalled(self.chance.choice([os.kill, os.killpg]), number)

    def signalled(self, send: Callable[[int, int], None], number: signal.Signals) -> bool:
        """Whether one of the workers was alive to get the signal."""
        if pid := self.worker():
            with contextlib.suppress(ProcessLookupError):
                send(pid, number)
                return True
        return False

    def kill_child(self) -> bool:
        """SIGKILL of one prefork child."""
        with contextlib.suppress(psutil.Error):
            if (pid := self.worker()) and (children := psutil.Process(pid).children()):
                self.chance.choice(children).kill()
                return True
        return False

    def freeze_worker(self) -> bool:
        """SIGSTOP for a while: what it does afterwards may be late."""
        if pid := self.worker():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGSTOP)
                time.sleep(self.chance.uniform(0.5, 8))
                os.killpg(pid, signal.SIGCONT)
                return True
        return False

    def kill_valkey(self) -> bool:
        """SIGKILL of Valkey, which comes back on its file."""
        if pid := self.supervisor.pid("valkey"):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    def cut_connections(self) -> bool:
        """Every connection to Valkey is cut, while it lives."""
        with contextlib.suppress(*UNREACHABLE), connect(self.redis_url) as client:
            cut = client.client_kill_filter(_type="normal", skipme=True) + client.client_kill_filter(_type="pubsub")
            return bool(cut)
        return False

    def refuse(self) -> bool:
        """Upstream refuses connections for a while."""
        for_s = self.chance.uniform(0.3, 2)
        requests.post(f"{self.control}/refuse", json={"for_s": for_s}, timeout=10).raise_for_status()
        return True

    def cancel(self) -> bool:
        """Somebody cancels a job that upstream works on, or is about to, or may be, if one can be had."""
        state = self.chance.choice([State.PENDING, State.PENDING, State.CHARGING, State.UNSURE])
        with contextlib.suppress(StoreUnreachable, NotAllowed), VoiceQueue(self.redis_url) as queue:
            for job in queue.jobs(state=state):
                queue.cancel(job.id)
                return True
        return False

    def refuse_writes(self) -> bool:
        """Redis refuses writes for a while: out of memory, too few replicas, a replica itself."""
        with contextlib.suppress(RedisError), connect(self.redis_url) as client:
            with refusing(client, self.chance.choice(CODES)):
                time.sleep(self.chance.uniform(0.3, 4))
            return True
        return False

    def set_clock(self) -> bool:
        """The clock of a worker's host is put ahead or behind."""
        self.clock.set(self.chance.choice([-90, -5, 0, 5, 90, 3600]))
        return True

    def refuse_some(self) -> bool:
        """Upstream refuses a few jobs from now on, in words that may be meant for all; it may know others by now."""
        self.dial(refuse_match=REFUSED, refuse_with=self.chance.choice(REFUSALS))
        self.title = REFUSED
        self.enqueue(self.chance.randint(1, 3))
        self.title = "Song"
        self.resume()
        return True

    def pause_limited(self) -> bool:
        """A person pauses the batch whose credits are limited, or lets it go on."""
        with contextlib.suppress(StoreUnreachable), VoiceQueue(self.redis_url) as queue:
            queue.limit_batch(LIMITED, paused=self.chance.random() < 0.3)
            return True
        return False

    def resume(self) -> None:
        """An operator lets everything go on, as the runbook says."""
        with VoiceQueue(self.redis_url, wait_for_redis_s=30) as queue:
            queue.resume()

    def worker(self) -> int | None:
        """One of the workers, if it is alive."""
        return self.supervisor.pid(self.chance.choice(self.workers))

    # ── what must hold ─────────────────────────────────────────────────────────────────────────

    def come_to_rest(self) -> bool:
        """Whether every job is final or unsure in the end, and every callback delivered: as long as it goes on, it
        is waited for."""
        left, give_up = self.unsettled(), time.monotonic() + REST_S
        while left and time.monotonic() < give_up:
            time.sleep(0.1)
            with contextlib.suppress(StoreUnreachable):
                self.review()
            if (now := self.unsettled()) < left:
                left, give_up = now, time.monotonic() + REST_S
        return not left

    def review(self) -> None:
        """Retry what failed while upstream was ill, which is free where it has the order; and settle unsure voices that
        others wait for, as a person does who asks upstream whether they were charged."""
        with VoiceQueue(self.redis_url) as queue:
            for job in queue.jobs(state=State.FAILED):
                if job.failure and job.failure.code is not Code.ABANDONED:
                    with contextlib.suppress(NotAllowed):  # a result that came late was quicker
                        queue.retry(job.id)
            makers = {maker for job in queue.jobs(state=State.WAITING) if (maker := queue.waits_for(job))}
            unsure = [job for job in map(queue.get, makers) if job.state is State.UNSURE]
            paid = self.ledger()["charges"] if unsure else []
            for job in unsure:
                orders = [each["task_id"] for each in paid if each["subject"] == job.spec.audio_url]
                with contextlib.suppress(NotAllowed):  # a webhook was quicker
                    if orders:
                        queue.take_up(job.id, orders[-1])
                    elif job.cancelling:
                        queue.abandon(job.id)
                    else:
                        queue.order_again(job.id)

    def unsettled(self) -> int:
        """How many jobs and callbacks are on their way; more than there are, where Redis does not tell."""
        with contextlib.suppress(StoreUnreachable), VoiceQueue(self.redis_url) as queue:
            batch = queue.batch("torture")
            return sum(batch.states[state] for state in UNSETTLED) + queue.callback_counts().pending
        return 3 * self.enqueued

    def check(self) -> list[str]:
        """The invariants, from the simulator's ledger and the records."""
        with VoiceQueue(self.redis_url) as queue, connect(self.redis_url) as client:
            jobs = list(queue.jobs(batch="torture"))
            reasons = {job.id: queue.timeline(job.id)[-1].reason for job in jobs if job.state is State.UNSURE}
            findings = [str(finding) for finding in audit(client, DEFAULT_PREFIX)]
        ledger = self.ledger()
        findings += [f"charged twice: {fingerprint}" for fingerprint in ledger["double_charges"]]
        findings += [f"job {job_id} is unsure without a reason" for job_id, reason in reasons.items() if not reason]
        failed = (job for job in jobs if job.failure and job.failure.code is not Code.ABANDONED)
        findings += [f"job {job.id} failed: {job.failure}" for job in failed]
        if (spent := spent_by_limited(ledger)) > LIMIT:
            findings.append(f"{spent} credits were spent by the batch that may spend {LIMIT}")
        if len(jobs) != self.enqueued:
            findings.append(f"{self.enqueued} jobs were enqueued, {len(jobs)} are there")
        self.states = Counter(str(job.state) for job in jobs)
        return findings + list(differences(jobs, ledger))

    def told_states(self, queue: VoiceQueue) -> dict[State, int]:
        """Where the jobs stand when the batch was told so; a webhook that came late may have moved one that was unsure
        while the others were looked at, of which it is told a moment later. At last as they are."""
        give_up = time.monotonic() + TOLD_S
        while (states := queue.batch("torture").states) != self.told.last_batch and time.monotonic() < give_up:
            time.sleep(0.1)
        return states

    def check_callbacks(self) -> list[str]:
        """Each job was told all that its timeline says, in order, and nothing else."""
        with VoiceQueue(self.redis_url) as queue:
            states = self.told_states(queue)
            ought = {job.id: expected(queue.timeline(job.id)) for job in queue.jobs(batch="torture")}
            given_up = [str(each) for each in queue.callbacks(undelivered=True)]
        of_jobs = self.told.of_jobs
        wrong = [
            f"job {job_id} was told {of_jobs.get(job_id, [])} instead of {ought.get(job_id, [])}"
            for job_id in {**ought, **of_jobs}
            if of_jobs.get(job_id, []) != ought.get(job_id, [])
        ]
        if self.told.last_batch != states:
            wrong.append(f"the batch was told as {self.told.last_batch}")
        if self.told.unsigned:
            wrong.append(f"{self.told.unsigned} callbacks had no signature that holds")
        return wrong + given_up

    def tell(self, faults: dict[str, int]) -> None:
        """Print what was done."""
        print(f"seed {self.seed}, {self.seconds:g} s, webhooks {'on' if self.webhooks else 'off'}")
        print(f"jobs {self.enqueued}: {dict(self.states)}")
        print(f"callbacks {sum(map(len, self.told.of_jobs.values()))}, came {self.told.came}")
        print(f"deeds {dict(self.done)}")
        print(f"faults {sum(faults.values())}: {faults}")

    def ledger(self) -> dict[str, Any]:
        """The simulator's books."""
        answer: dict[str, Any] = requests.get(f"{self.control}/ledger", timeout=60).json()
        return answer

    def dial(self, **dials: object) -> None:
        """Turn the simulator's dials."""
        requests.patch(f"{self.control}/dials", json=dials, timeout=10).raise_for_status()


def torture(*, seconds: float, seed: int, webhooks: bool, home: Path, say: Callable[[str], None]) -> list[str]:
    """One run in a folder of its own; what is wrong, in words."""
    told = Told(ENV["VOICEQUEUE_SECRET"], seed=seed, bad=0.05)
    with told.receiver, Supervisor(say) as supervisor:
        stack = Stack(supervisor, Settings(_env_file=None), home=home, env=ENV)
        return Torture(seconds, seed, webhooks, supervisor, stack, home, told).run()


def main() -> int:
    """Run it from the command line: with webhooks for an even seed, without for an odd one."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="torture-"))
    print(f"seed {options.seed}; logs: {home / 'log'}", flush=True)
    webhooks = options.seed % 2 == 0
    findings = torture(seconds=options.seconds, seed=options.seed, webhooks=webhooks, home=home, say=lambda _: None)
    print("\n".join(findings) or "nothing lost, nothing charged twice, the books agree")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
