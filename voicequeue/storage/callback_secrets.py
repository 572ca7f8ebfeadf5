"""The callback secrets of API keys, encrypted, by the name of the key."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from voicequeue.domain.callback_secrets import StoredSecret, UnreadableSecretError
from voicequeue.storage.connection.keyspace import Keyspace


class CallbackSecrets:
    """The stored callback secrets. Only a holder of the root secrets of callbacks can decrypt them."""

    def __init__(self, space: Keyspace) -> None:
        self._space = space
        self._name = space.key("callback_secrets")

    def get(self, key_name: str) -> StoredSecret | None:
        """Return the record of this API key; None if it has no secret. Raises UnreadableSecretError."""
        text = cast("str | None", self._space.redis.hget(self._name, key_name))
        return None if text is None else StoredSecret.parse(text)

    def all(self) -> dict[str, str]:
        """Return the stored texts by the name of the API key."""
        return cast("dict[str, str]", self._space.redis.hgetall(self._name))

    def put(self, key_name: str, stored: StoredSecret, expected: StoredSecret | None) -> bool:
        """Store a record for a caller if the `expected` one is stored (None: none). Return whether it was."""
        before = "" if expected is None else expected.as_text()
        return bool(self._space.run_change("set_callback_secret", key_name, before, stored.as_text()))

    def remove(self, key_name: str) -> bool:
        """Remove the record for a caller, and return whether there was one."""
        return bool(self._space.run_change("set_callback_secret", key_name, "*", ""))

    def encrypt_again(self, encrypted_again: Callable[[str, StoredSecret], StoredSecret]) -> int:
        """Replace each record by its newly encrypted form; return how many changed.

        Records that cannot be decrypted stay as they are.
        """
        count = 0
        for key_name, text in self.all().items():
            try:
                again = encrypted_again(key_name, StoredSecret.parse(text)).as_text()
            except UnreadableSecretError:
                continue
            count += again != text and bool(self._space.run_script("set_callback_secret", key_name, text, again))
        return count
