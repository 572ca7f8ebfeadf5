"""`make up`: run the whole stack on this machine until Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path

from rich.console import Console

from config import flower
from config.settings import settings
from voicequeue.errors import StoreUnavailableError
from voicequeue.storage.connection.redis_url import masked
from workers.local.environment_file import forget_earlier_stack
from workers.local.home import STOP_MARGIN_S, HomeInUseError, lock_home
from workers.local.stack import HOME, Addresses, Stack
from workers.local.supervisor import Supervisor
from workers.private_files import UnsafeFileError

WORKERS = 2

#: A second Ctrl-C counts if it arrives this much later than the first, in seconds.
SECOND_PRESS_S = 0.5

#: Seconds between two lines about the progress of a stop.
PROGRESS_S = 3.0


class StopSignals:
    """Events set by signals: `stop`, and `force` for a second Ctrl-C."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.force = threading.Event()
        self._interrupted_at = inf
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: object) -> None:
        now = time.monotonic()
        # Terminals, shells and `make` may send a signal twice; pressing a key again takes longer.
        if number == signal.SIGINT and now > self._interrupted_at + SECOND_PRESS_S:
            self.force.set()
        if number == signal.SIGINT:
            self._interrupted_at = min(self._interrupted_at, now)
        self.stop.set()


class StopProgress:
    """Reports what a stopping stack waits for, and forces the stop on a second Ctrl-C."""

    def __init__(self, stack: Stack, supervisor: Supervisor, signals: StopSignals, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._supervisor = supervisor
        self._signals = signals
        self._say = say
        self._next_at = time.monotonic() + PROGRESS_S
        self._is_forced = False

    def __call__(self) -> None:
        """Report progress or force the stop; called repeatedly until the stack has stopped."""
        if self._is_forced:
            return
        if self._signals.force.is_set():
            self._is_forced = True
            self._say(f"killing {self._remaining()}: interrupted submissions become unsure, see voicequeue review")
            self._supervisor.force()
        elif time.monotonic() > self._next_at:
            self._next_at = time.monotonic() + PROGRESS_S
            self._say(f"waiting for {self._remaining()}; press Ctrl-C again to kill them")

    def _remaining(self) -> str:
        with suppress(StoreUnavailableError):
            if not (count := self._stack.submissions_in_progress()):
                return "processes that are stopping"
            return f"processes that are stopping, and {count} submissions in progress, which may have been charged"
        return "processes that are stopping, and submissions in progress, which may have been charged"


def main() -> int:
    """Start the stack, run until a stop signal, and stop it. Return the exit code."""
    console = Console(highlight=False)

    def say(text: str) -> None:
        with suppress(OSError):  # the terminal was closed
            console.print(text, soft_wrap=True)

    if names := forget_earlier_stack(os.environ):
        say(f"ignoring {', '.join(names)}: an earlier stack has set them in this shell")
    configured = settings()
    try:
        with (
            lock_home(HOME, wait_s=configured.stop_timeout_s + STOP_MARGIN_S, print_line=say) as lock,
            Supervisor(say, inherited_fds=[lock.descriptor]) as supervisor,
        ):
            signals, stack = StopSignals(), Stack(supervisor, configured, print_line=say)
            say("starting Redis, the gateway, Flower and the workers, which takes some seconds …")
            addresses = stack.start_all(workers=WORKERS)
            say(welcome(addresses, stack.write_environment()))
            signals.stop.wait()
            lock.mark_as_ending()
            say("stopping …")
            supervisor.stop(StopProgress(stack, supervisor, signals, say))
    except (TimeoutError, HomeInUseError, UnsafeFileError, StoreUnavailableError) as error:
        say(f"[red]{error}[/]")
        return 1
    except KeyboardInterrupt:  # while waiting for another stack
        return 130
    return 0


def _login() -> str:
    users = [login.partition(":")[0] for login in flower.load().logins()]
    return f" (log in as {' or '.join(users)}, with the password in FLOWER_BASIC_AUTH)" if users else ""


def welcome(at: Addresses, environment: Path) -> str:
    """Return what is printed when the stack is up, as text for `rich`."""
    upstream = f"the simulator at {at.simulator} (no MUSICAPI_KEY is set)" if at.simulator else "MusicAPI"
    return (
        f"[bold green]voicequeue is up[/], {WORKERS} workers on {upstream}\n"
        f"  Flower  {at.flower}{_login()}\n"
        f"  page    {at.page} ({'jobs and their songs' if '?token=' in at.page else 'log in with an API key'})\n"
        f"  gateway {at.gateway} (the API; described at /docs)\n"
        f"  Redis   {masked(at.redis)}\n"
        f"  logs    {HOME / 'log'}\n"
        "In another terminal:\n"
        f"  . {_relative(environment)}   # the same settings there; in fish: . {_relative(environment)}.fish\n"
        "  .venv/bin/voicequeue ingest samples/voices.csv --batch mine && .venv/bin/voicequeue watch --batch mine\n"
        "  .venv/bin/voicequeue doctor\n"
        "Ctrl-C stops it once submissions in progress have their responses."
    )


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main())
