"""Namespaces over HTTP: a key neither sees, changes nor disturbs what another namespace owns.

The requests are generated from the OpenAPI schema: a new route is covered by itself, and a new parameter or body fails
the test until there are values for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby, product
from typing import Any
from urllib.parse import quote, unquote

import pytest
from redis import Redis

from tests.store.client.test_namespaces import SECRET, Owned, populate
from tests.support.jobs import voice
from tests.web.conftest import Build, app_of, problem
from voicequeue import VoiceQueue
from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway

INTRUDER, CONFIGURED = api_keys.generate_key("intruder", Scope)
SETTING = replace(CONFIGURED, namespace="other").as_setting()
ROWS = {"Content-Type": "application/x-ndjson"}
HEADERS = {"Authorization": f"Bearer {INTRUDER}"}

#: The stream is endless, and has a test of its own; the health checks have no key.
EXCEPT = {"/v1/events", "/healthz", "/readyz"}

#: Parameters whose values name nothing that is owned.
HARMLESS = {
    "limit",
    "since",
    "code",
    "stage",
    "reason",
    "actor",
    "action",
    "if-none-match",
    "outcomes",
    "overlap_s",
    "resubmit",
}


#: Names by which a parser, a path or a pattern might confuse a batch with that of another namespace.
ODD_NAMES = [
    *(
        "../shop/spring",
        "shop//spring",
        "/spring",
        "*/spring",
        "*",
        "Spring",
        "SHOP/spring",
        "spring:jobs",
        "shop/spring:jobs",
    ),
    *("shop\\spring", "ｓｈｏｐ/spring", "shop\u2215spring", "spring\0", "spring ", "", "{x}:batch:shop/spring", "s*"),
]


def values(owned: Owned, odd_names: Sequence[str]) -> dict[str, list[Any]]:
    """Return by parameter the values by which another caller may try to reach what is owned."""
    return {
        "job_id": [job.id for job in owned.jobs],
        "name": ["spring", f"{owned.namespace}%2Fspring", *map(partial(quote, safe=""), odd_names)],
        "batch": ["spring", f"{owned.namespace}/spring", f"{owned.namespace}/", *odd_names],
        "namespace": ["shop", "*", "other", "", "SHOP", "shop/", "ｓhop"],
        "sort": ["-changed"],
        "cursor": owned.cursors,
        "owner": ["account", "namespace%2Fshop"],
        "by": ["namespace", "key", "batch", "day", "month", "namespace,day"],
        "state": ["queued", "failed", "unsure", "pending", "undelivered"],
        "callback_id": owned.callback_ids,
        "persona_id": ["p-owner"],
        "message_id": ["m"],
        "search": ["song", "ana", "p-owner", owned.jobs[0].id],
        "idempotency-key": ["song", "unsure"],
    }


def bodies(owned: Owned) -> dict[str, list[Any]]:
    """Return by schema the bodies by which another caller may try to reach what is owned."""
    plans: list[Any] = [{"json": {"token": token}} for token in owned.tokens]
    filters = [{"json": {"filter": one}} for one in ({}, {"batch": "spring"}, {"metadata": {"of": "the owner"}})]
    return {
        "NewJob": [
            {"json": {"audio_url": "https://a.example/own.wav", "reuse": True, "key": "created", "batch": "spring"}}
        ],
        "BulkRequest": plans + filters,
        "BulkRetryRequest": plans + filters,
        "EraseRequest": [*plans, {"json": {"metadata": {"of": "the owner"}}}],
        "ReviewRequest": [
            {"json": {"decision": "confirm", "attempt": 1, "task_id": "t"}},
            {"json": {"decision": "resubmit", "attempt": 1}},
            {"json": {"decision": "abandon", "attempt": 1}},
        ],
        "RedeliveryRequest": [{"json": one} for one in ({}, {"batch": "spring"}, {"callback_ids": owned.callback_ids})],
        "LimitsUpdate": [{"json": {"in_flight": 1}}],
        "RetryRequest": [{}, {"json": {"audio_url": "https://a.example/b.wav"}}],
        "BatchUpdate": [{"json": {"max_credits": 1, "callback_url": "https://elsewhere.example/"}}],
        "NewApiKey": [{"json": {"name": "mine", "scopes": ["read"], "namespace": one}} for one in ("shop", "*")],
        "ApiKeyUpdate": [{"json": {"requests_per_s": 1}}],
        "BudgetLimits": [{"json": {"day": 1}}],
        "ApiKeyRotation": [{"json": {"overlap_s": 0}}],
        "rows": [{"data": '{"audio_url": "https://a.example/own.wav", "key": "song"}\n', "headers": ROWS}],
        "": [{}],
    }


def requests_of(
    schema: dict[str, Any], owned: Owned, odd_names: Sequence[str] = ()
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the method, path and options of each request: every body and path, and one of the bodies with one further
    parameter at a time."""
    by_parameter, by_schema = values(owned, odd_names), bodies(owned)
    for path, methods in schema["paths"].items():
        for method, operation in methods.items() if path not in EXCEPT else ():
            parameters = [one for one in operation.get("parameters", ()) if one["name"].lower() not in HARMLESS]
            in_path = [one["name"] for one in parameters if one["in"] == "path"]
            further: list[dict[str, Any]] = [{}]
            for one in parameters:
                if one["in"] != "path":
                    place = "params" if one["in"] == "query" else "headers"
                    further += [{place: {one["name"]: value}} for value in by_parameter[one["name"].lower()]]
            content = operation.get("requestBody", {}).get("content", {})
            name = (
                "rows"
                if ROWS["Content-Type"] in content
                else content.get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
            )
            for names in product(*(by_parameter[name] for name in in_path)):
                is_odd = any(unquote(one) in ODD_NAMES for one in names)
                one_body, *others = by_schema[name]
                varied = [(one_body, options) for options in (further[:1] if is_odd else further)]
                for body, options in [*varied, *((body, {}) for body in others)]:
                    yield method.upper(), path.format(**dict(zip(in_path, names, strict=True))), {**body, **options}


