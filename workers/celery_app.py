"""The Celery app of the workers: countdowns by the queue's time, and cheap publishing of messages with ids."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from celery import Celery, Task
from celery.exceptions import Reject, Retry
from celery.utils import uuid

from workers.clock import queue_time
from workers.messaging.publishing import IdMessage, publish, queue_of

if TYPE_CHECKING:
    _Task = Task[..., Any]
else:
    _Task = Task


class CeleryApp(Celery):
    """A Celery app whose countdowns use the queue's time."""

    task_cls = f"{__name__}:QueueTask"

    def now(self) -> datetime:
        """Return the queue's time, from which Celery computes countdowns."""
        return datetime.fromtimestamp(queue_time(), UTC)

    def send_task(  # type: ignore[override]
        self, name: str, args: Any = None, kwargs: Any = None, countdown: float | None = None, **options: Any
    ) -> Any:
        """Send a message to a task, and return its result as Celery does."""
        queue = queue_of(name, args)
        if kwargs or options or queue is None:
            return super().send_task(name, args, kwargs, countdown=countdown, **options)
        task_id, parent = uuid(), self.current_worker_task
        request: Any = parent and parent.request
        root_id, parent_id = (request.root_id or request.id, request.id) if request else (task_id, None)
        message = IdMessage(name, args[0], task_id, root_id, parent_id, delay_s=countdown)
        publish(queue, message, reply_to=self.thread_oid)
        return self.AsyncResult(task_id)


class QueueTask(_Task):
    """A task whose messages with ids are published without Celery's signatures."""

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:  # type: ignore[override]
        """Send a message to this task."""
        if kwargs or options.keys() - {"countdown"} or queue_of(self.name, args) is None:
            return super().apply_async(args, kwargs, **options)
        return self.app.send_task(self.name, args, **options)

    def retry(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:  # type: ignore[override]
        """Send the message of this task again. Raises Retry, and Reject if it cannot be sent."""
        request: Any = self.request
        queue, is_direct = queue_of(self.name, args), request.called_directly or request.is_eager
        if kwargs or options.keys() != {"countdown"} or is_direct or self.max_retries is not None or queue is None:
            return super().retry(args, kwargs, **options)
        lineage = (request.id, request.root_id, request.parent_id, request.retries + 1)
        try:
            message = IdMessage(self.name, args[0], *lineage, delay_s=options["countdown"])
            publish(queue, message, reply_to=self.app.thread_oid)
        except Exception as error:
            raise Reject(error, requeue=False) from error
        raise Retry(when=options["countdown"])
