"""Logins to the page: with an API key once, then by a session that lives in Redis and a cookie that names it."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256

from voicequeue.auth import signatures
from voicequeue.auth.api_keys import ApiKey, Scope
from voicequeue.storage.connection.errors import reachable
from voicequeue.storage.job_store import Store
from workers.gateway.auth import Access


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person at the page, by the key of their login."""

    name: str
    scopes: frozenset[Scope]
    #: In every form of their pages and in no other's: what comes without it they did not send.
    form: str
    session_id: str

    def may(self, scope: Scope) -> bool:
        """Whether the page shows and does what needs this scope."""
        return scope in self.scopes


class TooManyLogins(Exception):
    """Logins from this address failed, and it has to wait for `wait_s` seconds."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


class Logins:
    """Begins, finds and ends the sessions of one page. All of it raises StoreUnreachable."""

    def __init__(self, access: Access, store: Store) -> None:
        self._access = access
        self._store = store

    def log_in(self, given: str, *, address: str, before: str) -> str | None:
        """Return the token of a new session; None where there is no such key. Raises TooManyLogins.

        `before` is the token of the browser's last session, which ends.
        """
        with reachable():
            if wait_s := self._store.logins.begin(address, self._store.clock()):
                raise TooManyLogins(wait_s)
            key = self._access.holder(given)
            if key is None:
                return None
            self._store.logins.succeeded(address)
            return self._begin(key, before)

    def enter(self, given: str, *, before: str) -> str | None:
        """Return the token of a new session for the local token, which a link may carry; None for any other key."""
        key = None if self._access.local is None else self._access.holder(given)
        if key is None:
            return None
        with reachable():
            return self._begin(key, before)

    def visitor(self, token: str) -> Visitor | None:
        """Return whose session this is; None where it has ended, or its key is no longer configured so."""
        with reachable():
            session = self._store.sessions.find(token)
        key = None if session is None else self._access.named(session.name)
        if session is None or key is None or not hmac.compare_digest(session.proof, _proof(key)):
            return None
        return Visitor(key.name, key.scopes, signatures.derive(token, "form"), session.id)

    def log_out(self, visitor: Visitor, *, everywhere: bool) -> None:
        """End this session, or every session of its key."""
        with reachable():
            if everywhere:
                self._store.sessions.end_all(visitor.name)
            self._store.sessions.end(visitor.session_id, visitor.name)

    def put_notice(self, visitor: Visitor, text: str) -> None:
        """Keep what was done, for the next page of this session."""
        with reachable():
            self._store.sessions.put_notice(visitor.session_id, text)

    def take_notice(self, visitor: Visitor) -> str:
        """Return what was done before this page, once."""
        with reachable():
            return self._store.sessions.take_notice(visitor.session_id)

    def _begin(self, key: ApiKey, before: str) -> str:
        if last := self._store.sessions.find(before):
            self._store.sessions.end(last.id, last.name)
        return self._store.sessions.begin(key.name, _proof(key), self._store.clock())


def _proof(key: ApiKey) -> str:
    """Return what changes with the key's hash and with its scopes."""
    return sha256(key.line().encode()).hexdigest()
