"""The namespace that an operator's page is limited to: in its URL, and in every link and form of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlencode

from fastapi import Request

from voicequeue.domain.namespaces import ALL, qualify
from workers.gateway.security.access import limit_to_namespace

#: The parameter in the URL, and the longest value that it may have.
PARAMETER, LENGTH_MAX = "namespace", 40

#: The pages that show another namespace under the same path.
LISTS = ("/", "/batches", "/trends", "/spend", "/controls", "/audit-log", "/voices", "/callbacks", "/rejected-messages")


def limit_page(request: Request) -> None:
    """Limit the request of a user to the namespace in its URL, if any. Raises ProblemError, InvalidJobError."""
    namespace = request.query_params.get(PARAMETER)
    request.state.page_namespace = None
    if namespace is not None:
        limit_to_namespace(request, namespace[: LENGTH_MAX + 1])
        request.state.page_namespace = namespace


def path_in(request: Request, path: str, fields: Mapping[str, Any] | None = None) -> str:
    """Return a path of the page with these fields as its query, in the namespace of the request's page.

    An empty path is that of the page itself, which the response to a form names in the request's state.
    """
    path = path or getattr(request.state, "page_path", "")
    namespace: str | None = getattr(request.state, "page_namespace", None)
    query = {**(fields or {}), **({} if namespace is None else {PARAMETER: namespace})}
    return f"{path}?{urlencode(query)}" if query or not path else path


def context_of(request: Request, namespaces: Sequence[str]) -> dict[str, Any]:
    """Return the variables of templates: the namespaces to choose from, and functions for links and names."""
    scope = getattr(request.state, "namespace", ALL)
    return {
        "scope": scope,
        "namespaces": list(namespaces),
        "shows_namespaces": scope == ALL and len(namespaces) > 1,
        "page_namespace": getattr(request.state, "page_namespace", None),
        "path_in": partial(path_in, request),
        "batch_name": partial(batch_name, request),
        "list_path": request.url.path if request.url.path in LISTS else "/",
    }


def batch_name(request: Request, namespace: str, name: str | None) -> str:
    """Return the name of a batch as it is given in the scope of the request; '' for none."""
    return "" if name is None else qualify(namespace, name) if request.state.namespace == ALL else name
