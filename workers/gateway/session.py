"""Who looks at the page: a login with an API key, remembered in a signed cookie. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voicequeue import signing
from voicequeue.apikeys import ApiKey, Scope

#: How long a login holds (seconds).
HOLDS_S = 12 * 3600


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody at the page; without a name where no key is configured, and this machine alone is answered."""

    name: str
    scopes: frozenset[Scope]
    #: Stands in every form of his pages, and in no other's: what comes without it he did not send.
    form: str

    def may(self, scope: Scope) -> bool:
        """Whether the page shows and does what needs this scope."""
        return scope in self.scopes


def cookie(key: ApiKey, now: float) -> str:
    """What remembers a login with this key: it is worth nothing when the key is no longer configured as it is."""
    until = str(int(now) + HOLDS_S)
    return f"{key.name}.{until}.{_signature(key, until)}"


def visitor(keys: Sequence[ApiKey], given: str, now: float) -> Visitor | None:
    """Whose login it remembers; None where it is none of ours, or is over."""
    told, _, signature = given.rpartition(".")
    name, _, until = told.rpartition(".")
    key = next((each for each in keys if each.name == name), None)
    if key is None or not signing.holds(_signature(key, until), signature) or int(until) <= now:
        return None
    return Visitor(key.name, key.scopes, signing.derive(key.digest, "form", given))


def local(secret: str) -> Visitor:
    """Somebody at this machine, where no key is configured."""
    return Visitor("", frozenset(Scope), signing.derive(secret, "form"))


def _signature(key: ApiKey, until: str) -> str:
    # Of the key's hash and scopes: who reads the configuration could as well put a key of his own there.
    return signing.derive(key.digest, "session", key.line(), until)
