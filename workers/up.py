"""`make up`: the whole stack on this machine, until Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from rich.console import Console

from config import flower
from config.settings import settings
from workers.stack import HOME, Addresses, HomeInUse, Stack, alone_in
from workers.supervisor import Supervisor

WORKERS = 2


def main() -> int:
    """Start everything and stay up."""
    chosen = settings()
    console = Console(highlight=False)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with alone_in(HOME), Supervisor(say=console.print) as supervisor:
            stack = Stack(supervisor, chosen)
            addresses = stack.start_all(workers=WORKERS)
            console.print(_welcome(addresses, stack.write_environment()), soft_wrap=True)
            stop.wait()
            console.print("stopping …")
    except (TimeoutError, HomeInUse) as error:
        console.print(f"[red]{error}[/]", soft_wrap=True)
        return 1
    return 0


def _login() -> str:
    users = [login.partition(":")[0] for login in flower.load().logins()]
    return f" (log in as {' or '.join(users)}, with the password in FLOWER_BASIC_AUTH)" if users else ""


def _welcome(at: Addresses, environment: Path) -> str:
    upstream = f"the simulator at {at.simulator} (no MUSICAPI_KEY is set)" if at.simulator else "MusicAPI"
    return (
        f"[bold green]voicequeue is up[/], {WORKERS} workers on {upstream}\n"
        f"  Flower  {at.flower}{_login()}\n"
        f"  gateway {at.web} (the job page; the API is at /docs)\n"
        f"  Redis   {at.redis}\n"
        f"  logs    {HOME / 'log'}\n"
        "In another terminal:\n"
        f"  . {_short(environment)}   # the same settings there\n"
        "  .venv/bin/voicequeue ingest samples/voices.csv --batch mine && .venv/bin/voicequeue watch mine\n"
        "  .venv/bin/voicequeue doctor\n"
        "Ctrl-C ends it."
    )


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main())
