"""One callback: signed by the Standard Webhooks spec, sent, and what the answer means."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from standardwebhooks import Webhook

from voicequeue.auth.signatures import receiver_secret
from voicequeue.net.address_policy import Allowed
from voicequeue.net.http_client import Refused, RequestFailed, Target, Times, request
from voicequeue.storage.callbacks import Call, Undeliverable

#: A receiver that says so, or does not answer, is not there for anybody.
_NOT_THERE = frozenset({429, 502, 503, 504})

_AGENT = f"voicequeue/{version('voicequeue')}"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it."""


@dataclass(frozen=True, slots=True)
class Again:
    """It failed, for now. `host_is_there` says whether the receiver can take others; `after` (seconds) is
    when it wants to be tried again."""

    reason: str
    host_is_there: bool = True
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Never:
    """No further try would do better."""

    reason: str


Answer = Delivered | Again | Never


class Sender:
    """Signs and sends. Safe to share between threads.

    From each of the `secrets` one follows that is the receiver's own. All of them sign, so that it may go over from one
    to the other.
    """

    def __init__(self, secrets: Sequence[str], *, allowed: Allowed, times: Times, certificates: str = "") -> None:
        self._secrets = tuple(secrets)
        self._allowed = allowed
        self._times = times
        self._certificates = certificates

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._certificates or DEFAULT_CA_BUNDLE_PATH)

    def send(self, call: Call, target: Target, now: float) -> Answer:
        """Try it once."""
        if not self._secrets:
            return Again("nothing can be signed: set VOICEQUEUE_CALLBACK_SECRET or VOICEQUEUE_SECRET")
        try:
            return self._send(target, call.id, call.body(), now)
        except (Undeliverable, Refused) as error:
            return Never(str(error))
        except RequestFailed as error:
            return Again(str(error), host_is_there=False)

    def _send(self, target: Target, callback_id: str, body: bytes, now: float) -> Answer:
        with request(
            "POST",
            target,
            headers=self.headers(target, callback_id, body, now),
            body=body,
            allowed=self._allowed,
            times=self._times,
            tls=self._tls,
        ) as response:
            return judged(response.status, response.retry_after_s())

    def headers(self, target: Target, callback_id: str, body: bytes, now: float) -> dict[str, str]:
        """Return what the receiver verifies. Source: the Standard Webhooks spec."""
        at = datetime.fromtimestamp(int(now), UTC)  # the library reads any other zone wrongly
        secrets = (receiver_secret(secret, target.site) for secret in self._secrets)
        signatures = [Webhook(secret).sign(callback_id, at, body.decode()) for secret in secrets]
        return {
            "Content-Type": "application/json",
            "User-Agent": _AGENT,
            "webhook-id": callback_id,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": " ".join(signatures),
        }


def judged(status: int, retry_after: float | None) -> Answer:
    """What the receiver's answer means."""
    if 200 <= status < 300:
        return Delivered()
    if status == 410:
        return Never("HTTP 410: the receiver wants no more of it")
    if 300 <= status < 400:
        return Again(f"HTTP {status}: redirects are not followed")
    return Again(f"HTTP {status}", status not in _NOT_THERE, retry_after or 0.0)
