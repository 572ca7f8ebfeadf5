"""Rows from a request's body into the queue, in a thread; what became of each goes out while more come in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotYet
from typing import Any, BinaryIO, cast

from starlette.types import Message, Receive

from voicequeue import InvalidJob, Receipt, VoiceJob, VoiceQueue, VoiceQueueError
from voicequeue.receipts import Entry
from voicequeue.rows import Rows
from workers.gateway import problems
from workers.gateway.outbox import Outbox

#: Rows written by one call to Redis.
CHUNK = 500

#: When nothing comes for so long (seconds) the rows that are there are not kept waiting …
IDLE_S = 0.05

#: … and after so long the sender is given up.
SILENCE_S = 60.0


class Gone(Exception):
    """The sender is not there any more."""


class Incoming:
    """The body of a request, as a file that a thread reads."""

    def __init__(self, receive: Receive, *, when_idle: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._when_idle = when_idle
        self._left = b""
        self._more = True
        self._stopped = False
        self._coming: Future[Message] | None = None

    def read(self, size: int) -> bytes:
        """What is there, up to so many bytes; nothing at the end. Raises Gone."""
        while not self._left and self._more:
            message = self._next()
            if message["type"] != "http.request":
                raise Gone
            self._left, self._more = message.get("body", b""), message.get("more_body", False)
        piece, self._left = self._left[:size], self._left[size:]
        return piece

    def _next(self) -> Message:
        if self._stopped:
            raise Gone
        coming: Future[Message] = asyncio.run_coroutine_threadsafe(cast(Any, self._receive()), self._loop)
        self._coming = coming
        try:
            try:
                return coming.result(IDLE_S)
            except NotYet:
                self._when_idle()
                return coming.result(SILENCE_S)
        except (NotYet, CancelledError):
            raise Gone from None
        finally:
            coming.cancel()

    def stop(self) -> None:
        """Nobody waits for the rest: reading it ends, now."""
        self._stopped = True
        if self._coming is not None:
            self._coming.cancel()


class Intake:
    """The rows of one request on their way into the queue."""

    def __init__(self, queue: VoiceQueue, batch: str, receive: Receive, outbox: Outbox, *, all_told: bool) -> None:
        self._queue = queue
        self._batch = batch
        self._outbox = outbox
        self._all_told = all_told
        self._incoming = Incoming(receive, when_idle=self._flush)
        self._pending: list[tuple[int, VoiceJob | InvalidJob]] = []
        self._receipt = Receipt()

    def run(self) -> None:
        """Enqueue them all. Raises VoiceQueueError, Gone where nothing was told yet; later it ends what is told."""
        try:
            self._take()
            self._conclude(None)
        except VoiceQueueError as error:
            if not self._outbox.is_used:
                raise
            self._conclude(problems.told(error))
        finally:
            self._outbox.end()

    def stop(self) -> None:
        """Take no more; it has no effect on what is done."""
        self._incoming.stop()

    def _take(self) -> None:
        for row in Rows(cast(BinaryIO, self._incoming)):
            try:
                job: VoiceJob | InvalidJob = row.job(self._batch)
            except InvalidJob as error:
                job = error
            self._pending.append((row.line, job))
            if len(self._pending) >= CHUNK:
                self._flush()
        self._flush()

    def _flush(self) -> None:
        rows, self._pending = self._pending, []
        if not rows:
            return
        entered = iter(self._queue.enqueue_at_once([job for _, job in rows if isinstance(job, VoiceJob)]))
        lines = [
            self._told(line, Entry(error=job) if isinstance(job, InvalidJob) else next(entered)) for line, job in rows
        ]
        self._outbox.put("".join(lines).encode())

    def _told(self, line: int, entry: Entry) -> str:
        self._receipt.add(entry)
        if entry.error is not None:
            errors = problems.told(entry.error)["errors"]
            return json.dumps({"line": line, "outcome": "rejected", "errors": errors}) + "\n"
        if not self._all_told:
            return ""
        further = f', "further": {json.dumps(entry.job_ids[1:])}' if entry.job_ids[1:] else ""
        outcome = "new" if entry.new else "known"
        return f'{{"line": {line}, "outcome": "{outcome}", "id": "{entry.job_id}"{further}}}\n'

    def _conclude(self, problem: dict[str, Any] | None) -> None:
        receipt = self._receipt
        summary: dict[str, Any] = {
            "complete": problem is None,
            "new": receipt.new,
            "known": receipt.known,
            "rejected": receipt.rejected,
            "credits": receipt.credits,
        }
        if problem is not None:
            summary["problem"] = problem
        self._outbox.put((json.dumps({"summary": summary}) + "\n").encode())
