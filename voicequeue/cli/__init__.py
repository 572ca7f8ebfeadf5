"""The `voicequeue` command.

Exit codes: 0 success, 1 failure, 2 wrong usage or input, 3 Redis or upstream unreachable.
"""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from collections.abc import Callable

import typer
from dotenv import load_dotenv

from voicequeue.cli import (
    archive,
    callbacks,
    cancel,
    doctor,
    enqueue,
    export,
    ingest,
    jobs,
    keys,
    limits,
    pause,
    personas,
    rejects,
    retry,
    review,
    status,
    watch,
)
from voicequeue.cli.terminal import TerminalLogHandler, print_error
from voicequeue.domain.song import UnknownModelWarning
from voicequeue.errors import InvalidStateError, StoreUnavailableError, VoiceQueueError
from voicequeue.storage.connection.refusals import RedisRefusalError

#: The commands, by panel of the help.
COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Add jobs": (enqueue.enqueue, ingest.ingest),
    "View jobs and results": (
        status.status,
        watch.watch,
        jobs.jobs,
        jobs.job,
        export.export,
        personas.personas,
    ),
    "Change jobs": (retry.retry, cancel.cancel, review.review),
    "Control the queue": (pause.pause, pause.resume, limits.limits, limits.credits),
    "Callbacks, archive and messages": (callbacks.callbacks, archive.archive, rejects.rejects),
    "Administration": (doctor.doctor,),
}

app = typer.Typer(
    name="voicequeue",
    help="Turn recordings into singing voices: enqueue jobs, watch them, export the songs.",
    epilog="Connects to REDIS_URL (default redis://localhost:6379/0), which may be set in the file .env. "
    "Exit codes: 0 success, 1 failure, 2 wrong usage or input, 3 Redis or upstream unreachable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _help(command: Callable[..., None]) -> str:
    """Return the docstring with one line per paragraph; Typer prints its line breaks."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)


for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(help=_help(command), rich_help_panel=panel)(command)
app.add_typer(keys.app, name="keys", rich_help_panel="Administration")


def main() -> None:
    """Run the command and end the process with its exit code."""
    load_dotenv(".env")
    _show_log()
    warnings.simplefilter("once", UnknownModelWarning)
    warnings.showwarning = lambda message, *_, **__: print_error(f"note: {message}")
    try:
        app()
    except StoreUnavailableError as error:
        hint = "" if isinstance(error.__cause__, RedisRefusalError) else ". Is REDIS_URL right?"
        print_error(f"{error}{hint}")
        sys.exit(3)
    except InvalidStateError as error:
        print_error(str(error))
        sys.exit(1)
    except VoiceQueueError as error:
        print_error(str(error))
        sys.exit(2)


def _show_log() -> None:
    log = logging.getLogger("voicequeue")
    log.setLevel(logging.INFO)
    log.handlers = [TerminalLogHandler()]
    log.propagate = False
