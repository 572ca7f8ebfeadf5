"""The Celery message door: `voicequeue.enqueue`, for any Celery client in any language."""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request

from voicequeue.claims import Outcome
from voicequeue.errors import KeyConflict
from voicequeue.spec import parse
from voicequeue.store import Store

HIDDEN = "(hidden: a job may hold URLs and lyrics)"


class HiddenArguments(Request):
    """A request whose arguments show in no event, no log and so not in Flower.

    Everywhere else they are job ids; here the sender put the whole job into the message.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._argsrepr = self._kwargsrepr = HIDDEN
        self.request_dict.update(argsrepr=HIDDEN, kwargsrepr=HIDDEN)


def accept(store: Store, job: Any, *, message_id: str, now: float) -> str:
    """Enqueue the job of a message; gives its id. Raises InvalidJob, KeyConflict.

    A message may be delivered twice: without a key of its own the job takes the message's id.
    """
    spec = parse(job)
    if spec.key is None:
        spec = spec.model_copy(update={"key": f"message-{message_id}"})
    job_id = spec.id()
    [outcome] = store.enqueue([(job_id, spec)], now)
    if outcome is Outcome.CONFLICT:
        raise KeyConflict(spec.key or "", job_id)
    return job_id
