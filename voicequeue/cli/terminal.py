"""Options that several commands share, the connection to the queue, and output."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterable
from datetime import datetime
from functools import cached_property
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from voicequeue.cli.batch_names import complete_batches
from voicequeue.cli.namespace import namespace_or
from voicequeue.cli.parsing import parse_duration, parse_percentage, parse_time, parse_wait
from voicequeue.domain.namespaces import ALL, Scope
from voicequeue.domain.source import Source
from voicequeue.domain.states import State
from voicequeue.errors import VoiceQueueError
from voicequeue.texts import escape_controls, terminal_safe_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from voicequeue.client.queue import VoiceQueue


class Output:
    """Standard output or standard error, with rich's markup. Rich is imported when the first text is printed."""

    def __init__(self, *, is_error: bool = False) -> None:
        self._is_error = is_error

    @cached_property
    def console(self) -> Console:
        """The console of rich. Text of callers is printed as it is: no markup (`escape_untrusted`), no :emoji:."""
        from rich.console import Console  # noqa: PLC0415

        return Console(stderr=self._is_error, highlight=False, emoji=False)

    @property
    def is_terminal(self) -> bool:
        """True if a person reads the output."""
        return self.console.is_terminal

    def print(self, content: RenderableType = "", *, soft_wrap: bool = True, end: str = "\n") -> None:
        """Print text or a layout of rich. The terminal breaks long lines, so that ids and URLs can be copied."""
        self.console.print(content, soft_wrap=soft_wrap, end=end)


out = Output()
err = Output(is_error=True)

_STATE_STYLES: dict[str, str] = {
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

    code = "setup"


class CommandError(VoiceQueueError):
    """The command has failed, with an exit code and the kind of the error."""

    def __init__(self, code: str, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.code, self.exit_code = code, exit_code


# ── options ────────────────────────────────────────────────────────────────────────────────────────


def option(metavar: str, *names: str, help: str, **settings: Any) -> Any:
    """Return an option whose help shows `metavar` for its value, instead of a Python type."""
    return typer.Option(*names, metavar=metavar, help=help, **settings)


def batch_option(help: str) -> Any:
    """Return the option `--batch`; the shell completes the names of batches."""
    return option("NAME", "--batch", help=help, autocompletion=complete_batches)


def flag(*names: str, help: str) -> Any:
    """Return an option without a value."""
    return typer.Option(*names, metavar="", help=help)


def argument(metavar: str, *, help: str) -> Any:
    """Return a positional argument."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


AsJson = Annotated[bool, flag("--json", help="Print JSON, for scripts.")]
Yes = Annotated[bool, flag("--yes", "-y", help="Do not ask for confirmation.")]
BatchOption = Annotated[str | None, batch_option("Only this batch; NAMESPACE/NAME of a namespace.")]
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
Since = Annotated[
    float | None,
    typer.Option(parser=parse_time, metavar="TIME", help="Only changes since then: 24h, 7d, or a date."),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        parser=parse_wait, metavar="DURATION", help="Stop waiting after this time, with exit code 4: 90 (seconds), 30m."
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
    import getpass  # noqa: PLC0415
    import socket  # noqa: PLC0415

    from voicequeue.storage.connection.recorded_change import ACTOR_MAX  # noqa: PLC0415

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
        print_note(record.getMessage())


def open_for_writing(path: Path) -> TextIO:
    """Open a file to write CSV or JSON Lines. Raises CommandSetupError."""
    try:
        return path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise CommandSetupError(f"{path}: {error.strerror}") from None


def print_json(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(terminal_safe_json(value))


def print_json_list(values: Iterable[Any]) -> None:
    """Print a list as one JSON document. Only one of its values is in memory at a time."""
    separator = "["
    for value in values:
        typer.echo(f"{separator}{terminal_safe_json(value)}", nl=False)
        separator = ", "
    typer.echo("[]" if separator == "[" else "]")


def print_error(text: str, *, code: str = "error", **details: Any) -> None:
    """Print an error on standard error; with --json as JSON."""
    _print_aside("error", {"code": code, "message": text, **details}, colour="red")


def print_note(text: str) -> None:
    """Print what is not a result on standard error; with --json as JSON."""
    _print_aside("note", {"message": text}, colour="yellow")


def _print_aside(kind: str, content: dict[str, Any], *, colour: str) -> None:
    if is_json():
        typer.echo(terminal_safe_json({kind: content}), err=True)
    else:
        typer.echo(styled(escape_controls(content["message"]), colour, err=True), err=True)


def is_json() -> bool:
    """Return whether the command line asks for JSON. True before it is parsed, so that wrong usage is JSON too."""
    return "--json" in sys.argv


def styled(text: str, style: str, *, err: bool = False) -> str:
    """Return the text in a style such as `bold red`; unchanged unless a terminal with colours shows it."""
    stream = sys.stderr if err else sys.stdout
    if not text or not style or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    words = set(style.split())
    colour = next(iter(words - {"bold", "dim"}), None)
    return typer.style(text, fg=colour, bold="bold" in words or None, dim="dim" in words or None)


def refuse(why: str, **options: object) -> None:
    """Raise BadParameter if one of these options was given, which would have no effect."""
    if unused := [f"--{name.replace('_', '-')}" for name, value in options.items() if value]:
        raise typer.BadParameter(f"{' and '.join(unused)} {'has' if len(unused) == 1 else 'have'} no effect {why}")


def confirm(question: str, *, yes: bool) -> None:
    """Ask whether to continue, unless `yes`. Raises CommandError if the answer is no, or if no terminal can answer."""
    if yes:
        return
    try:
        is_confirmed = typer.confirm(question, err=True)
    except typer.Abort:  # Ctrl-C, or the end of the input
        if not sys.stdin.isatty():
            message = f"{question.rstrip('?')}? There is no terminal to answer; --yes confirms it"
            raise CommandError("confirmation_required", message, exit_code=2) from None
        is_confirmed = False
    if not is_confirmed:
        raise CommandError("declined", "nothing was changed")


def print_reasons(reasons: dict[str, int]) -> None:
    """Print how many rows were rejected for each reason, the most frequent first."""
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        out.print(f"  {count:>7,}  {escape_untrusted(reason.replace('_', ' '))}")


def style_of_state(state: str) -> str:
    """Return the style of a state, such as `bold magenta`; "white" for a state that only a newer release has."""
    return _STATE_STYLES.get(state, "white")


def coloured(state: State) -> str:
    """Return the name of the state in its colour."""
    return f"[{style_of_state(state)}]{state}[/]"


def escape_untrusted(text: object) -> str:
    """Return untrusted text with its markup and all characters that a terminal would interpret escaped."""
    from rich.markup import escape  # noqa: PLC0415

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
