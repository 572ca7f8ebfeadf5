"""The OpenAPI schema as a contract: the names that generated clients have, and what generators make of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from config.settings import Settings
from workers.gateway.app import create_app


@cache
def openapi() -> dict[str, Any]:
    """Return the schema, built once and not while tests are collected."""
    return create_app(Settings(_env_file=None)).openapi()


def components() -> dict[str, Any]:
    """Return the schemas of its objects by name."""
    return openapi()["components"]["schemas"]  # type: ignore[no-any-return]


#: Renaming one breaks generated clients.
OPERATIONS = {
    "create_job": "POST /v1/jobs",
    "list_jobs": "GET /v1/jobs",
    "get_job": "GET /v1/jobs/{job_id}",
    "cancel_job": "POST /v1/jobs/{job_id}/cancel",
    "retry_job": "POST /v1/jobs/{job_id}/retry",
    "cancel_jobs": "POST /v1/cancel",
    "retry_jobs": "POST /v1/retry",
    "list_reviews": "GET /v1/reviews",
    "get_review": "GET /v1/jobs/{job_id}/review",
    "decide_review": "POST /v1/jobs/{job_id}/review",
    "create_jobs": "POST /v1/batches/{name}/jobs",
    "list_batches": "GET /v1/batches",
    "get_batch": "GET /v1/batches/{name}",
    "update_batch": "PATCH /v1/batches/{name}",
    "list_callbacks": "GET /v1/callbacks",
    "get_callback": "GET /v1/callbacks/{callback_id}",
    "redeliver_callback": "POST /v1/callbacks/{callback_id}/redeliver",
    "redeliver_callbacks": "POST /v1/redeliver",
    "create_callback_secret": "POST /v1/callback-secret",
    "list_personas": "GET /v1/personas",
    "forget_persona": "DELETE /v1/personas/{persona_id}",
    "get_status": "GET /v1/status",
    "get_limits": "GET /v1/limits",
    "update_limits": "PATCH /v1/limits",
    "pause_queue": "POST /v1/pause",
    "resume_queue": "POST /v1/resume",
    "list_rejected_messages": "GET /v1/rejected-messages",
    "list_audit_entries": "GET /v1/audit-log",
    "list_budgets": "GET /v1/budgets",
    "set_budget": "PUT /v1/budgets/{owner}",
    "get_spending": "GET /v1/spend",
    "list_api_keys": "GET /v1/keys",
    "create_api_key": "POST /v1/keys",
    "update_api_key": "PATCH /v1/keys/{name}",
    "rotate_api_key": "POST /v1/keys/{name}/rotate",
    "revoke_api_key": "POST /v1/keys/{name}/revoke",
    "erase_person": "POST /v1/erase",
    "stream_events": "GET /v1/events",
    "get_health": "GET /healthz",
    "get_readiness": "GET /readyz",
    "get_metrics": "GET /metrics",
}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each method with its path and its description."""
    for path, methods in openapi()["paths"].items():
        yield from ((method.upper(), path, operation) for method, operation in methods.items())


def requests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the schemas of request bodies, with those that they contain, by name."""
    pending = [
        body["schema"]["$ref"].rpartition("/")[2]
        for _, _, operation in operations()
        for body in operation.get("requestBody", {}).get("content", {}).values()
        if "$ref" in body["schema"]
    ]
    names: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in names:
            names.add(name)
            pending += re.findall(r"#/components/schemas/(\w+)", str(components()[name]))
    assert {"NewJob", "Song", "BatchUpdate", "ReviewRequest", "NewApiKey"} <= names
    yield from ((name, components()[name]) for name in sorted(names))


def test_the_names_of_operations_are_stable() -> None:
    """Each is a verb and a noun, as generated clients name their functions."""
    assert {operation["operationId"]: f"{method} {path}" for method, path, operation in operations()} == OPERATIONS


def test_every_list_is_a_page_with_the_same_fields() -> None:
    """`data`, `next_cursor` and `has_more`, all of them required."""
    lists = {
        name: components()[name]
        for method, _, operation in operations()
        if operation["operationId"].startswith("list_")
        for name in [operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]]
    }

    assert len(lists) > 8
    for name, schema in lists.items():
        assert name.endswith("List")
        assert set(schema["properties"]) == set(schema["required"]) == {"data", "next_cursor", "has_more"}


def test_every_paginated_list_takes_the_same_parameters() -> None:
    """`limit` and `cursor`, with defaults."""
    paginated = 0
    for _, _, operation in operations():
        names = {parameter["name"] for parameter in operation.get("parameters", ())}
        assert ("cursor" in names) is ("limit" in names)
        paginated += "cursor" in names
    assert paginated == 7


def test_what_a_request_may_leave_out_has_no_default() -> None:
    """Generators take a default as a promise that the field is there, and make it required."""
    for name, schema in requests():
        for field, part in schema.get("properties", {}).items():
            assert "default" not in part, (name, field)
            assert not {"ge", "gt", "le", "lt"} & set(part), (name, field)


def test_a_query_has_no_null() -> None:
    """A parameter is left out, or has a value."""
    for _, path, operation in operations():
        for parameter in operation.get("parameters", ()):
            assert {"type": "null"} not in parameter["schema"].get("anyOf", ()), (path, parameter["name"])


def test_the_fields_of_a_response_are_always_there() -> None:
    """Fields that only some responses have are an exception that each schema lists."""
    sometimes = {
        (name, field)
        for name, schema in components().items()
        if name not in dict(requests())
        for field in set(schema.get("properties", ())) - set(schema.get("required", ()))
    }

    assert {name for name, _ in sometimes} == {"ProblemDetails", "RowOutcome", "UploadSummary"}


def test_the_schema_names_its_servers() -> None:
    """The one that serves it, and the public URL."""
    public = create_app(Settings(_env_file=None, public_url="https://voices.example/", api_keys=""))

    assert openapi()["servers"][0]["url"] == "/"
    assert [server["url"] for server in public.openapi()["servers"]] == ["/", "https://voices.example"]
