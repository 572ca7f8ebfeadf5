"""HTTP requests to URLs that callers name: sent only to checked addresses, and bounded in time and size.

The name is resolved once, and the connection is opened to the address that was checked, so a name that resolves
differently a moment later gains nothing. No proxy is used and no redirect is followed.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.http_types import HttpTimeouts, Response, Target


@contextmanager
def request(
    method: str,
    target: Target,
    *,
    headers: Mapping[str, str],
    policy: AddressPolicy,
    timeouts: HttpTimeouts,
    tls: ssl.SSLContext,
    body: bytes | None = None,
) -> Iterator[Response]:
    """Send a request and give the response once its headers are received.

    `timeouts` apply until the end of the block, where the connection is closed. Raises UrlNotAllowed, RequestFailed.
    """
    from voicequeue.net.transport import exchange  # noqa: PLC0415  most commands send nothing; requests loads slowly

    with exchange(method, target, headers, body, policy, timeouts, tls) as response:
        yield response
