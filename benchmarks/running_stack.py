"""A running stack for benchmarks: Valkey in memory, workers, and an upstream with little overhead."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from benchmarks.peers.ground import MEMORY, start_upstream
from config.settings import Settings
from workers.local.ports import free_port
from workers.local.stack import Stack, procfile
from workers.local.supervisor import Supervisor

#: No effective in-flight limit, and warnings only in the log.
_ENV = {
    "MUSICAPI_KEY": "any",
    "VOICEQUEUE_LOG_LEVEL": "WARNING",
    "VOICEQUEUE_MAX_IN_FLIGHT": "1000000",
    "VOICEQUEUE_INITIAL_IN_FLIGHT": "1000000",
}


@dataclass(frozen=True, slots=True)
class Crew:
    """Processes of a stack with their children."""

    main_pids: Sequence[int]

    def memory(self) -> int:
        """Return the proportional set size of all in bytes, which counts shared pages once."""
        return int(
            sum(self._of(process, lambda process: process.memory_full_info().pss) for process in self._processes())
        )

    def cpu(self) -> float:
        """Return seconds of user and system time, ended children included."""
        return float(
            sum(self._of(process, lambda process: sum(process.cpu_times()[:4])) for process in self._processes())
        )

    @staticmethod
    def _of(process: psutil.Process, figure: Any) -> Any:
        with suppress(psutil.NoSuchProcess):
            return figure(process)
        return 0

    def _processes(self) -> list[psutil.Process]:
        main_pids = [psutil.Process(pid) for pid in self.main_pids]
        return main_pids + [child for main in main_pids for child in main.children(recursive=True)]


@dataclass(frozen=True, slots=True)
class RunningStack:
    """A running stack: the URLs of Redis and upstream, and its processes by role."""

    redis: str
    upstream: str
    crews: Mapping[str, Crew]

    def report(self) -> dict[str, Any]:
        """Return upstream's counts."""
        counts: dict[str, Any] = requests.get(f"{self.upstream}/report", timeout=30).json()
        return counts

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds of each role so far."""
        return {label: crew.cpu() for label, crew in self.crews.items()}


@contextmanager
def running_stack(
    ready: tuple[float, float], *, workers: int = 1, children: int | None = None, env: Mapping[str, str] | None = None
) -> Iterator[RunningStack]:
    """Start a fresh Valkey, an upstream whose orders take `ready` seconds (lowest and highest), and workers with
    `children` each (default: one more than there are processors)."""
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder,
        Supervisor(print_line=print) as supervisor,
    ):
        port = free_port()
        upstream = f"http://127.0.0.1:{port}"
        stack = Stack(
            supervisor,
            Settings(_env_file=None),
            home=Path(folder),
            env={**_ENV, "MUSICAPI_BASE_URL": upstream, **(env or {})},
        )
        redis = stack.start_valkey()
        start_upstream(stack, ready, port)
        count = children or (os.cpu_count() or 1) + 1
        names = [f"worker.{number}" for number in range(1, workers + 1)]
        for name in names:
            stack.start(name, f"{procfile()['worker']} --concurrency {count}")
        stack.wait_for_workers(workers)
        members = {"the workers": names, "Redis": ["valkey"], "upstream": ["upstream"]}
        yield RunningStack(
            redis,
            upstream,
            {
                label: Crew([pid for name in programs if (pid := supervisor.pid(name))])
                for label, programs in members.items()
            },
        )
