"""`make torture`: kill every process, again and again, then compare the simulator's ledger with the records.

    make torture SECONDS=180 SEED=7 FAILOVERS=1

Seeded, so that a run can be repeated as far as real processes allow. With FAILOVERS the Redis is one that fails over.
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import psutil
import requests
from redis.exceptions import RedisError

from config.settings import Settings
from tests.support.callback_receiver import CallbackReceiver
from tests.support.refusing import CODES, rejecting_writes
from tests.support.sentinels import FailoverGroup, How
from tests.tools.run import Run, environment
from tests.tools.torture_setup import ENV, LIMITED, REFUSALS, REFUSED
from voicequeue import InvalidStateError, State, StoreUnavailableError
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.retry import UNREACHABLE
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor


@dataclass
class Torture(Run):
    """One run in which everything is killed."""

    def run(self) -> list[str]:
        """Run the faults and return the findings."""
        faults = [self.kill_worker, self.kill_child, self.stop_worker, self.freeze_worker, self.kill_callbacks]
        faults += [self.cut_connections, self.refuse, self.cancel]
        faults += [self.set_clock, self.reject_some_jobs, self.pause_limited]
        faults += [self.fail_over] if self.group else [self.kill_valkey, self.refuse_writes]
        return self.inject(faults)

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

    def fail_over(self) -> bool:
        """Replace the primary."""
        assert self.group is not None
        self.group.fail_over(self.random.choice(get_args(How)))
        return True

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
            self.queue() as queue,
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
        with contextlib.suppress(StoreUnavailableError), self.queue() as queue:
            queue.set_batch_limits(LIMITED, paused=self.random.random() < 0.3)
            return True
        return False


def torture(
    *, seconds: float, seed: int, webhooks: bool, home: Path, say: Callable[[str], None], failovers: bool = False
) -> list[str]:
    """Run once in the folder `home`; return the findings."""
    receiver = CallbackReceiver(ENV["VOICEQUEUE_SECRET"], seed=seed, bad=0.05)
    group = FailoverGroup(home, brisk=True) if failovers else None
    with receiver.server, Supervisor(say) as supervisor, contextlib.ExitStack() as resources:
        if group is not None:
            resources.callback(group.stop)
        stack = Stack(supervisor, Settings(_env_file=None), home=home, env=environment(group))
        return Torture(seconds, seed, webhooks, supervisor, stack, home, receiver, group).run()


def main() -> int:
    """Run from the command line: with webhooks for an even seed, without for an odd one."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--failovers", action="store_true", help="replace the primary instead of restarting Redis")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="torture-"))
    print(f"seed {options.seed}; logs: {home / 'log'}", flush=True)
    webhooks = options.seed % 2 == 0
    findings = torture(**vars(options), webhooks=webhooks, home=home, say=lambda _: None)
    print("\n".join(findings) or "nothing lost, nothing charged twice, ledger and records agree")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
