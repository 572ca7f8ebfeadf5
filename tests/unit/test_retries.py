"""A poll that asks again later: Flower sees a retry, and nobody makes a picture of the stack."""

from __future__ import annotations

from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery, Task
from celery.exceptions import Retry

from tasks.celery_tasks import poll_name
from voicequeue.stage import Stage
from workers.retries import brief_retries


@pytest.fixture
def app() -> Celery:
    """Tasks of the polls' names, one of which asks again and one that goes wrong, far down."""
    app = Celery(broker="memory://", set_as_current=False)

    def deep(task: Task[..., None], depth: int) -> None:
        if depth:
            deep(task, depth - 1)
        elif task.name == poll_name(Stage.VOICE):
            raise task.retry(args=(["j"],), countdown=5)
        else:
            raise ValueError("a defect")

    for stage in Stage:

        @app.task(bind=True, name=poll_name(stage), max_retries=None, shared=False)
        def poll(self: Task[..., None], job_ids: list[str]) -> None:
            deep(self, 20)

    brief_retries(app)
    return app


def outcome(app: Celery, stage: Stage) -> ExceptionInfo:
    """What the worker is told of a run of that poll."""
    request = {"id": "t", "is_eager": False, "called_directly": False, "delivery_info": {}, "retries": 3}
    task: Any = app.tasks[poll_name(stage)]
    told: ExceptionInfo = task.__trace__("t", (["j"],), {}, request).retval
    return told


def test_a_retry_is_told_as_one_with_when_it_comes_again(app: Celery) -> None:
    """In a stack of one."""
    told = outcome(app, Stage.VOICE)

    assert told.type is Retry
    assert "Retry in 5s" in str(told.exception)
    assert len(str(told.traceback).splitlines()) < 8


def test_a_defect_is_told_with_its_whole_stack(app: Celery) -> None:
    """It is to be found."""
    told = outcome(app, Stage.MUSIC)

    assert told.type is ValueError
    assert str(told.traceback).count("in deep") > 3
