"""Names of batches that the shell offers while a command is typed."""

from __future__ import annotations

from contextlib import suppress
from threading import Thread
from typing import Any

import typer

#: The time that Redis has for an answer (seconds). The user waits for the shell.
ANSWER_TIMEOUT_S = 0.7

#: Names that are offered at most.
NAMES_MAX = 100


def complete_batches(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of batches that begin so, the newest first; none if Redis does not answer quickly."""
    names: list[str] = []
    namespace = context.params.get("namespace")

    def read() -> None:
        with suppress(Exception, SystemExit):  # there is nowhere to report an error
            names.extend(_batch_names(namespace, incomplete))

    thread = Thread(target=read, daemon=True)
    thread.start()
    thread.join(ANSWER_TIMEOUT_S)
    return list(names)


def _batch_names(namespace: Any, prefix: str) -> list[str]:
    from voicequeue.cli.terminal import open_queue  # noqa: PLC0415
    from voicequeue.domain.namespaces import ALL  # noqa: PLC0415

    with open_queue(namespace=namespace or ALL) as queue:
        return queue.batch_names(prefix, limit=NAMES_MAX)
