"""What all commands share: the options, the connection, and how things are printed."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from voicequeue.job import State
from voicequeue.queue import DEFAULT_URL, VoiceQueue
from voicequeue.store import DEFAULT_PREFIX

#: Columns where nobody looks at a terminal: lines for grep and less are not broken.
UNBROKEN = 400

out = Console(highlight=False, width=None if sys.stdout.isatty() else UNBROKEN)
err = Console(stderr=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
BatchArgument = Annotated[str | None, typer.Argument(help="A batch; all jobs without it.", show_default=False)]
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


def queue() -> VoiceQueue:
    """The queue that REDIS_URL and VOICEQUEUE_PREFIX name."""
    url = os.environ.get("REDIS_URL") or DEFAULT_URL
    return VoiceQueue(url, prefix=os.environ.get("VOICEQUEUE_PREFIX") or DEFAULT_PREFIX)


def coloured(state: State) -> str:
    """The state's name in its colour."""
    return f"[{COLOURS[state]}]{state}[/]"


def safe(text: object) -> str:
    """Text of somebody else's, with nothing in it that the terminal would obey."""
    return escape("".join(letter if letter.isprintable() else " " for letter in str(text)))


def print_json(value: Any) -> None:
    """One JSON document, for scripts."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def complain(text: str) -> None:
    """A line on standard error."""
    err.print(safe(text), style="red", soft_wrap=True)


def plain_table(*columns: str) -> Table:
    """A table without a frame."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
