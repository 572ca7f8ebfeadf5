"""The tasks in progress of a process, as its heartbeat reports them."""

from __future__ import annotations

import pytest
from celery import Celery
from celery.worker import state
from celery.worker.request import Request
from kombu.message import Message

from workers.messaging.task_progress import task_facts
from workers.process_info import ACTIVE_TASKS, CPUS, IN_PROGRESS, LOAD, host_facts


@pytest.fixture
def app() -> Celery:
    """Return an app with a task."""
    app = Celery(broker="memory://", set_as_current=False)

    @app.task(name="music.poll")
    def poll(ids: object) -> None:
        """Do nothing."""

    return app


def request(app: Celery, task_id: str, args: list[object]) -> Request:
    """Return a task as a worker has received it."""
    message = app.amqp.as_task_v2(task_id, "music.poll", tuple(args), {})
    received = Message(headers=message.headers, properties={**message.properties, "delivery_info": {}})
    return Request(
        received, app=app, headers=message.headers, body=message.body, decoded=True, task=app.tasks["music.poll"]
    )


def test_a_heartbeat_counts_tasks_and_the_jobs_in_them(app: Celery) -> None:
    """A task without a list of ids is one job; a finished one is not counted."""
    requests = [request(app, "t-1", [["a", "b", "c"]]), request(app, "t-2", [{"key": "d"}])]
    for received in requests:
        state.active_requests.add(received)

    assert task_facts() == {ACTIVE_TASKS: 2, IN_PROGRESS: 4}
    state.active_requests.clear()
    assert task_facts() == {ACTIVE_TASKS: 0, IN_PROGRESS: 0}


def test_a_heartbeat_has_the_load_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system reports it."""
    assert host_facts().keys() == {LOAD, CPUS}
    monkeypatch.delattr("os.getloadavg")
    assert host_facts() == {}
