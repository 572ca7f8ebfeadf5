"""A poll that asks again later: Flower sees a retry, and nobody makes a picture of the stack."""

from __future__ import annotations

from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery, Task
from celery.exceptions import Retry

from workers.retries import brief

AGAIN, WRONG = "again", "wrong"


@pytest.fixture
def app() -> Celery:
    """Two tasks, one of which asks again and one that goes wrong, far down."""
    app = Celery(broker="memory://", set_as_current=False)

    def deep(task: Task[..., None], depth: int) -> None:
        if depth:
            deep(task, depth - 1)
        elif task.name == AGAIN:
            raise task.retry(args=(["j"],), countdown=5)
        else:
            raise ValueError("a defect")

    for name in (AGAIN, WRONG):

        @app.task(bind=True, name=name, max_retries=None, shared=False)
        def poll(self: Task[..., None], job_ids: list[str]) -> None:
            deep(self, 20)

        brief(app, app.tasks[name])
    return app


def outcome(app: Celery, name: str) -> ExceptionInfo:
    """What the worker is told of a run of that task."""
    request = {"id": "t", "is_eager": False, "called_directly": False, "delivery_info": {}, "retries": 3}
    task: Any = app.tasks[name]
    told: ExceptionInfo = task.__trace__("t", (["j"],), {}, request).retval
    return told


def test_a_retry_is_told_as_one_with_when_it_comes_again(app: Celery) -> None:
    """In a stack of one."""
    told = outcome(app, AGAIN)

    assert told.type is Retry
    assert "Retry in 5s" in str(told.exception)
    assert len(str(told.traceback).splitlines()) < 8


def test_a_defect_is_told_with_its_whole_stack(app: Celery) -> None:
    """It is to be found."""
    told = outcome(app, WRONG)

    assert told.type is ValueError
    assert str(told.traceback).count("in deep") > 3
