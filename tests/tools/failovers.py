"""Kill the primary again and again while jobs run, then compare the simulator's ledger with the records.

python -m tests.tools.failovers --failovers 10 --jobs 400 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from config.settings import Settings
from tests.support.callback_receiver import CallbackReceiver
from tests.support.sentinels import FailoverGroup
from tests.tools.torture import Torture
from tests.tools.torture_setup import ENV, without_faults
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

#: Work resumes within this time after the primary was killed (seconds).
RESUMES_WITHIN_S = 30.0


@dataclass
class Failovers(Torture):
    """One run, whose only faults are failovers."""

    group: FailoverGroup = field(kw_only=True)
    failovers: int = field(kw_only=True)
    jobs: int = field(kw_only=True)

    def start_redis(self) -> str:
        """Start the servers and sentinels; return the URL that names the sentinels."""
        self.group.start()
        self.stack.use_redis(self.group.url)
        return self.group.url

    def run(self) -> list[str]:
        """Kill the primary, wait until orders are sent again, and repeat; return the findings."""
        self.dial(**without_faults(), music_s=3)
        waits: list[float] = []
        for number in range(self.failovers):
            self.enqueue(self.jobs // self.failovers)
            time.sleep(self.random.uniform(0.2, 1.5))
            self.group.replicate()
            killed_at = time.monotonic()
            how = self.random.choice(["killed", "frozen"])
            new_primary = self.group.fail_over(freeze=how == "frozen")
            waits.append(self.resumed_after(killed_at))
            self.done[how] += 1
            print(
                f"failover {number + 1}: {how}, {new_primary} is the primary, work resumed after {waits[-1]:.1f} s",
                flush=True,
            )
        is_settled = self.wait_until_settled()
        findings = ([] if is_settled else ["some jobs are not settled"]) + self.check() + self.check_callbacks()
        findings += [f"work resumed after {wait_s:.0f} s" for wait_s in waits if wait_s > RESUMES_WITHIN_S]
        self.report({})
        print(f"work resumed after {statistics.median(waits):.1f} s (median), {max(waits):.1f} s (longest)")
        return findings

    def resumed_after(self, killed_at: float) -> float:
        """Wait until upstream has received another order; return the seconds since the kill."""
        before = self.orders()
        self.enqueue(1)
        while self.orders() == before and time.monotonic() < killed_at + 2 * RESUMES_WITHIN_S:
            time.sleep(0.05)
        return time.monotonic() - killed_at

    def orders(self) -> int:
        """Return how many orders upstream has charged."""
        return len(self.ledger()["charges"])


def run(*, failovers: int, jobs: int, seed: int, home: Path, say: Callable[[str], None]) -> list[str]:
    """Run once in the folder `home`; return the findings."""
    receiver = CallbackReceiver(ENV["VOICEQUEUE_SECRET"], seed=seed, bad=0.05)
    group = FailoverGroup(home)
    with receiver.server, Supervisor(say) as supervisor, contextlib.ExitStack() as resources:
        resources.callback(group.stop)
        stack = Stack(supervisor, Settings(_env_file=None), home=home, env={**ENV, "VOICEQUEUE_REPLICAS_ACK": "1"})
        started = Failovers(
            0, seed, seed % 2 == 0, supervisor, stack, home, receiver, group=group, failovers=failovers, jobs=jobs
        )
        return started.run()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.failovers", description=__doc__)
    parser.add_argument("--failovers", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="failovers-"))
    print(f"seed {options.seed}; logs: {home / 'log'}", flush=True)
    findings = run(failovers=options.failovers, jobs=options.jobs, seed=options.seed, home=home, say=lambda _: None)
    print("\n".join(findings) or "nothing lost, nothing charged twice, ledger and records agree")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
