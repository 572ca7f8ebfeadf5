"""Shorter traces for Celery retries: a retried poll is not a failure and needs no traceback.

A poll whose orders are not ready ends with Celery's `Retry`, thousands of times an hour. Celery then formats the whole
stack and sends it to the worker's main process, which took a fifth of a worker's CPU time. Here the stack has one
frame.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app.trace import TraceInfo, build_tracer
from celery.exceptions import Retry

from tasks.celery_tasks import poll_name
from voicequeue.domain.stage import Stage


class ShortRetryTrace(TraceInfo):
    """The result of a task, with short traces for retries."""

    retval: Retry

    def handle_retry(self, *args: Any, **kwargs: Any) -> Any:
        """Handle the retry as Celery does, with a stack of one frame."""
        try:
            raise self.retval.with_traceback(None)
        except Retry:
            return super().handle_retry(*args, **kwargs)


def shorten_retry_traces(app: Celery) -> None:
    """Shorten the traces of all poll tasks in this process. Call it after Celery has built its own tracers."""
    for stage in Stage:
        shorten_retry_trace(app, app.tasks[poll_name(stage)])


def shorten_retry_trace(app: Celery, task: Any) -> None:
    """Shorten the traces of one task."""
    task.__trace__ = build_tracer(task.name, task, app.loader, app=app, Info=ShortRetryTrace)
