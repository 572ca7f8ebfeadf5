"""Errors: their exit codes, and how they are printed, as text or with `--json` as JSON."""

from __future__ import annotations

from typing import Any

import typer

from voicequeue.cli.terminal import CommandError, print_error
from voicequeue.errors import (
    BudgetExceededError,
    InvalidJobError,
    InvalidStateError,
    KeyConflictError,
    StoreFormatError,
    StoreUnavailableError,
    VoiceQueueError,
)

#: The exit codes. docs/reference/command-line.md has them as a table.
OK, FAILED, USAGE, UNREACHABLE, TIMEOUT, INTERRUPTED = 0, 1, 2, 3, 4, 130

#: Pydantic's words in the messages of Typer, and ours.
_WORDS = {
    "a valid integer, unable to parse string as an integer": "a whole number",
    "a valid number, unable to parse string as a number": "a number",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}

#: The base class of the errors about wrong usage; Typer does not export it.
UsageError: Any = typer.BadParameter.__mro__[1]


def report(error: VoiceQueueError | typer.Abort | TimeoutError | UsageError) -> int:
    """Print an error, and return the exit code."""
    if isinstance(error, UsageError):
        _report_usage(error)
        return USAGE
    if isinstance(error, typer.Abort):
        print_error("nothing was changed", code="declined")
        return FAILED
    if isinstance(error, TimeoutError):
        print_error(str(error), code="timeout")
        return TIMEOUT
    print_error(f"{error}{_hint(error)}", code=error.code, **_details(error))
    return _exit_code(error)


def _exit_code(error: VoiceQueueError) -> int:
    if isinstance(error, CommandError):
        return error.exit_code
    if isinstance(error, InvalidStateError | StoreFormatError):
        return FAILED
    return UNREACHABLE if isinstance(error, StoreUnavailableError) else USAGE


def _report_usage(error: Any) -> None:
    """Print an error about wrong usage, with the name of the option, and where to read about the command."""
    param = getattr(error, "param", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message(), err=True)
        return
    field = _field(param, getattr(error, "option_name", "") or getattr(error, "param_hint", None) or "")
    reason = _sentence(error.message)
    if not reason:
        message, reason = f"{field} is required", "is required"
    elif param is not None or (field and type(error) is typer.BadParameter):
        message = f"{field}: {reason}"
    else:
        message = reason if type(error) is typer.BadParameter else _sentence(error.format_message())
    errors = [{"field": field, "message": reason}] if field else []
    hint = f". See {error.ctx.command_path} --help" if error.ctx else ""
    print_error(f"{message}{hint}", code="usage", **({"errors": errors} if errors else {}))


def _field(param: Any, option_name: str) -> str:
    """Return the name of an option or argument as the help shows it."""
    if param is None:
        return option_name
    return str(param.opts[0] if param.param_type_name == "option" else param.metavar or param.name)


def _sentence(message: str) -> str:
    """Return Typer's message in the style of ours: on one line, without a capital letter and a full stop."""
    text = " ".join(message.split()).rstrip(".?").removeprefix("Value error, ")
    text = text.replace("Input should be", "must be", 1)
    for theirs, ours in _WORDS.items():
        text = text.replace(theirs, ours)
    return text[:1].lower() + text[1:]


def _details(error: VoiceQueueError) -> dict[str, Any]:
    """Return what programs may need to know about the error; the names are those of HTTP."""
    if isinstance(error, InvalidJobError):
        return {"errors": [{"field": problem.field, "message": problem.message} for problem in error.problems]}
    if isinstance(error, KeyConflictError):
        return {"job_id": error.job_id}
    if isinstance(error, BudgetExceededError):
        return {"budget": {"owner": error.owner, "period": error.period, "price": error.price}}
    return {}


def _hint(error: VoiceQueueError) -> str:
    """Return a hint at the likely cause; nothing if Redis answered, because the error names the cause."""
    from voicequeue.storage.connection.refusals import RedisRefusalError  # noqa: PLC0415

    is_unreachable = isinstance(error, StoreUnavailableError) and not isinstance(error, StoreFormatError)
    return ". Is REDIS_URL right?" if is_unreachable and not isinstance(error.__cause__, RedisRefusalError) else ""
