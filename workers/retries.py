"""How Celery traces our polls: a retry is no failure, and needs no traceback.

A poll whose orders are not ready ends with Celery's `Retry`, thousands of times an hour. Celery makes a picture of the
whole stack each time, with the positions of all code in it, and sends it to the worker's main process: a fifth of what
a worker costs. Here the picture has one frame.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app.trace import TraceInfo, build_tracer
from celery.exceptions import Retry

from tasks.celery_tasks import poll_name
from voicequeue.domain.stage import Stage


class Brief(TraceInfo):
    """What becomes of a task."""

    retval: Retry

    def handle_retry(self, *args: Any, **kwargs: Any) -> Any:
        """As Celery does it, with a stack of one."""
        try:
            raise self.retval.with_traceback(None)
        except Retry:
            return super().handle_retry(*args, **kwargs)


def brief_retries(app: Celery) -> None:
    """Let the polls of this process be traced so; after Celery has made its own tracers."""
    for stage in Stage:
        brief(app, app.tasks[poll_name(stage)])


def brief(app: Celery, task: Any) -> None:
    """Let one task be traced so."""
    task.__trace__ = build_tracer(task.name, task, app.loader, app=app, Info=Brief)
