"""A small supervisor: restarts processes on one machine, and stops them in order.

For `make up` and `make demo`; in production use systemd, Docker or a platform.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from workers.local.guardian import Guardian

#: Seconds between an exit and the restart, by the number of exits in a row.
RESTART_DELAYS_S = (0.2, 0.5, 1.0, 2.0, 5.0)

#: After this uptime (seconds) an exit does not count as one in a row.
STABLE_S = 30.0

#: Default of `Program.stop_timeout_s`.
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Program:
    """A command to keep running; its output is appended to `log`."""

    name: str
    command: Sequence[str] | str  # a string is run by the shell
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    #: Other programs need it: it is stopped after them.
    is_foundation: bool = False
    #: Seconds that it may take to stop before it is killed.
    stop_timeout_s: float = STOP_TIMEOUT_S


class ManagedProcess:
    """A program and the process that currently runs it."""

    def __init__(
        self, program: Program, print_line: Callable[[str], None], guardian: Guardian, inherited_fds: Sequence[int]
    ) -> None:
        """Do not start the program yet. Its processes inherit the file descriptors `inherited_fds`."""
        self.program = program
        self._print_line = print_line
        self._guardian = guardian
        self._inherited_fds = inherited_fds
        self._exits_in_row = 0
        self._started_at = 0.0
        self._restart_at = 0.0
        self._is_held_down = False
        self._kill_at = math.inf
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the running process, if there is one."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def check(self) -> None:
        """Start the program if it is not running and its restart is due; kill it if it does not end for a restart."""
        if self._process is not None and time.monotonic() >= self._kill_at:
            self._process.kill()
        if self.pid is not None or self._is_held_down:
            return
        if self._process is not None:
            self._note_exit(self._process)
        if time.monotonic() >= self._restart_at:
            self._start()

    def _start(self) -> None:
        self._started_at, self._kill_at = time.monotonic(), math.inf
        with self._open_log() as log:
            self._process = subprocess.Popen(  # noqa: S603  the Procfile's commands are shell commands
                self.program.command,
                shell=isinstance(self.program.command, str),
                env={**os.environ, **self.program.env},
                cwd=self.program.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only this process, which stops them in order
                pass_fds=self._inherited_fds,
                umask=0o077,  # its files contain recordings and lyrics
            )
        watch = self._guardian.watch_foundation if self.program.is_foundation else self._guardian.watch
        watch(self._process.pid, stop_s=self.program.stop_timeout_s)

    def _open_log(self) -> BinaryIO:
        self.program.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return open(self.program.log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600))

    def _note_exit(self, process: subprocess.Popen[bytes]) -> None:
        """Schedule the restart: the delay grows with the number of exits in a row."""
        uptime = time.monotonic() - self._started_at
        self._exits_in_row = 0 if uptime > STABLE_S else self._exits_in_row + 1
        delay = RESTART_DELAYS_S[min(self._exits_in_row, len(RESTART_DELAYS_S)) - 1] if self._exits_in_row else 0.0
        self._restart_at = time.monotonic() + delay
        self._guardian.forget(process.pid)
        self._process = None
        status = _signal_name(-process.returncode) if process.returncode < 0 else f"exit code {process.returncode}"
        self._print_line(
            f"{self.program.name} exited ({status}), restarting in {delay:g} s; its log: {self.program.log}"
        )

    def restart(self, reason: str) -> None:
        """End the process, so that the program starts again. A process that does not end within `stop_timeout_s` is
        killed alone: its children finish what they do."""
        if self._process is None or self._kill_at < math.inf:
            return
        self._kill_at = time.monotonic() + self.program.stop_timeout_s
        self._print_line(f"restarting {self.program.name}: {reason}")
        self._process.terminate()

    def hold_down(self, number: signal.Signals, *, whole_group: bool) -> None:
        """Send the process this signal, and do not restart the program before `release`."""
        self._is_held_down = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if whole_group else os.kill)(self._process.pid, number)

    def wait_or_kill(self) -> None:
        """Wait for the process to exit, and kill it after `stop_timeout_s`. Raises TimeoutError in that case."""
        if self._process is None:
            return
        try:
            self._process.wait(self.program.stop_timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"{self.program.name} did not exit within {self.program.stop_timeout_s:g} s") from None

    def release(self) -> None:
        """Start the program again, without a delay."""
        self._is_held_down = False
        self.wait()
        self._restart_at = 0.0
        self.check()

    def terminate(self) -> None:
        """Send SIGTERM to the process, if one runs."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Kill the process and its process group, if one runs."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for the process, which must be ending."""
        if self._process is not None:
            self._process.wait()
            self._guardian.forget(self._process.pid)
            self._process = None


class Supervisor:
    """Restarts programs that exit, from `add` to `stop`. If this process is killed, the guardian stops them."""

    def __init__(
        self,
        print_line: Callable[[str], None] = print,
        *,
        check_interval_s: float = 0.1,
        inherited_fds: Sequence[int] = (),
    ) -> None:
        """Use `print_line` to print a line. All processes inherit the file descriptors `inherited_fds`."""
        self._print_line = print_line
        self._inherited_fds = inherited_fds
        self._check_interval_s = check_interval_s
        self._processes: dict[str, ManagedProcess] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._is_forced = False
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        # All programs except foundations hold the write end, and so do their children: it closes with the last of them.
        self._read_end, self._write_end = os.pipe()
        self._guardian = Guardian(self._read_end)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        self._guardian.close()
        os.close(self._read_end)

    def add(self, program: Program) -> None:
        """Start a program, and restart it whenever it exits."""
        inherited_fds = self._inherited_fds if program.is_foundation else (*self._inherited_fds, self._write_end)
        process = ManagedProcess(program, self._print_line, self._guardian, inherited_fds)
        with self._lock:
            self._processes[program.name] = process
            process.check()

    def remove(self, name: str) -> None:
        """Kill a program with its process group, and do not restart it."""
        with self._lock:
            process = self._processes.pop(name)
        process.kill()
        process.wait()

    def pid(self, name: str) -> int | None:
        """Return the id of the process that runs a program; None while it is down."""
        with self._lock:
            return self._processes[name].pid

    def restart(self, pid: int, reason: str) -> None:
        """Restart the program that runs as process `pid`, and print the reason; nothing if none does."""
        with self._lock:
            for process in self._processes.values():
                if process.pid == pid:
                    process.restart(reason)

    def repeat(self, check: Callable[[], object], interval_s: float) -> None:
        """Call `check` every `interval_s` seconds in a thread, until the programs are stopped."""

        def run() -> None:
            while not self._stopping.wait(interval_s):
                check()

        threading.Thread(target=run, name="checks", daemon=True).start()

    @contextmanager
    def held_down(
        self, name: str, number: signal.Signals = signal.SIGKILL, *, whole_group: bool = True
    ) -> Iterator[None]:
        """Stop a program with this signal and keep it down meanwhile, to simulate an outage. Raises TimeoutError if the
        signal does not stop it."""
        process = self._processes[name]
        with self._lock:
            process.hold_down(number, whole_group=whole_group)
        try:
            process.wait_or_kill()
            yield
        finally:
            with self._lock:
                process.release()

    def stop(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Stop every program, foundations last; `meanwhile` is called repeatedly until they have exited."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._thread.join()
            os.close(self._write_end)
        for foundation in (False, True):
            processes = [process for process in self._processes.values() if process.program.is_foundation is foundation]
            self._stop(processes, meanwhile)

    def force(self) -> None:
        """Kill the processes that `stop` still waits for. Safe in a signal handler."""
        self._is_forced = True

    def _stop(self, processes: Sequence[ManagedProcess], meanwhile: Callable[[], object]) -> None:
        started_at = time.monotonic()
        for process in processes:
            process.terminate()
        while self._are_running(processes, waited_s := time.monotonic() - started_at):
            for process in processes:
                if self._is_forced or waited_s > process.program.stop_timeout_s:
                    process.kill()
            meanwhile()
            time.sleep(0.05)
        for process in processes:
            process.wait()

    def _are_running(self, processes: Sequence[ManagedProcess], waited_s: float) -> bool:
        """Return whether any process runs, or, within the stop timeout, a child that one of them left behind."""
        if any(process.pid for process in processes):
            return True
        longest_s = max((process.program.stop_timeout_s for process in processes), default=0.0)
        has_children = not select.select([self._read_end], [], [], 0)[0]
        return has_children and waited_s < longest_s and not self._is_forced

    def _run(self) -> None:
        while not self._stopping.wait(self._check_interval_s):
            with self._lock:
                for process in self._processes.values():
                    process.check()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
