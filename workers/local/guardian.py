"""Ends the programs of a supervisor that is gone: those that others need end last.

It runs as a process of its own, in a session of its own. The supervisor writes to its standard input which processes
it has started and which have ended. When that pipe closes, the supervisor has stopped, or was killed: then the
programs are asked to end. They hold the write end of a second pipe (their children too), so that its end says for
certain that the last of them is gone; only then do the foundations end (Redis must outlive the workers' answers).

Knows nothing but the standard library, so that it starts in no time.
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

#: What the supervisor reports last, when everything has ended.
STOPPED = "stopped\n"


class Guardian:
    """The supervisor's side: reports processes to the guardian, as long as it lives."""

    def __init__(self, line: int) -> None:
        """`line` is the read end of the pipe that the programs hold."""
        command = [sys.executable, "-I", "-S", str(Path(__file__)), str(line)]
        self._process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # it may outlive whoever reads the supervisor's output to its end
            stderr=subprocess.DEVNULL,
            text=True,
            pass_fds=(line,),
            start_new_session=True,
        )

    def watch(self, pid: int, *, stop_s: float) -> None:
        """Report a program that was started, which leads a process group, and the seconds it may take to end."""
        self._report(f"program {pid} {stop_s}\n")

    def watch_foundation(self, pid: int, *, stop_s: float) -> None:
        """Report a program that others need: it is to end after them."""
        self._report(f"foundation {pid} {stop_s}\n")

    def forget(self, pid: int) -> None:
        """Report a process that has ended."""
        self._report(f"ended {pid} 0\n")

    def close(self) -> None:
        """Let it go: everything has ended."""
        self._report(STOPPED)
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        self._process.wait()

    def _report(self, text: str) -> None:
        if self._process.stdin is not None:
            with suppress(OSError):  # it was killed; the supervisor works without it
                self._process.stdin.write(text)
                self._process.stdin.flush()


class Roster:
    """The processes that a supervisor has left: by id, the seconds that each may take to end."""

    def __init__(self, reports: Iterable[str]) -> None:
        """Read reports until the supervisor is gone."""
        self.programs: dict[int, float] = {}
        self.foundations: dict[int, float] = {}
        for report in reports:
            if report.endswith("\n"):  # else the supervisor died while it wrote
                self._note(*report.split())

    def _note(self, kind: str, pid: str, stop_s: str) -> None:
        if kind == "program":
            self.programs[int(pid)] = float(stop_s)
        elif kind == "foundation":
            self.foundations[int(pid)] = float(stop_s)
        else:
            self.programs.pop(int(pid), None)
            self.foundations.pop(int(pid), None)


def main(line: int) -> None:
    """Wait until the supervisor is gone, then end what it has left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    left = Roster(takewhile(lambda report: report != STOPPED, sys.stdin))
    _signal(left.programs, signal.SIGTERM)
    if left.programs and not select.select([line], [], [], max(left.programs.values()))[0]:
        _kill_groups(left.programs)
    _signal(left.foundations, signal.SIGTERM)
    give_up = time.monotonic() + max(left.foundations.values(), default=0)
    while any(map(_is_there, left.foundations)) and time.monotonic() < give_up:
        time.sleep(0.1)
    _kill_groups(left.foundations)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _kill_groups(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]))
