"""Names of batches that the shell offers while a command is typed."""

from __future__ import annotations

from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from voicequeue.client.queue import VoiceQueue

#: The time that Redis has for an answer (seconds). The user waits for the shell.
ANSWER_TIMEOUT_S = 0.7

#: Names that are offered at most.
NAMES_MAX = 100


def complete_batches(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of batches that begin so, the newest first; none if Redis does not answer quickly."""
    names: list[str] = []
    with suppress(Exception, SystemExit):  # there is nowhere to report an error
        from voicequeue.cli.terminal import open_queue  # noqa: PLC0415
        from voicequeue.domain.namespaces import ALL  # noqa: PLC0415

        queue = open_queue(namespace=context.params.get("namespace") or ALL)
        thread = Thread(target=_read_names, args=(queue, incomplete, names), daemon=True)
        thread.start()
        thread.join(ANSWER_TIMEOUT_S)
    return list(names)


def _read_names(queue: VoiceQueue, prefix: str, names: list[str]) -> None:
    with suppress(Exception):
        names.extend(queue.batch_names(prefix, limit=NAMES_MAX))