def outcome(answer: Any) -> tuple[int, str]:
    """Return the status and text of a response, without times, random tokens and hashes with a random key."""
    answer.encoding = "utf-8"
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z|\b1\d{12}-\d+\b|\b1\d{9}(\.\d+)?\b", "TIME", answer.text)
    text = re.sub(r"\b[0-9a-f]{40}\b", "HASH", text)
    return answer.status_code, re.sub(r'"(token|next_cursor|secret)":"[^"]*"|"id":"[a-z2-7]{16}"', "", text)


@pytest.mark.timeout(400)  # some thousand requests
@pytest.mark.parametrize(
    ("owner", "intruder", "odd_names"),
    [
        ("shop", "other", ODD_NAMES[:2]),
        *(
            pytest.param(*case, marks=pytest.mark.endurance)
            for case in (("shop", "other", ODD_NAMES), ("shop", "", ()), ("", "shop", ()))
        ),
    ],
    ids=["shop-other", "odd names", "shop-default", "default-shop"],
)
def test_no_route_sees_or_changes_what_another_namespace_owns(
    build_gateway: Build,
    redis: Redis,
    prefix: str,
    valkey_url: str,
    owner: str,
    intruder: str,
    odd_names: Sequence[str],
) -> None:
    """Each request ends as if the owner did not exist, and leaves everything of the owner as it was."""
    setting = replace(CONFIGURED, namespace=intruder).as_setting()
    empty = f"{prefix}-empty"
    for one in (prefix, empty):
        redis.set(f"{{{one}}}:id_secret", SECRET)
    alone = build_gateway(api_keys=setting, prefix=empty)
    app_alone = app_of(alone)
    gateway = build_gateway(api_keys=setting)
    app_shared = app_of(gateway)
    with VoiceQueue(valkey_url, prefix=prefix, namespace=owner) as owning:
        owned = populate(JobStore(redis, prefix, namespace=owner), owning)
        owning.enqueue_many(voice(batch="ahead", priority="high") for _ in range(3))
    before = owned.footprint(redis, prefix)
    sent = 0
    requests = requests_of(app_shared.openapi(), owned, odd_names)
    for (method, path), of_one_path in groupby(requests, key=lambda request: request[:2]):
        for *_, options in of_one_path:
            headers = {**HEADERS, **options.pop("headers", {})}
            outcomes = []
            for app in (app_shared, app_alone):
                gateway.stage.app = app
                outcomes.append(outcome(gateway(method, path, key=None, headers=headers, **options)))
            assert outcomes[0] == outcomes[1], (method, path, options)
            assert outcomes[0][0] < 500, (method, path, options, outcomes[0])
            sent += 1
        assert owned.footprint(redis, prefix) == before, (method, path)
    assert owned.footprint(redis, prefix) == before
    assert sent > 100


