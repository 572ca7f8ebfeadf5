"""The pages of API keys: list, create, edit, rotate and revoke them. A secret is shown once, and kept nowhere."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from hashlib import blake2b
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from voicequeue import InvalidJobError, NewApiKey, Problem, VoiceQueue
from voicequeue.auth.api_keys import ApiKey, Scope
from voicequeue.client.api_keys import OVERLAP_S
from voicequeue.domain.api_keys import require_that
from voicequeue.domain.spec import Priority
from voicequeue.errors import ApiKeyNotFoundError
from voicequeue.texts import parse_float
from workers.gateway.api import key_schemas
from workers.gateway.page.base import Form, PageRenderer
from workers.gateway.page.forms import read_fields, refused
from workers.gateway.problems import ProblemError
from workers.gateway.security.access import AccessControl, acting, reading
from workers.gateway.server import bodies

#: Keys per page of the list.
PAGE_SIZE = 100

#: The choices for how long the secret before a rotation is accepted (seconds).
OVERLAPS = {
    0: "is refused at once",
    3_600: "is accepted for 1 hour",
    int(OVERLAP_S): "is accepted for 1 day",
    7 * 86_400: "is accepted for 7 days",
    30 * 86_400: "is accepted for 30 days",
}

#: What the forms call the fields of the API.
LABELS = {
    "name": "Name",
    "namespace": "Namespace",
    "scopes": "Scopes",
    "requests_per_s": "Requests per second",
    "max_priority": "Highest priority of its jobs",
    "batch_pattern": "Batches of its jobs",
    "expires_at": "Refused from (date, 00:00 UTC)",
    "max_in_flight": "Jobs in flight",
    "budget_day": "Credits per day (UTC)",
    "budget_month": "Credits per month (UTC)",
}

#: The fields of the forms by the names of the API.
FIELDS = {**{name: name for name in LABELS}, "expires_at": "expires_on"}

#: Limits that are whole numbers.
AMOUNTS = ("max_in_flight", "budget_day", "budget_month")

STATES = ("active", "expired", "revoked")

Text = Annotated[str, Query(max_length=200)]
Cursor = Annotated[str, Query(max_length=64)]


class KeyPages:
    """Shows the API keys, and changes them."""

    def __init__(self, queue: VoiceQueue, access: AccessControl, renderer: PageRenderer) -> None:
        self._queue, self._access, self._renderer = queue, access, renderer

    def list_keys(self, request: Request, state: str, text: str, cursor: str) -> Response:
        """List the keys by name: those in this state, whose name or namespace contains the text."""
        now = time.time()
        keys = [key for key in reading(self._queue, request).api_keys() if _mentions(key, text.lower())]
        counts = Counter(_state(key, now) for key in keys)
        matching = [key for key in keys if state in ("", _state(key, now)) and key.name > cursor]
        page, rest = matching[:PAGE_SIZE], matching[PAGE_SIZE:]
        fields = {name: value for name, value in (("state", state), ("q", text)) if value}
        context = {
            "keys": [(key, _state(key, now)) for key in page],
            "counts": {"": len(keys), **{one: counts[one] for one in STATES}},
            "fields": fields,
            "next_page": "?" + urlencode({**fields, "cursor": page[-1].name}) if rest else "",
        }
        return self._renderer.render(request, "keys.html", context)

    def show_new(self, request: Request) -> Response:
        """Show the form of a new key."""
        context = {"fields": {f"scope_{Scope.READ}": "on"}, "is_local": self._access.local is not None}
        return self._render_form(request, "key_new.html", context)

    def create(self, request: Request, form: Form) -> Response:
        """Create a key, and show its secret. Raises StoreUnavailableError."""
        try:
            document = {**_document(form), "name": form.get("name", ""), "namespace": form.get("namespace", "")}
            self._check_name(document["name"])
            body = bodies.validate(key_schemas.NewApiKey, document)
            created = self._acting(request, form).create_api_key(
                body.name, body.scopes, namespace=body.namespace, limits=body.limits()
            )
        except InvalidJobError as error:
            return self._refuse(request, form, error, self.show_new)
        return self._show_secret(request, created, f"API key {body.name} is created")

    def show(self, request: Request, name: str) -> Response:
        """Show a key, and the form that changes it. Raises ApiKeyNotFoundError."""
        key = self._find(request, name)
        context = {"key": key, "state": _state(key, time.time()), "version": _version(key), "fields": _fields(key)}
        return self._render_form(request, "key.html", context)

    def edit(self, request: Request, form: Form, name: str) -> Response:
        """Change what the form changes; the rest stays as it is. Raises ApiKeyNotFoundError, ProblemError."""
        key = self._find_unchanged(request, form, name)
        try:
            before, after = _document(_fields(key)), _document(form)
            changes = {field: value for field, value in after.items() if value != before[field]}
            body = bodies.validate(key_schemas.ApiKeyUpdate, changes)
            if changes:
                change = self._acting(request, form).edit_api_key
                change(name, scopes=body.scopes, limits=body.limit_changes())
        except InvalidJobError as error:
            return self._refuse(request, form, error, partial(self.show, name=name))
        notice = "is changed. Gateways apply it within 10 seconds." if changes else "is as it was."
        return self._renderer.redirect_with_notice(request, f"/key/{name}", f"API key {name} {notice}")

    def confirm(self, request: Request, name: str, page: str) -> Response:
        """Ask whether to rotate or revoke a key. Raises ApiKeyNotFoundError."""
        key = self._find(request, name)
        if key.revoked_at is not None:
            raise ApiKeyNotFoundError(name)
        context = {"key": key, "version": _version(key), "overlaps": OVERLAPS, "overlap_s": int(OVERLAP_S)}
        return self._renderer.render(request, page, context)

    def rotate(self, request: Request, form: Form, name: str) -> Response:
        """Give a key another secret, and show it. Raises ApiKeyNotFoundError, InvalidJobError, ProblemError."""
        self._find_unchanged(request, form, name)
        body = bodies.validate(key_schemas.ApiKeyRotation, {"overlap_s": _number(form, "overlap_s") or 0})
        rotated = self._acting(request, form).rotate_api_key(name, overlap=body.overlap_s)
        return self._show_secret(request, rotated, f"New secret of API key {name}")

    def revoke(self, request: Request, form: Form, name: str) -> Response:
        """Revoke a key. Raises ApiKeyNotFoundError, ProblemError."""
        self._find_unchanged(request, form, name)
        self._acting(request, form).revoke_api_key(name)
        notice = f"API key {name} is revoked. Gateways refuse it within 10 seconds."
        return self._renderer.redirect_with_notice(request, "/keys", notice)

    def _acting(self, request: Request, form: Form) -> VoiceQueue:
        return acting(self._queue, request, form.get("reason", "")[:200])

    def _check_name(self, name: str) -> None:
        is_valid = re.fullmatch(key_schemas.NAME, name) is not None
        require_that("name", is_valid, "must be 1 to 64 of the letters A-Z and a-z, digits, '.', '_' and '-'")
        message = f"{name!r} is a key of the gateway's environment (VOICEQUEUE_API_KEYS); choose another name"
        require_that("name", not self._access.is_configured(name), message)

    def _find(self, request: Request, name: str) -> ApiKey:
        for key in reading(self._queue, request).api_keys():
            if key.name == name:
                return key
        raise ApiKeyNotFoundError(name)

    def _find_unchanged(self, request: Request, form: Form, name: str) -> ApiKey:
        """Return the key if it is as the form showed it: a form sent twice must not end a secret unseen."""
        key = self._find(request, name)
        if key.revoked_at is not None:
            raise ApiKeyNotFoundError(name)
        if form.get("version") != _version(key):
            raise ProblemError(409, f"The API key {name} was changed after this form was loaded. Load its page again.")
        return key

    def _render_form(self, request: Request, page: str, context: dict[str, Any]) -> Response:
        context = {"scopes": list(Scope), "priorities": list(Priority), "labels": LABELS, **context}
        return self._renderer.render(request, page, context)

    def _refuse(
        self, request: Request, form: Form, error: InvalidJobError, show: Callable[[Request], Response]
    ) -> Response:
        return self._renderer.refuse(request, refused("key", form, error, FIELDS), show)

    def _show_secret(self, request: Request, created: NewApiKey, title: str) -> Response:
        request.state.is_away = True  # nothing else is read from Redis: an outage must not cost the secret
        context = {"key": created.key, "secret": created.secret, "title": title}
        return self._renderer.render(request, "key_secret.html", context)


def _state(key: ApiKey, now: float) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "active" if key.is_active(now) else "expired"


def _mentions(key: ApiKey, text: str) -> bool:
    return text in key.name.lower() or text in key.namespace.lower()


def _version(key: ApiKey) -> str:
    """Return a text that changes with each change of the key."""
    return blake2b(key.to_record().encode(), digest_size=12).hexdigest()


def _fields(key: ApiKey) -> Form:
    """Return the fields of the form for a key."""
    limits = key.limits
    expiry = "" if limits.expires_at is None else f"{datetime.fromtimestamp(limits.expires_at, UTC):%Y-%m-%d}"
    return {
        **{f"scope_{scope}": "on" for scope in key.scopes},
        "requests_per_s": "" if limits.requests_per_s is None else f"{limits.requests_per_s:g}",
        "max_priority": limits.max_priority or "",
        "batch_pattern": limits.batch_pattern or "",
        "expires_on": expiry,
        **{name: "" if (value := getattr(limits, name)) is None else f"{value}" for name in AMOUNTS},
    }


def _document(form: Form) -> dict[str, Any]:
    """Return the JSON of the API for the fields of a form. Raises InvalidJobError."""
    readers: dict[str, Callable[[], Any]] = {
        "scopes": partial(_scopes, form),
        "requests_per_s": partial(_number, form, "requests_per_s"),
        "max_priority": lambda: form.get("max_priority") or None,
        "batch_pattern": lambda: form.get("batch_pattern") or None,
        "expires_at": partial(_day, form, "expires_on"),
        **{name: partial(_number, form, name) for name in AMOUNTS},
    }
    return read_fields(readers)


def _scopes(form: Form) -> list[str]:
    """Return the chosen scopes. Raises InvalidJobError."""
    scopes = [scope.value for scope in Scope if f"scope_{scope}" in form]
    require_that("scopes", bool(scopes), "choose at least one")
    return scopes


def _number(form: Form, name: str) -> float | None:
    """Return the number in a field; None if it is empty. Raises InvalidJobError."""
    text = form.get(name, "")
    number = parse_float(text)
    require_that(name, not text or number is not None, f"must be a number, or empty; not {text[:40]!r}")
    return number


def _day(form: Form, name: str) -> str | None:
    """Return the begin of the day in a field; None if it is empty. Raises InvalidJobError."""
    text = form.get(name, "")
    try:
        return f"{date.fromisoformat(text)}T00:00:00Z" if text else None
    except ValueError:
        problem = Problem("expires_at", f"must be a date such as 2030-03-01, or empty; not {text[:40]!r}")
        raise InvalidJobError([problem]) from None


def router(queue: VoiceQueue, access: AccessControl, renderer: PageRenderer) -> APIRouter:
    """Return the routes, which need the scope `admin` and the namespace `*`."""
    pages = KeyPages(queue, access, renderer)
    routes = APIRouter(dependencies=[Depends(renderer.require_admin)], route_class=renderer.route_class())

    @routes.get("/keys")
    def list_keys(request: Request, state: str = "", q: Text = "", cursor: Cursor = "") -> Response:
        return pages.list_keys(request, state if state in STATES else "", q.strip(), cursor)

    @routes.get("/keys/new")
    def show_new(request: Request) -> Response:
        return pages.show_new(request)

    @routes.post("/keys/new")
    async def create(request: Request) -> Response:
        return await run_in_threadpool(pages.create, request, await renderer.form(request))

    @routes.get("/key/{name}")
    def show(request: Request, name: str) -> Response:
        return pages.show(request, name)

    @routes.post("/key/{name}")
    async def edit(request: Request, name: str) -> Response:
        return await run_in_threadpool(pages.edit, request, await renderer.form(request), name)

    @routes.get("/key/{name}/rotate")
    def confirm_rotate(request: Request, name: str) -> Response:
        return pages.confirm(request, name, "key_rotate.html")

    @routes.post("/key/{name}/rotate")
    async def rotate(request: Request, name: str) -> Response:
        return await run_in_threadpool(pages.rotate, request, await renderer.form(request), name)

    @routes.get("/key/{name}/revoke")
    def confirm_revoke(request: Request, name: str) -> Response:
        return pages.confirm(request, name, "key_revoke.html")

    @routes.post("/key/{name}/revoke")
    async def revoke(request: Request, name: str) -> Response:
        return await run_in_threadpool(pages.revoke, request, await renderer.form(request), name)

    return routes
