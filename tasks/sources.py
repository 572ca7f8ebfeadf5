"""Links to recordings: an `https://` URL as it is, an `s3://bucket/key` signed for each order.

A signed link exists in the memory of the worker and in the request to MusicAPI only: it is never stored or logged.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import Any

from tasks.musicapi import AmbiguousFailure, UpstreamError
from voicequeue.domain.spec import is_object_url
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.http_types import Target, UrlNotAllowed
from voicequeue.net.per_host_executor import PerHostExecutor

BUCKETS_SETTING = "VOICEQUEUE_SIGNED_BUCKETS"

#: The longest time (seconds) for signing a link: credentials may have to be fetched. After a timeout no other link is
#: signed for a while, so that the other jobs of the process are not delayed again.
SIGN_TIMEOUT_S, PAUSE_S = 10.0, 30.0

#: Texts that occur in signed links only.
_SIGNATURE = re.compile(r"[^\s\"'<>]*(?:X-Amz-|Signature=|AWSAccessKeyId=)[^\s\"'<>]*", re.IGNORECASE)


class SourceError(Exception):
    """There is no link to the recording; the text is the reason and the cure, without a link.

    `is_temporary`: a later attempt may succeed.
    """

    def __init__(self, reason: str, *, is_temporary: bool = False) -> None:
        super().__init__(reason)
        self.is_temporary = is_temporary


def _open_s3() -> Any:
    import fsspec  # noqa: PLC0415  only workers that sign need it

    try:
        # The older signatures are accepted by few storages and regions.
        return fsspec.filesystem("s3", config_kwargs={"signature_version": "s3v4"})
    except ImportError:
        raise SourceError(
            "this worker cannot sign s3:// recordings, because the package s3fs is not installed; install "
            "'voicequeue[worker,s3]' and restart the workers"
        ) from None


@dataclass
class RecordingSources:
    """The links to the recordings of jobs. Safe to share between threads.

    `buckets` are those whose objects may be signed, each with an optional prefix: `recordings`, `archive/voices/`.
    """

    buckets: tuple[str, ...] = ()
    ttl_s: float = 3600.0
    #: Hosts to which a link may be http://.
    policy: AddressPolicy = field(default_factory=lambda: AddressPolicy("VOICEQUEUE_AUDIO_ALLOWED_HOSTS"))
    open_storage: Callable[[], Any] = _open_s3
    _threads: PerHostExecutor = field(default_factory=lambda: PerHostExecutor(max_workers=4, per_host=4))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _storage: Any = None
    _paused_until: float = 0.0

    def link(self, url: str) -> str:
        """Return the URL that MusicAPI fetches, signed now if it is `s3://`. Raises SourceError."""
        if not is_object_url(url):
            return url
        path = url.removeprefix("s3://")
        if not any(_contains(bucket, path) for bucket in self.buckets):
            raise SourceError(
                f"workers may not sign recordings here; add {path.partition('/')[0]} to {BUCKETS_SETTING} and restart "
                "the workers"
            )
        if time.monotonic() < self._paused_until:
            raise SourceError("the credentials of s3:// did not arrive in time", is_temporary=True)
        signing: Future[str] = self._threads.submit("s3", partial(self._sign, path))
        try:
            return self._checked(signing.result(SIGN_TIMEOUT_S))
        except TimeoutError:
            self._paused_until = time.monotonic() + PAUSE_S
            raise SourceError("the credentials of s3:// did not arrive in time", is_temporary=True) from None

    def _sign(self, path: str) -> str:
        try:
            with self._lock:
                self._storage = self._storage or self.open_storage()
            return str(self._storage.sign(path, expiration=round(self.ttl_s)))
        except SourceError:
            raise
        except Exception as error:  # each storage has errors of its own, and they may quote credentials
            name = type(error).__name__
            if name in ("NoCredentialsError", "PartialCredentialsError"):
                raise SourceError(
                    "this worker has no credentials to sign s3:// recordings; set AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY, or give its machine a role, and restart the workers"
                ) from None
            raise SourceError(f"the link could not be signed: {name}", is_temporary=True) from None

    def _checked(self, link: str) -> str:
        """Return a signed link that is https://, or goes to an allowed host."""
        try:
            target = Target.parse(link)
        except UrlNotAllowed:
            raise SourceError("the storage signs no links that MusicAPI can fetch") from None
        if target.is_secure or self._is_allowed(target.host):
            return link
        raise SourceError(
            "the endpoint of the storage is http://, which would show the link to others; set AWS_ENDPOINT_URL to its "
            "https:// address and restart the workers"
        )

    def _is_allowed(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return host.lower() in self.policy.hosts
        return any(address in network for network in self.policy.networks)


def _contains(bucket: str, path: str) -> bool:
    """Return whether an object is in a bucket, or below a prefix of it that ends at a folder."""
    return path.startswith(f"{bucket.removeprefix('s3://').rstrip('/')}/") and ".." not in path.split("/")


def hide_signature(error: UpstreamError) -> None:
    """Remove signed links from an error, which may quote the request."""
    error.message = _SIGNATURE.sub("…", error.message)
    error.args = (error.message,)
    if isinstance(error, AmbiguousFailure) and error.answer is not None:
        error.answer = _SIGNATURE.sub("…", error.answer)
