"""The queue's Python API: `VoiceQueue` puts all groups of methods together behind one connection to Redis."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from itertools import chain
from typing import Self

from voicequeue.auth.secret_files import read_secret
from voicequeue.client.api_keys import ApiKeyMethods
from voicequeue.client.audited import audited
from voicequeue.client.callback_secrets import CallbackSecretMethods
from voicequeue.client.changing import ChangeMethods
from voicequeue.client.controlling import ControlMethods
from voicequeue.client.enqueueing import EnqueueMethods
from voicequeue.client.erasing import EraseMethods
from voicequeue.client.events import EventMethods
from voicequeue.client.outboxes import OutboxMethods
from voicequeue.client.spending import SpendingMethods
from voicequeue.client.voices import VoiceMethods
from voicequeue.domain.api_keys import KeyLimits
from voicequeue.domain.namespaces import DEFAULT
from voicequeue.domain.source import Source
from voicequeue.domain.store_format import CURRENT
from voicequeue.errors import InvalidStateError
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.audit.findings import Finding
from voicequeue.storage.audit.repair import repair
from voicequeue.storage.connection.client import DEFAULT_URL, RedisClient, connect
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX
from voicequeue.storage.connection.recorded_change import ACTOR_MAX, Actor, amend
from voicequeue.storage.format import FormatStamp, left_behind
from voicequeue.storage.job_store import JobStore


class VoiceQueue(
    EnqueueMethods,
    EventMethods,
    ControlMethods,
    OutboxMethods,
    CallbackSecretMethods,
    ApiKeyMethods,
    ChangeMethods,
    EraseMethods,
    SpendingMethods,
    VoiceMethods,
):
    """A client of the queue in one Redis database.

    It needs only Redis, and may be shared between threads. Use it as a context manager, or call `close`. `VoiceQueue()`
    uses what the environment names: REDIS_URL (or REDIS_URL_FILE), VOICEQUEUE_PREFIX and VOICEQUEUE_NAMESPACE.
    Every method that calls Redis raises `StoreUnavailableError` if Redis does not answer or refuses the command, and
    `StoreFormatError` if the queue was upgraded to a format that this release does not know.

    Args:
        url: Redis URL, such as `redis://host:6379/0`; `rediss://` for TLS, `sentinel://` for a Redis that fails over.
            None takes REDIS_URL, otherwise `redis://localhost:6379/0`.
        prefix: Prefix of all keys: 1 to 40 letters, digits, `.`, `_` and `-`. Workers and clients of one queue use the
            same prefix. None takes VOICEQUEUE_PREFIX, otherwise `voicequeue`.
        wait_for_redis_s: Seconds for which each call retries while Redis is down, restarting, loading its file, failing
            over or out of memory. 0 retries for half a second; `math.inf` has no limit. A retried call writes a job
            once, and reports it as new.
        reuse: Whether jobs that leave `reuse` unset share a voice with other jobs on the same recording.
        app: Name of the calling program: 1 to 64 letters, digits, `.`, `_` and `-`. Its jobs have the source
            `library:<app>`; without a name, `library`.
        namespace: Namespace of its jobs, batches, keys, voices and callbacks: 1 to 40 letters, digits, `.`, `_` and
            `-`, or the default one, which has no name. Those of other namespaces do not exist for this client. `*` is
            for operators: it reads and changes all of them, names a batch as `NAMESPACE/BATCH`, controls the whole
            queue, and enqueues into the default namespace. None takes VOICEQUEUE_NAMESPACE, otherwise the default one,
            which is ''.
        replicas_ack: Number of replicas of Redis that must have recorded what a call has written before it returns, as
            VOICEQUEUE_REPLICAS_ACK for the workers. Otherwise it raises `StoreUnavailableError`, and is to be repeated.

    Raises:
        ValueError: `url`, `prefix`, `app` or `namespace` is invalid, or `wait_for_redis_s` or `replicas_ack` is
            negative.
        SecretFileError: The file that REDIS_URL_FILE names cannot be used.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        prefix: str | None = None,
        wait_for_redis_s: float = 0.0,
        reuse: bool = False,
        app: str = "",
        namespace: str | None = None,
        replicas_ack: int = 0,
    ) -> None:
        self._source = Source.LIBRARY.with_caller(app)
        self._actor = Actor(self._source)
        if not wait_for_redis_s >= 0:
            raise ValueError("wait_for_redis_s must be 0 or more seconds")
        if replicas_ack < 0:
            raise ValueError("replicas_ack must be 0 or more replicas")
        url = url or read_secret(os.environ, "REDIS_URL") or DEFAULT_URL
        self._prefix = os.environ.get("VOICEQUEUE_PREFIX") or DEFAULT_PREFIX if prefix is None else prefix
        namespace = os.environ.get("VOICEQUEUE_NAMESPACE", DEFAULT) if namespace is None else namespace
        self._redis = self._connect(url, wait_s=wait_for_redis_s)
        self._store = JobStore(self._redis, self._prefix, namespace=namespace, reuse=reuse, replicas_ack=replicas_ack)
        self._key_limits = KeyLimits()

    def _connect(self, url: str, /, *, wait_s: float) -> RedisClient:
        return connect(url, wait_s=wait_s, prefix=self._prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def on_behalf_of(self, actor: str, *, address: str = "", reason: str = "") -> VoiceQueue:
        """Return a queue on the same connection whose changes are recorded in the audit log as those of an actor.

        Without it they are recorded as those of `library:<app>`.

        Args:
            actor: Name of the person or program, such as `library:shop/ana`; 1 to 200 characters. Tools filter by the
                part before the colon.
            address: Network address from which the change was requested.
            reason: Reason of the changes, for people who read the audit log. Do not put personal data into it: entries
                are not deleted with a job.

        Raises:
            ValueError: `actor` is empty or too long.
        """
        if not 1 <= len(actor) <= ACTOR_MAX:
            raise ValueError(f"actor: {actor!r} must be 1 to {ACTOR_MAX} characters")
        acting = copy(self)
        acting._actor = Actor(actor, address, reason)
        return acting

    # ── integrity ──────────────────────────────────────────────────────────────────────────────

    def audit(self) -> list[Finding]:
        """Return every index and counter that disagrees with the job records; an empty list is a sound store.

        Raises:
            NotOperatorError: The client is limited to one namespace.
        """
        self._require_operator("audit")
        with translated_errors():
            return audit(self._redis, self._prefix)

    @audited
    def repair(self, findings: Sequence[Finding]) -> list[Finding]:
        """Correct the indexes and counters that `audit` reported, and return the findings that were corrected.

        Job records are not changed. Findings about jobs that changed after the audit are skipped.

        Args:
            findings: All or some of the findings that `audit` returned.

        Raises:
            NotOperatorError: The client is limited to one namespace.
        """
        self._require_operator("repair")
        amend(jobs=len(findings))
        with translated_errors():
            return repair(self._redis, self._prefix, findings, self._now())

    @audited
    def upgrade(self) -> bool:
        """Raise the format of the queue to that of this release, and return whether it was older.

        Call it after all processes have been upgraded. Older releases may refuse to use the queue afterwards.

        Raises:
            NotOperatorError: The client is limited to one namespace.
            InvalidStateError: A process that does not know the format is running.
        """
        self._require_operator("upgrade")
        with translated_errors():
            running = chain.from_iterable(group.alive(self._now()) for group in self._store.heartbeats.values())
            if names := [process.name for process in left_behind(running)]:
                raise InvalidStateError(
                    f"format {CURRENT} is not known to {', '.join(names)}: upgrade these processes, or stop them"
                )
            return FormatStamp(self._store._space).raise_to()


def without_actor(queue: VoiceQueue) -> VoiceQueue:
    """Return a copy of the queue that changes nothing until `on_behalf_of` names an actor: for servers."""
    nameless = copy(queue)
    nameless._actor = Actor("")
    return nameless


def with_source(queue: VoiceQueue, source: str) -> VoiceQueue:
    """Return a copy of the queue whose jobs have the given source (voicequeue/domain/source.py)."""
    sourced = copy(queue)
    sourced._source = source
    return sourced


def with_key_limits(queue: VoiceQueue, limits: KeyLimits) -> VoiceQueue:
    """Return a copy of the queue that refuses jobs and batches beyond the limits of an API key."""
    limited = copy(queue)
    limited._key_limits = limits
    return limited


def with_audio_hosts(queue: VoiceQueue, hosts: str) -> VoiceQueue:
    """Return a copy of the queue that does not judge links to these hosts in a correction."""
    allowing = copy(queue)
    allowing._audio_hosts = hosts
    return allowing


def in_namespace(queue: VoiceQueue, namespace: str) -> VoiceQueue:
    """Return a copy of the queue that is limited to a namespace; `*` is all. Raises ValueError for an invalid name."""
    if namespace == queue.namespace:
        return queue
    limited = copy(queue)
    limited._store = queue._store.in_namespace(namespace)
    return limited
