"""Callback secrets of API keys, encrypted as they rest in Redis. Pure: secrets and times are arguments.

They are encrypted with keys derived from the root secrets of callbacks (voicequeue/auth/signatures.py) and the name of
the API key: a dump of Redis does not reveal them, and an entry that is copied to another API key cannot be decrypted.
"""

from __future__ import annotations

import secrets
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from voicequeue.auth.signatures import callback_secret, derive, mark, parse_secrets
from voicequeue.domain.callback_secrets import StoredSecret, UnreadableSecretError

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet


def new_secret(root_secrets: Sequence[str], key_name: str) -> tuple[str, str]:
    """Return a new callback secret, in the form that a receiver configures, and its encrypted form to be stored.

    Raises ValueError without a root secret.
    """
    secret = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
    return secret, SecretCipher(root_secrets).encrypt(key_name, secret)


#: The settings of the root secrets of callbacks, in the order of the arguments of `roots`.
ROOT_SETTINGS = ("VOICEQUEUE_CALLBACK_SECRET", "VOICEQUEUE_SECRET")


def roots(callback_setting: str, common_setting: str) -> tuple[str, ...]:
    """Return the root secrets of callbacks of VOICEQUEUE_CALLBACK_SECRET, else of VOICEQUEUE_SECRET.

    Raises ValueError if the latter is invalid.
    """
    return tuple(callback_setting.split()) or tuple(map(callback_secret, parse_secrets(common_setting)))


def root_marks(root_secrets: Iterable[str]) -> list[str]:
    """Return a mark of each root secret, by which processes compare them without showing them."""
    return [mark(root, "root secret of callbacks", root) for root in root_secrets]


def common_roots(root_secrets: Sequence[str], marks: Iterable[Collection[str] | None]) -> list[str]:
    """Return those of the root secrets that all processes with these marks have; None is a process without marks."""
    others = [of_process for of_process in marks if of_process is not None]
    own = zip(root_secrets, root_marks(root_secrets), strict=True)
    return [root for root, own_mark in own if all(own_mark in of_process for of_process in others)]


class SecretCipher:
    """Encrypts and decrypts callback secrets with the root secrets of callbacks: the current one, then the old one."""

    def __init__(self, root_secrets: Sequence[str]) -> None:
        self._roots = tuple(root_secrets)

    def encrypt(self, key_name: str, secret: str) -> str:
        """Return the secret, encrypted for this API key. Raises ValueError without a root secret."""
        if not self._roots:
            raise ValueError(
                "callback secrets are stored encrypted, and there is nothing to encrypt them with: set "
                "VOICEQUEUE_SECRET or VOICEQUEUE_CALLBACK_SECRET, the same as for the process `callbacks`"
            )
        return self._fernet(key_name).encrypt(secret.encode()).decode()

    def decrypt(self, key_name: str, token: str) -> str:
        """Return the secret. Raises UnreadableSecretError."""
        from cryptography.fernet import InvalidToken  # noqa: PLC0415  most programs decrypt nothing

        try:
            return self._fernet(key_name).decrypt(token).decode()
        except (InvalidToken, ValueError, TypeError):
            raise UnreadableSecretError("it was encrypted with another root secret, or is damaged") from None

    def encrypted_again(self, key_name: str, stored: StoredSecret) -> StoredSecret:
        """Return the record, encrypted with the current root secret; the same one if it is already.

        Raises UnreadableSecretError.
        """
        return StoredSecret(
            self._again(key_name, stored.token),
            stored.since,
            tuple(replace(old, token=self._again(key_name, old.token)) for old in stored.old),
        )

    def _again(self, key_name: str, token: str) -> str:
        try:
            SecretCipher(self._roots[:1]).decrypt(key_name, token)
        except UnreadableSecretError:
            return self.encrypt(key_name, self.decrypt(key_name, token))
        return token

    def _fernet(self, key_name: str) -> MultiFernet:
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415

        keys = (bytes.fromhex(derive(root, "callback secret of a key", key_name)) for root in self._roots)
        return MultiFernet([Fernet(urlsafe_b64encode(key)) for key in keys])
