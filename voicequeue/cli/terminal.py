"""What all commands share: the options, the connection, and how things are printed."""

from __future__ import annotations

import logging
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from voicequeue.client.queue import DEFAULT_URL, VoiceQueue, entered_by
from voicequeue.domain.job import State
from voicequeue.domain.origin import Origin
from voicequeue.errors import VoiceQueueError
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX
from voicequeue.texts import json_text, shown

#: Columns where nobody looks at a terminal: lines for grep and less are not broken.
UNBROKEN = 400

# Nothing in a caller's text means anything here: no markup (see `safe`), no :emoji:.
out = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else UNBROKEN)
err = Console(stderr=True, highlight=False, emoji=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
BatchOption = Annotated[str | None, typer.Option(help="Only this batch.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
BatchArgument = Annotated[str | None, typer.Argument(help="A batch; all jobs without it.", show_default=False)]
BatchToo = Annotated[str | None, typer.Option("--batch", help="The same, as other commands have it.")]
JobId = Annotated[str, typer.Argument(help="The job's id.", show_default=False)]

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


class CannotBegin(VoiceQueueError):
    """A setting or a file that the command needs is not usable; the text says which."""


def one_batch(batch: str | None, of: str | None) -> str | None:
    """The batch that was named in either way."""
    if batch is not None and of is not None and batch != of:
        raise typer.BadParameter(f"--batch names another batch than {batch}")
    return batch if of is None else of


def queue(*, reuse: bool | None = None) -> VoiceQueue:
    """The queue that REDIS_URL and VOICEQUEUE_PREFIX name; VOICEQUEUE_WAIT_FOR_REDIS_S says how patient it is.

    Whether jobs that do not say share voices: `reuse`, or else VOICEQUEUE_REUSE.
    """
    url = os.environ.get("REDIS_URL") or DEFAULT_URL
    prefix = os.environ.get("VOICEQUEUE_PREFIX") or DEFAULT_PREFIX
    wait_s = os.environ.get("VOICEQUEUE_WAIT_FOR_REDIS_S") or "0"
    reuse = _switch("VOICEQUEUE_REUSE") if reuse is None else reuse
    try:
        found = VoiceQueue(url, prefix=prefix, wait_for_redis_s=_number(wait_s), reuse=reuse)
    except ValueError as error:
        raise CannotBegin(f"{error}; see REDIS_URL, VOICEQUEUE_PREFIX and VOICEQUEUE_WAIT_FOR_REDIS_S") from None
    return entered_by(found, Origin.CLI)


_SWITCH = {"": False, "0": False, "false": False, "no": False, "off": False} | dict.fromkeys(
    ("1", "true", "yes", "on"), True
)


def _switch(name: str) -> bool:
    given = os.environ.get(name, "").strip().lower()
    if given not in _SWITCH:
        raise CannotBegin(f"{name}: must be true or false")
    return _SWITCH[given]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # which the queue refuses in its words


class ToldOnTheTerminal(logging.Handler):
    """Shows what the library has to say meanwhile: that Redis is waited for."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line on standard error."""
        complain(record.getMessage())


def writable(path: Path) -> TextIO:
    """The file, open to write CSV or JSON Lines to."""
    try:
        return path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise CannotBegin(f"{path}: {error.strerror}") from None


def coloured(state: State) -> str:
    """The state's name in its colour."""
    return f"[{COLOURS[state]}]{state}[/]"


def safe(text: object) -> str:
    """Text of somebody else's, with an escape for everything that the terminal would obey."""
    return escape(shown(str(text)))


def print_json(value: Any) -> None:
    """One JSON document, for scripts."""
    typer.echo(json_text(value))


def complain(text: str) -> None:
    """A line on standard error."""
    err.print(safe(text), style="red", soft_wrap=True)


def plain_table(*columns: str) -> Table:
    """A table without a frame."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
