"""The description of the API: what is common to its routes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from voicequeue import InvalidJob, Problem, VoiceJob
from workers.gateway import shapes
from workers.gateway.problems import MEDIA_TYPE

_REF = "#/components/schemas/{model}"

#: Described here, for their bodies are read by hand: the key is checked before anything is read.
_MODELS: tuple[type[BaseModel], ...] = (VoiceJob, shapes.BatchSettings, shapes.Order, shapes.RetryOrder, shapes.Problem)

DESCRIPTION = """Put voice-creation jobs into the queue, ask what became of them, follow them, steer them.

Send an API key as `Authorization: Bearer KEY` (`voicequeue keys new` makes one). Errors are problem+json
(RFC 9457): `code` is for scripts, `errors` name each field that is wrong."""

_EXAMPLE = {
    "type": "about:blank",
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": "some fields are not allowed so",
    "code": "invalid",
    "errors": [{"field": "song.title", "message": "String should have at most 80 characters"}],
}


def described(model: type[BaseModel], description: str) -> dict[str, Any]:
    """An answer of that shape."""
    return {"model": model, "description": description}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route may answer with."""
    return {status: _problem(status) for status in statuses}


def _problem(status: int) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": _REF.format(model="Problem")}}
    if status == 422:
        content["example"] = _EXAMPLE
    return {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: content}}


def json_body(model: str, examples: Mapping[str, Any]) -> dict[str, Any]:
    """A request body of that shape, with examples."""
    content = {
        "schema": {"$ref": _REF.format(model=model)},
        "examples": {name: {"value": value} for name, value in examples.items()},
    }
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def known_query(request: Request) -> None:
    """Refuse what the route does not know: a typing error must not pass for nothing. Raises InvalidJob."""
    operation = request.app.openapi()["paths"][request.scope["route"].path_format][request.method.lower()]
    known = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
    free = tuple(operation.get("x-free-query", ()))
    unknown = [name for name in request.query_params if name not in known and not name.startswith(free)]
    if unknown:
        raise InvalidJob([Problem(name[:100], "is no parameter here") for name in unknown])


def install(app: FastAPI) -> None:
    """Describe this app so."""
    app.openapi = partial(_schema, app)  # type: ignore[method-assign]


def _schema(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
        _, models = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
        found["components"]["schemas"] |= models["$defs"]
        app.openapi_schema = found
    return app.openapi_schema
