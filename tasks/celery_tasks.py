"""The Celery tasks: thin shells around `tasks.steps`.

A message carries job ids and nothing else; it is a hint that these jobs may have something to do.
Submit tasks are acknowledged early and polls late: after a crash a POST is never redelivered, a
poll may be.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject
from redis.exceptions import RedisError

from tasks import steps
from tasks.archive.task import ArchiveServices, keep
from tasks.callbacks.delivery import CallbackServices, deliver
from tasks.context import Services
from tasks.enqueue import ENQUEUE, HiddenArguments, NotTaken, discreet, take
from voicequeue.domain.stage import Stage
from voicequeue.errors import InvalidJob, KeyConflict

#: How a submit task meets a crash: not at all. The record and the pulse decide what follows.
SUBMIT: dict[str, Any] = {"acks_late": False, "reject_on_worker_lost": False, "retry_on_worker_lost": False}

#: A poll is free: it is tried again until the job's own deadline ends it.
POLL: dict[str, Any] = {"max_retries": None, "retry_on_worker_lost": True, "default_retry_delay": 1}

#: A job that cannot be taken is the sender's mistake, not a defect to print a traceback for.
INTAKE: dict[str, Any] = {"Request": HiddenArguments, "throws": (NotTaken,)}

#: After so many seconds a job that Redis refused (out of memory, read only) is tried again.
TRY_AGAIN_S = 1.0

#: The name of the task that delivers callbacks.
DELIVER = "callback.deliver"


#: The name of the task that archives songs.
ARCHIVE = "song.archive"


def submit_name(stage: Stage) -> str:
    """The name of the task that sends a stage's POSTs."""
    return f"{stage}.submit"


def poll_name(stage: Stage) -> str:
    """The name of the task that asks about a stage."""
    return f"{stage}.poll"


def register(
    app: Celery,
    services: Callable[[], Services],
    callbacks: Callable[[], CallbackServices],
    archive: Callable[[], ArchiveServices],
) -> None:
    """Define the tasks on `app`; `services`, `callbacks` and `archive` give those of the process that runs them."""
    for stage in Stage:
        _register_submit(app, services, stage)
        _register_poll(app, services, stage)
    _register_intake(app, services)
    _register_deliver(app, callbacks)
    _register_archive(app, archive)


def _register_submit(app: Celery, services: Callable[[], Services], stage: Stage) -> None:
    @app.task(bind=True, name=submit_name(stage), **SUBMIT)
    def submit(self: Task[..., None], job_ids: list[str]) -> None:
        done = steps.submit(services(), stage, job_ids)
        if done.pending:
            app.send_task(poll_name(stage), args=(done.pending,), countdown=done.poll_in)
        if done.left:
            self.apply_async(args=(done.left,), countdown=done.left_in)


def _register_poll(app: Celery, services: Callable[[], Services], stage: Stage) -> None:
    @app.task(bind=True, name=poll_name(stage), **POLL)
    def poll(self: Task[..., None], job_ids: list[str]) -> None:
        done = steps.poll(services(), stage, job_ids)
        if done.to_music:
            app.send_task(submit_name(Stage.MUSIC), args=(done.to_music,))
        for later in done.again[1:]:
            self.apply_async(args=(later.job_ids,), countdown=later.seconds)
        if done.again:
            raise self.retry(args=(done.again[0].job_ids,), countdown=done.again[0].seconds)


def _register_intake(app: Celery, services: Callable[[], Services]) -> None:
    @app.task(bind=True, name=ENQUEUE, **INTAKE)
    def enqueue(self: Task[..., str], *args: Any, **kwargs: Any) -> str:
        try:
            store = services().store
            return take(store, args, kwargs, message_id=self.request.id or "", now=store.clock())
        except RedisError as error:
            # A task that fails is acknowledged, and its message gone; this one goes back into its queue.
            # What Redis said is not logged with it: it may quote the job.
            time.sleep(TRY_AGAIN_S)
            raise Reject(f"Redis refuses: {type(error).__name__}", requeue=True) from None
        # Celery logs the text, and sends it with that of the traceback in an event.
        except (InvalidJob, KeyConflict) as error:
            raise NotTaken(discreet(error)) from None
        except Exception as error:
            raise RuntimeError(discreet(error)).with_traceback(error.__traceback__) from None


def _register_deliver(app: Celery, callbacks: Callable[[], CallbackServices]) -> None:
    @app.task(name=DELIVER)
    def deliver_callbacks(callback_ids: list[str]) -> None:
        deliver(callbacks(), callback_ids)


def _register_archive(app: Celery, archive: Callable[[], ArchiveServices]) -> None:
    # Acknowledged early as well: songs take longer than the broker waits, and the record decides anyway.
    @app.task(name=ARCHIVE, **SUBMIT)
    def archive_songs(job_ids: list[str]) -> None:
        keep(archive(), job_ids)
