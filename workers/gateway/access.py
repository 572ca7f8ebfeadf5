"""Who may call what: API keys and their scopes; without any key configured, this machine alone."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.params import Depends as Dependency
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from voicequeue.apikeys import ApiKey, Scope, holder
from voicequeue.keyspace import DEFAULT_PREFIX
from workers.gateway import session
from workers.gateway.openapi import known_query
from workers.gateway.problems import Refusal
from workers.gateway.session import Visitor

#: Says that somebody passed the request on, for somebody whose address nobody can vouch for.
PASSED_ON = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")

_bearer = HTTPBearer(
    scheme_name="key", auto_error=False, description="An API key, as `voicequeue keys new` makes them."
)

_LOCAL_ONLY = (
    "no API key is configured (VOICEQUEUE_API_KEYS), so only this machine is answered, called by a local name and "
    "not through a proxy"
)


class Access:
    """Checks each request against the configured keys; `cookie` is the name of the cookie that remembers a login."""

    def __init__(self, keys: Sequence[ApiKey], *, secret: str = "", cookie: str = DEFAULT_PREFIX) -> None:
        self.cookie = cookie
        self._keys = tuple(keys)
        self._here = session.local(secret or secrets.token_hex())

    @property
    def is_local_only(self) -> bool:
        """Whether no key is configured."""
        return not self._keys

    def needs(self, scope: Scope) -> list[Dependency]:
        """What routes depend on that need this scope: nothing else is looked at before."""
        return [Depends(self._check(scope)), Depends(known_query)]

    def visitor(self, request: Request, remembered: str) -> Visitor | None:
        """Who looks at the page, by the cookie of a login; None: nobody known. Raises Refusal."""
        if self.is_local_only:
            _must_be_local(request)
            return self._here
        return session.visitor(self._keys, remembered, time.time())

    def login(self, given: str) -> str | None:
        """What remembers a login with this key; None where there is no such key."""
        key = holder(self._keys, given)
        return None if key is None else session.cookie(key, time.time())

    def _check(self, scope: Scope) -> Callable[..., Awaitable[None]]:
        async def check(
            request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
        ) -> None:
            if self.is_local_only:
                _must_be_local(request)
            else:
                request.state.who = self._must_hold(scope, "" if given is None else given.credentials)

        return check

    def _must_hold(self, scope: Scope, given: str) -> str:
        """The name of the key."""
        # One way for all: no key, an unknown one and a wrong one cost the same and are told the same.
        key = holder(self._keys, given)
        if key is None:
            raise Refusal(401, "a valid API key is needed", headers={"WWW-Authenticate": "Bearer"})
        if scope not in key.scopes:
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            raise Refusal(403, f"this needs a key with the scope {scope}", headers={"WWW-Authenticate": challenge})
        return key.name


def _must_be_local(request: Request) -> None:
    """The address, and the name it was called by: pages of other sites in a browser here are not this machine."""
    host = request.client.host if request.client else ""
    named = request.headers.get("host", "")
    passed_on = any(name in request.headers for name in PASSED_ON)
    origin = request.headers.get("origin")
    foreign = origin is not None and not _is_local_name(urlsplit(origin).netloc)
    if passed_on or foreign or not (_is_loopback(host) and _is_local_name(named)):
        raise Refusal(403, _LOCAL_ONLY, code="local_only")


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_local_name(netloc: str) -> bool:
    try:
        name = urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or _is_loopback(name)
