"""Namespaces on the job page: its user neither sees, changes nor disturbs what another namespace owns.

The requests are generated from the routes: a new page is covered by itself, and a new parameter or form fails the test
until there are values for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
import requests
from fastapi import params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import iter_route_contexts
from redis import Redis
from starlette.types import ASGIApp

from tests.store.client.test_namespaces import SECRET, Owned, populate
from tests.web.conftest import Build, Gateway, app_of, new_session
from voicequeue import VoiceQueue
from voicequeue.auth.api_keys import Scope, generate_key
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway

KEY, _UNLIMITED = generate_key("intruder", Scope)

#: Name of the owner's API key.
APP = "app-of-the-owner"

#: Routes of the API and of files; the login and the logout; the endless stream, whose source has a test for the API.
EXCEPT = re.compile(r"/(v1|hooks|static|docs|openapi\.json|metrics|healthz|readyz|login|logout|live)\b.*")

#: Query parameters that name nothing that is owned.
HARMLESS = {"sort", "since", "actor", "over", "token", "status", "skip"}


def values(owned: Owned) -> dict[str, list[str]]:
    """Return by query parameter the values by which another user may try to reach what is owned."""
    return {
        "batch": ["spring", f"{owned.namespace}/spring"],
        "q": ["song", "of=the owner", "spring", owned.jobs[0].id],
        "cursor": owned.cursors,
        "job_id": [job.id for job in owned.jobs],
        "state": ["failed", "unsure"],
        "code": ["refused"],
        "action": ["cancel"],
        "by": ["day", "month", "namespace", "key", "batch", "namespace,day"],
    }


def forms(owned: Owned) -> dict[str, list[dict[str, str]]]:
    """Return by path the fields of forms by which another user may try to change what is owned."""
    batches = [{"batch": "spring"}, {"batch": f"{owned.namespace}/spring"}]
    plans = [{"plan": token, "action": action} for token in owned.tokens for action in ("cancel", "retry")]
    selected = {"selected": "1", **{f"select-{job.id}": "on" for job in owned.jobs}}
    callbacks = {f"select-{callback_id}": "on" for callback_id in owned.callback_ids}
    return {
        "/job/{job_id}/cancel": [{}],
        "/job/{job_id}/retry": [{}, {"resubmit": "1"}, {"audio_url": "https://a.example/b.wav"}],
        "/job/{job_id}/review": [
            {"decision": "confirm", "attempt": "1", "task_id": "t"},
            *({"decision": decision, "attempt": "1"} for decision in ("resubmit", "abandon")),
        ],
        "/job/{job_id}/redeliver": [{}],
        "/do/plan": [
            {**which, "action": action} for which in ({}, *batches, selected) for action in ("cancel", "retry")
        ],
        "/callbacks/plan": [{"all": "1"}, *({**batch, "all": "1"} for batch in batches), callbacks],
        "/callbacks/redeliver": [{"all": "1", "until": "9e12"}, callbacks],
        "/rejected-messages/delete": [{}],
        "/do/execute": plans,
        "/erase/plan": [{"metadata": "of=the owner"}],
        "/erase/execute": [{"plan": token} for token in owned.tokens],
        "/do/pause": [{}, {"stage": "voice"}, *batches],
        "/do/resume": [{}, {"stage": "voice"}, *batches],
        "/do/limits": [{"in_flight": "1"}],
        "/do/batch": [{**batch, "max_credits": "1"} for batch in batches],
        "/keys/new": [{"name": "own", "namespace": owned.namespace, "scope_read": "on"}],
        "/key/{name}": [{"scope_admin": "on"}],
        "/key/{name}/rotate": [{"overlap_s": "0"}],
        "/key/{name}/revoke": [{}],
    }


def identifiers(owned: Owned) -> dict[str, list[str]]:
    """Return by placeholder in a path what it may name, of what is owned."""
    return {"{job_id}": [job.id for job in owned.jobs], "{name}": [APP], "{kind}": ["csv", "jsonl"], "": [""]}


def requests_of(app: Any, owned: Owned) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield the method, path, and query or form of each request, with one parameter at a time."""
    candidates, candidate_forms = values(owned), forms(owned)
    for context in iter_route_contexts(app.routes):
        path = context.path or ""
        if EXCEPT.fullmatch(path):
            continue
        for action in ("cancel", "retry") if "{action}" in path else ("",):
            named = path.replace("{action}", action)
            [placeholder] = re.findall(r"{\w+}", named) or [""]
            paths = [named.replace(placeholder, value) for value in identifiers(owned)[placeholder]]
            fields: list[dict[str, str]] = [{}]
            method = "POST" if "POST" in (context.methods or ()) else "GET"
            if method == "POST":
                fields = candidate_forms[named]
            else:
                parameters = get_flat_params(context.original_route.dependant)  # type: ignore[attr-defined]
                in_query = [one.alias for one in parameters if isinstance(one.field_info, params.Query)]
                names = [name for name in in_query if name not in HARMLESS]
                fields += [{name: value} for name in names for value in candidates[name]]
            for url in paths:
                yield from ((method, url, one) for one in fields)


