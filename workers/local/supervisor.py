"""A small supervisor: keeps processes alive on one machine, and ends them in order.

For `make up` and `make demo`; a server has systemd, Docker or a platform for this.
"""

from __future__ import annotations

import contextlib
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

#: Seconds between a death and the next start, for each death in a row.
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)

#: A process that lived this long (seconds) is not failing in a row any more.
STEADY_S = 30.0

#: Seconds that a process may take to end by itself, unless its program says otherwise.
STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Program:
    """One process to keep alive; its output goes to the end of `log`."""

    name: str
    command: Sequence[str] | str  # a string is run by the shell
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    #: The others need it: it ends after them.
    foundation: bool = False
    #: Seconds that it may take to end by itself.
    stop_s: float = STOP_S


class Keeper:
    """One program and the process that runs it now."""

    def __init__(self, program: Program, say: Callable[[str], None], guardian: Guardian, keeps: Sequence[int]) -> None:
        """`keeps` are the file descriptors that its processes inherit."""
        self.program = program
        self._say = say
        self._guardian = guardian
        self._keeps = keeps
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
                pass_fds=self._keeps,
                umask=0o077,  # what it writes shows recordings and lyrics
            )
        watch = self._guardian.watch_foundation if self.program.foundation else self._guardian.watch
        watch(self._process.pid, stop_s=self.program.stop_s)

    def _open_log(self) -> BinaryIO:
        self.program.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return open(self.program.log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600))

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        """Decide when to start again: the longer, the more often it has died in a row."""
        lived = time.monotonic() - self._started
        self._deaths = 0 if lived > STEADY_S else self._deaths + 1
        wait = BACKOFF_S[min(self._deaths, len(BACKOFF_S)) - 1] if self._deaths else 0.0
        self._start_again = time.monotonic() + wait
        self._guardian.forget(process.pid)
        self._process = None
        how = _signal_name(-process.returncode) if process.returncode < 0 else f"exit code {process.returncode}"
        self._say(f"{self.program.name} died ({how}), again in {wait:g} s; its log: {self.program.log}")

    def hold(self, number: signal.Signals, *, whole_group: bool) -> None:
        """Send the process this signal, and start no other before `let_go`."""
        self._held = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if whole_group else os.kill)(self._process.pid, number)

    def await_end(self) -> None:
        """Wait for the process that was asked to end. Raises TimeoutError if it takes too long, and kills it then."""
        if self._process is None:
            return
        try:
            self._process.wait(self.program.stop_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"{self.program.name} did not end within {self.program.stop_s:g} s") from None

    def let_go(self) -> None:
        """Start the program again, at once."""
        self._held = False
        self.see_end()
        self._start_again = 0.0
        self.look()

    def ask_to_end(self) -> None:
        """Ask the process to end, if one runs."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End the process with all that it has started, if one runs."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def see_end(self) -> None:
        """Wait for the process, which ends."""
        if self._process is not None:
            self._process.wait()
            self._guardian.forget(self._process.pid)
            self._process = None


class Supervisor:
    """Keeps programs alive from `add` to `stop`. Where this process dies without `stop`, they end all the same."""

    def __init__(
        self, say: Callable[[str], None] = print, *, look_every_s: float = 0.1, keeps: Sequence[int] = ()
    ) -> None:
        """`keeps` are file descriptors that all processes inherit."""
        self._say = say
        self._keeps = keeps
        self._look_every_s = look_every_s
        self._keepers: dict[str, Keeper] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._forced = False
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        # All programs but foundations hold the write end, and so do their children: it closes with the last of them.
        self._read_end, self._write_end = os.pipe()
        self._guardian = Guardian(self._read_end)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        self._guardian.close()
        os.close(self._read_end)

    def add(self, program: Program) -> None:
        """Start a program, and keep it alive from now on."""
        keeps = self._keeps if program.foundation else (*self._keeps, self._write_end)
        keeper = Keeper(program, self._say, self._guardian, keeps)
        with self._lock:
            self._keepers[program.name] = keeper
            keeper.look()

    def remove(self, name: str) -> None:
        """Kill a program with all that it has started, and keep it alive no longer."""
        with self._lock:
            keeper = self._keepers.pop(name)
        keeper.kill()
        keeper.see_end()

    def pid(self, name: str) -> int | None:
        """The process that runs a program now; None while it is down."""
        with self._lock:
            return self._keepers[name].pid

    @contextmanager
    def held_down(
        self, name: str, number: signal.Signals = signal.SIGKILL, *, whole_group: bool = True
    ) -> Iterator[None]:
        """End a program by this signal and keep it away meanwhile, as an outage would. Raises TimeoutError if it does
        not end by the signal."""
        keeper = self._keepers[name]
        with self._lock:
            keeper.hold(number, whole_group=whole_group)
        try:
            keeper.await_end()
            yield
        finally:
            with self._lock:
                keeper.let_go()

    def stop(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """End every program, foundations last; `meanwhile` is called again and again until then."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._thread.join()
            os.close(self._write_end)
        for foundation in (False, True):
            keepers = [keeper for keeper in self._keepers.values() if keeper.program.foundation is foundation]
            self._end(keepers, meanwhile)

    def force(self) -> None:
        """Kill whatever has not ended yet, while `stop` waits for it. Safe in a signal handler."""
        self._forced = True

    def _end(self, keepers: Sequence[Keeper], meanwhile: Callable[[], object]) -> None:
        asked_at = time.monotonic()
        for keeper in keepers:
            keeper.ask_to_end()
        while self._are_there(keepers, waited := time.monotonic() - asked_at):
            for keeper in keepers:
                if self._forced or waited > keeper.program.stop_s:
                    keeper.kill()
            meanwhile()
            time.sleep(0.05)
        for keeper in keepers:
            keeper.see_end()

    def _are_there(self, keepers: Sequence[Keeper], waited: float) -> bool:
        """Return whether any of them runs, or a child of one that died, as long as it may take."""
        if any(keeper.pid for keeper in keepers):
            return True
        longest = max((keeper.program.stop_s for keeper in keepers), default=0.0)
        is_held = not select.select([self._read_end], [], [], 0)[0]
        return is_held and waited < longest and not self._forced

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
