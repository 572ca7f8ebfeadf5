"""Cheap reports of Celery retries: a retried poll is not a failure and needs no traceback.

A poll whose orders are not ready ends with Celery's `Retry`, thousands of times an hour. Celery then formats the whole
stack and sends it to the worker's main process, which took a fifth of a worker's CPU time. Here it sends the reason.
"""

from __future__ import annotations

import traceback
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback  # type: ignore[attr-defined]  # newer than its stubs
from celery import Celery, signals
from celery.app.trace import LOG_RETRY, TraceInfo, build_tracer, info
from celery.exceptions import Retry

from tasks.celery_tasks import poll_name
from voicequeue.domain.stage import Stage


class RetryReport(ExceptionInfo):
    """The report of a child about a task that it retries."""

    def __init__(self, reason: Retry) -> None:
        self.type = type(reason)  # type: ignore[misc]  # an attribute, not a property
        self.traceback = "".join(traceback.format_exception_only(reason))
        self.exception = ExceptionWithTraceback(reason, self.traceback)


class CheapRetryTrace(TraceInfo):
    """The result of a task, with cheap reports of retries."""

    retval: Retry

    def handle_retry(self, task: Any, req: Any, *_: Any, **__: Any) -> RetryReport:
        """Report the retry as Celery does, without its stack; there is no result backend."""
        report = RetryReport(self.retval)
        task.on_retry(self.retval.exc, req.id, req.args, req.kwargs, report)
        signals.task_retry.send(sender=task, request=req, reason=self.retval, einfo=report)
        info(LOG_RETRY, {"id": req.id, "name": task.name, "exc": str(self.retval)})
        return report


def report_retries_cheaply(app: Celery) -> None:
    """Report retries of poll tasks cheaply in this process. Call it after Celery has built its own tracers."""
    for stage in Stage:
        trace_cheaply(app, app.tasks[poll_name(stage)])


def trace_cheaply(app: Celery, task: Any) -> None:
    """Report retries of one task cheaply."""
    task.__trace__ = build_tracer(task.name, task, app.loader, app=app, Info=CheapRetryTrace)
