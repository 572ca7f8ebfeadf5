"""Celery tasks: thin wrappers around plain functions.

A message carries only job ids: it is a hint that these jobs may be due. Submit tasks are acknowledged early and polls
late: after a crash a POST is never redelivered, a poll may be.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject
from redis.exceptions import RedisError

from tasks.archive.task import ArchiveServices, archive_jobs
from tasks.callbacks.delivery import CallbackServices, deliver
from tasks.context import TaskContext
from tasks.enqueue import ENQUEUE_TASK, HiddenArguments, MessageRejected, enqueue_or_reject, safe_reason
from tasks.poll import PollRound
from tasks.repeated_polls import Messages, needs_message, poll_repeatedly
from tasks.submit import fill_up, submit_orders
from voicequeue.domain.stage import Stage
from voicequeue.errors import (
    BudgetExceededError,
    ErasedError,
    InvalidJobError,
    KeyConflictError,
    StoreUnavailableError,
)

#: Submit tasks are never redelivered after a crash: maintenance reconciles their jobs from the records.
SUBMIT: dict[str, Any] = {"acks_late": False, "reject_on_worker_lost": False, "retry_on_worker_lost": False}

#: A poll is free: it is retried until the deadline of the job ends it.
POLL: dict[str, Any] = {"max_retries": None, "retry_on_worker_lost": True, "default_retry_delay": 1}

#: A message that is rejected is an error of its sender, logged without a traceback.
INTAKE: dict[str, Any] = {"Request": HiddenArguments, "throws": (MessageRejected,)}

#: Seconds before a message is requeued that Redis refused to store (out of memory, read only).
REQUEUE_DELAY_S = 1.0

#: The name of the task that delivers callbacks.
DELIVER_TASK = "callback.deliver"

#: The name of the task that archives songs.
ARCHIVE_TASK = "song.archive"


def submit_name(stage: Stage) -> str:
    """Return the name of the task that submits a stage."""
    return f"{stage}.submit"


def poll_name(stage: Stage) -> str:
    """Return the name of the task that polls a stage."""
    return f"{stage}.poll"


def register(
    app: Celery,
    services: Callable[[], TaskContext],
    callbacks: Callable[[], CallbackServices],
    archive: Callable[[], ArchiveServices],
) -> None:
    """Register the tasks on `app`; `services`, `callbacks` and `archive` return those of the running process."""
    for stage in Stage:
        _register_submit(app, services, stage)
        _register_poll(app, services, stage)
    _register_intake(app, services)
    _register_deliver(app, callbacks)
    _register_archive(app, archive)


def _register_submit(app: Celery, services: Callable[[], TaskContext], stage: Stage) -> None:
    @app.task(bind=True, shared=False, name=submit_name(stage), **SUBMIT)
    def submit(self: Task[..., None], job_ids: list[str]) -> None:
        context = services()
        job_ids = fill_up(context, stage, job_ids)
        result = submit_orders(
            context, stage, job_ids, poll=lambda due_ids: app.send_task(poll_name(stage), args=(due_ids,))
        )
        if result.pending and needs_message(context, result.poll_in_s):
            app.send_task(poll_name(stage), args=(result.pending,), countdown=result.poll_in_s)
        if result.deferred:
            self.apply_async(args=(result.deferred,), countdown=result.retry_in_s)


def _register_poll(app: Celery, services: Callable[[], TaskContext], stage: Stage) -> None:
    def submit_songs(job_ids: list[str], delay_s: float) -> None:
        app.send_task(submit_name(Stage.MUSIC), args=(job_ids,), countdown=delay_s or None)

    def send(poll_round: PollRound) -> None:
        app.send_task(poll_name(poll_round.stage), args=(poll_round.job_ids,), countdown=poll_round.delay_s)

    @app.task(bind=True, shared=False, name=poll_name(stage), **POLL)
    def poll(self: Task[..., None], job_ids: list[str]) -> None:
        rounds = poll_repeatedly(services(), job_ids, Messages(submit_songs, send))
        own = next((poll_round for poll_round in rounds if poll_round.stage is stage), None)
        for poll_round in rounds:
            if poll_round is not own:
                send(poll_round)
        if own:
            raise self.retry(args=(own.job_ids,), countdown=own.delay_s)


def _register_intake(app: Celery, services: Callable[[], TaskContext]) -> None:
    @app.task(bind=True, shared=False, name=ENQUEUE_TASK, **INTAKE)
    def enqueue(self: Task[..., str], *args: Any, **kwargs: Any) -> str:
        try:
            store = services().store
            return enqueue_or_reject(store, args, kwargs, message_id=self.request.id or "", now=store.clock())
        except (RedisError, StoreUnavailableError) as error:
            # A failed task is acknowledged and its message lost, so the message is requeued instead.
            # The text of a Redis error is not logged: it may quote the job.
            time.sleep(REQUEUE_DELAY_S)
            raise Reject(f"Redis refuses: {type(error).__name__}", requeue=True) from None
        # Celery logs the text of the error and sends it in an event, with that of the traceback.
        except (InvalidJobError, KeyConflictError, ErasedError, BudgetExceededError) as error:
            raise MessageRejected(safe_reason(error)) from None
        except Exception as error:
            raise RuntimeError(safe_reason(error)).with_traceback(error.__traceback__) from None


def _register_deliver(app: Celery, callbacks: Callable[[], CallbackServices]) -> None:
    @app.task(shared=False, name=DELIVER_TASK)
    def deliver_callbacks(callback_ids: list[str]) -> None:
        deliver(callbacks(), callback_ids)


def _register_archive(app: Celery, archive: Callable[[], ArchiveServices]) -> None:
    # Acknowledged early too: archiving may exceed the broker's visibility timeout, and the record prevents duplicates.
    @app.task(shared=False, name=ARCHIVE_TASK, **SUBMIT)
    def archive_songs(job_ids: list[str]) -> None:
        archive_jobs(archive(), job_ids)
