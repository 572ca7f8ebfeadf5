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

from tasks.callbacks import connections
from tasks.callbacks.addresses import Allowed
from tasks.callbacks.connections import NotDelivered, Refused, Times
from voicequeue.callbacks import Call

#: A receiver that says so, or does not answer, is not there for anybody.
_NOT_THERE = frozenset({429, 502, 503, 504})


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


class Courier:
    """Signs and sends. Safe to share between threads.

    Each of the `secrets` (`whsec_…`) signs, so that a receiver may go over from one to the other.
    """

    def __init__(self, secrets: Sequence[str], *, allowed: Allowed, times: Times, certificates: str = "") -> None:
        self._signers = [Webhook(secret) for secret in secrets]
        self._allowed = allowed
        self._times = times
        self._certificates = certificates

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._certificates or DEFAULT_CA_BUNDLE_PATH)

    def host(self, url: str) -> str:
        """Where it goes, for those who count by that. Raises Refused."""
        return "{}:{}".format(*connections.place(connections.parsed(url)))

    def send(self, call: Call, url: str, now: float) -> Answer:
        """Try it once."""
        if not self._signers:
            return Again("nothing can be signed: set VOICEQUEUE_SECRET")
        try:
            body = call.body()
        except ValueError:
            return Never("this release cannot read the job's record")
        try:
            reply = connections.post(
                connections.parsed(url),
                body,
                self.headers(call.id, body, now),
                allowed=self._allowed,
                times=self._times,
                tls=self._tls,
            )
        except Refused as error:
            return Never(f"refused: {error}")
        except NotDelivered as error:
            return Again(str(error), host_is_there=False)
        return judged(reply.status, reply.retry_after)

    def headers(self, callback_id: str, body: bytes, now: float) -> dict[str, str]:
        """What the receiver verifies. Source: the Standard Webhooks spec."""
        at = datetime.fromtimestamp(int(now), UTC)  # the library reads any other zone wrongly
        signatures = [signer.sign(callback_id, at, body.decode()) for signer in self._signers]
        return {
            "Content-Type": "application/json",
            "User-Agent": f"voicequeue/{version('voicequeue')}",
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
