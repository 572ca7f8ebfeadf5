"""Ids of jobs, derived from their keys with a secret of the queue, so that an id reveals nothing of a key."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from hashlib import sha1

from voicequeue.domain.spec import VoiceJob
from voicequeue.storage.connection.keyspace import Keyspace

#: The secret of a queue whose first jobs were enqueued by a release without secrets.
_UNKEYED = "unkeyed"


class StaleIdsError(Exception):
    """Ids were derived from a secret that Redis no longer has, because its data were replaced. Nothing was written."""


class JobIds:
    """The ids of new jobs. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._secret = ""

    def of(self, spec: VoiceJob) -> str:
        """Return the id of a job in the namespace of this scope."""
        return self._derive(spec, self._read())

    def look_up(self, specs: Sequence[VoiceJob]) -> list[str]:
        """Return the ids of jobs that may exist, without creating a secret."""
        if not specs:
            return []
        # Without a secret there are no jobs, or their ids were derived without one.
        secret = self._secret or str(self._space.redis.get(self._space.key("id_secret")) or _UNKEYED)
        return [self._derive(spec, secret) for spec in specs]

    def _derive(self, spec: VoiceJob, secret: str) -> str:
        key = b"" if secret == _UNKEYED else bytes.fromhex(secret)
        return spec.job_id(key, self._space.scope.target)

    def fingerprint(self) -> str:
        """Return the SHA-1 of the secret, by which scripts/enqueue.lua recognizes it."""
        return sha1(self._read().encode(), usedforsecurity=False).hexdigest()

    def forget(self) -> None:
        """Read the secret again before its next use."""
        self._secret = ""

    def _read(self) -> str:
        if not self._secret:
            self._secret = str(self._space.run_script("id_secret", secrets.token_hex(32)))
        return self._secret
