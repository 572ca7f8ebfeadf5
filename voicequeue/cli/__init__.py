"""The `voicequeue` command."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Annotated

import typer
from dotenv import load_dotenv

from voicequeue.auth.secret_files import describe_unreadable_dotenv
from voicequeue.cli.completion import prepare
from voicequeue.cli.errors import OK, USAGE, UsageError, report
from voicequeue.cli.lazy_group import LazyCommand, LazyGroup, parameters_of
from voicequeue.cli.terminal import TerminalLogHandler, print_error, print_note, use_utf8
from voicequeue.errors import UnknownModelWarning, VoiceQueueError

#: The commands, by panel of the help. The text is the first line of the command's docstring.
COMMANDS = {
    "Add jobs": (
        LazyCommand("enqueue", "enqueue", "Add one job to the queue, and print what it costs."),
        LazyCommand("ingest", "ingest", "Add every row of a file to the queue."),
    ),
    "View jobs and results": (
        LazyCommand("status", "status", "Show an overview of the queue, or of one batch."),
        LazyCommand("watch", "watch", "Watch a batch, or all jobs, until they have settled."),
        LazyCommand("batches", "batches", "List batches with their states, credits and limits, the newest first."),
        LazyCommand("jobs", "jobs", "List jobs, filtered by batch, state, failure, time, source or text."),
        LazyCommand("job", "jobs", "Show a job with its timeline, charges and songs."),
        LazyCommand("export", "export", "Export jobs with their orders and results."),
        LazyCommand("personas", "personas", "List the voices that were created, the newest first."),
    ),
    "Change jobs": (
        LazyCommand("retry", "retry", "Retry failed jobs from the stage that failed."),
        LazyCommand("cancel", "cancel", "Cancel a job, or all jobs of a batch."),
        LazyCommand("review", "review", "List jobs that may or may not have been charged, or settle one."),
        LazyCommand("erase", "erase", "Erase a person: all jobs with some metadata, and all that names them."),
    ),
    "Control the queue": (
        LazyCommand("pause", "pause", "Stop submitting orders: all, of one stage, or of one batch."),
        LazyCommand("resume", "pause", "Resume what is paused, and retry now what is on hold."),
        LazyCommand("limits", "limits", "Show the limits, or set them for all workers at once."),
        LazyCommand("credits", "limits", "Show the account: balance, reserved, spent and unexplained credits."),
        LazyCommand(
            "budget",
            "budget",
            "List or set what the account, namespaces and API keys may spend.",
            attribute="app",
            has_namespace=False,
        ),
        LazyCommand(
            "spend", "spend", "Show the credits that were charged, by namespace, API key, batch, day or month."
        ),
    ),
    "Callbacks, archive and messages": (
        LazyCommand("callbacks", "callbacks", "List callbacks that are pending or undelivered, or redeliver them."),
        LazyCommand("archive", "archive", "List jobs whose songs are pending or failed to be archived, or retry them."),
        LazyCommand("rejects", "rejects", "List rejected messages of other Celery clients, the newest first."),
    ),
    "Administration": (
        LazyCommand(
            "audit-log", "audit_log", "List who changed what, when and why, the latest first.", attribute="audit_log"
        ),
        LazyCommand("doctor", "doctor", "Check settings, Redis, upstream, the public URL, processes and versions."),
        LazyCommand(
            "alive",
            "alive",
            "Check that the processes of this host consume their queues: a probe for containers.",
            has_namespace=False,
        ),
        LazyCommand(
            "upgrade",
            "upgrade",
            "Raise the format of the queue to that of this release, after all processes have been upgraded.",
        ),
        LazyCommand("simulate", "simulate", "Run a simulator of MusicAPI, which charges nothing.", has_namespace=False),
        LazyCommand(
            "completion",
            "completion",
            "Print the script that completes commands and options in your shell.",
            has_namespace=False,
        ),
        LazyCommand("keys", "keys", "Manage API keys of the HTTP gateway.", attribute="app", has_namespace=False),
    ),
}


def _print_version(is_requested: bool) -> None:
    if is_requested:
        from voicequeue.version import VERSION  # noqa: PLC0415

        typer.echo(f"voicequeue {VERSION}")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", metavar="", help="Show the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Declare the options of the command itself."""


app = LazyGroup(
    COMMANDS,
    name="voicequeue",
    help="Turn recordings into singing voices: enqueue jobs, watch them, export the songs.",
    epilog="Connects to REDIS_URL (default redis://localhost:6379/0), which may be set in the file .env. "
    "Exit codes: 0 success, 1 failure, 2 wrong usage or input, 3 Redis or upstream unreachable, 4 timeout.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    params=parameters_of(_options),
)


def main() -> None:
    """Run the command and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        use_utf8(stream)
    sys.exit(_run())


def _run() -> int:
    try:
        load_dotenv(".env")
    except (OSError, UnicodeDecodeError) as error:
        print_error(describe_unreadable_dotenv(error), code="setup")
        return USAGE
    prepare()
    _show_log()
    warnings.simplefilter("once", UnknownModelWarning)
    warnings.showwarning = lambda message, *_, **__: print_note(f"note: {message}")
    try:
        return app(args=_arguments(sys.argv[1:]), standalone_mode=False) or OK
    except (VoiceQueueError, typer.Abort, TimeoutError, UsageError) as error:
        return report(error)


def _arguments(words: list[str]) -> list[str]:
    """Return the arguments, with `help` and `version`, which people try, as the options that they mean."""
    if words[:1] == ["help"]:
        return [*words[1:], "--help"]
    return ["--version"] if words == ["version"] else words


def _show_log() -> None:
    log = logging.getLogger("voicequeue")
    log.setLevel(logging.INFO)
    log.handlers = [TerminalLogHandler()]
    log.propagate = False
