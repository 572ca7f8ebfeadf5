"""Callback secrets of API keys: set, replaced with an overlap, removed."""

from __future__ import annotations

from collections.abc import Sequence

from voicequeue.auth.callback_secrets import common_roots
from voicequeue.client.audited import audited
from voicequeue.client.reading import ReadMethods
from voicequeue.domain.callback_secrets import OVERLAP_MAX_S, StoredSecret, UnreadableSecretError
from voicequeue.domain.source import Source
from voicequeue.errors import InvalidStateError
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.connection.recorded_change import amend
from voicequeue.storage.heartbeats import CALLBACK_ROOTS


class CallbackSecretMethods(ReadMethods):
    """Methods of `VoiceQueue` for the callback secrets of API keys."""

    @audited
    def set_callback_secret(
        self, key_name: str, token: str, *, overlap_s: float | None = None, namespace: str | None = None
    ) -> None:
        """Store a new callback secret of an API key.

        From now on it signs the callbacks of the key's jobs, and those of batches whose URL the key has set.

        Args:
            key_name: Name of the API key.
            token: The secret, encrypted with the root secret that the process `callbacks` has
                (`voicequeue.auth.callback_secrets.new_secret`).
            overlap_s: Seconds for which the secret that it replaces signs, too; at most 30 days. None replaces none.
            namespace: Namespace of the key, which sees the change in its audit log. None: that of the key in Redis;
                of other keys, `*`.

        Raises:
            NotOperatorError: The client is limited to one namespace.
            InvalidStateError: The key has a callback secret, and `overlap_s` is None, or its record is damaged.
            ValueError: The name or `overlap_s` is invalid, or too many secrets are valid.
        """
        self._require_operator("set_callback_secret")
        _check_name(key_name)
        if overlap_s is not None and not 0 <= overlap_s <= OVERLAP_MAX_S:
            raise ValueError(f"the overlap must be 0 to {OVERLAP_MAX_S:,} seconds (30 days), not {overlap_s:g}")
        with translated_errors():
            amend(namespace=self._namespace_of_key(key_name) if namespace is None else namespace)
            while not self._try_set(key_name, token, overlap_s):
                pass  # another caller replaced the record meanwhile

    @audited
    def remove_callback_secret(self, key_name: str, *, namespace: str | None = None) -> bool:
        """Remove the callback secret of an API key, and return whether it had one.

        Its callbacks, also those that are pending, are then signed with the secret of their receiver
        (`voicequeue callbacks --secret URL`).

        Args:
            key_name: Name of the API key.
            namespace: As in `set_callback_secret`.

        Raises:
            NotOperatorError: The client is limited to one namespace.
            ValueError: The name is invalid.
        """
        self._require_operator("remove_callback_secret")
        _check_name(key_name)
        with translated_errors():
            amend(namespace=self._namespace_of_key(key_name) if namespace is None else namespace)
            return self._store.callback_secrets.remove(key_name)

    def _try_set(self, key_name: str, token: str, overlap_s: float | None) -> bool:
        now, stored = self._now(), self._stored(key_name)
        if stored is None:
            return self._store.callback_secrets.put(key_name, StoredSecret(token, now), None)
        if overlap_s is None:
            raise InvalidStateError(f"the API key {key_name} has a callback secret already: replace it with --rotate")
        return self._store.callback_secrets.put(key_name, stored.replaced(token, now, overlap_s), stored)

    def _stored(self, key_name: str) -> StoredSecret | None:
        try:
            return self._store.callback_secrets.get(key_name)
        except UnreadableSecretError as error:
            raise InvalidStateError(
                f"the callback secret of the API key {key_name} cannot be replaced: {error}; remove it first: "
                f"voicequeue keys callback-secret {key_name} --remove"
            ) from None


def shared_roots(queue: CallbackSecretMethods, root_secrets: Sequence[str]) -> list[str]:
    """Return those of the root secrets that every running process `callbacks` has, so that it can decrypt.

    A process of an earlier release does not report them, and is taken to have them. Raises InvalidStateError if no
    root secret remains.
    """
    with translated_errors():
        processes = queue._store.heartbeats["callbacks"].alive(queue._now())
    reporting = [process for process in processes if CALLBACK_ROOTS in process.facts]
    roots = common_roots(root_secrets, [process.facts[CALLBACK_ROOTS] for process in reporting])
    if root_secrets and not roots:
        names = ", ".join(sorted(process.name for process in reporting))
        raise InvalidStateError(
            f"the process `callbacks` ({names}) could not decrypt the secret, because its root secret is another one: "
            "use its VOICEQUEUE_CALLBACK_SECRET, or VOICEQUEUE_SECRET if it has none; after a change, restart it"
        )
    return roots


def _check_name(key_name: str) -> None:
    """Raise ValueError for a name that no API key has."""
    if not key_name:
        raise ValueError("the name of the API key is missing")
    Source.HTTP.with_caller(key_name)
