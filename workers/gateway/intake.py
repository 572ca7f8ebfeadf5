"""Rows from a request's body into the queue, in a thread; what became of each goes out while more come in."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotYet
from typing import Any, BinaryIO, cast

from starlette.types import Message, Receive

from voicequeue import InvalidJob, Receipt, VoiceJob, VoiceQueue, VoiceQueueError
from voicequeue.client.results import Entry
from voicequeue.domain.portions import Portion, weight
from voicequeue.errors import detached
from voicequeue.ingest.row_reader import Row, Rows
from workers.gateway import problems
from workers.gateway.notices import log
from workers.gateway.pace import LEAST_RATE, UPLOAD_S, WINDOW_S, Pace
from workers.gateway.problems import Refusal
from workers.gateway.response_spool import Closed, Outbox

#: When nothing comes for so long (seconds) the rows that are there are not kept waiting.
IDLE_S = 0.05


class Gone(Exception):
    """The sender is not there any more."""


class Incoming:
    """The body of a request, as a file that a thread reads."""

    def __init__(self, receive: Receive, *, when_idle: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._when_idle = when_idle
        self._pace = Pace(LEAST_RATE, WINDOW_S)
        self._until = time.monotonic() + UPLOAD_S
        self._left = b""
        self._more = True
        self._stopped = False
        self._coming: Future[Message] | None = None

    def read(self, size: int) -> bytes:
        """What is there, up to so many bytes; nothing at the end. Raises Gone, Refusal."""
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
        if self._pace.left_s <= 0 or self._until <= time.monotonic():
            raise self._too_slow()
        coming: Future[Message] = asyncio.run_coroutine_threadsafe(cast(Any, self._receive()), self._loop)
        self._coming = coming
        try:
            message = self._soon(coming) or self._later(coming)
        except CancelledError:
            raise Gone from None
        finally:
            coming.cancel()
        self._pace.earn(len(message.get("body", b"")))
        return message

    def _soon(self, coming: Future[Message]) -> Message | None:
        begun = time.monotonic()
        try:
            return coming.result(IDLE_S)
        except NotYet:
            return None
        finally:
            self._pace.spend(time.monotonic() - begun)

    def _later(self, coming: Future[Message]) -> Message:
        self._when_idle()  # the time that takes is not the sender's
        begun = time.monotonic()
        try:
            return coming.result(max(0.0, min(self._pace.left_s, self._until - begun)))
        except NotYet:
            raise self._too_slow() from None
        finally:
            self._pace.spend(time.monotonic() - begun)

    def _too_slow(self) -> Refusal:
        why = f"rows must come with {LEAST_RATE:g} bytes a second, over {WINDOW_S:g} s"
        if self._until <= time.monotonic():
            why = f"an upload must end within {UPLOAD_S:g} s; send the rest in another one"
        log.warning("an upload was ended: %s", why)
        return Refusal(408, why)

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
        self._pending = Portion[tuple[int, VoiceJob | InvalidJob]]()
        self._receipt = Receipt()

    def run(self) -> None:
        """Enqueue them all. Raises Gone; VoiceQueueError, Refusal where nothing was told yet; later that ends what is
        told."""
        try:
            self._take()
            self._conclude(None)
        except (VoiceQueueError, Refusal) as error:
            if not self._outbox.is_used:
                raise
            self._conclude(problems.told(error) if isinstance(error, VoiceQueueError) else problems.refused(error))
        except Closed:
            raise Gone from None
        finally:
            self._outbox.end()

    def stop(self) -> None:
        """Take no more; it has no effect on what is done."""
        self._incoming.stop()
        self._outbox.stop()

    def _take(self) -> None:
        try:
            for row in Rows(cast(BinaryIO, self._incoming)):
                self._add(row)
        except Refusal:
            self._flush()
            raise
        self._flush()

    def _add(self, row: Row) -> None:
        try:
            job: VoiceJob | InvalidJob = row.job(self._batch)
        except InvalidJob as error:
            job = detached(error)
        more = weight(job)
        more = more._replace(text=max(more.text, row.text))
        if not self._pending.has_room(more):
            self._flush()
        self._pending.add((row.line, job), more)
        if self._pending.is_full:
            self._flush()

    def _flush(self) -> None:
        rows = self._pending.take()
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
