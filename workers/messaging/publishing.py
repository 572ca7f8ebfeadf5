"""The workers' own messages, which carry ids and nothing else: prepared once, and pushed by the queue's own client.

Celery's generic path takes three times the processor time: for each message it binds queues, copies policies, merges
options and acquires a producer. tests/integration/processes/test_publishing.py compares the messages field by field.
"""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any
from uuid import uuid4

from celery import signals
from celery.utils.nodenames import anon_nodename

from config.settings import settings
from voicequeue.storage.celery_queues import INTAKE, TASK_QUEUES
from voicequeue.storage.connection.keyspace import celery_root
from voicequeue.storage.connection.retry import retry_until
from workers.clock import queue_redis, queue_time
from workers.messaging.message_validation import JSON

#: Seconds for which a message is sent again while Redis is unreachable, as by Celery with our policy. Then maintenance
#: finds its jobs overdue.
PUBLISH_WITHIN_S = 80.0

_OPTIONS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

#: The headers that are the same in every message.
_HEADERS: Mapping[str, Any] = {
    "lang": "py",
    "shadow": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "timelimit": [None, None],
    "kwargsrepr": "{}",
    "ignore_result": True,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}

#: Signals by which others, such as traces, take part in publishing; Celery's own path sends them.
_SIGNALS = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)


@dataclass(frozen=True, slots=True)
class IdMessage:
    """A message with the ids of jobs or entries to a task.

    `delay_s` is the time until it is due. A retry has the id of the task that it repeats.
    """

    task: str
    ids: Sequence[str]
    task_id: str
    root_id: str
    parent_id: str | None = None
    retries: int = 0
    delay_s: float | None = None

    def envelope(self, queue: str, reply_to: str) -> dict[str, Any]:
        """Return the message as kombu stores it in a queue."""
        eta = datetime.fromtimestamp(queue_time() + self.delay_s, UTC).isoformat() if self.delay_s else None
        headers = {
            **_HEADERS,
            "task": self.task,
            "id": self.task_id,
            "eta": eta,
            "retries": self.retries,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "argsrepr": repr((self.ids,)),
            "origin": anon_nodename(),
        }
        properties = {
            "correlation_id": self.task_id,
            "reply_to": reply_to,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        }
        body = b64encode(json.dumps([[self.ids], {}, _OPTIONS]).encode()).decode()
        return {
            "body": body,
            "content-encoding": "utf-8",
            "content-type": JSON,
            "headers": headers,
            "properties": properties,
        }


def queue_of(task: str, args: Any) -> str | None:
    """Return the queue of a message that carries ids only; None for any other message, and for all of them while other
    code takes part in publishing."""
    has_ids = isinstance(args, list | tuple) and len(args) == 1 and isinstance(args[0], list)
    return _route(task) if has_ids and not any(signal.receivers for signal in _SIGNALS) else None


@lru_cache
def _route(task: str) -> str | None:
    queues = (queue for queue in TASK_QUEUES if queue.name != INTAKE)
    return next((queue.name for queue in queues if fnmatchcase(task, queue.task)), None)


def publish(queue: str, message: IdMessage, *, reply_to: str) -> None:
    """Push a message into a queue. The call is repeated while Redis is unreachable; the message may then arrive
    twice."""
    envelope = json.dumps(message.envelope(queue, reply_to))
    with retry_until(time.monotonic() + PUBLISH_WITHIN_S):
        queue_redis().lpush(celery_root(settings().prefix) + queue, envelope)
