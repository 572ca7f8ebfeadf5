"""API keys of the HTTP gateway: create, edit, rotate and revoke them while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from voicequeue.auth.api_keys import generate_key, generate_secret, hash_key
from voicequeue.client.audited import NO_LIMIT, audited
from voicequeue.client.reading import ReadMethods
from voicequeue.domain.api_keys import ApiKey, KeyLimitChanges, KeyLimits, Scope, from_record, require_that
from voicequeue.domain.job import to_iso8601
from voicequeue.errors import ApiKeyNotFoundError, InvalidJobError, Problem
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.connection.recorded_change import amend

#: Seconds for which the secret before a rotation is accepted, and the most.
OVERLAP_S, OVERLAP_MAX_S = 24 * 3600.0, 90 * 86_400.0


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """An API key and its secret, which is stored nowhere.

    Attributes:
        key: The key.
        secret: What callers send as `Authorization: Bearer …`.
    """

    key: ApiKey
    secret: str


class ApiKeyMethods(ReadMethods):
    """Methods of `VoiceQueue` for API keys. They are for operators, whose namespace is `*`."""

    def api_keys(self) -> list[ApiKey]:
        """Return the API keys that are stored in Redis by name, also expired and revoked ones.

        Keys of the environment (`VOICEQUEUE_API_KEYS`) are not among them.

        Raises:
            NotOperatorError: The client is limited to one namespace.
        """
        self._require_operator("api_keys")
        with translated_errors():
            return self._store.api_keys.list_all()

    @audited
    def create_api_key(
        self, key_name: str, scopes: Iterable[Scope], *, namespace: str, limits: KeyLimits | None = None
    ) -> NewApiKey:
        """Create an API key, which gateways accept within 10 seconds, and return it with its secret.

        Args:
            key_name: Name of its holder. It is never given again, because jobs name the key that enqueued them.
            scopes: What it may do.
            namespace: Namespace that it acts in; `*` for an operator.
            limits: Its limits. None sets none.

        Raises:
            InvalidJobError: An argument is invalid, or the name was given before.
            InvalidStateError: It has a budget, and jobs of an earlier release are not counted for their owners yet.
            NotOperatorError: The client is limited to one namespace.
        """
        self._require_operator("create_api_key")
        limits = limits or KeyLimits()
        limits.check()
        try:
            secret, generated = generate_key(key_name, scopes, namespace)
        except ValueError as error:
            raise InvalidJobError([Problem("", str(error))]) from None
        key = replace(generated, limits=limits, created_at=self._now())
        amend(namespace=key.namespace, details=_details(key))
        with translated_errors():
            dropped = self._store.api_keys.dropped_limits(key)
            problem = f"key/{key_name} has a budget already: set {', '.join(dropped)}, or remove that budget first"
            require_that("name", not dropped, problem)
            is_new = self._store.api_keys.write(key, before="")
        require_that("name", is_new, f"{key_name!r} was given before; a name of a key is given once")
        return NewApiKey(key, secret)

    @audited
    def edit_api_key(
        self,
        key_name: str,
        *,
        scopes: Iterable[Scope] | None = None,
        limits: KeyLimits | KeyLimitChanges | None = None,
    ) -> ApiKey:
        """Change the scopes and limits of an API key within 10 seconds, end its logins, and return it.

        Changes of several callers at once are all made: each changes what it names.

        Args:
            key_name: Name of the key.
            scopes: What it may do. None leaves this as it is.
            limits: Limits to change, by name, such as `{"requests_per_s": 5}`; or all of its limits, as `KeyLimits`.
                None leaves them as they are. Without scopes and limits nothing changes, and its logins remain.

        Raises:
            InvalidStateError: As for `create_api_key`.
            ApiKeyNotFoundError: There is no such key in Redis, or it is revoked.
            InvalidJobError: An argument is invalid.
            NotOperatorError: The client is limited to one namespace.
        """
        new_scopes = None if scopes is None else frozenset(scopes)
        require_that("scopes", new_scopes is None or bool(new_scopes), f"must be of {', '.join(Scope)}")

        if new_scopes is None and not limits:
            self._require_operator("edit_api_key")
            with translated_errors():
                return self._active_key(key_name)[1]

        def edited(key: ApiKey) -> ApiKey:
            changed = limits if isinstance(limits, KeyLimits) else replace(key.limits, **(limits or {}))
            changed.check()
            return replace(key, scopes=new_scopes or key.scopes, limits=changed)

        return self._change_key("edit_api_key", key_name, edited)

    @audited
    def rotate_api_key(self, key_name: str, *, overlap: float = OVERLAP_S) -> NewApiKey:
        """Give an API key another secret, end its logins, and return it with that secret.

        Args:
            key_name: Name of the key.
            overlap: Seconds for which the secrets before are accepted, too, unless their own overlap ends earlier.

        Raises:
            ApiKeyNotFoundError: There is no such key in Redis, or it is revoked.
            InvalidJobError: `overlap` is negative, or above 90 days.
            InvalidStateError: Five secrets of the key are accepted.
            NotOperatorError: The client is limited to one namespace.
        """
        require_that("overlap", 0 <= overlap <= OVERLAP_MAX_S, "must be 0 seconds to 90 days")
        secret, now = generate_secret(), self._now()
        digest = hash_key(secret)

        def rotated(key: ApiKey) -> ApiKey:
            return key.rotated(digest, now=now, until=now + overlap)

        return NewApiKey(self._change_key("rotate_api_key", key_name, rotated), secret)

    @audited
    def revoke_api_key(self, key_name: str) -> ApiKey:
        """Revoke an API key permanently within 10 seconds, end its logins, and return it. Its jobs remain.

        Args:
            key_name: Name of the key.

        Raises:
            ApiKeyNotFoundError: There is no such key in Redis, or it is revoked.
            NotOperatorError: The client is limited to one namespace.
        """
        now = self._now()
        return self._change_key("revoke_api_key", key_name, lambda key: replace(key, revoked_at=now))

    def _change_key(self, action: str, key_name: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey:
        self._require_operator(action)
        with translated_errors():
            while True:
                record, before = self._active_key(key_name)
                key = change(before)
                amend(namespace=key.namespace, details=_details(key))
                if self._store.api_keys.write(key, before=record):
                    break
            self._store.sessions.end_all(key_name)
        return key

    def _active_key(self, key_name: str) -> tuple[str, ApiKey]:
        """Return the record of a key that is not revoked, and the key. Raises ApiKeyNotFoundError."""
        record = self._store.api_keys.record(key_name)
        key = from_record(key_name, record) if record else None
        if key is None or key.revoked_at is not None:
            raise ApiKeyNotFoundError(key_name)
        return record, key


def _details(key: ApiKey) -> dict[str, str]:
    """Return what the audit log keeps of a key."""
    limits = key.limits
    set_limits = ", ".join(
        f"{name}={value}"
        for name, value in (
            ("requests_per_s", limits.requests_per_s and f"{limits.requests_per_s:.12g}"),
            ("max_priority", limits.max_priority),
            ("batch_pattern", limits.batch_pattern),
            ("expires_at", to_iso8601(limits.expires_at)),
            ("max_in_flight", limits.max_in_flight),
            ("budget_day", limits.budget_day),
            ("budget_month", limits.budget_month),
        )
        if value is not None
    )
    return {"scopes": "+".join(scope for scope in Scope if scope in key.scopes), "limits": set_limits or NO_LIMIT}
