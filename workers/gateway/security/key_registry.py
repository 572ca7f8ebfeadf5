"""The API keys in Redis as a gateway knows them: looked up by hash in memory, and read again when they change."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock

from redis.exceptions import RedisError

from voicequeue.auth.api_keys import KEY_PREFIX, hash_key
from voicequeue.domain.api_keys import ApiKey
from voicequeue.errors import StoreUnavailableError
from voicequeue.storage.api_keys import ApiKeys
from voicequeue.storage.connection.errors import translated_errors

#: Seconds after which a request reads whether the keys have changed; and for which they are valid without an answer.
REFRESH_S, KEYS_VALID_S = 2.0, 8.0

#: Time (seconds) whose requests a process counts in advance: it asks Redis at most ten times a second for each key.
ADVANCE_S = 0.1

#: Requests that were counted in advance are forgotten after this time (seconds).
ADVANCE_VALID_S = 1.0

#: Seconds between two writes of the time when a key was last used.
NOTE_S = 60.0


class KeyRegistry:
    """The keys in Redis. A change is in force within `KEYS_VALID_S`, because keys that old are refused.

    Without requests nothing is read. Safe to share between threads.
    """

    def __init__(
        self, store: ApiKeys, clock: Callable[[], float], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._clock, self._monotonic = store, clock, monotonic
        self._lock = Lock()
        self._version: str | None = None
        self._by_digest: dict[str, ApiKey] = {}
        self._by_name: dict[str, ApiKey] = {}
        self._offset = 0.0  # from the monotonic clock to that of Redis
        self._tried_at = self._read_at = -KEYS_VALID_S
        self._noted: dict[str, float] = {}
        self._counting = Lock()
        self._advance: dict[str, tuple[int, float]] = {}  # requests counted in advance, and until when

    @property
    def has_keys(self) -> bool:
        """True if a key in Redis is not revoked."""
        return bool(self._by_name)

    def is_due(self) -> bool:
        """Return whether `refresh` has to be called."""
        return self._monotonic() - self._tried_at >= REFRESH_S

    def refresh(self) -> None:
        """Read the keys if they have changed, unless another thread does. Without Redis they remain, until too old."""
        if not self.is_due() or not self._lock.acquire(blocking=not self._is_valid()):
            return
        try:
            if self.is_due():
                self._read()
        finally:
            self._tried_at = self._monotonic()
            self._lock.release()

    def find_by_secret(self, secret: str) -> ApiKey | None:
        """Return the active key of this secret, if any. Raises StoreUnavailableError if it may have been revoked."""
        if self.is_due():
            self.refresh()
        if not self._is_valid() and secret.startswith(KEY_PREFIX):
            raise StoreUnavailableError("the API keys in Redis cannot be read; retry later")
        digest = hash_key(secret)
        key = self._by_digest.get(digest)
        return key if key is not None and key.accepts(digest, self._now()) else None

    def find_by_name(self, name: str) -> ApiKey | None:
        """Return the active key of this name, if any. Raises StoreUnavailableError if it may have been revoked."""
        if self.is_due():
            self.refresh()
        if not self._is_valid():
            raise StoreUnavailableError("the API keys in Redis cannot be read; retry later")
        key = self._by_name.get(name)
        return key if key is not None and key.is_active(self._now()) else None

    def counts_without_redis(self, key: ApiKey) -> bool:
        """Count a request of this key if that needs no Redis; False if `count` has to do it."""
        if key.name not in self._by_name:
            return True
        now = self._monotonic()
        if now - self._noted.get(key.name, -NOTE_S) >= NOTE_S:
            return False
        if key.limits.requests_per_s is None:
            return True
        with self._counting:
            remaining, until = self._advance.get(key.name, (0, 0.0))
            if remaining < 1 or now >= until:
                return False
            self._advance[key.name] = (remaining - 1, until)
            return True

    def count(self, key: ApiKey) -> float:
        """Count a request; return 0, or the seconds that it must wait. Raises StoreUnavailableError."""
        now = self._monotonic()
        if now - self._noted.get(key.name, -NOTE_S) >= NOTE_S:
            self._noted[key.name] = now
            with suppress(RedisError):  # Redis may refuse writes; the request decides what it needs
                self._store.note_use(key.name, self._clock())
        if key.limits.requests_per_s is None:
            return 0.0
        at_most = max(1, int(key.limits.requests_per_s * ADVANCE_S))
        with translated_errors():
            counted, wait_s = self._store.count_requests(
                key.name, key.limits.requests_per_s, self._clock(), at_most=at_most
            )
        if counted > 1:
            with self._counting:
                remaining, until = self._advance.get(key.name, (0, 0.0))
                kept = remaining if now < until else 0
                self._advance[key.name] = (kept + counted - 1, now + ADVANCE_VALID_S)
        return wait_s

    def _read(self) -> None:
        begun = self._monotonic()
        with suppress(RedisError):
            version = self._store.version()
            if version != self._version:
                self._index(self._store.list_all())
                self._version = version
            self._offset = self._clock() - self._monotonic()
            self._read_at = begun

    def _index(self, keys: Sequence[ApiKey]) -> None:
        current = [key for key in keys if key.revoked_at is None]
        by_digest = {digest: key for key in current for digest, _ in key.replaced()}
        self._by_digest = by_digest | {key.digest: key for key in current}
        self._by_name = {key.name: key for key in current}
        self._advance.clear()  # limits may have changed

    def _is_valid(self) -> bool:
        return self._monotonic() - self._read_at < KEYS_VALID_S

    def _now(self) -> float:
        return self._monotonic() + self._offset
