"""Sign and send one callback by the Standard Webhooks specification, and classify the response."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from voicequeue.auth.signatures import callback_headers
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.http_client import request
from voicequeue.net.http_types import HttpTimeouts, RequestFailed, Target, UrlNotAllowed
from voicequeue.storage.callbacks import CallbackClaim, UndeliverableError

#: Statuses of a receiver that is not available for any callback.
_UNAVAILABLE = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver accepted the callback."""


@dataclass(frozen=True, slots=True)
class TemporaryFailure:
    """A temporary failure.

    `is_host_available`: the receiver can accept other callbacks. `retry_after_s`: its Retry-After in seconds.
    """

    reason: str
    is_host_available: bool = True
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PermanentFailure:
    """A permanent failure: further attempts would not succeed."""

    reason: str


SendResult = Delivered | TemporaryFailure | PermanentFailure


class Sender:
    """Sign and send callbacks. Safe to share between threads."""

    def __init__(self, *, allowed: AddressPolicy, times: HttpTimeouts, certificates: str = "") -> None:
        self._allowed = allowed
        self._times = times
        self._certificates = certificates

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        from requests.utils import DEFAULT_CA_BUNDLE_PATH  # noqa: PLC0415  most processes that import this send nothing

        return ssl.create_default_context(cafile=self._certificates or DEFAULT_CA_BUNDLE_PATH)

    def send(self, callback: CallbackClaim, target: Target, secrets: Sequence[str], now: float) -> SendResult:
        """Make one attempt. `now` (Unix seconds) is this host's time, which receivers compare with theirs.

        The request carries a signature by each of `secrets`, so that receivers can switch from one to the next.
        """
        try:
            body = callback.body()
            return self._send(target, body, callback_headers(secrets, callback.id, body, now))
        except (UndeliverableError, UrlNotAllowed) as error:
            return PermanentFailure(str(error))
        except RequestFailed as error:
            return TemporaryFailure(str(error), is_host_available=False)

    def _send(self, target: Target, body: bytes, headers: Mapping[str, str]) -> SendResult:
        with request(
            "POST",
            target,
            headers=headers,
            body=body,
            policy=self._allowed,
            timeouts=self._times,
            tls=self._tls,
        ) as response:
            return classify(response.status, response.retry_after_s())


def classify(status: int, retry_after: float | None) -> SendResult:
    """Classify the receiver's response."""
    if 200 <= status < 300:
        return Delivered()
    if status == 410:
        return PermanentFailure("HTTP 410: the receiver is gone for good")
    if 300 <= status < 400:
        return TemporaryFailure(f"HTTP {status}: redirects are not followed")
    return TemporaryFailure(f"HTTP {status}", status not in _UNAVAILABLE, retry_after or 0.0)