@pytest.mark.endurance
def test_an_operator_with_a_namespace_sees_and_changes_what_a_key_of_it_does(
    build_gateway: Build, redis: Redis, prefix: str, valkey_url: str
) -> None:
    """Each request with `?namespace=shop` ends as the same one with a key of `shop`, for every route and body."""
    apps, owned = [], []
    for number, namespace in enumerate(("shop", "*")):
        twin = f"{prefix}-{number}"
        redis.set(f"{{{twin}}}:id_secret", SECRET)
        gateway = build_gateway(api_keys=replace(CONFIGURED, namespace=namespace).as_setting(), prefix=twin)
        apps.append(app_of(gateway))
        with (
            VoiceQueue(valkey_url, prefix=twin, namespace="shop") as shop,
            VoiceQueue(valkey_url, prefix=twin) as default,
        ):
            owned.append(populate(JobStore(redis, twin, namespace="shop"), shop))
            populate(JobStore(redis, twin), default)
    requests = [requests_of(apps[0].openapi(), one) for one in owned]
    sent = 0
    for of_shop, of_operator in zip(*requests, strict=True):
        if "namespace" in of_shop[2].get("params", {}):
            continue
        outcomes = []
        for app, (method, path, options) in zip(apps, (of_shop, of_operator), strict=True):
            gateway.stage.app = app
            limited = {**options.pop("params", {}), **({"namespace": "shop"} if app is apps[1] else {})}
            headers = {**HEADERS, **options.pop("headers", {})}
            outcomes.append(outcome(gateway(method, path, key=None, headers=headers, params=limited, **options)))
        assert outcomes[0] == outcomes[1], of_shop
        sent += 1
    assert sent > 100


def test_an_event_stream_has_the_events_of_its_namespace_only(
    build_gateway: Build, redis: Redis, prefix: str, valkey_url: str
) -> None:
    """A stream that resumes from the beginning starts with the first event of the key's own namespace."""
    gateway = build_gateway(api_keys=SETTING)
    with VoiceQueue(valkey_url, prefix=prefix, namespace="shop") as owning:
        populate(JobStore(redis, prefix, namespace="shop"), owning)
    with VoiceQueue(valkey_url, prefix=prefix, namespace="other") as own:
        own.enqueue(voice())
    headers = {**HEADERS, "Last-Event-ID": "1-0"}
    with gateway("GET", "/v1/events", key=None, headers=headers, stream=True) as answer:
        data = next(line for line in answer.iter_lines() if line.startswith(b'data: {"at"'))
    assert json.loads(data.removeprefix(b"data: "))["namespace"] == "other"


@pytest.mark.parametrize("path", ["/v1/pause", "/v1/resume"])
def test_the_whole_queue_needs_a_key_of_all_namespaces(build_gateway: Build, path: str) -> None:
    """A key of one namespace can pause neither the queue nor a stage, and reads no metrics of it."""
    gateway = build_gateway(api_keys=SETTING)
    problem(gateway("POST", path, key=None, headers=HEADERS), 403, "not_operator")
    for query in ("", "?namespace=other"):
        problem(gateway("GET", f"/metrics{query}", key=None, headers=HEADERS), 403, "not_operator")
    problem(gateway("GET", "/metrics?namespace=*", key=None, headers=HEADERS), 403, "forbidden")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/keys", None),
        ("POST", "/v1/keys", {"name": "mine", "scopes": ["read"]}),
        ("PATCH", "/v1/keys/shop", {"requests_per_s": 1}),
        ("POST", "/v1/keys/shop/rotate", {"overlap_s": 0}),
        ("POST", "/v1/keys/shop/revoke", None),
    ],
)
def test_api_keys_need_a_key_of_all_namespaces(
    build_gateway: Build, valkey_url: str, prefix: str, method: str, path: str, body: dict[str, Any] | None
) -> None:
    """A key of one namespace with the scope `admin` neither lists nor changes the keys of the queue."""
    with VoiceQueue(valkey_url, prefix=prefix, namespace="*") as operator:
        operator.create_api_key("shop", [Scope.READ], namespace="shop")
        before = operator.api_keys()
        gateway = build_gateway(api_keys=SETTING)
        problem(gateway(method, path, key=None, headers=HEADERS, json=body), 403, "not_operator")
        assert operator.api_keys() == before
