"""The OpenAPI schema, and what routes need to describe themselves in it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Any, Literal
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from voicequeue import ErasedError, InvalidJobError, Problem, VoiceJob
from voicequeue.domain import operator_schemas, song, spec
from voicequeue.domain import schemas as domain_schemas
from voicequeue.domain.schemas import Event
from voicequeue.errors import unencodable_fields
from workers.gateway import problems as problem_schemas
from workers.gateway.api import key_schemas, list_schemas, row_schemas, schemas
from workers.gateway.problems import INVALID, MEDIA_TYPE, ProblemDetails, problem
from workers.gateway.request_schemas import complete_parameter, complete_request, remove_titles

_REF = "#/components/schemas/{model}"
_MODE: Literal["validation"] = "validation"

#: Request bodies, which FastAPI does not see, because they are read only after the key was checked.
_REQUESTS: tuple[type[Any], ...] = (
    VoiceJob,
    schemas.BatchUpdate,
    schemas.BudgetLimits,
    schemas.BulkRequest,
    schemas.BulkRetryRequest,
    schemas.EraseRequest,
    schemas.LimitsUpdate,
    schemas.RedeliveryRequest,
    schemas.RetryRequest,
    schemas.ReviewRequest,
    key_schemas.NewApiKey,
    key_schemas.ApiKeyUpdate,
    key_schemas.ApiKeyRotation,
)

#: Responses that FastAPI does not see: problems, and what streams consist of.
_STREAMED: tuple[type[Any], ...] = (ProblemDetails, Event, row_schemas.RowOutcome, row_schemas.UploadEnd)

#: Names in the schema that differ from those of classes.
_RENAMED = {"VoiceJob": "NewJob"}

DESCRIPTION = """Enqueue voice-creation jobs, follow them, and operate the queue.

Send an API key as `Authorization: Bearer KEY`; `voicequeue keys new` creates one. Errors are `application/problem+json`
(RFC 9457): `code` is for programs, `errors` lists the invalid fields. Lists are `{data, next_cursor, has_more}`: send
`next_cursor` as `cursor` to get the next page. Every path that has GET answers HEAD, too."""

TAGS = [
    {"name": "Jobs", "description": "Enqueue, list, cancel and retry jobs."},
    {"name": "Batches", "description": "Named sets of jobs: enqueue many at once, follow them, limit them."},
    {"name": "Reviews", "description": "Orders that may have been charged: the evidence, and the decision."},
    {"name": "Callbacks", "description": "Callbacks that were not delivered, and the secret that signs them."},
    {"name": "Personas", "description": "Voices that were created and can be shared."},
    {"name": "Queue", "description": "Status, limits, pause and resume, rejected messages, the audit log."},
    {"name": "Spending", "description": "Budgets, and reports of the credits that were charged."},
    {"name": "Keys", "description": "API keys: create, change, rotate and revoke."},
    {"name": "Events", "description": "State transitions as server-sent events."},
    {"name": "Monitoring", "description": "Health checks and Prometheus metrics."},
]

#: Detail, code and field errors of an example for each status.
_EXAMPLES: Mapping[int, tuple[str, str, tuple[Problem, ...]]] = {
    400: ("The body is not valid JSON: Expecting value: line 1 column 1 (char 0).", "unreadable", ()),
    401: ("A valid API key is required.", "unauthorized", ()),
    402: ("the budget of namespace shop for this day does not allow 19 more credits", "budget_exceeded", ()),
    403: ("The API key needs the scope enqueue.", "forbidden", ()),
    404: ("no job 'k5v2yj3q7m6xw4ra'", "job_not_found", ()),
    408: ("The body must arrive within 20 s.", "request_timeout", ()),
    409: ("only a failed job can be retried; job k5v2yj3q7m6xw4ra is succeeded", "invalid_state", ()),
    410: (str(ErasedError()), "erased", ()),
    413: ("The body may have at most 262144 bytes.", "too_large", ()),
    415: ("The Content-Type must be application/json, without compression.", "unsupported_media_type", ()),
    422: (INVALID, "invalid", (Problem("song.title", "has 81 characters; at most 80 are allowed"),)),
    429: ("This key may send 5 requests a second.", "too_many_requests", ()),
    503: ("Redis does not answer: ConnectionError, tried for 1 s", "store_unavailable", ()),
}


def response_of(model: Any, description: str) -> dict[str, Any]:
    """Return the entry of `responses` for a response of that shape."""
    return {"model": model, "description": description}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the entries of `responses` for these errors."""
    return {status: _reference(status) for status in statuses}


def _reference(status: int) -> dict[str, Any]:
    return {"$ref": f"#/components/responses/{_response_name(status)}"}


def _response_name(status: int) -> str:
    return f"Error{status}"


