"""Request bodies: limited in size and time, and parsed."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import BaseModel, ValidationError

from voicequeue import InvalidJobError
from voicequeue.errors import unencodable_fields
from voicequeue.texts import describe_json_error, parse_int
from workers.gateway.problems import ProblemError, from_validation_error
from workers.gateway.security.admission import confirm_admission
from workers.gateway.server.connections import AWAITED_BODY
from workers.gateway.server.limit_log import log

#: The largest body (bytes); more than any job has.
MAX_BODY_BYTES = 256 * 1024

#: Seconds in which a body must arrive.
BODY_TIMEOUT_S = 20.0

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)


async def read(request: Request, at_most: int = MAX_BODY_BYTES) -> bytes:
    """Return the raw body. The request counts as active only once it is complete, and if its key is still valid then.

    Raises ProblemError, StoreUnavailableError, ClientDisconnect.
    """
    declared = request.headers.get("Content-Length", "0")
    if declared.isdigit() and parse_int(declared, at_most=at_most) is None:
        raise _too_large(at_most)
    awaited = request.scope.get("extensions", {}).get(AWAITED_BODY, nullcontext)
    try:
        with awaited():
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await _read_all(request, at_most)
    except TimeoutError:
        log.warning("a body did not arrive within %g s: answered 408", BODY_TIMEOUT_S)
        raise ProblemError(408, f"The body must arrive within {BODY_TIMEOUT_S:g} s.") from None
    await confirm_admission(request)
    return body


async def _read_all(request: Request, at_most: int) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > at_most:
            raise _too_large(at_most)
    return bytes(body)


def _too_large(at_most: int) -> ProblemError:
    return ProblemError(413, f"The body may have at most {at_most} bytes.")


def require_content_type(request: Request, *types: str) -> None:
    """Raise ProblemError unless the body has one of these content types and is not compressed."""
    content_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type not in types or request.headers.get("Content-Encoding", "identity") != "identity":
        raise ProblemError(415, f"The Content-Type must be {' or '.join(types)}, without compression.")


async def read_json(request: Request) -> Any:
    """Return the JSON document of the body.

    Raises ProblemError, and InvalidJobError for texts that are not valid
    Unicode.
    """
    require_content_type(request, "application/json")
    body = await read(request)
    try:
        document = json.loads(body, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise ProblemError(
            400, f"The body is not valid JSON: {describe_json_error(error)}.", code="unreadable"
        ) from None
    return _valid_unicode(document)


async def read_optional_json(request: Request) -> Any:
    """Return the JSON document of the body like `read_json`, an empty object for a request without a body."""
    headers = request.headers
    has_body = headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers
    return await read_json(request) if has_body else {}


async def read_form(request: Request, at_most: int) -> dict[str, str]:
    """Return the fields of a form. Raises ProblemError, and InvalidJobError for texts that are not valid Unicode."""
    require_content_type(request, "application/x-www-form-urlencoded")
    body = (await read(request, at_most)).decode(errors="surrogateescape")
    return _valid_unicode(dict(parse_qsl(body, keep_blank_values=True, errors="surrogateescape")))


def _valid_unicode(document: T) -> T:
    if broken := unencodable_fields(document):
        raise InvalidJobError(broken)
    return document


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def validate(model: type[Model], document: Any) -> Model:
    """Return the document as this model. Raises InvalidJobError."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise from_validation_error(error) from None
