"""Options that several commands share, the connection to the queue, and output."""

from __future__ import annotations

import getpass
import logging
import math
import os
import re
import socket
import sys
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from voicequeue.cli.namespace import namespace_or
from voicequeue.domain.namespaces import ALL, Scope
from voicequeue.domain.source import Source
from voicequeue.domain.states import State
from voicequeue.errors import VoiceQueueError
from voicequeue.storage.connection.recorded_change import ACTOR_MAX
from voicequeue.texts import escape_controls, parse_float, terminal_safe_json

if TYPE_CHECKING:
    from voicequeue.client.queue import VoiceQueue

#: Columns of output that is not a terminal, so that lines are not broken for grep and less.
PIPE_WIDTH = 400

# Text of callers is printed as it is: no markup (see `escape_untrusted`), no :emoji:.
out = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True, highlight=False, emoji=False)

COLOURS = {
    State.WAITING: "dim",
    State.QUEUED: "white",
    State.ADMITTED: "cyan",
    State.CHARGING: "yellow",
    State.PENDING: "blue",
    State.UNSURE: "bold magenta",
    State.SUCCEEDED: "green",
    State.FAILED: "red",
    State.CANCELLED: "dim",
}


class CommandSetupError(VoiceQueueError):
    """A setting or a file that the command needs is unusable; the text says which."""


# ── options ────────────────────────────────────────────────────────────────────────────────────────

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as `90s`, `30m`, `24h` or `7d`. Raises BadParameter."""
    match = re.fullmatch(r"([\d.]+)\s*(s|m|min|h|d)", text.strip())
    count = parse_float(match[1]) if match else None
    if not match or not count:
        raise typer.BadParameter("must be a number with s, m, h or d, such as 24h")
    return count * _UNITS[match[2]]


def parse_percentage(text: str) -> float:
    """Return the fraction of a text such as `20%` or `0.2`. Raises BadParameter."""
    from voicequeue.domain.stop_loss import parse_fraction  # noqa: PLC0415

    try:
        return parse_fraction(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def option(metavar: str, *names: str, help: str, **settings: Any) -> Any:
    """Return an option whose help shows `metavar` for its value, instead of a Python type."""
    return typer.Option(*names, metavar=metavar, help=help, **settings)


def flag(*names: str, help: str) -> Any:
    """Return an option without a value."""
    return typer.Option(*names, metavar="", help=help)


def argument(metavar: str, *, help: str) -> Any:
    """Return a positional argument."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


AsJson = Annotated[bool, flag("--json", help="Print JSON, for scripts.")]
Yes = Annotated[bool, flag("--yes", "-y", help="Do not ask for confirmation.")]
BatchOption = Annotated[str | None, option("NAME", help="Only this batch; NAMESPACE/NAME of a namespace.")]
StateOption = Annotated[State | None, option("STATE", help=f"Only jobs in this state: {', '.join(State)}.")]
JobId = Annotated[str, argument("JOB_ID", help="Id of the job.")]
Reason = Annotated[str, option("TEXT", help="Keep this reason in the audit log.")]
Reuse = Annotated[
    bool | None,
    flag("--reuse/--no-reuse", help="Share the voice with other jobs on the same recording."),
]
StopAfter = Annotated[
    float | None,
    typer.Option(
        parser=parse_percentage,
        metavar="PERCENT",
        help="Stop the batch when this part of its settled jobs failed, for example 20%.",
    ),
]
StartWithin = Annotated[
    float | None,
    typer.Option(
        parser=parse_duration,
        metavar="DURATION",
        help="Fail as expired unless submitted within this time, e.g. 24h.",
    ),
]


# ── the connection ─────────────────────────────────────────────────────────────────────────────────


