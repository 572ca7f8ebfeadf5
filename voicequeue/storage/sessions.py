"""Logins to the job page, in Redis: a session that ends has ended for every gateway."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, cast

from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.texts import replace_unencodable

#: Seconds that a session lasts, and a notice for its next page.
SESSION_S = 12 * 3600
NOTICE_S = 60

#: Sessions of one API key at once; the oldest ends when there are more.
SESSIONS_MAX = 100

_NOTICE_MAX = 1_000
_TIME = re.compile(r"\d{1,12}(\.\d{1,9})?", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Session:
    """A login: `name` of its API key, `since` (Unix seconds), and `proof` that the gateway began it for that key.

    `id` is the hash of the token in the browser's cookie: from what Redis holds no cookie can be made. The proof is
    made with a secret that Redis does not hold: who can write to Redis cannot make a session.
    """

    id: str
    name: str
    since: str
    proof: str

    def age_s(self, now: float) -> float:
        """Return the seconds since the login."""
        return now - float(self.since)


#: Makes the proof of a session from its id and the time of its login.
Prove = Callable[[str, str], str]


class Sessions:
    """The sessions of one queue's page. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._redis = keyspace.redis
        self._key = keyspace.key

    def create(self, name: str, prove: Prove, now: float) -> str:
        """Begin a session of the API key `name`; return its token, which is kept nowhere."""
        token, since = secrets.token_urlsafe(32), str(now)
        session_id = _id_of(token)
        fields: dict[Any, Any] = {"name": name, "proof": prove(session_id, since), "since": since}
        with self._redis.pipeline() as pipe:
            pipe.hset(self._key(f"session:{session_id}"), mapping=fields)
            pipe.expire(self._key(f"session:{session_id}"), SESSION_S)
            pipe.zadd(self._key(f"sessions:{name}"), {session_id: now})
            pipe.expire(self._key(f"sessions:{name}"), SESSION_S)
            pipe.zrange(self._key(f"sessions:{name}"), 0, -SESSIONS_MAX - 1)
            *_, oldest = pipe.execute()
        self._end(name, oldest)
        return token

    def find(self, token: str) -> Session | None:
        """Return the session with this token; None where it has ended, or never began."""
        if not _TOKEN.fullmatch(token):
            return None
        session_id = _id_of(token)
        values = self._redis.hmget(self._key(f"session:{session_id}"), ["name", "since", "proof"])
        name, since, proof = cast(list[str | None], values)
        if not (name and proof and since and _TIME.fullmatch(since)):
            return None
        return Session(session_id, name, since, proof)

    def end(self, session_id: str, name: str) -> None:
        """End one session of the API key `name`."""
        self._end(name, [session_id])

    def end_all(self, name: str) -> None:
        """End every session of the API key `name`."""
        self._end(name, cast(list[str], self._redis.zrange(self._key(f"sessions:{name}"), 0, -1)))

    def put_notice(self, session_id: str, text: str) -> None:
        """Keep a text for the session's next page."""
        self._redis.set(self._key(f"session:{session_id}:notice"), replace_unencodable(text[:_NOTICE_MAX]), ex=NOTICE_S)

    def take_notice(self, session_id: str) -> str:
        """Return the text that was kept, once; '' where there is none."""
        key = self._key(f"session:{session_id}:notice")
        text = cast(str | None, self._redis.get(key))
        if text:  # where there is none, nothing is written: pages can be read while Redis refuses writes
            self._redis.delete(key)
        return text or ""

    def _end(self, name: str, session_ids: list[str]) -> None:
        if not session_ids:
            return
        with self._redis.pipeline() as pipe:
            for session_id in session_ids:
                pipe.delete(self._key(f"session:{session_id}"), self._key(f"session:{session_id}:notice"))
            pipe.zrem(self._key(f"sessions:{name}"), *session_ids)
            pipe.execute()


def _id_of(token: str) -> str:
    return sha256(token.encode()).hexdigest()
