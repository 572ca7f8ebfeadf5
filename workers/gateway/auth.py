"""Who may call what: API keys and their scopes; without any configured key, the local token on this machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

from fastapi import Depends, Request
from fastapi.params import Depends as Dependency
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from voicequeue.auth.api_keys import ApiKey, Scope, holder
from workers.gateway.local import LocalOnly
from workers.gateway.openapi import known_query
from workers.gateway.problems import Refusal

_bearer = HTTPBearer(
    scheme_name="key", auto_error=False, description="An API key, as `voicequeue keys new` makes them."
)

_ONLY_LOCALLY = (
    "the local token is needed as the API key: `. .voicequeue/env` puts it into VOICEQUEUE_KEY, and it is in the file "
    "`.voicequeue/local_token`"
)


class Access:
    """Checks each request against the keys.

    With `local` no key is configured: the one there is, if any, is the local token, and counts on this machine alone.
    """

    def __init__(self, keys: Sequence[ApiKey], local: LocalOnly | None = None) -> None:
        self.local = local
        self._keys = tuple(keys)

    def needs(self, scope: Scope) -> list[Dependency]:
        """What routes depend on that need this scope: nothing else is looked at before."""
        return [Depends(self._check(scope)), Depends(known_query)]

    def check_source(self, request: Request) -> None:
        """Raise Refusal where the request comes from a place that no key opens."""
        if self.local is not None:
            self.local.check(request)

    def holder(self, given: str) -> ApiKey | None:
        """Return the key that this is; None where it is none."""
        return holder(self._keys, given)

    def named(self, name: str) -> ApiKey | None:
        """Return the key of this name as it is configured now."""
        return next((key for key in self._keys if key.name == name), None)

    def _check(self, scope: Scope) -> Callable[..., Awaitable[None]]:
        async def check(
            request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
        ) -> None:
            self.check_source(request)
            key = self._must_hold(scope, "" if given is None else given.credentials)
            request.state.who, request.state.scopes = key.name, key.scopes

        return check

    def _must_hold(self, scope: Scope, given: str) -> ApiKey:
        """Return the key that was given. Raises Refusal."""
        # One way for all: no key, an unknown one and a wrong one cost the same and are told the same.
        key = self.holder(given)
        if key is None:
            needed = "a valid API key is needed" if self.local is None else _ONLY_LOCALLY
            raise Refusal(401, needed, headers={"WWW-Authenticate": "Bearer"})
        if scope not in key.scopes:
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            raise Refusal(403, f"this needs a key with the scope {scope}", headers={"WWW-Authenticate": challenge})
        return key
