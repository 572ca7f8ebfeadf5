"""Errors as `application/problem+json` (RFC 9457), and for browsers as pages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from html import escape
from http import HTTPStatus
from typing import Literal, NotRequired

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Scope

from voicequeue import (
    ApiKeyNotFoundError,
    BatchNotFoundError,
    BudgetExceededError,
    ErasedError,
    InvalidCursorError,
    InvalidJobError,
    InvalidStateError,
    JobNotFoundError,
    KeyConflictError,
    NotOperatorError,
    PlanNotFoundError,
    Problem,
    StoreFormatError,
    StoreUnavailableError,
    VoiceQueueError,
)
from voicequeue.domain.invalid_input import describe_problem, invalid_job
from voicequeue.domain.job import to_iso8601
from voicequeue.domain.schemas import Schema, Timestamp
from voicequeue.ingest.row import UnreadableFileError

log = logging.getLogger("voicequeue.gateway")

MEDIA_TYPE = "application/problem+json"

#: Seconds of `Retry-After` in responses with status 429 or 503.
RETRY_AFTER_S = 5

#: Logged as the status of a request whose client disconnected before the response.
STATUS_CLIENT_CLOSED = 499

INVALID = "Some fields are invalid."

#: Status and code of the queue's exceptions.
_RAISED: Mapping[type[VoiceQueueError], tuple[int, str]] = {
    InvalidJobError: (422, "invalid"),
    InvalidCursorError: (422, "invalid"),
    UnreadableFileError: (422, "unreadable"),
    KeyConflictError: (409, "key_conflict"),
    ErasedError: (410, "erased"),
    BudgetExceededError: (402, "budget_exceeded"),
    InvalidStateError: (409, "invalid_state"),
    JobNotFoundError: (404, "job_not_found"),
    BatchNotFoundError: (404, "batch_not_found"),
    ApiKeyNotFoundError: (404, "key_not_found"),
    PlanNotFoundError: (404, "plan_not_found"),
    NotOperatorError: (403, "not_operator"),
    StoreUnavailableError: (503, "store_unavailable"),
    StoreFormatError: (503, "store_unavailable"),
}

#: Codes of HTTP errors; for others, the phrase of the status.
_CODES = {413: "too_large", 415: "unsupported_media_type", 503: "unavailable"}


class FieldError(Schema):
    """An invalid field."""

    field: str
    """Dotted path of the field; empty for the whole document."""
    message: str
    """What is wrong, or what is allowed."""


class BudgetProblem(Schema):
    """The hard budget that does not allow the price of a job."""

    owner: str
    """Owner of the budget: `account`, `namespace/NAME` or `key/NAME`."""
    period: str
    """Period of the budget: `day` or `month` (UTC)."""
    price: int
    """Price of the job, in credits."""
    limit: int | None
    """The budget, in credits; null for that of the account."""
    remaining: int | None
    """Credits left for new jobs, after what was spent, is reserved, and is queued; null for the account."""
    resets_at: Timestamp
    """When the next period begins."""


class ProblemDetails(Schema):
    """An error (RFC 9457)."""

    type: Literal["about:blank"]
    """Always `about:blank`."""
    title: str
    """Phrase of the status."""
    status: int
    """HTTP status."""
    detail: str
    """What went wrong, for people."""
    code: str
    """What went wrong, for programs."""
    errors: NotRequired[list[FieldError]]
    """The invalid fields."""
    job_id: NotRequired[str]
    """With `key_conflict`: id of the job that has the key."""
    budget: NotRequired[BudgetProblem]
    """With `budget_exceeded`: the budget."""


class ProblemError(HTTPException):
    """An error response of the gateway itself."""

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


def from_validation_error(error: ValidationError) -> InvalidJobError:
    """Return pydantic's error as one of the queue."""
    return invalid_job(error)


def from_exception(error: VoiceQueueError | HTTPException) -> ProblemDetails:
    """Return the problem for an exception."""
    if isinstance(error, HTTPException):
        error_code = getattr(error, "code", None) or default_code(error.status_code)
        return problem(error.status_code, error.detail, error_code, getattr(error, "errors", ()))
    status, error_code = _RAISED.get(type(error), (500, "internal"))
    if isinstance(error, InvalidJobError):
        return problem(status, INVALID, error_code, error.problems)
    if isinstance(error, InvalidCursorError):
        return problem(status, INVALID, error_code, [Problem("cursor", str(error))])
    if isinstance(error, KeyConflictError):
        message = str(error).removeprefix("key: ")
        return {**problem(status, message, error_code, [Problem("key", message)]), "job_id": error.job_id}
    if isinstance(error, BudgetExceededError):
        return {**problem(status, str(error), error_code), "budget": _budget_problem(error)}
    return problem(status, str(error), error_code)