def _problem(status: int) -> dict[str, Any]:
    detail, code, errors = _EXAMPLES[status]
    body = {"schema": {"$ref": _REF.format(model="ProblemDetails")}, "example": problem(status, detail, code, errors)}
    return {"description": f"An error, such as `{code}`.", "content": {MEDIA_TYPE: body}}


def json_body(model: str, examples: Mapping[str, Any], *, is_required: bool = True) -> dict[str, Any]:
    """Return the `openapi_extra` of a request body of that shape."""
    body = {
        "schema": {"$ref": _REF.format(model=model)},
        "examples": {name: {"value": value} for name, value in examples.items()},
    }
    return {"requestBody": {"required": is_required, "content": {"application/json": body}}}


def reject_unknown_query(request: Request) -> None:
    """Raise InvalidJobError for query parameters that the route does not have, and for values that are not valid UTF-8.

    A misspelled filter must not be ignored: it would select every job.
    """
    operation = request.app.openapi()["paths"][request.scope["route"].path_format][request.method.lower()]
    known_names = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"}
    prefixes = tuple(operation.get("x-free-query", ()))
    unknown = [name for name in request.query_params if name not in known_names and not name.startswith(prefixes)]
    if unknown:
        raise InvalidJobError([Problem(name[:100], "is not a parameter of this endpoint") for name in unknown])
    query = request.scope["query_string"].decode("latin-1")
    if broken := unencodable_fields(dict(parse_qsl(query, keep_blank_values=True, errors="surrogateescape"))):
        raise InvalidJobError(broken)


def servers(public_url: str | None) -> list[dict[str, Any]]:
    """Return the servers of the API: the one that serves the schema, and its public URL, if any."""
    public = [{"url": public_url.rstrip("/"), "description": "Public URL."}] if public_url else []
    return [{"url": "/", "description": "The gateway that serves this document."}, *public]


def operation_id(route: APIRoute) -> str:
    """Return the id of a route's operation: the name of its function."""
    return route.name


def install(app: FastAPI) -> None:
    """Set the OpenAPI schema of the app."""
    app.openapi = partial(_schema, app)  # type: ignore[method-assign]


def _schema(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=DESCRIPTION,
            routes=app.routes,
            tags=TAGS,
            servers=app.servers,
        )
        _complete(schema["components"]["schemas"])
        schema["components"]["responses"] = {_response_name(status): _problem(status) for status in _EXAMPLES}
        for operation in (operation for methods in schema["paths"].values() for operation in methods.values()):
            # The summary is the first sentence of the description.
            if "security" in operation:  # the key may have a limit of requests a second
                operation["responses"] = dict(sorted({"429": _reference(429), **operation["responses"]}.items()))
            for response in operation["responses"].values():
                if "$ref" in response:  # FastAPI adds one
                    response.pop("description", None)
            for parameter in operation.get("parameters", ()):
                complete_parameter(parameter)
            operation["summary"] = operation["description"].partition("\n")[0].partition(". ")[0].rstrip(".")
        app.openapi_schema = schema
    return app.openapi_schema


def _complete(components: dict[str, Any]) -> None:
    """Add hidden schemas, descriptions of fields, and examples."""
    requests, streamed = _schemas(_REQUESTS), _schemas(_STREAMED)
    components |= streamed | requests
    for name, descriptions in _DESCRIPTIONS.items():
        for field, text in descriptions.items() if name in components else ():
            components[name]["properties"][field]["description"] = text
    for name in requests:
        complete_request(components[name])
    for name, example in schemas.EXAMPLES.items():
        components[name]["examples"] = [example]
    for schema in components.values():
        remove_titles(schema)
    for name, published in _RENAMED.items():
        components[published] = {**components.pop(name), "title": published}


def _schemas(models: tuple[type[Any], ...]) -> dict[str, Any]:
    adapters = [(model.__name__, _MODE, TypeAdapter(model)) for model in models]
    definitions: dict[str, Any] = TypeAdapter.json_schemas(adapters, ref_template=_REF)[1]["$defs"]
    return definitions


def _attribute_docstrings(*modules: ModuleType) -> dict[str, dict[str, str]]:
    """Return the attribute docstrings of the modules' classes, inherited ones included.

    Pydantic's `use_attribute_docstrings` omits inherited fields, and parses the source again for each class and app.
    """
    classes: dict[str, dict[str, str]] = {}
    for module in modules:
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef):
                bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
                inherited = {field: text for base in bases for field, text in classes.get(base, {}).items()}
                classes[node.name] = inherited | dict(_documented_fields(node))
    return classes


def _documented_fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, docstring in pairwise(node.body):
        match field, docstring:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text).replace("\n", " ")


_DESCRIPTIONS = _attribute_docstrings(
    domain_schemas, operator_schemas, schemas, list_schemas, problem_schemas, row_schemas, key_schemas, song, spec
)
