"""Every error as problem+json (RFC 9457), which names each field that is wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import compile_path

from voicequeue import (
    BadCursor,
    InvalidJob,
    KeyConflict,
    NotAllowed,
    Problem,
    StoreUnreachable,
    UnknownBatch,
    UnknownJob,
    UnknownPlan,
    VoiceQueueError,
)
from voicequeue.ingest.row_reader import UnreadableFile

log = logging.getLogger("voicequeue.gateway")

MEDIA_TYPE = "application/problem+json"

#: After how many seconds to try again where Redis is away, or too much is asked for at once.
AGAIN_S = 5

#: Status, for the log alone, of a request whose client closed the connection before an answer.
GONE = 499

#: Status and code of what the queue raises.
_RAISED: Mapping[type[VoiceQueueError], tuple[int, str]] = {
    InvalidJob: (422, "invalid"),
    BadCursor: (422, "invalid"),
    UnreadableFile: (422, "unreadable"),
    KeyConflict: (409, "key_conflict"),
    NotAllowed: (409, "not_allowed"),
    UnknownJob: (404, "unknown_job"),
    UnknownBatch: (404, "unknown_batch"),
    UnknownPlan: (404, "unknown_plan"),
    StoreUnreachable: (503, "store_unreachable"),
}

#: Codes of errors that HTTP itself knows; others have the words of the status.
_CODES = {413: "too_large", 415: "unsupported_media_type", 503: "unavailable"}


class Refusal(HTTPException):
    """An answer that is no success; `errors` name fields, `code` is for scripts."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        errors: Iterable[Problem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.code, self.errors = code, tuple(errors)


def invalid(error: ValidationError) -> InvalidJob:
    """What is wrong with a request's fields, in the words of the queue."""
    return InvalidJob.from_validation(error)


def told(error: VoiceQueueError) -> dict[str, Any]:
    """What the queue raised, as a problem."""
    status, code = _RAISED.get(type(error), (500, "internal"))
    if isinstance(error, InvalidJob):
        return content(status, "some fields are not allowed so", code, error.problems)
    if isinstance(error, BadCursor):
        return content(status, "some fields are not allowed so", code, [Problem("cursor", str(error))])
    if isinstance(error, KeyConflict):
        message = str(error).removeprefix("key: ")
        return content(status, message, code, [Problem("key", message)]) | {"job_id": error.job_id}
    return content(status, str(error), code)


def content(status: int, detail: str, code: str, errors: Iterable[Problem] = ()) -> dict[str, Any]:
    """The members of a problem."""
    found: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if named := [{"field": each.field, "message": each.message} for each in errors]:
        found["errors"] = named
    return found


def code(status: int) -> str:
    """The code of an error that HTTP itself knows."""
    return _CODES.get(status) or HTTPStatus(status).phrase.lower().replace(" ", "_")


def refused(error: HTTPException) -> dict[str, Any]:
    """What the gateway itself refuses, as a problem."""
    named = getattr(error, "code", None) or code(error.status_code)
    return content(error.status_code, error.detail, named, getattr(error, "errors", ()))


def answer(members: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A problem as a response."""
    again = {"Retry-After": str(AGAIN_S)} if members["status"] in (429, 503) else {}
    return JSONResponse(members, members["status"], {**again, **(headers or {})}, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Have every error of this app answered so."""
    app.add_exception_handler(VoiceQueueError, _raised)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unforeseen)


async def _raised(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, VoiceQueueError)  # noqa: S101  what it is installed for
    return answer(told(error))


async def _not_valid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    # The first part says where it stood: query, path, header. Values stay out: they may be secrets.
    errors = [Problem(".".join(map(str, each["loc"][1:])), each["msg"]) for each in error.errors()]
    return answer(content(422, "some fields are not allowed so", "invalid", errors))


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    detail = "there is no such path; /docs lists them" if error.detail == "Not Found" else error.detail
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods(request))) or headers.get("Allow", "")
    return answer({**refused(error), "detail": detail}, headers)


def _methods(request: Request) -> set[str]:
    """What a path takes, by the description of the API; its routes each know their own alone."""
    paths = request.app.openapi()["paths"]
    taken = (methods for path, methods in paths.items() if compile_path(path)[0].match(request.url.path))
    return {method.upper() for methods in taken for method in methods}


async def _gone(*_: object) -> Response:
    return Response(status_code=GONE)  # which no client reads


async def _unforeseen(_: Request, error: Exception) -> JSONResponse:
    log.error("an answer failed: %s", type(error).__name__)
    return answer(content(500, "this is a bug; the gateway's log tells more", "internal"))