def _budget_problem(error: BudgetExceededError) -> BudgetProblem:
    return {
        "owner": error.owner,
        "period": error.period,
        "price": error.price,
        "limit": error.limit,
        "remaining": error.remaining,
        "resets_at": to_iso8601(error.resets_at),
    }


def problem(status: int, detail: str, code: str, errors: Iterable[Problem] = ()) -> ProblemDetails:
    """Return a problem."""
    details: ProblemDetails = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    field_errors: list[FieldError] = [{"field": error.field, "message": error.message} for error in errors]
    if field_errors:
        details["errors"] = field_errors
    return details


def default_code(status: int) -> str:
    """Return the code of an HTTP error."""
    return _CODES.get(status) or HTTPStatus(status).phrase.lower().replace(" ", "_")


def response(details: ProblemDetails, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a response with a problem."""
    headers = {**(headers or {}), **retry_after(details["status"], headers)}
    return JSONResponse(details, details["status"], headers, media_type=MEDIA_TYPE)


def retry_after(status: int, headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the header `Retry-After` of an error: its own, or the default if it may pass by itself."""
    own = (headers or {}).get("Retry-After")
    value = own or (str(RETRY_AFTER_S) if status in (429, 503) else None)
    return {} if value is None else {"Retry-After": value}


def plain_page(details: ProblemDetails, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    """Return a page with a problem that needs nothing but this process."""
    title, detail = escape(details["title"]), escape(details["detail"])
    html = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title} · voicequeue</title></head>\n'
        f"<body><h1>{title}</h1><p>{detail}</p></body></html>\n"
    )
    return HTMLResponse(html, details["status"], {**(headers or {}), **retry_after(details["status"], headers)})


def prefers_html(scope: Scope) -> bool:
    """Return whether a browser asks for a page. Programs of the API and webhooks always get JSON."""
    accepted = Headers(scope=scope).get("accept", "")
    html, json = accepted.find("text/html"), accepted.find("json")
    return html >= 0 and (json < 0 or html < json) and not scope["path"].startswith(("/v1/", "/hooks/", "/static/"))


#: Returns the page of a problem, with these headers; it may read from Redis.
ErrorPage = Callable[[Request, ProblemDetails, Mapping[str, str] | None], Response]


async def answer(request: Request, details: ProblemDetails, headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem as the client asks for it: as a page of the app, or as JSON."""
    page: ErrorPage | None = getattr(request.app.state, "error_page", None)
    if page is None or not prefers_html(request.scope):
        return response(details, headers)
    return await run_in_threadpool(page, request, details, headers)


def install(app: FastAPI) -> None:
    """Answer every error of the app with a problem. Its state may have an `error_page`, for browsers."""
    app.add_exception_handler(VoiceQueueError, _on_queue_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_bug)


async def _on_queue_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, VoiceQueueError)  # noqa: S101  the type that it is registered for
    return await answer(request, from_exception(error))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    # The first part of `loc` is query, path or header. Values are left out: they may be secrets.
    errors = [Problem(".".join(map(str, item["loc"][1:])), describe_problem(item)) for item in error.errors()]
    return await answer(request, problem(422, INVALID, "invalid", errors))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    details = from_exception(error)
    if error.detail == "Not Found":
        details["detail"] = "No such path; see /docs."
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_allowed_methods(request)))
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
    return await answer(request, details, headers)


def _allowed_methods(request: Request) -> set[str]:
    """Return the methods of a path: each route knows only its own."""
    path = request.url.path
    methods = {
        method
        for route in iter_route_contexts(request.app.routes)
        if route.path is not None and compile_path(route.path)[0].match(path)
        for method in route.methods or ("GET",)  # a mounted folder of files
    }
    return methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())


async def _on_disconnect(*_: object) -> Response:
    return Response(status_code=STATUS_CLIENT_CLOSED)  # never read


async def _on_bug(request: Request, error: Exception) -> Response:
    log.error("request failed: %s", type(error).__name__)
    details = problem(500, "Internal error; see the gateway's log.", "internal")
    try:
        return await answer(request, details)
    except Exception:  # the defect may be one of all pages
        return response(details)