class Person:
    """A user of the page who is logged in to one of several apps."""

    def __init__(self, gateway: Gateway, app: ASGIApp) -> None:
        self._gateway, self._app = gateway, app
        self._session = new_session()
        self._request("POST", "/login", {"key": KEY})
        match = re.search(r'name="token" value="([^"]+)"', self._request("GET", "/", {}).text)
        assert match
        self._token = match[1]

    def outcome(self, method: str, path: str, fields: dict[str, str]) -> tuple[int, str, str]:
        """Return the status, the target of the redirect and the text of a response, without times and random tokens."""
        answer = self._request(method, path, {**fields, "token": self._token} if method == "POST" else fields)
        text = re.sub(
            r"\d{4}-\d\d-\d\d[T ][\d:.]+Z?|\b1\d{12}-\d+\b|\b1\d{9}(\.\d+)?\b|\d\d:\d\d(:\d\d)?", "TIME", answer.text
        )
        text = re.sub(r'name="(token|plan)" value="[^"]*"', "", text)
        return answer.status_code, answer.headers.get("Location", ""), text

    def _request(self, method: str, path: str, fields: dict[str, str]) -> requests.Response:
        self._gateway.stage.app = self._app
        options = {"data" if method == "POST" else "params": fields}
        return self._session.request(
            method,
            self._gateway.url + path,
            allow_redirects=False,
            timeout=20,
            **options,  # type: ignore[arg-type]
        )


@pytest.mark.endurance
@pytest.mark.parametrize(("owner", "intruder"), [("shop", "other"), ("shop", "")])
def test_no_page_shows_or_changes_what_another_namespace_owns(
    build_gateway: Build, redis: Redis, prefix: str, valkey_url: str, owner: str, intruder: str
) -> None:
    """Each request ends as if the owner did not exist, and leaves everything of the owner as it was."""
    setting = replace(_UNLIMITED, namespace=intruder).as_setting()
    empty = f"{prefix}-empty"
    for one in (prefix, empty):
        redis.set(f"{{{one}}}:id_secret", SECRET)
    alone = app_of(build_gateway(api_keys=setting, prefix=empty))
    gateway = build_gateway(api_keys=setting)
    shared = app_of(gateway)
    with VoiceQueue(valkey_url, prefix=prefix, namespace=owner) as owning:
        owned = populate(JobStore(redis, prefix, namespace=owner), owning)
    with VoiceQueue(valkey_url, prefix=prefix, namespace="*") as operating:
        key = operating.create_api_key(APP, [Scope.READ], namespace=owner).key
    before = owned.footprint(redis, prefix)
    intruding, lonely = Person(gateway, shared), Person(gateway, alone)
    count = 0
    for method_and_path, of_one_path in groupby(requests_of(shared, owned), key=lambda request: request[:2]):
        for request in of_one_path:
            outcome = intruding.outcome(*request)
            assert outcome == lonely.outcome(*request), request
            assert outcome[0] < 500, (request, outcome)
            count += 1
        assert owned.footprint(redis, prefix) == before, method_and_path
    assert count > 100
    with VoiceQueue(valkey_url, prefix=prefix, namespace="*") as operating:
        assert operating.api_keys() == [key]
