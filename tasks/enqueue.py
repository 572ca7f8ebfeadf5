"""The Celery message door: `voicequeue.enqueue`, for any Celery client in any language.

A message becomes a job, or it is kept among the rejected ones with the reason; it is never dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from celery.worker.request import Request
from redis.exceptions import RedisError

from voicequeue.client.results import entered
from voicequeue.domain.origin import Origin
from voicequeue.domain.spec import parse
from voicequeue.errors import InvalidJob, KeyConflict, Problem, checked
from voicequeue.storage.job_store import Store
from voicequeue.storage.rejected_messages import RejectedMessage
from voicequeue.texts import whole

log = logging.getLogger("voicequeue")

#: What the door is called.
ENQUEUE = "voicequeue.enqueue"

#: No more arguments are named as none.
_NAMED_MAX = 20

HIDDEN = "(hidden: a job may hold URLs and lyrics)"

#: What senders cannot choose: how a message is shown, and when its task is killed. Whether it has expired is decided
#: when it is received (workers/message_validation.py) by the queue's time; Celery would go by the host's, and drop it.
_OURS: dict[str, Any] = {
    "shadow": None,
    "timelimit": None,
    "expires": None,
    "argsrepr": HIDDEN,
    "kwargsrepr": HIDDEN,
}


class HiddenArguments(Request):
    """A request whose arguments show in no event, no log and so not in Flower.

    Everywhere else they are job ids; here the sender put the whole job into the message.
    """

    def __init__(self, message: Any, *, headers: Mapping[str, Any] | None = None, **more: Any) -> None:
        theirs = dict(message.headers if headers is None else headers)
        super().__init__(message, headers=theirs | _OURS, **more)

    def info(self, safe: bool = False) -> Any:  # noqa: ARG002  Celery's signature
        """What the worker says of it to whoever asks, Flower's page among them."""
        return super().info(safe=True)


class NotTaken(Exception):
    """A message that became no job. Its text may be logged, and told in events."""


def discreet(error: Exception) -> str:
    """Return why a message became no job, without anything that is the sender's own; a defect's text may quote it."""
    if isinstance(error, InvalidJob | KeyConflict):
        return error.discreet()
    return f"a defect of voicequeue: {type(error).__name__}"


def take(store: Store, args: Sequence[Any], named: Mapping[str, Any], *, message_id: str, now: float) -> str:
    """Enqueue the job of a message, or keep it as rejected and say why; gives the job's id.

    Raises InvalidJob, KeyConflict, and RedisError where neither could be written.
    """
    given: Any = {"args": list(args), "kwargs": dict(named)}
    try:
        given = only_argument(args, named)
        return accept(store, given, message_id=message_id, now=now)
    except RedisError:
        raise
    except Exception as error:
        known = isinstance(error, InvalidJob | KeyConflict)
        reason = str(error) if known else discreet(error)
        store.rejects.add(RejectedMessage(now, message_id, ENQUEUE, reason, given))
        log.warning("rejected: %s", discreet(error), extra={"message_id": message_id})
        raise


def only_argument(args: Sequence[Any], named: Mapping[str, Any]) -> Mapping[str, Any]:
    """The job: the argument `job`, or the only one. Raises InvalidJob."""
    others = [name for name in named if name != "job"]
    problems = [Problem(str(name), "is no argument; there is one, job") for name in others[:_NAMED_MAX]]
    if (more := len(others) - _NAMED_MAX) > 0:
        problems.append(Problem("", f"{more:,} more are no arguments"))
    if len(args) + ("job" in named) != 1:
        problems.append(Problem("job", "must be given once, as the argument job or as the only one"))
    if problems:
        raise InvalidJob(problems)
    job = named["job"] if "job" in named else args[0]
    if not isinstance(job, Mapping):
        raise InvalidJob([Problem("job", 'must be an object such as {"audio_url": "https://…"}')])
    return job


def accept(store: Store, job: Mapping[str, Any], *, message_id: str, now: float) -> str:
    """Enqueue the job of a message; gives its id. Raises InvalidJob, KeyConflict.

    A message may be delivered twice: without a key of its own the job takes the message's id.
    """
    spec = parse(job)
    checked("id", whole, message_id)
    if spec.key is None:
        spec = spec.model_copy(update={"key": f"message-{message_id}"})
    jobs = [(each.id(), each) for each in spec.each()]
    entry = entered(jobs, store.enqueue(jobs, now, origin=Origin.MESSAGE))
    if entry.error is not None:
        raise entry.error
    log.info("queued", extra={"job": entry.job_id, "batch": spec.batch, "door": "message", "at": now})
    return entry.job_id