def open_queue(*, namespace: str = ALL, reuse: bool | None = None, reason: str = "") -> VoiceQueue:
    """Return the queue that REDIS_URL, VOICEQUEUE_PREFIX, VOICEQUEUE_WAIT_FOR_REDIS_S and VOICEQUEUE_REPLICAS_ACK
    describe.

    `namespace` is where the command acts if neither `--namespace` nor VOICEQUEUE_NAMESPACE says so. `reuse` is whether
    jobs share voices by default; None takes VOICEQUEUE_REUSE_VOICES. Changes are recorded in the audit log as those of
    the user at this machine, with `reason`. Raises CommandSetupError and SecretFileError.
    """
    # Imported here, because the help of a command needs no connection.
    from voicequeue.client.queue import VoiceQueue, with_source  # noqa: PLC0415

    wait_s = os.environ.get("VOICEQUEUE_WAIT_FOR_REDIS_S") or "0"
    reuse = _boolean("VOICEQUEUE_REUSE_VOICES") if reuse is None else reuse
    try:
        connected = VoiceQueue(
            wait_for_redis_s=_number(wait_s),
            reuse=reuse,
            namespace=namespace_or(namespace),
            replicas_ack=replicas_ack(),
        )
    except ValueError as error:
        settings = "REDIS_URL, VOICEQUEUE_PREFIX, VOICEQUEUE_NAMESPACE and VOICEQUEUE_WAIT_FOR_REDIS_S"
        raise CommandSetupError(f"{error}; see {settings}") from None
    return with_source(connected, Source.CLI).on_behalf_of(_actor(), reason=reason)


def _actor() -> str:
    """Return the user and the machine of the command, for the audit log."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may run a user without a name
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{Source.CLI}:{user}@{socket.gethostname()}"[:ACTOR_MAX]


def is_of_batch(queue: VoiceQueue, qualified: str, batch: str | None) -> bool:
    """Return whether a batch, with its namespace, is the one that the caller names (None: any)."""
    return batch is None or qualified == Scope(queue.namespace).qualify(batch)


_BOOLEANS = {"": False, "0": False, "false": False, "no": False, "off": False} | dict.fromkeys(
    ("1", "true", "yes", "on"), True
)


def _boolean(name: str) -> bool:
    text = os.environ.get(name, "").strip().lower()
    if text not in _BOOLEANS:
        raise CommandSetupError(f"{name}: must be true or false")
    return _BOOLEANS[text]


def replicas_ack() -> int:
    """Return the value of VOICEQUEUE_REPLICAS_ACK. Raises CommandSetupError."""
    text = os.environ.get("VOICEQUEUE_REPLICAS_ACK") or "0"
    if not text.isdecimal():
        raise CommandSetupError("VOICEQUEUE_REPLICAS_ACK: must be a whole number of replicas, such as 1")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # VoiceQueue rejects it with a message


# ── output ─────────────────────────────────────────────────────────────────────────────────────────


def use_utf8(stream: TextIO) -> None:
    """Write UTF-8 to files and pipes on every system, and line ends as they are.

    A terminal keeps its encoding, and gets characters that it cannot show as escapes.
    """
    if not isinstance(stream, TextIOWrapper):
        return
    if stream.isatty():
        stream.reconfigure(errors="backslashreplace")
    else:
        stream.reconfigure(encoding="utf-8", errors=stream.errors, newline="")


class TerminalLogHandler(logging.Handler):
    """Prints the library's log on standard error, such as that it waits for Redis."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        print_error(record.getMessage())


def open_for_writing(path: Path) -> TextIO:
    """Open a file to write CSV or JSON Lines. Raises CommandSetupError."""
    try:
        return path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise CommandSetupError(f"{path}: {error.strerror}") from None


def print_json(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(terminal_safe_json(value))


def print_error(text: str) -> None:
    """Print a line on standard error."""
    err.print(escape_untrusted(text), style="red", soft_wrap=True)


def print_reasons(reasons: dict[str, int]) -> None:
    """Print how many rows were rejected for each reason, the most frequent first."""
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        out.print(f"  {count:>7,}  {escape_untrusted(reason.replace('_', ' '))}")


def plain_table(*columns: str) -> Table:
    """Return a table without a frame."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def coloured(state: State) -> str:
    """Return the name of the state in its colour."""
    return f"[{COLOURS.get(state, 'white')}]{state}[/]"


def escape_untrusted(text: object) -> str:
    """Return untrusted text with its markup and all characters that a terminal would interpret escaped."""
    return escape(escape_controls(str(text)))


def in_brackets(text: str) -> str:
    """Return untrusted text in brackets, after a space; nothing for an empty text."""
    return f" ({escape_untrusted(text)})" if text else ""


def format_time(at: float | None) -> str:
    """Return Unix seconds as local date and time."""
    return "" if at is None else datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def format_duration(seconds: float) -> str:
    """Return a duration in its largest unit of which it has at least two."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
