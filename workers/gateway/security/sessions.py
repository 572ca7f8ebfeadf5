"""Logins to the job page: an API key once, then a session in Redis and a cookie with its token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from voicequeue.auth import signatures
from voicequeue.auth.api_keys import ApiKey, Scope, hash_key
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.sessions import SESSION_S, Session
from workers.gateway.security.access import AccessControl

#: A session that is refused ends, unless its login is not older than this (seconds): a gateway may not have read a key
#: that is new or changed yet.
NEW_SESSION_S = 60.0


@dataclass(frozen=True, slots=True)
class SessionUser:
    """The user of a session: the API key used to log in, as it is now."""

    key: ApiKey
    #: CSRF token: part of every form of this session, and unknown to other sites.
    csrf_token: str
    session_id: str

    @property
    def name(self) -> str:
        """Name of the key."""
        return self.key.name

    @property
    def namespace(self) -> str:
        """Namespace of the key."""
        return self.key.namespace

    def has_scope(self, scope: Scope) -> bool:
        """Return whether the key has this scope."""
        return scope in self.key.scopes


class TooManyLoginsError(Exception):
    """Too many failed logins from one address; it must wait for `wait_s` seconds."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


class SessionManager:
    """Creates, finds and ends the sessions of one job page. Every method raises StoreUnavailableError."""

    def __init__(self, access: AccessControl, store: JobStore, secrets: Sequence[str]) -> None:
        """Create one. `secrets`: the first proves new sessions, all are accepted; without any, a writer to Redis can
        make a session."""
        self._access = access
        self._store = store
        self._secrets = tuple(secrets) or ("",)

    def log_in(self, secret: str, *, address: str, previous_token: str) -> str | None:
        """Return the token of a new session, None if there is no such key.

        Raises TooManyLoginsError, and ProblemError if the key has used its requests.

        `before` is the token of the browser's previous session, which ends.
        """
        with translated_errors():
            if wait_s := self._store.login_attempts.count_attempt(address, self._store.clock()):
                raise TooManyLoginsError(wait_s)
            key = self._access.find_by_secret(secret)
            if key is None:
                return None
            self._store.login_attempts.succeeded(address)
            self._access.count(key)
            return self._create(key, secret, previous_token)

    def log_in_with_link(self, secret: str, *, previous_token: str) -> str | None:
        """Return the token of a new session for the local token, the only key that a link may carry; else None."""
        key = None if self._access.local is None else self._access.find_by_secret(secret)
        if key is None:
            return None
        with translated_errors():
            return self._create(key, secret, previous_token)

    def user_of(self, token: str) -> SessionUser | None:
        """Return the user of a session; None if it has ended or its key is no longer configured, or differently."""
        with translated_errors():
            session, now = self._store.sessions.find(token), self._store.clock()
            if session is None:
                return None
            key = self._access.find_by_name(session.name)
            if key is not None and self._is_proven(session, key, now) and session.age_s(now) <= SESSION_S:
                return SessionUser(key, signatures.derive(token, "form"), session.id)
            if session.age_s(now) > NEW_SESSION_S:
                self._store.sessions.end(session.id, session.name)
        return None

    def key_of(self, token: str) -> ApiKey | None:
        """Return the key of a session; None if it has ended."""
        user = self.user_of(token)
        return None if user is None else user.key

    def log_out(self, user: SessionUser, *, everywhere: bool) -> None:
        """End this session, or all sessions of its key."""
        with translated_errors():
            if everywhere:
                self._store.sessions.end_all(user.name)
            self._store.sessions.end(user.session_id, user.name)

    def put_notice(self, user: SessionUser, text: str) -> None:
        """Keep a notice for the next page of this session."""
        with translated_errors():
            self._store.sessions.put_notice(user.session_id, text)

    def take_notice(self, user: SessionUser) -> str:
        """Return and delete the notice of this session."""
        with translated_errors():
            return self._store.sessions.take_notice(user.session_id)

    def _create(self, key: ApiKey, secret: str, before: str) -> str:
        if previous := self._store.sessions.find(before):
            self._store.sessions.end(previous.id, previous.name)
        # With the hash of the secret that was sent: the sessions of a replaced secret end with it.
        prove = partial(_prove, self._secrets[0], replace(key, digest=hash_key(secret)))
        return self._store.sessions.create(key.name, prove, self._store.clock())

    def _is_proven(self, session: Session, key: ApiKey, now: float) -> bool:
        """Return whether a gateway of this queue began the session for this key, as it is configured now."""
        previous = [replace(key, digest=digest) for digest, until in key.replaced() if now < until]
        proofs = [
            _prove(secret, version, session.id, session.since)
            for secret in self._secrets
            for version in (key, *previous)
        ]
        return any(signatures.equals_constant_time(proof, session.proof) for proof in proofs)


def _prove(secret: str, key: ApiKey, session_id: str, since: str) -> str:
    """Return the proof of a session; it changes with the key's hash and scopes."""
    return signatures.session_proof(secret, session_id, since, key.as_setting())
