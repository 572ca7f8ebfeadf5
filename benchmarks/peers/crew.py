"""A contestant's worker processes: started, looked at, held still, ended; and the process that enqueues."""

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
    """The processes of some commands, with all their children."""

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
        """All of them, children included."""
        found = []
        for main in self._mains:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(main.pid)
                found += [process, *process.children(recursive=True)]
        return found

    def is_alive(self) -> bool:
        """Whether every command still runs."""
        return all(main.poll() is None for main in self._mains)

    def cpu(self) -> float:
        """Seconds of user and system time, children that have ended included."""
        return sum(self._cpu(process) for process in self.processes())

    @staticmethod
    def _cpu(process: psutil.Process) -> float:
        try:
            return float(sum(process.cpu_times()[:4]))
        except psutil.NoSuchProcess:
            return 0.0

    def memory(self) -> int:
        """Bytes: the proportional set size of all of them, in which shared pages count once."""
        total = 0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
        return total

    def hold(self) -> None:
        """Let none of them do anything until `let_go`."""
        self._signal(signal.SIGSTOP)

    def let_go(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """Kill them: what they would still do is of no interest."""
        self._signal(signal.SIGKILL)
        for main in self._mains:
            main.wait()

    def _signal(self, number: signal.Signals) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class Producer:
    """A process that enqueues as it is told."""

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

    def tell(self, how: str, count: int, batch: str, apart_s: float = 0.0) -> dict[str, Any]:
        """Have it enqueue so many jobs, as `one` by one or as `many` at once; what it answers.

        Raises RuntimeError where it has died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        told = {"how": how, "count": count, "batch": batch, "apart_s": apart_s}
        try:
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError("the process that enqueues has died")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def environment(more: Mapping[str, str], programs: Path) -> dict[str, str]:
    """A contestant's environment: its programs come first, and nobody's proxy is in the way."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**kept, "PATH": f"{programs}:{os.environ.get('PATH', '')}", "PYTHONUNBUFFERED": "1", **more}
