"""The `voicequeue` command.

Exit codes: 0 fine, 1 something failed, 2 wrong usage or input, 3 Redis or upstream unreachable.
"""

from __future__ import annotations

import logging
import sys
import warnings

import typer
from dotenv import load_dotenv

from voicequeue.cli import (
    archive,
    bulk,
    callbacks,
    change,
    doctor,
    ingest,
    keys,
    personas,
    rejects,
    review,
    show,
    steer,
    watch,
)
from voicequeue.cli.terminal import ToldOnTheTerminal, complain
from voicequeue.domain.song import UnknownModelWarning
from voicequeue.errors import NotAllowed, StoreUnreachable, VoiceQueueError
from voicequeue.storage.connection.refusals import RedisRefusalError

app = typer.Typer(
    name="voicequeue",
    help="Turn recordings into singing voices: put jobs in, watch them, take the songs out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for module in (bulk, ingest, show, watch, change, review, rejects, callbacks, archive, personas, steer, doctor, keys):
    module.add_to(app)


def main() -> None:
    """Run the command and end the process with its exit code."""
    load_dotenv(".env")
    _show_log()
    warnings.simplefilter("once", UnknownModelWarning)
    warnings.showwarning = lambda message, *_, **__: complain(f"note: {message}")
    try:
        app()
    except StoreUnreachable as error:
        hint = "" if isinstance(error.__cause__, RedisRefusalError) else ". Is REDIS_URL right?"
        complain(f"{error}{hint}")
        sys.exit(3)
    except NotAllowed as error:
        complain(str(error))
        sys.exit(1)
    except VoiceQueueError as error:
        complain(str(error))
        sys.exit(2)


def _show_log() -> None:
    log = logging.getLogger("voicequeue")
    log.setLevel(logging.INFO)
    log.handlers = [ToldOnTheTerminal()]
    log.propagate = False
