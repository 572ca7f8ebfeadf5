"""`make up`: the whole stack on this machine, until Ctrl-C."""

from __future__ import annotations

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
from voicequeue.errors import StoreUnreachable
from voicequeue.storage.redis_url import masked
from workers.local.home import MARGIN_S, HomeInUse, alone_in
from workers.local.stack import HOME, Addresses, Stack
from workers.local.supervisor import Supervisor
from workers.private_files import UnsafeFileError

WORKERS = 2

#: A second Ctrl-C counts so many seconds after the first.
AGAIN_S = 0.5

#: Seconds between two lines about what a stop waits for.
PROGRESS_S = 3.0


class Signals:
    """Asks this process to stop; a second Ctrl-C asks it to stop at once."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.again = threading.Event()
        self._interrupted_at = inf
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: object) -> None:
        now = time.monotonic()
        # Terminals, shells and `make` may send any signal twice; a person needs longer to press a key again.
        if number == signal.SIGINT and now > self._interrupted_at + AGAIN_S:
            self.again.set()
        if number == signal.SIGINT:
            self._interrupted_at = min(self._interrupted_at, now)
        self.stop.set()


class Farewell:
    """Says what a stack that ends is waiting for, and forces its end when it is asked to."""

    def __init__(self, stack: Stack, supervisor: Supervisor, signals: Signals, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._supervisor = supervisor
        self._signals = signals
        self._say = say
        self._next_at = time.monotonic() + PROGRESS_S
        self._forced = False

    def __call__(self) -> None:
        """Look at where it stands; called again and again until the end."""
        if self._forced:
            return
        if self._signals.again.is_set():
            self._forced = True
            self._say(f"cutting off {self._what_is_left()}: such orders become unsure, see voicequeue review")
            self._supervisor.force()
        elif time.monotonic() > self._next_at:
            self._next_at = time.monotonic() + PROGRESS_S
            self._say(f"waiting for {self._what_is_left()}; Ctrl-C again cuts them off")

    def _what_is_left(self) -> str:
        with suppress(StoreUnreachable):
            if not (orders := self._stack.orders_on_their_way()):
                return "processes that end"
            return f"processes that end, and {orders} orders on their way, which may have been charged"
        return "processes that end, and orders on their way, which may have been charged"


def main() -> int:
    """Start everything and stay up."""
    chosen = settings()
    console = Console(highlight=False)

    def say(text: str) -> None:
        with suppress(OSError):  # the terminal was closed
            console.print(text, soft_wrap=True)

    try:
        with (
            alone_in(HOME, wait_s=chosen.stop_s + MARGIN_S, say=say) as lock,
            Supervisor(say, keeps=[lock.descriptor]) as supervisor,
        ):
            signals, stack = Signals(), Stack(supervisor, chosen)
            addresses = stack.start_all(workers=WORKERS)
            say(_welcome(addresses, stack.write_environment()))
            signals.stop.wait()
            lock.mark_as_ending()
            say("stopping …")
            supervisor.stop(Farewell(stack, supervisor, signals, say))
    except (TimeoutError, HomeInUse, UnsafeFileError, StoreUnreachable) as error:
        say(f"[red]{error}[/]")
        return 1
    except KeyboardInterrupt:  # it waited for another stack
        return 130
    return 0


def _login() -> str:
    users = [login.partition(":")[0] for login in flower.load().logins()]
    return f" (log in as {' or '.join(users)}, with the password in FLOWER_BASIC_AUTH)" if users else ""


def _welcome(at: Addresses, environment: Path) -> str:
    upstream = f"the simulator at {at.simulator} (no MUSICAPI_KEY is set)" if at.simulator else "MusicAPI"
    return (
        f"[bold green]voicequeue is up[/], {WORKERS} workers on {upstream}\n"
        f"  Flower  {at.flower}{_login()}\n"
        f"  page    {at.page} (voices and their songs)\n"
        f"  gateway {at.web} (the API; described at /docs)\n"
        f"  Redis   {masked(at.redis)}\n"
        f"  logs    {HOME / 'log'}\n"
        "In another terminal:\n"
        f"  . {_short(environment)}   # the same settings there\n"
        "  .venv/bin/voicequeue ingest samples/voices.csv --batch mine && .venv/bin/voicequeue watch --batch mine\n"
        "  .venv/bin/voicequeue doctor\n"
        "Ctrl-C ends it, when the orders on their way are answered."
    )


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main())
