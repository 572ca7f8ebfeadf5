"""Callback secrets of API keys as they are stored: encrypted, and replaced with an overlap. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

#: The most valid secrets of a key at once. Each of them adds a signature to each callback.
VALID_MAX = 5

#: The longest overlap of a replaced secret, and the default (seconds).
OVERLAP_MAX_S, OVERLAP_DEFAULT_S = 30 * 86_400, 86_400


class UnreadableSecretError(Exception):
    """A stored secret cannot be decrypted with the root secrets at hand."""


class DamagedSecretError(UnreadableSecretError):
    """A stored secret whose record is damaged; no root secret helps."""


@dataclass(frozen=True, slots=True)
class OldSecret:
    """A replaced secret, encrypted; it signs `until` then (Unix seconds)."""

    token: str
    until: float


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """The callback secret of an API key as it is stored: encrypted, and since when (Unix seconds).

    `old` are replaced secrets, the latest first. `record` is what was stored, which may have fields of a newer release.
    """

    token: str
    since: float
    old: tuple[OldSecret, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> StoredSecret:
        """Parse the stored form. Raises UnreadableSecretError."""
        try:
            fields = json.loads(text)
            old = tuple(OldSecret(str(token), float(until)) for token, until in fields["old"])
            return cls(str(fields["token"]), float(fields["since"]), old, fields)
        except (ValueError, LookupError, TypeError):
            raise DamagedSecretError("its record is damaged") from None

    def as_text(self) -> str:
        """Return the stored form."""
        old = [[secret.token, secret.until] for secret in self.old]
        record = {**self.record, "token": self.token, "since": self.since, "old": old}
        return json.dumps(record, separators=(",", ":"))

    def replaced(self, token: str, now: float, overlap_s: float) -> StoredSecret:
        """Return the record with a new secret; this one and older ones sign for `overlap_s` seconds at most.

        Raises ValueError if too many secrets would be valid.
        """
        ends_at = now + overlap_s
        valid = (OldSecret(self.token, ends_at), *(replace(it, until=min(it.until, ends_at)) for it in self.old))
        old = tuple(secret for secret in valid if secret.until > now)
        if len(old) >= VALID_MAX:
            raise ValueError(
                f"{VALID_MAX} callback secrets of this key are valid already: wait until an overlap ends, or replace "
                "all of them at once with an overlap of 0"
            )
        return StoredSecret(token, now, old, self.record)

    def valid_tokens(self, now: float) -> tuple[str, ...]:
        """Return the encrypted secrets that sign now, the latest first."""
        return (self.token, *(secret.token for secret in self.old if secret.until > now))
