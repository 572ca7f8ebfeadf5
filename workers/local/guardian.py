"""Stops the programs of a supervisor that was killed, foundations last.

It runs as a separate process, in its own session. The supervisor reports on its standard input which processes it has
started and which have ended. When that pipe closes, the supervisor has stopped or was killed: the programs receive
SIGTERM. They and their children hold the write end of a second pipe, which therefore closes when the last of them has
exited; only then are the foundations stopped (Redis must outlive the workers, which still store responses).

It imports the standard library only, so that it starts fast.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

#: The last report of a supervisor, after everything has ended.
STOPPED = "stopped\n"


class Guardian:
    """The supervisor's side: starts the guardian, and reports processes to it."""

    def __init__(self, pipe: int) -> None:
        """`pipe` is the read end of the pipe whose write end the programs hold."""
        command = [sys.executable, "-I", "-S", str(Path(__file__)), str(pipe)]
        self._process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # it may outlive the reader of the supervisor's output
            stderr=subprocess.DEVNULL,
            text=True,
            pass_fds=(pipe,),
            start_new_session=True,
        )

    def watch(self, pid: int, *, stop_s: float) -> None:
        """Report a program that was started as the leader of a process group, and the seconds it may take to stop."""
        self._report(f"program {pid} {stop_s}\n")

    def watch_foundation(self, pid: int, *, stop_s: float) -> None:
        """Report a program that others need: it is stopped after them."""
        self._report(f"foundation {pid} {stop_s}\n")

    def forget(self, pid: int) -> None:
        """Report a process that has ended."""
        self._report(f"ended {pid} 0\n")

    def close(self) -> None:
        """Report that everything has ended, and wait for the guardian to exit."""
        self._report(STOPPED)
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        self._process.wait()

    def _report(self, text: str) -> None:
        if self._process.stdin is not None:
            with suppress(OSError):  # the guardian was killed; the supervisor works without it
                self._process.stdin.write(text)
                self._process.stdin.flush()


class RemainingProcesses:
    """The processes that a supervisor left running: by id, the seconds that each may take to stop."""

    def __init__(self, reports: Iterable[str]) -> None:
        """Read reports until the supervisor has exited."""
        self.programs: dict[int, float] = {}
        self.foundations: dict[int, float] = {}
        for report in reports:
            if report.endswith("\n"):  # otherwise the supervisor was killed while writing
                self._note(*report.split())

    def _note(self, kind: str, pid: str, stop_s: str) -> None:
        if kind == "program":
            self.programs[int(pid)] = float(stop_s)
        elif kind == "foundation":
            self.foundations[int(pid)] = float(stop_s)
        else:
            self.programs.pop(int(pid), None)
            self.foundations.pop(int(pid), None)


def main(pipe: int) -> None:
    """Wait until the supervisor has exited, then stop the processes that it left running."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    remaining = RemainingProcesses(takewhile(lambda report: report != STOPPED, sys.stdin))
    _signal(remaining.programs, signal.SIGTERM)
    if remaining.programs and not select.select([pipe], [], [], max(remaining.programs.values()))[0]:
        _kill_groups(remaining.programs)
    _signal(remaining.foundations, signal.SIGTERM)
    deadline = time.monotonic() + max(remaining.foundations.values(), default=0)
    while any(map(_exists, remaining.foundations)) and time.monotonic() < deadline:
        time.sleep(0.1)
    _kill_groups(remaining.foundations)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _kill_groups(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]))
