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

from voicequeue import EnqueueSummary, InvalidJobError, VoiceJob, VoiceQueue, VoiceQueueError
from voicequeue.client.results import EnqueueItemResult
from voicequeue.domain.portions import Portion, weight
from voicequeue.errors import without_traceback
from voicequeue.ingest.row import ReadOptions, Row
from voicequeue.ingest.row_reader import RowReader
from workers.gateway import problems
from workers.gateway.api.row_schemas import RowOutcome, UploadEnd, UploadSummary
from workers.gateway.api.upload_budget import MIN_RATE, UPLOAD_TIMEOUT_S, WINDOW_S, UploadBudget
from workers.gateway.problems import ProblemError
from workers.gateway.response_spool import ResponseClosed, ResponseSpool
from workers.gateway.security.admission import Admission
from workers.gateway.server.limit_log import log

#: A body cannot be read twice, as Excel files must be.
_OPTIONS = ReadOptions(allow_excel=False)

#: Pending rows are enqueued if no further row arrives for this long (seconds).
IDLE_S = 0.05


class ClientDisconnectedError(Exception):
    """The client has disconnected."""


class _BodyReader:
    """A request body as a file that a thread reads."""

    def __init__(self, receive: Receive, admission: Admission, *, on_idle: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._admission = admission
        self._receive = receive
        self._on_idle = on_idle
        self._budget = UploadBudget(MIN_RATE, WINDOW_S)
        self._deadline = time.monotonic() + UPLOAD_TIMEOUT_S
        self._buffer = b""
        self._has_more = True
        self._is_stopped = False
        self._receiving: Future[Message] | None = None

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; b"" at the end. Raises ClientDisconnectedError, ProblemError."""
        while not self._buffer and self._has_more:
            message = self._next_message()
            if message["type"] != "http.request":
                raise ClientDisconnectedError
            self._buffer, self._has_more = message.get("body", b""), message.get("more_body", False)
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        return piece

    def _next_message(self) -> Message:
        if self._is_stopped:
            raise ClientDisconnectedError
        self._admission.check()
        if self._budget.remaining_s <= 0 or self._deadline <= time.monotonic():
            raise self._too_slow()
        receiving: Future[Message] = asyncio.run_coroutine_threadsafe(cast(Any, self._receive()), self._loop)
        self._receiving = receiving
        try:
            message = self._wait_briefly(receiving) or self._wait(receiving)
        except CancelledError:
            raise ClientDisconnectedError from None
        finally:
            receiving.cancel()
        self._budget.earn(len(message.get("body", b"")))
        return message

    def _wait_briefly(self, receiving: Future[Message]) -> Message | None:
        started_at = time.monotonic()
        try:
            return receiving.result(IDLE_S)
        except FutureTimeoutError:
            return None
        finally:
            self._budget.spend(time.monotonic() - started_at)

    def _wait(self, receiving: Future[Message]) -> Message:
        self._on_idle()  # does not count as waiting for the sender
        started_at = time.monotonic()
        try:
            return receiving.result(max(0.0, min(self._budget.remaining_s, self._deadline - started_at)))
        except FutureTimeoutError:
            raise self._too_slow() from None
        finally:
            self._budget.spend(time.monotonic() - started_at)

    def _too_slow(self) -> ProblemError:
        detail = f"rows must arrive at {MIN_RATE:g} bytes per second or more, averaged over {WINDOW_S:g} s"
        if self._deadline <= time.monotonic():
            detail = f"an upload must end within {UPLOAD_TIMEOUT_S:g} s; send the remaining rows in another request"
        log.warning("upload aborted: %s", detail)
        return ProblemError(408, detail)

    def stop(self) -> None:
        """Stop reading: `read` raises Gone, also while it waits."""
        self._is_stopped = True
        if self._receiving is not None:
            self._receiving.cancel()


class RowIntake:
    """Enqueues the rows of one request and writes their results to its outbox."""

    def __init__(
        self,
        queue: VoiceQueue,
        batch: str,
        receive: Receive,
        outbox: ResponseSpool,
        *,
        admission: Admission,
        report_all: bool,
    ) -> None:
        self._queue = queue
        self._batch = batch
        self._outbox = outbox
        self._reports_all = report_all
        self._admission = admission
        self._body = _BodyReader(receive, admission, on_idle=self._flush)
        self._pending = Portion[tuple[int, VoiceJob | InvalidJobError]]()
        self._totals = EnqueueSummary()

    def run(self) -> None:
        """Enqueue all rows.

        Errors before the first result are raised: Gone, VoiceQueueError, Refusal. Later ones are reported in the
        summary, which ends the response.
        """
        try:
            self._read_rows()
            self._write_summary(None)
        except (VoiceQueueError, ProblemError) as error:
            if not self._outbox.is_used:
                raise
            self._write_summary(problems.from_exception(error))
        except ResponseClosed:
            raise ClientDisconnectedError from None
        finally:
            self._outbox.mark_complete()

    def stop(self) -> None:
        """Read no more rows. Does nothing after the last one."""
        self._body.stop()
        self._outbox.stop()

    def _read_rows(self) -> None:
        try:
            for row in RowReader(cast(BinaryIO, self._body), _OPTIONS):
                self._add(row)
        except ProblemError:
            self._flush()
            raise
        self._flush()

    def _add(self, row: Row) -> None:
        try:
            job: VoiceJob | InvalidJobError = row.to_job(self._batch)
        except InvalidJobError as error:
            job = without_traceback(error)
        size = weight(job)
        size = size._replace(text=max(size.text, row.length))
        if not self._pending.has_room(size):
            self._flush()
        self._pending.add((row.line, job), size)
        if self._pending.is_full:
            self._flush()

    def _flush(self) -> None:
        self._admission.check()
        rows = self._pending.take()
        if not rows:
            return
        entries: list[EnqueueItemResult] = []
        self._queue.enqueue_many([job for _, job in rows if isinstance(job, VoiceJob)], on_result=entries.append)
        accepted = iter(entries)
        lines = [
            self._result(
                line, EnqueueItemResult(line, error=job) if isinstance(job, InvalidJobError) else next(accepted)
            )
            for line, job in rows
        ]
        self._outbox.write("".join(lines).encode())

    def _result(self, line: int, entry: EnqueueItemResult) -> str:
        self._totals.add(entry)
        if entry.error is not None:
            problem = problems.from_exception(entry.error)
            errors = problem.get("errors") or [{"field": "", "message": problem["detail"]}]
            rejected: RowOutcome = {"line": line, "outcome": "rejected", "code": problem["code"], "errors": errors}
            return json.dumps(rejected) + "\n"
        if not self._reports_all:
            return ""
        further = f', "further_job_ids": {json.dumps(entry.job_ids[1:])}' if entry.job_ids[1:] else ""
        outcome = "new" if entry.new_count else "existing"
        return f'{{"line": {line}, "outcome": "{outcome}", "id": "{entry.job_id}"{further}}}\n'

    def _write_summary(self, problem: problems.ProblemDetails | None) -> None:
        totals = self._totals
        summary: UploadSummary = {
            "complete": problem is None,
            "new": totals.new,
            "existing": totals.existing,
            "rejected": totals.rejected,
            "credits": totals.credits,
        }
        if problem is not None:
            summary["problem"] = problem
        end: UploadEnd = {"summary": summary}
        self._outbox.write((json.dumps(end) + "\n").encode())
