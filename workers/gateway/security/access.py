"""Authentication and authorization by API keys and their scopes; without configured keys, by the local token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from math import ceil
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.params import Depends as Dependency
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from voicequeue import InvalidJobError, NotOperatorError, Problem, VoiceQueue
from voicequeue.auth.api_keys import ApiKey, Scope, find_key
from voicequeue.client.queue import in_namespace, with_key_limits, with_source
from voicequeue.domain.namespaces import ALL, namespace_name
from voicequeue.domain.source import Source
from workers.gateway.openapi import reject_unknown_query
from workers.gateway.problems import ProblemError
from workers.gateway.security.admission import Admission
from workers.gateway.security.key_registry import KeyRegistry
from workers.gateway.security.local_access import LocalAccess

_bearer = HTTPBearer(scheme_name="key", auto_error=False, description="An API key made by `voicequeue keys new`.")

_NAMESPACE = "Only this namespace; a key of one namespace may name its own only."

_LOCAL_REQUIRED = (
    "The local token is required as the API key: `. .voicequeue/env` sets VOICEQUEUE_API_KEY to it; the token is in "
    "the file `.voicequeue/local_token`."
)


class AccessControl:
    """Checks the API key of each request.

    `local` is set if no key is configured: `keys` then holds the local token at most, which is valid on this machine
    only.
    """

    def __init__(
        self, keys: Sequence[ApiKey], local: LocalAccess | None = None, registry: KeyRegistry | None = None
    ) -> None:
        """Create one. `registry` has the keys in Redis, of which none replaces a key of the environment."""
        self._local = local
        self._keys = tuple(keys)
        self._names = frozenset(key.name for key in keys)
        self._registry = registry

    @property
    def local(self) -> LocalAccess | None:
        """The checks of requests from this machine; None if a key is configured, or in use in Redis."""
        return None if self._registry is not None and self._registry.has_keys else self._local

    def with_registry(self, registry: KeyRegistry) -> AccessControl:
        """Return the access that also accepts the keys in Redis."""
        return AccessControl(self._keys, self._local, registry)

    def require(self, scope: Scope) -> list[Dependency]:
        """Return the dependencies of routes that need this scope. The key is checked before anything else."""
        return [Depends(self._check(scope)), Depends(_check_query)]

    def refresh(self) -> None:
        """Read the keys in Redis if they may have changed: the first one ends local access."""
        if self._registry is not None and self._registry.is_due():
            self._registry.refresh()

    def check_source(self, request: Request) -> None:
        """Raise Refusal if no key is configured and the request does not come from this machine."""
        self.refresh()
        if (local := self.local) is not None:
            local.check(request)

    def is_configured(self, name: str) -> bool:
        """Return whether the environment has a key of this name."""
        return name in self._names

    def find_by_secret(self, secret: str) -> ApiKey | None:
        """Return the key that this secret belongs to, if any. Raises StoreUnavailableError."""
        own = () if self._local is not None and self.local is None else self._keys
        if key := find_key(own, secret):
            return key
        key = None if self._registry is None else self._registry.find_by_secret(secret)
        return None if key is None or self.is_configured(key.name) else key

    def find_by_name(self, name: str) -> ApiKey | None:
        """Return the key with this name, if any and active. Raises StoreUnavailableError."""
        own = () if self._local is not None and self.local is None else self._keys
        if key := next((key for key in own if key.name == name), None):
            return key
        return None if self._registry is None else self._registry.find_by_name(name)

    async def admit(
        self, request: Request, key: ApiKey, find: Callable[[], ApiKey | None], *, valid_s: float | None = None
    ) -> None:
        """Count a request of this key, and note for its route what the key may do. Raises ProblemError.

        The API and the page admit here, so that every limit holds on both. `find` returns the key that the request
        would have now, and is asked again after `valid_s` if the request lasts.
        """
        if self._registry is not None and not self._registry.counts_without_redis(key):
            await run_in_threadpool(self.count, key)
        state = request.state
        state.caller, state.scopes, state.namespace = key.name, key.scopes, key.namespace
        state.key_limits, state.admission = key.limits, Admission(key, find, valid_s=valid_s)

    def count(self, key: ApiKey) -> None:
        """Count a request of this key. Raises ProblemError if it has used its requests, StoreUnavailableError."""
        if self._registry is None or self._registry.counts_without_redis(key):
            return
        if wait_s := self._registry.count(key):
            raise ProblemError(
                429,
                f"This key may send {key.limits.requests_per_s:g} requests a second.",
                headers={"Retry-After": str(ceil(wait_s))},
            )

    def _check(self, scope: Scope) -> Callable[..., Awaitable[None]]:
        async def check(
            request: Request,
            credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        ) -> None:
            if self._registry is not None and self._registry.is_due():
                await run_in_threadpool(self._registry.refresh)
            self.check_source(request)
            find = partial(self.find_by_secret, "" if credentials is None else credentials.credentials)
            # No key, an unknown and a wrong one take the same time and get the same response.
            key = find()
            if key is None:
                detail = "A valid API key is required." if self.local is None else _LOCAL_REQUIRED
                raise ProblemError(401, detail, headers={"WWW-Authenticate": "Bearer"})
            await self.admit(request, key, find)
            require_also(request, scope)

        return check


async def _check_query(
    request: Request, namespace: Annotated[str | None, Query(max_length=40, description=_NAMESPACE)] = None
) -> None:
    """Reject unknown parameters, and limit the request to the namespace that it names.

    Raises ProblemError, InvalidJobError.
    """
    # One dependency for both, and no other thread: each costs every request several percent.
    reject_unknown_query(request)
    if namespace is not None:
        limit_to_namespace(request, namespace)


def limit_to_namespace(request: Request, namespace: str) -> None:
    """Limit the request to a namespace, which only a key of all of them may choose.

    Raises ProblemError, InvalidJobError.
    """
    if request.state.namespace not in (namespace, ALL):
        raise ProblemError(403, "The API key belongs to another namespace than the one in `namespace`.")
    try:
        request.state.namespace = namespace if namespace == ALL else namespace_name(namespace)
    except ValueError as error:
        raise InvalidJobError([Problem("namespace", str(error))]) from None


def require_operator(request: Request, action: str) -> None:
    """Require a key of all namespaces, for what concerns the whole queue. Raises NotOperatorError."""
    if request.state.namespace != ALL:
        raise NotOperatorError(action)


def require_also(request: Request, scope: Scope) -> None:
    """Require a scope of the caller, perhaps another one because of what it asks for. Raises ProblemError."""
    if scope not in request.state.scopes:
        challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
        raise ProblemError(403, f"The API key needs the scope {scope}.", headers={"WWW-Authenticate": challenge})


def may_review(request: Request) -> bool:
    """Return whether the caller has the scope `review`."""
    return Scope.REVIEW in request.state.scopes


def source_of(request: Request) -> str:
    """Return the source of the jobs that a request enqueues: `http:` and the key's name; `http` without a key."""
    return Source.HTTP.with_caller(getattr(request.state, "caller", None) or "")


def reading(queue: VoiceQueue, request: Request) -> VoiceQueue:
    """Return the queue in the namespace of the request's key, for what reads only."""
    return in_namespace(queue, request.state.namespace)


def acting(queue: VoiceQueue, request: Request, reason: str = "") -> VoiceQueue:
    """Return the queue in the namespace of the request's key, with its source for jobs, and its caller for changes.

    The actor is `key:NAME`, or `page:NAME` on the job page. Without it, the gateway's queue changes nothing.
    """
    interface = "page" if hasattr(request.state, "user") else "key"
    address = request.client.host if request.client else ""
    limited = with_key_limits(reading(queue, request), request.state.key_limits)
    sourced = with_source(limited, source_of(request))
    return sourced.on_behalf_of(f"{interface}:{request.state.caller}", address=address, reason=reason)
