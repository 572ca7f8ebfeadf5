"""The description of the API: what is common to its routes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from types import UnionType
from typing import Any
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from voicequeue import InvalidJob, Problem, VoiceJob
from voicequeue.errors import half_texts
from workers.gateway import schemas
from workers.gateway.problems import MEDIA_TYPE, content

_REF = "#/components/schemas/{model}"

#: Described here: bodies that are read by hand, for the key is checked before anything is read; and what has nulls in
#: its examples, which FastAPI leaves out.
_MODELS: tuple[type[BaseModel], ...] = (
    VoiceJob,
    schemas.BatchSettings,
    schemas.Order,
    schemas.RetryOrder,
    schemas.Problem,
    schemas.Job,
    schemas.Placed,
)

DESCRIPTION = """Put voice-creation jobs into the queue, ask what became of them, follow them, steer them.

Send an API key as `Authorization: Bearer KEY` (`voicequeue keys new` makes one). Errors are problem+json
(RFC 9457): `code` is for scripts, `errors` name each field that is wrong."""

#: Detail and code of a typical problem, and the fields that it names.
_EXAMPLES: Mapping[int, tuple[str, str, tuple[Problem, ...]]] = {
    400: ("not readable as JSON: Expecting value: line 1 column 1 (char 0)", "unreadable", ()),
    401: ("a valid API key is needed", "unauthorized", ()),
    403: ("this needs a key with the scope enqueue", "forbidden", ()),
    404: ("no job 'k5v2yj3q7m6xw4ra'", "unknown_job", ()),
    408: ("the body must come within 20 s", "request_timeout", ()),
    409: ("only a failed job can be retried; job k5v2yj3q7m6xw4ra is succeeded", "not_allowed", ()),
    413: ("at most 262144 bytes are taken", "too_large", ()),
    415: ("the body must be application/json, and say so in Content-Type", "unsupported_media_type", ()),
    422: (
        "some fields are not allowed so",
        "invalid",
        (Problem("song.title", "String should have at most 80 characters"),),
    ),
    429: ("this key holds 4 of the 8 places for uploads; wait until one of them ends", "too_many_requests", ()),
    503: ("Redis does not answer: ConnectionError, tried for 1 s", "store_unreachable", ()),
}


def described(model: type[BaseModel] | UnionType, description: str) -> dict[str, Any]:
    """An answer of that shape."""
    return {"model": model, "description": description}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route may answer with."""
    return {status: _problem(status) for status in statuses}


def _problem(status: int) -> dict[str, Any]:
    detail, code, errors = _EXAMPLES[status]
    told = {"schema": {"$ref": _REF.format(model="Problem")}, "example": content(status, detail, code, errors)}
    return {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: told}}


def json_body(model: str, examples: Mapping[str, Any]) -> dict[str, Any]:
    """A request body of that shape, with examples."""
    given = {
        "schema": {"$ref": _REF.format(model=model)},
        "examples": {name: {"value": value} for name, value in examples.items()},
    }
    return {"requestBody": {"required": True, "content": {"application/json": given}}}


def known_query(request: Request) -> None:
    """Refuse what the route does not know: a typing error must not pass for nothing; and what is no text of whole
    characters, which a query writes as bytes. Raises InvalidJob."""
    operation = request.app.openapi()["paths"][request.scope["route"].path_format][request.method.lower()]
    known = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
    free = tuple(operation.get("x-free-query", ()))
    unknown = [name for name in request.query_params if name not in known and not name.startswith(free)]
    if unknown:
        raise InvalidJob([Problem(name[:100], "is no parameter here") for name in unknown])
    query = request.scope["query_string"].decode("latin-1")
    if broken := half_texts(dict(parse_qsl(query, keep_blank_values=True, errors="surrogateescape"))):
        raise InvalidJob(broken)


def install(app: FastAPI) -> None:
    """Describe this app so."""
    app.openapi = partial(_schema, app)  # type: ignore[method-assign]


def _schema(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
        _, models = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
        found["components"]["schemas"] |= models["$defs"]
        for operation in (each for methods in found["paths"].values() for each in methods.values()):
            operation["summary"] = operation["description"].partition("\n")[0].partition(". ")[0].rstrip(".")
        app.openapi_schema = found
    return app.openapi_schema
