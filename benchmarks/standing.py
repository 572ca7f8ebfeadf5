"""What benchmarks of whole stacks stand on: a stack in memory with an upstream that costs little, and its processes."""

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

#: As many jobs in flight as there are, and only what is worth a warning in the log.
_ENV = {
    "MUSICAPI_KEY": "any",
    "VOICEQUEUE_LOG_LEVEL": "WARNING",
    "VOICEQUEUE_MAX_IN_FLIGHT": "1000000",
    "VOICEQUEUE_FIRST_IN_FLIGHT": "1000000",
}


@dataclass(frozen=True, slots=True)
class Crew:
    """Some of a stack's processes, with their children."""

    mains: Sequence[int]

    def memory(self) -> int:
        """Bytes: the proportional set size of all, in which shared pages count once."""
        return int(sum(self._of(each, lambda process: process.memory_full_info().pss) for each in self._processes()))

    def cpu(self) -> float:
        """Seconds of user and system time, children that have ended included."""
        return float(sum(self._of(each, lambda process: sum(process.cpu_times()[:4])) for each in self._processes()))

    @staticmethod
    def _of(process: psutil.Process, figure: Any) -> Any:
        with suppress(psutil.NoSuchProcess):
            return figure(process)
        return 0

    def _processes(self) -> list[psutil.Process]:
        mains = [psutil.Process(pid) for pid in self.mains]
        return mains + [child for main in mains for child in main.children(recursive=True)]


@dataclass(frozen=True, slots=True)
class Standing:
    """A stack that runs: where its Redis and its upstream are, and its processes by what they are."""

    redis: str
    upstream: str
    crews: Mapping[str, Crew]

    def report(self) -> dict[str, Any]:
        """What upstream saw."""
        found: dict[str, Any] = requests.get(f"{self.upstream}/report", timeout=30).json()
        return found

    def cpu(self) -> dict[str, float]:
        """Seconds that each has taken so far."""
        return {what: crew.cpu() for what, crew in self.crews.items()}


@contextmanager
def standing(
    ready: tuple[float, float], *, workers: int = 1, children: int | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Standing]:
    """A fresh Valkey, an upstream whose orders take so long (seconds), and workers with so many children each
    (by default as many as there are processors)."""
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder,
        Supervisor(say=print) as supervisor,
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
        count = children or os.cpu_count() or 1
        names = [f"worker.{number}" for number in range(1, workers + 1)]
        for name in names:
            stack.start(name, f"{procfile()['worker']} --concurrency {count}")
        stack.wait_for_workers(workers)
        members = {"the workers": names, "Redis": ["valkey"], "upstream": ["upstream"]}
        yield Standing(
            redis,
            upstream,
            {what: Crew([pid for name in of if (pid := supervisor.pid(name))]) for what, of in members.items()},
        )
