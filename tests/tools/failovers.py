"""Replace the primary again and again while jobs run, then compare the simulator's ledger with the records.

python -m tests.tools.failovers --failovers 50 --jobs 2000 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from config.settings import Settings
from tests.support.callback_receiver import CallbackReceiver
from tests.support.sentinels import FailoverGroup, How
from tests.tools.run import Run, environment
from tests.tools.torture_setup import ENV, without_faults
from voicequeue import State
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

#: Work resumes within this time after the primary has failed (seconds).
RESUMES_WITHIN_S = 30.0

#: The producer enqueues so many jobs at once, and then waits (seconds).
PORTION, PAUSE_S = 2, 0.25

#: The event that a worker logs for an order that it has sent.
SUBMITTED = b'"event": "submitted"'


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
        with self.producing():
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

    @contextmanager
    def producing(self) -> Iterator[None]:
        """Enqueue jobs all the time, also while there is no primary, and at least `jobs`."""
        is_over = threading.Event()

        def produce() -> None:
            while not (is_over.wait(PAUSE_S) and self.enqueued >= self.jobs):
                self.enqueue(PORTION)

        thread = threading.Thread(target=produce, name="producer")
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

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

    def wait_until_resumed(self, *, until: float) -> None:
        """Wait until each worker has sent another order, at most until this time of the monotonic clock."""
        waiting = {log: log.stat().st_size for name in self.workers if (log := self.home / "log" / f"{name}.log")}
        while waiting and time.monotonic() < until:
            time.sleep(0.05)
            waiting = {log: size for log, size in waiting.items() if SUBMITTED not in log.read_bytes()[size:]}


def run(group: FailoverGroup, *, failovers: int, jobs: int, ways: Sequence[How], seed: int, home: Path) -> list[str]:
    """Run once in the folder `home`; return the findings."""
    receiver = CallbackReceiver(ENV["VOICEQUEUE_SECRET"], seed=seed, bad=0.05)
    with receiver.server, Supervisor(lambda _: None) as supervisor, contextlib.ExitStack() as resources:
        resources.callback(group.stop)
        stack = Stack(supervisor, Settings(_env_file=None), home=home, env=environment(group))
        place = (supervisor, stack, home, receiver, group)
        return Failovers(0, seed, seed % 2 == 0, *place, failovers=failovers, jobs=jobs, ways=ways).run()


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
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="failovers-"))
    print(f"seed {options.seed}{', brisk' * options.brisk}; logs: {home / 'log'}", flush=True)
    group = FailoverGroup(home, servers=options.servers, replicas_ack=options.replicas_ack, brisk=options.brisk)
    findings = run(
        group, failovers=options.failovers, jobs=options.jobs, ways=options.how, seed=options.seed, home=home
    )
    print("\n".join(findings) or "nothing lost, nothing charged twice, ledger and records agree")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
