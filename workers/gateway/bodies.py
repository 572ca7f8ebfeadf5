"""Request bodies, of which no more is read than is allowed."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import BaseModel, ValidationError

from voicequeue import InvalidJob
from voicequeue.errors import half_texts
from voicequeue.texts import json_trouble, whole_number
from workers.gateway.connections import AWAITED_BODY
from workers.gateway.notices import log
from workers.gateway.problems import Refusal, invalid

#: More than any job takes (bytes).
BODY_MAX = 256 * 1024

#: A body must have come within so many seconds.
BODY_S = 20.0

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)


async def read(request: Request, at_most: int = BODY_MAX) -> bytes:
    """Return the raw body; the request takes no place until it is whole. Raises Refusal, ClientDisconnect."""
    declared = request.headers.get("Content-Length", "0")
    if declared.isdigit() and whole_number(declared, at_most=at_most) is None:
        raise Refusal(413, f"at most {at_most} bytes are taken")
    awaited = request.scope.get("extensions", {}).get(AWAITED_BODY, nullcontext)
    try:
        with awaited():
            async with asyncio.timeout(BODY_S):
                return await _whole_body(request, at_most)
    except TimeoutError:
        log.warning("a body did not come within %g s: its request was answered 408", BODY_S)
        raise Refusal(408, f"the body must come within {BODY_S:g} s") from None


async def _whole_body(request: Request, at_most: int) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > at_most:
            raise Refusal(413, f"at most {at_most} bytes are taken")
    return bytes(body)


def must_be(request: Request, *types: str) -> None:
    """The body says its type, it is one of these, and nothing is packed. Raises Refusal."""
    given = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if given not in types or request.headers.get("Content-Encoding", "identity") != "identity":
        allowed = " or ".join(types)
        raise Refusal(415, f"the body must be {allowed}, and say so in Content-Type; it must not be compressed")


async def read_json(request: Request) -> Any:
    """The JSON document that the body is, of whole characters. Raises Refusal, InvalidJob."""
    must_be(request, "application/json")
    body = await read(request)
    try:
        found = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"not readable as JSON: {json_trouble(error)}", code="unreadable") from None
    return _whole(found)


async def read_form(request: Request, at_most: int) -> dict[str, str]:
    """Return the fields of a page's form, of whole characters. Raises Refusal, InvalidJob."""
    must_be(request, "application/x-www-form-urlencoded")
    body = (await read(request, at_most)).decode(errors="surrogateescape")
    return _whole(dict(parse_qsl(body, keep_blank_values=True, errors="surrogateescape")))


def _whole(found: T) -> T:
    if broken := half_texts(found):
        raise InvalidJob(broken)
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def checked(model: type[Model], given: Any) -> Model:
    """`given` as the model has it. Raises InvalidJob."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise invalid(error) from None
