"""A contestant's worker processes, and the process that enqueues its jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil


class Crew:
    """The processes of several commands, with their children."""

    def __init__(self, commands: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> None:
        with log.open("ab") as file:
            self._mains = [
                subprocess.Popen(
                    f"exec {command}",
                    shell=True,
                    env=env,
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                for command in commands
            ]

    def processes(self) -> list[psutil.Process]:
        """Return all processes, children included."""
        found_processes = []
        for main in self._mains:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(main.pid)
                found_processes += [process, *process.children(recursive=True)]
        return found_processes

    def is_alive(self) -> bool:
        """Return whether every command still runs."""
        return all(main.poll() is None for main in self._mains)

    def cpu(self) -> float:
        """Return seconds of user and system time, ended children included."""
        return sum(self._cpu(process) for process in self.processes())

    @staticmethod
    def _cpu(process: psutil.Process) -> float:
        try:
            return float(sum(process.cpu_times()[:4]))
        except psutil.NoSuchProcess:
            return 0.0

    def memory(self) -> int:
        """Return the proportional set size of all in bytes, which counts shared pages once."""
        total = 0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
        return total

    def suspend(self) -> None:
        """Suspend all processes until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume all processes."""
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """Kill all processes."""
        self._signal(signal.SIGKILL)
        for main in self._mains:
            main.wait()

    def _signal(self, number: signal.Signals) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class Producer:
    """A process that enqueues jobs on command."""

    def __init__(self, command: str, *, env: Mapping[str, str], cwd: Path, log: Path) -> None:
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                f"exec {command}",
                shell=True,
                env=env,
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )

    def enqueue(self, how: str, count: int, batch: str, apart_s: float = 0.0) -> dict[str, Any]:
        """Enqueue jobs, `one` by one or `many` at once, and return the answer of the process. Raises RuntimeError if it
        has exited."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"how": how, "count": count, "batch": batch, "apart_s": apart_s}
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError("the process that enqueues has exited")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.communicate()


def environment(extra: Mapping[str, str], programs: Path) -> dict[str, str]:
    """Return a contestant's environment: with its programs first in PATH, and without proxies."""
    inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**inherited, "PATH": f"{programs}:{os.environ.get('PATH', '')}", "PYTHONUNBUFFERED": "1", **extra}
