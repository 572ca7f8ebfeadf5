"""Enqueueing of the rows in a request body, in a thread; results are sent while rows still arrive."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, BinaryIO, cast

from starlette.types import Message, Receive

from voicequeue import InvalidJob, Receipt, VoiceJob, VoiceQueue, VoiceQueueError
from voicequeue.client.results import Entry
from voicequeue.domain.portions import Portion, weight
from voicequeue.errors import detached
from voicequeue.ingest.row_reader import Row, Rows
from workers.gateway import problems
from workers.gateway.api.upload_budget import LEAST_RATE, UPLOAD_S, WINDOW_S, Pace
from workers.gateway.problems import Refusal
from workers.gateway.response_spool import Closed, Outbox
from workers.gateway.server.limit_log import log

#: Pending rows are enqueued if no further row arrives for this long (seconds).
IDLE_S = 0.05


class Gone(Exception):
    """The client has disconnected."""


class _BodyReader:
    """A request body as a file that a thread reads."""

    def __init__(self, receive: Receive, *, on_idle: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._on_idle = on_idle
        self._pace = Pace(LEAST_RATE, WINDOW_S)
        self._deadline = time.monotonic() + UPLOAD_S
        self._buffer = b""
        self._has_more = True
        self._is_stopped = False
        self._receiving: Future[Message] | None = None

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; b"" at the end. Raises Gone, Refusal."""
        while not self._buffer and self._has_more:
            message = self._next_message()
            if message["type"] != "http.request":
                raise Gone
            self._buffer, self._has_more = message.get("body", b""), message.get("more_body", False)
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        return piece

    def _next_message(self) -> Message:
        if self._is_stopped:
            raise Gone
        if self._pace.left_s <= 0 or self._deadline <= time.monotonic():
            raise self._too_slow()
        receiving: Future[Message] = asyncio.run_coroutine_threadsafe(cast(Any, self._receive()), self._loop)
        self._receiving = receiving
        try:
            message = self._wait_briefly(receiving) or self._wait(receiving)
        except CancelledError:
            raise Gone from None
        finally:
            receiving.cancel()
        self._pace.earn(len(message.get("body", b"")))
        return message

    def _wait_briefly(self, receiving: Future[Message]) -> Message | None:
        started_at = time.monotonic()
        try:
            return receiving.result(IDLE_S)
        except FutureTimeoutError:
            return None
        finally:
            self._pace.spend(time.monotonic() - started_at)

    def _wait(self, receiving: Future[Message]) -> Message:
        self._on_idle()  # does not count as waiting for the sender
        started_at = time.monotonic()
        try:
            return receiving.result(max(0.0, min(self._pace.left_s, self._deadline - started_at)))
        except FutureTimeoutError:
            raise self._too_slow() from None
        finally:
            self._pace.spend(time.monotonic() - started_at)

    def _too_slow(self) -> Refusal:
        detail = f"rows must arrive at {LEAST_RATE:g} bytes per second or more, averaged over {WINDOW_S:g} s"
        if self._deadline <= time.monotonic():
            detail = f"an upload must end within {UPLOAD_S:g} s; send the remaining rows in another request"
        log.warning("upload aborted: %s", detail)
        return Refusal(408, detail)

    def stop(self) -> None:
        """Stop reading: `read` raises Gone, also while it waits."""
        self._is_stopped = True
        if self._receiving is not None:
            self._receiving.cancel()


class Intake:
    """Enqueues the rows of one request and writes their results to its outbox."""

    def __init__(self, queue: VoiceQueue, batch: str, receive: Receive, outbox: Outbox, *, all_told: bool) -> None:
        self._queue = queue
        self._batch = batch
        self._outbox = outbox
        self._reports_all = all_told
        self._body = _BodyReader(receive, on_idle=self._flush)
        self._pending = Portion[tuple[int, VoiceJob | InvalidJob]]()
        self._receipt = Receipt()

    def run(self) -> None:
        """Enqueue all rows.

        Errors before the first result are raised: Gone, VoiceQueueError, Refusal. Later ones are reported in the
        summary, which ends the response.
        """
        try:
            self._read_rows()
            self._write_summary(None)
        except (VoiceQueueError, Refusal) as error:
            if not self._outbox.is_used:
                raise
            self._write_summary(problems.from_exception(error))
        except Closed:
            raise Gone from None
        finally:
            self._outbox.end()

    def stop(self) -> None:
        """Read no more rows. Does nothing after the last one."""
        self._body.stop()
        self._outbox.stop()

    def _read_rows(self) -> None:
        try:
            for row in Rows(cast(BinaryIO, self._body)):
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
        size = weight(job)
        size = size._replace(text=max(size.text, row.text))
        if not self._pending.has_room(size):
            self._flush()
        self._pending.add((row.line, job), size)
        if self._pending.is_full:
            self._flush()

    def _flush(self) -> None:
        rows = self._pending.take()
        if not rows:
            return
        entries = iter(self._queue.enqueue_at_once([job for _, job in rows if isinstance(job, VoiceJob)]))
        lines = [
            self._result(line, Entry(error=job) if isinstance(job, InvalidJob) else next(entries)) for line, job in rows
        ]
        self._outbox.put("".join(lines).encode())

    def _result(self, line: int, entry: Entry) -> str:
        self._receipt.add(entry)
        if entry.error is not None:
            errors = problems.from_exception(entry.error).get("errors", [])
            return json.dumps({"line": line, "outcome": "rejected", "errors": errors}) + "\n"
        if not self._reports_all:
            return ""
        further = f', "further": {json.dumps(entry.job_ids[1:])}' if entry.job_ids[1:] else ""
        outcome = "new" if entry.new else "known"
        return f'{{"line": {line}, "outcome": "{outcome}", "id": "{entry.job_id}"{further}}}\n'

    def _write_summary(self, problem: problems.ProblemDetails | None) -> None:
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
