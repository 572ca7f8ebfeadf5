"""A rescheduled poll: Flower shows a retry, without a stack of tracebacks."""

from __future__ import annotations

from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery, Task
from celery.exceptions import Retry

from workers.retries import brief

RETRYING, FAILING = "again", "wrong"


@pytest.fixture
def app() -> Celery:
    """Return an app with two tasks: one retries, one fails, both deep in the stack."""
    app = Celery(broker="memory://", set_as_current=False)

    def deep(task: Task[..., None], depth: int) -> None:
        if depth:
            deep(task, depth - 1)
        elif task.name == RETRYING:
            raise task.retry(args=(["j"],), countdown=5)
        else:
            raise ValueError("a defect")

    for name in (RETRYING, FAILING):

        @app.task(bind=True, name=name, max_retries=None, shared=False)
        def poll(self: Task[..., None], job_ids: list[str]) -> None:
            deep(self, 20)

        brief(app, app.tasks[name])
    return app


def outcome(app: Celery, name: str) -> ExceptionInfo:
    """Return the result that the worker gets from a run of this task."""
    request = {"id": "t", "is_eager": False, "called_directly": False, "delivery_info": {}, "retries": 3}
    task: Any = app.tasks[name]
    info: ExceptionInfo = task.__trace__("t", (["j"],), {}, request).retval
    return info


def test_a_retry_is_reported_with_its_countdown(app: Celery) -> None:
    """With a short traceback."""
    info = outcome(app, RETRYING)

    assert info.type is Retry
    assert "Retry in 5s" in str(info.exception)
    assert len(str(info.traceback).splitlines()) < 8


def test_a_defect_is_reported_with_its_whole_traceback(app: Celery) -> None:
    """It must be found."""
    info = outcome(app, FAILING)

    assert info.type is ValueError
    assert str(info.traceback).count("in deep") > 3
