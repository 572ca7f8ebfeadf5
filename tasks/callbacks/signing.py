"""Choose the secrets that sign a callback: those of the API key that caused it, else those of its receiver."""

from __future__ import annotations

from collections.abc import Sequence

from voicequeue.auth.callback_secrets import SecretCipher
from voicequeue.auth.signatures import receiver_secret
from voicequeue.domain.callback_secrets import UnreadableSecretError
from voicequeue.domain.source import Source
from voicequeue.net.http_types import Target
from voicequeue.storage.callback_secrets import CallbackSecrets
from voicequeue.storage.callbacks import CallbackClaim


class NotSignableError(Exception):
    """A callback that cannot be signed with the secret that its receiver expects; the text is the reason."""


class CallbackSigner:
    """The secrets that sign each callback. Safe to share between threads.

    A callback of an API key that has secrets is signed with these, and with no other. All others are signed with the
    secret of their receiver, derived from each of the root secrets.
    """

    def __init__(self, root_secrets: Sequence[str], stored: CallbackSecrets) -> None:
        self._roots = tuple(root_secrets)
        self._cipher = SecretCipher(root_secrets)
        self._stored = stored

    def secrets(self, callback: CallbackClaim, target: Target, now: float) -> list[str]:
        """Return the secrets that sign this callback at `now`, the queue's time (Unix seconds).

        Raises NotSignableError.
        """
        if not self._roots:
            raise NotSignableError("callbacks cannot be signed: set VOICEQUEUE_CALLBACK_SECRET or VOICEQUEUE_SECRET")
        key_name = Source.http_caller(callback.source())
        return self._of_key(key_name, now) or [receiver_secret(root, target.origin) for root in self._roots]

    def encrypt_again(self) -> int:
        """Encrypt the stored secrets with the current root secret; return how many were encrypted with an old one."""
        return self._stored.encrypt_again(self._cipher.encrypted_again) if self._roots else 0

    def _of_key(self, key_name: str, now: float) -> list[str]:
        try:
            stored = self._stored.get(key_name) if key_name else None
            return [self._cipher.decrypt(key_name, token) for token in stored.valid_tokens(now)] if stored else []
        except UnreadableSecretError as error:
            raise NotSignableError(
                f"the callback secret of the API key {key_name} cannot be decrypted: {error}; restore the root secret, "
                f"or create another one: voicequeue keys callback-secret {key_name} --rotate --overlap 0s"
            ) from None
