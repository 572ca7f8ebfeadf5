"""Messages as other programs write them to the queue `intake`, byte by byte."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from celery import Celery
from redis import Redis

from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX, celery_root

#: The queue for other programs, its Redis key, and the key of messages that workers have not acknowledged.
INTAKE = "intake"
INTAKE_KEY = f"{celery_root(DEFAULT_PREFIX)}{INTAKE}"
UNACKED_KEY = f"{celery_root(DEFAULT_PREFIX)}unacked"

NAME = "voicequeue.enqueue"

#: A job whose URL and lyrics must not appear in logs or in Flower.
SECRET_JOB = {"audio_url": "https://recordings.example/secret.wav", "song": {"prompt": "a lyric that is secret"}}


def envelope(
    body: Any = None,
    *,
    headers: Mapping[str, Any] | None = None,
    raw_body: str | None = None,
    message_id: str | None = None,
    **parts: Any,
) -> dict[str, Any]:
    """Return a message of Celery's protocol 2. `headers` extend its headers, `parts` replace parts of the envelope."""
    text = json.dumps([[], {"job": SECRET_JOB}, {}] if body is None else body)
    return {
        "body": base64.b64encode(text.encode()).decode() if raw_body is None else raw_body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": NAME, "id": message_id or str(uuid4()), **(headers or {})},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
            "delivery_info": {"exchange": "", "routing_key": INTAKE},
        },
        **parts,
    }


def plain_client(redis_url: str, prefix: str = DEFAULT_PREFIX) -> Celery:
    """Return a Celery client as docs/guides/messages.md sets it up, with kombu's transport instead of the workers'."""
    client = Celery(broker=redis_url, broker_transport_options={"global_keyprefix": celery_root(prefix)})
    client.conf.broker_transport = "kombu.transport.redis:Transport"
    return client


def push(redis: Redis, *messages: Any) -> None:
    """Push messages to the queue: texts as they are, everything else as JSON."""
    for message in messages:
        redis.lpush(INTAKE_KEY, message if isinstance(message, str | bytes) else json.dumps(message))
