"""Replace the primary again and again while jobs run, then compare the simulator's ledger with the records.

python -m tests.tools.failovers --failovers 50 --jobs 2000 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from config.settings import Settings
from tests.support.callback_receiver import CallbackReceiver
from tests.support.sentinels import FailoverGroup, How
from tests.tools.run import RESUMES_WITHIN_S, Run, environment
from tests.tools.torture_setup import ENV, without_faults
from voicequeue import State
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

#: Settings that are shorter in tests, and that delay orders after a failover.
DELAYS = (
    "VOICEQUEUE_COOLDOWN_S",
    "VOICEQUEUE_DISPATCH_INTERVAL_S",
    "VOICEQUEUE_MAINTENANCE_INTERVAL_S",
    "VOICEQUEUE_OVERDUE_AFTER_S",
    "VOICEQUEUE_SUBMIT_LEASE_S",
    "VOICEQUEUE_UPSTREAM_RESPONSE_TIMEOUT_S",
)


@dataclass
class Failovers(Run):
    """One run, whose only faults are failovers, and now and then the loss of a sentinel."""

    failovers: int = field(kw_only=True)
    jobs: int = field(kw_only=True)
    ways: Sequence[How] = field(kw_only=True)
    waits: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def run(self) -> list[str]:
        """Replace the primary, wait until every worker sends orders again, and repeat; return the findings."""
        self.dial(**without_faults(), music_s=3)
        with self.producing(at_least=self.jobs):
            for number in range(self.failovers):
                time.sleep(self.random.uniform(0.2, 1.5))
                self.fail_over(number)
        findings = self.finish()
        waits = [wait_s for waits in self.waits.values() for wait_s in waits]
        for how, of_kind in {**self.waits, "all": waits}.items():
            longest = f"median {statistics.median(of_kind):.1f} s, longest {max(of_kind):.1f} s"
            print(f"{how}: {len(of_kind)} failovers, all workers resumed: {longest}")
        print(f"charged twice {len(self.ledger()['double_charges'])}, unsure {self.states[str(State.UNSURE)]}")
        return findings + [f"work resumed after {wait_s:.0f} s" for wait_s in waits if wait_s > RESUMES_WITHIN_S]

    def fail_over(self, number: int) -> None:
        """Replace the primary in a random way, without one of the sentinels in every fourth case."""
        assert self.group is not None
        how = self.random.choice(self.ways)
        with contextlib.ExitStack() as missing:
            if self.random.random() < 0.25:
                missing.enter_context(self.group.without_sentinel(self.random.choice(self.group.sentinel_ports)))
                self.done["sentinel killed"] += 1
            started_at = time.monotonic()
            primary = self.group.fail_over(how)
            elected_s = time.monotonic() - started_at
            self.wait_until_resumed(until=started_at + 2 * RESUMES_WITHIN_S)
        self.waits[how].append(time.monotonic() - started_at)
        self.done[how] += 1
        times = f"elected after {elected_s:.1f} s, all workers resumed after {self.waits[how][-1]:.1f} s"
        print(f"failover {number + 1}: {how}, {primary} is the primary: {times}", flush=True)


def run(options: argparse.Namespace, home: Path) -> list[str]:
    """Run once in the folder `home`; return the findings."""
    receiver = CallbackReceiver(ENV["VOICEQUEUE_SECRET"], seed=options.seed, bad=0.05)
    group = FailoverGroup(home, servers=options.servers, replicas_ack=options.replicas_ack, brisk=options.brisk)
    defaults = DELAYS if options.default_times else ()
    env = {name: value for name, value in environment(group).items() if name not in defaults}
    with receiver.server, Supervisor(lambda _: None) as supervisor, contextlib.ExitStack() as resources:
        resources.callback(group.stop)
        stack = Stack(supervisor, Settings(_env_file=None), home=home, env=env)
        return Failovers(
            *(0, options.seed, options.seed % 2 == 0, supervisor, stack, home, receiver, group),
            failovers=options.failovers,
            jobs=options.jobs,
            ways=options.how,
        ).run()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.failovers", description=__doc__)
    parser.add_argument("--failovers", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--servers", type=int, default=2, help="a primary and its replicas")
    parser.add_argument("--replicas-ack", type=int, help="VOICEQUEUE_REPLICAS_ACK (default: all replicas)")
    parser.add_argument("--how", nargs="+", choices=get_args(How), default=get_args(How), help="ways of a failover")
    parser.add_argument("--brisk", action="store_true", help="sentinels that check ten times as often")
    parser.add_argument("--default-times", action="store_true", help="the defaults of settings that delay orders")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="failovers-"))
    print(f"seed {options.seed}{', brisk' * options.brisk}; logs: {home / 'log'}", flush=True)
    findings = run(options, home)
    print("\n".join(findings) or "nothing lost, nothing charged twice, ledger and records agree")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
