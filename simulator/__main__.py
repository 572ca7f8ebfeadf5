"""The command line: `python -m simulator`."""

import argparse
import asyncio
import json
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from simulator.engine.clock import steady_clock
from simulator.engine.dials import MEANINGS, Dials, InvalidDial
from simulator.engine.musicapi import MusicApi
from simulator.server.api import Api
from simulator.server.control import Control
from simulator.server.listener import Listener
from simulator.server.state_file import StateFile, StateFileError
from simulator.server.webhooks import WebhookSender


def _print_urls(api_url: str, control_url: str) -> None:
    print(f"simulator: api {api_url} control {control_url}", flush=True)


def main(arguments: Sequence[str] | None = None, *, announce: Callable[[str, str], object] = _print_urls) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code: 0 after a signal, 1 when a port is taken or
    the state cannot be used. `announce` is called with both URLs once the ports are open."""
    options = _parser().parse_args(arguments)
    try:
        dials = Dials().changed(dict(options.dial))
    except InvalidDial as error:
        _parser().error(str(error))
    _allow_many_connections()
    try:
        asyncio.run(_run(dials, options, announce))
    except (OSError, StateFileError) as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(dials: Dials, options: argparse.Namespace, announce: Callable[[str, str], object]) -> None:
    clock, stop = steady_clock(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    music_api = MusicApi(dials, StateFile(options.state) if options.state else None)
    webhooks = WebhookSender(music_api, clock)
    api = Api(music_api, webhooks, clock, media_host=options.media_host)
    api_listener = Listener(api.app(), options.host, options.port)
    control_listener = Listener(
        Control(music_api, webhooks, clock, api_listener).app(), options.host, options.control_port
    )
    media_url = f"http://{options.media_host}:{api_listener.port}" if options.media_host else ""
    _resume(music_api, webhooks, clock(), media_url)
    await api_listener.open()
    await control_listener.open()
    announce(api_listener.url, control_listener.url)
    await stop.wait()
    await asyncio.gather(api_listener.close(), control_listener.close(), webhooks.close())
    music_api.save()


def _resume(music_api: MusicApi, webhooks: WebhookSender, now: float, media_url: str) -> None:
    """Continue the tasks of an earlier process: those in progress send webhooks. Links begin with `media_url` if
    it is given, because the port may be another one."""
    for task in music_api.ledger.tasks.values():
        task.base = media_url or task.base
        if task.ready_at > now:
            webhooks.plan(task)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulator",
        description="Simulate MusicAPI.",
        epilog="dials:\n" + "\n".join(f"  {name:18}{meaning}" for name, meaning in MEANINGS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8900, help="port of the API; 0 selects a free one (default: 8900)")
    parser.add_argument("--media-host", help="host in the links of files (default: that of the request)")
    parser.add_argument("--control-port", type=int, default=8901, help="0 selects a free one (default: 8901)")
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="keep tasks and credits in this file (default: in memory)",
    )
    parser.add_argument(
        "--dial", type=setting, action="append", default=[], metavar="NAME=VALUE", help="VALUE is JSON or a bare word"
    )
    return parser


def setting(text: str) -> tuple[str, object]:
    """Return the name and the value of a dial."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _allow_many_connections() -> None:
    # The usual soft limit of 1,024 open files is too low for a thousand clients and the webhooks.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
