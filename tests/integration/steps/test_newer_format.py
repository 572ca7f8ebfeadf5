"""Tasks of a worker that was running when its queue was upgraded to a format that it does not know."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Reject

from tasks import celery_tasks
from tasks.celery_tasks import register
from tasks.enqueue import ENQUEUE_TASK
from voicequeue.domain.store_format import StoreFormat
from voicequeue.storage.format import FormatStamp
from voicequeue.storage.job_store import JobStore


def test_a_message_waits_for_a_worker_that_knows_the_format(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is neither lost nor stored as rejected: the worker gives it back, and ends."""
    monkeypatch.setattr(celery_tasks, "REQUEUE_DELAY_S", 0.0)
    services: Any = SimpleNamespace(store=store, clock=store.clock)
    app = Celery("test", set_as_current=False)
    register(app, lambda: services, lambda: services, lambda: services)
    FormatStamp(store._space).raise_to(StoreFormat(2, 2))

    with pytest.raises(Reject) as caught:
        app.tasks[ENQUEUE_TASK].run({"audio_url": "https://recordings.example/1.wav"})

    rejection: Any = caught.value
    assert rejection.requeue
    assert store.rejected_messages.count() == 0
