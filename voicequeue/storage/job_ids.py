"""Ids of jobs, derived from their keys with a secret of the queue, so that an id reveals nothing of a key."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha1

from voicequeue.domain.spec import VoiceJob
from voicequeue.storage.connection.keyspace import Keyspace

#: The secret of a queue whose first jobs were enqueued by a release without secrets.
_UNKEYED = "unkeyed"


class StaleIdsError(Exception):
    """Ids were derived from a secret that Redis no longer has, because its data were replaced. Nothing was written."""


class IdSecret:
    """The secret from which the ids of one queue are derived, in all its namespaces; read from Redis once."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._secret = ""

    def get(self) -> str:
        """Return the secret; create one if the queue has none."""
        if not self._secret:
            self._secret = str(self._space.run_script("id_secret", secrets.token_hex(32)))
        return self._secret

    def look_up(self) -> str:
        """Return the secret of a queue that may have none: then no job exists, or ids were derived without one."""
        return self._secret or str(self._space.redis.get(self._space.key("id_secret")) or _UNKEYED)

    def forget(self) -> None:
        """Read the secret again before its next use."""
        self._secret = ""


class JobIds:
    """The ids of new jobs. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace, secret: IdSecret | None = None) -> None:
        self._scope = keyspace.scope
        self._secret = secret or IdSecret(keyspace)

    def in_scope_of(self, keyspace: Keyspace) -> JobIds:
        """Return the ids of the same queue in another scope."""
        return JobIds(keyspace, self._secret)

    def of(self, spec: VoiceJob) -> str:
        """Return the id of a job in the namespace of this scope."""
        return self._derive(spec, self._secret.get())

    def look_up(self, specs: Sequence[VoiceJob]) -> list[str]:
        """Return the ids of jobs that may exist, without creating a secret."""
        if not specs:
            return []
        secret = self._secret.look_up()
        return [self._derive(spec, secret) for spec in specs]

    def fingerprint(self) -> str:
        """Return the SHA-1 of the secret, by which scripts/enqueue.lua recognizes it."""
        return _sha1(self._secret.get())

    def forget(self) -> None:
        """Read the secret again before its next use."""
        self._secret.forget()

    def _derive(self, spec: VoiceJob, secret: str) -> str:
        key = b"" if secret == _UNKEYED else bytes.fromhex(secret)
        return spec.job_id(key, self._scope.target)


@lru_cache(maxsize=8)
def _sha1(secret: str) -> str:
    return sha1(secret.encode(), usedforsecurity=False).hexdigest()
