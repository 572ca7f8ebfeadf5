"""Celery task `voicequeue.enqueue`: enqueues a job from a message of any Celery client in any language.

A message becomes a job or is stored as rejected, with the reason; it is never dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from celery.worker.request import Request
from redis.exceptions import RedisError

from voicequeue.client.results import EnqueueItemResult, item_result
from voicequeue.domain.job import MESSAGE_KEY
from voicequeue.domain.namespaces import DEFAULT, namespace_name
from voicequeue.domain.source import Source
from voicequeue.domain.spec import VoiceJob, parse_spec
from voicequeue.errors import (
    BudgetExceededError,
    ErasedError,
    InvalidJobError,
    KeyConflictError,
    Problem,
    StoreUnavailableError,
    check_field,
)
from voicequeue.storage.job_ids import StaleIdsError
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.rejected_messages import RejectedMessage
from voicequeue.texts import require_encodable

log = logging.getLogger("voicequeue")

#: Name of the task.
ENQUEUE_TASK = "voicequeue.enqueue"

#: Maximum number of unexpected arguments that an error names.
_NAMED_MAX = 20

HIDDEN = "(hidden: a job may hold URLs and lyrics)"

#: Headers that override those of the sender: how a message is shown, and the time limit of its task. Expiry is checked
#: on receipt by the queue's time (workers/messaging/message_validation.py); Celery would use the host's time, and drop
#: the message.
_OVERRIDES: dict[str, Any] = {
    "shadow": None,
    "timelimit": None,
    "expires": None,
    "argsrepr": HIDDEN,
    "kwargsrepr": HIDDEN,
}


class HiddenArguments(Request):
    """Request whose arguments are hidden in events, logs and Flower.

    The arguments of other tasks are job ids; here they are a whole job.
    """

    def __init__(self, message: Any, *, headers: Mapping[str, Any] | None = None, **options: Any) -> None:
        sender_headers = dict(message.headers if headers is None else headers)
        super().__init__(message, headers=sender_headers | _OVERRIDES, **options)

    def info(self, safe: bool = False) -> Any:  # noqa: ARG002  Celery's signature
        """Return the request as `inspect` and Flower show it, with hidden arguments."""
        return super().info(safe=True)


class MessageRejected(Exception):
    """A message that did not become a job. Its text is safe to log and to send in events."""


def safe_reason(error: Exception) -> str:
    """Return why a message was rejected, without quoting it: the text of an unexpected error may contain the job."""
    if isinstance(error, ErasedError | BudgetExceededError):
        return str(error)
    if isinstance(error, InvalidJobError | KeyConflictError):
        return error.redacted()
    return f"a defect of voicequeue: {type(error).__name__}"


def enqueue_or_reject(
    store: JobStore, args: Sequence[Any], named: Mapping[str, Any], *, message_id: str, now: float
) -> str:
    """Enqueue the job of a message and return its id, or store the message as rejected and raise the reason.

    The job, or the rejected message, belongs to the namespace that the message names.

    Raises InvalidJobError, KeyConflictError, ErasedError, BudgetExceededError; RedisError or StoreUnavailableError
    where neither could be written.
    """
    content: Any = {"args": list(args), "kwargs": dict(named)}
    namespace = DEFAULT
    try:
        namespace = namespace_argument(named)
        content = job_argument(args, named)
        return enqueue_message(store, content, namespace=namespace, message_id=message_id, now=now)
    except (RedisError, StoreUnavailableError):
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, InvalidJobError | KeyConflictError) else safe_reason(error)
        if isinstance(error, ErasedError):  # what was erased is not stored again
            content = HIDDEN
        store.rejected_messages.add(RejectedMessage(now, message_id, ENQUEUE_TASK, reason, content, namespace))
        log.warning("message rejected: %s", safe_reason(error), extra={"message_id": message_id})
        raise


def job_argument(args: Sequence[Any], named: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the job: the argument `job`, or the only positional argument. Raises InvalidJobError."""
    unexpected = [name for name in named if name not in ("job", "namespace")]
    problems = [
        Problem(str(name), "is not an argument; the arguments are job and namespace")
        for name in unexpected[:_NAMED_MAX]
    ]
    if (uncounted := len(unexpected) - _NAMED_MAX) > 0:
        problems.append(Problem("", f"{uncounted:,} more are not arguments"))
    if len(args) + ("job" in named) != 1:
        problems.append(Problem("job", "must be given once, as the argument job or as the only positional argument"))
    if problems:
        raise InvalidJobError(problems)
    job = named["job"] if "job" in named else args[0]
    if not isinstance(job, Mapping):
        raise InvalidJobError([Problem("job", 'must be an object such as {"audio_url": "https://…"}')])
    return job


def namespace_argument(named: Mapping[str, Any]) -> str:
    """Return the argument `namespace`; without it, the default namespace. Raises InvalidJobError."""
    namespace = named.get("namespace", DEFAULT)
    if not isinstance(namespace, str):
        raise InvalidJobError([Problem("namespace", "must be a text")])
    return check_field("namespace", namespace_name, namespace)


def enqueue_message(
    store: JobStore, job: Mapping[str, Any], *, namespace: str = DEFAULT, message_id: str, now: float
) -> str:
    """Enqueue the job of a message in a namespace and return its id. Raises InvalidJobError, KeyConflictError,
    ErasedError, BudgetExceededError.

    A message may be delivered twice, so a job without a key gets one from the message id.
    """
    spec = parse_spec(job)
    check_field("id", require_encodable, message_id)
    if spec.key is None:
        spec = spec.copy_unchecked(key=f"{MESSAGE_KEY}{message_id}")
    entry = _enqueue(store.in_namespace(namespace), spec.expand(), now, message_id)
    if entry.error is not None:
        raise entry.error
    log.info("queued", extra={"job": entry.job_id, "batch": spec.batch, "source": "message", "at": now})
    return entry.job_id


def _enqueue(store: JobStore, specs: Sequence[VoiceJob], now: float, message_id: str) -> EnqueueItemResult:
    fingerprint = store.job_ids.fingerprint()
    jobs = [(store.job_ids.of(spec), spec) for spec in specs]
    try:
        outcomes = store.enqueue(jobs, now, source=Source.MESSAGE, fingerprint=fingerprint, message_id=message_id)
        return item_result(0, jobs, outcomes)
    except StaleIdsError:
        store.job_ids.forget()
        return _enqueue(store, specs, now, message_id)
