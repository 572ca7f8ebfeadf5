"""A small supervisor: keeps processes alive on one machine, and ends them in order.

For `make up` and `make demo`; a server has systemd, Docker or a platform for this.
"""

from __future__ import annotations

import contextlib
import os
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

#: Seconds between a death and the next start, for each death in a row.
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)

#: A process that lived this long (seconds) is not failing in a row any more.
STEADY_S = 30.0

#: How long a process may take to end by itself. Above Celery's hard time limit would be right for a
#: server; here nothing is lost by less, for the records know what was on the way.
STOP_S = 15.0


@dataclass(frozen=True, slots=True)
class Program:
    """One process to keep alive; its output goes to the end of `log`."""

    name: str
    command: Sequence[str] | str  # a string is run by the shell
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    #: The others stand on it: it ends after them.
    foundation: bool = False


class Keeper:
    """One program and the process that runs it now."""

    def __init__(self, program: Program, say: Callable[[str], None]) -> None:
        self.program = program
        self._say = say
        self._deaths = 0
        self._started = 0.0
        self._start_again = 0.0
        self._held = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The running process, if one is."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def look(self) -> None:
        """Start the program if it is not running and its time has come."""
        if self.pid is not None or self._held:
            return
        if self._process is not None:
            self._bury(self._process)
        if time.monotonic() >= self._start_again:
            self._start()

    def _start(self) -> None:
        self._started = time.monotonic()
        with self._open_log() as log:
            self._process = subprocess.Popen(  # noqa: S603  the Procfile's commands are shell commands
                self.program.command,
                shell=isinstance(self.program.command, str),
                env={**os.environ, **self.program.env},
                cwd=self.program.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we end them in order
            )

    def _open_log(self) -> BinaryIO:
        self.program.log.parent.mkdir(parents=True, exist_ok=True)
        return self.program.log.open("ab")

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        """Decide when to start again: the longer, the more often it has died in a row."""
        lived = time.monotonic() - self._started
        self._deaths = 0 if lived > STEADY_S else self._deaths + 1
        wait = BACKOFF_S[min(self._deaths, len(BACKOFF_S)) - 1] if self._deaths else 0.0
        self._start_again = time.monotonic() + wait
        self._process = None
        how = _signal_name(-process.returncode) if process.returncode < 0 else f"exit code {process.returncode}"
        self._say(f"{self.program.name} died ({how}), again in {wait:g} s; its log: {self.program.log}")

    def hold(self, number: signal.Signals, *, whole_group: bool) -> subprocess.Popen[bytes] | None:
        """Send the process this signal, and start no other before `let_go`; gives the process."""
        self._held = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if whole_group else os.kill)(self._process.pid, number)
        return self._process

    def let_go(self) -> None:
        """Start the program again, at once."""
        self._held = False
        self._process = None
        self._start_again = 0.0
        self.look()

    def ask_to_end(self) -> None:
        """Ask the process to end, if one runs."""
        if self._process is not None:
            self._process.terminate()

    def see_end(self) -> None:
        """Wait until it has ended; make it end if it does not."""
        if self._process is None:
            return
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Supervisor:
    """Keeps programs alive from `add` to `stop`."""

    def __init__(self, say: Callable[[str], None] = print, *, look_every_s: float = 0.1) -> None:
        self._say = say
        self._look_every_s = look_every_s
        self._keepers: dict[str, Keeper] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def add(self, program: Program) -> None:
        """Start a program, and keep it alive from now on."""
        keeper = Keeper(program, self._say)
        with self._lock:
            self._keepers[program.name] = keeper
            keeper.look()

    def pid(self, name: str) -> int | None:
        """The process that runs a program now; None while it is down."""
        with self._lock:
            return self._keepers[name].pid

    @contextmanager
    def held_down(
        self, name: str, number: signal.Signals = signal.SIGKILL, *, whole_group: bool = True
    ) -> Iterator[None]:
        """End a program by this signal and keep it away meanwhile, as an outage would."""
        keeper = self._keepers[name]
        with self._lock:
            process = keeper.hold(number, whole_group=whole_group)
        try:
            if process is not None:
                process.wait()
            yield
        finally:
            with self._lock:
                keeper.let_go()

    def stop(self) -> None:
        """End every program, foundations last."""
        self._stopping.set()
        self._thread.join()
        for foundation in (False, True):
            keepers = [keeper for keeper in self._keepers.values() if keeper.program.foundation is foundation]
            for keeper in keepers:
                keeper.ask_to_end()
            for keeper in keepers:
                keeper.see_end()

    def _run(self) -> None:
        while not self._stopping.wait(self._look_every_s):
            with self._lock:
                for keeper in self._keepers.values():
                    keeper.look()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
