"""Retried polls: Flower shows a retry and its reason, without a stack."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery, Task
from celery.exceptions import Retry

from workers.messaging.retries import trace_cheaply

RETRIED, FAILED = "retried", "failed"


@pytest.fixture
def app() -> Celery:
    """Return an app with two tasks: one retries and one fails, both deep in the stack."""
    app = Celery(broker="memory://", set_as_current=False)

    def deep(task: Task[..., None], depth: int) -> None:
        if depth:
            deep(task, depth - 1)
        elif task.name == RETRIED:
            raise task.retry(args=(["j"],), countdown=5)
        else:
            raise ValueError("a defect")

    for name in (RETRIED, FAILED):

        @app.task(bind=True, name=name, max_retries=None, shared=False)
        def poll(self: Task[..., None], job_ids: list[str]) -> None:
            deep(self, 20)

        trace_cheaply(app, app.tasks[name])
    return app


def outcome(app: Celery, name: str) -> ExceptionInfo:
    """Return what the worker process receives after a run of that task."""
    request = {"id": "t", "is_eager": False, "called_directly": False, "delivery_info": {}, "retries": 3}
    task: Any = app.tasks[name]
    reported: ExceptionInfo = task.__trace__("t", (["j"],), {}, request).retval
    return reported


def test_a_retry_is_reported_with_its_delay(app: Celery) -> None:
    """It has no stack."""
    reported = outcome(app, RETRIED)

    assert reported.type is Retry
    assert "Retry in 5s" in str(reported.exception)
    assert str(reported.traceback) == "celery.exceptions.Retry: Retry in 5s\n"
    assert str(pickle.loads(pickle.dumps(reported)).exception) == "Retry in 5s"


def test_a_defect_is_reported_with_its_whole_stack(app: Celery) -> None:
    """The traceback leads to the defect."""
    reported = outcome(app, FAILED)

    assert reported.type is ValueError
    assert str(reported.traceback).count("in deep") > 3
