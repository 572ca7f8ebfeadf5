"""The delivery of responses and files: complete, a byte at a time, truncated, or not."""

import asyncio
import socket
import struct
from typing import Never

from aiohttp import web

from simulator.contract.answers import ApiResponse
from simulator.server.media import File

#: SO_LINGER with a timeout of 0: closing the socket sends a TCP reset.
_NO_LINGER = struct.pack("ii", 1, 0)


async def deliver(request: web.Request, answer: ApiResponse, how: str, drip_s: float) -> web.StreamResponse:
    """Send a response. Returns once it is written, and never if the client does not receive all of it.

    `how` is the kind of a fault; all but reset, hang, cut and drip send the whole response. When the client
    disconnects, the server cancels this coroutine.
    """
    match how:
        case "reset":
            return await _reset(request)
        case "hang":
            return await _client_gone()
        case "cut":
            return await _cut(request, answer)
        case "drip":
            return await _drip(request, answer, drip_s)
    response = web.Response(
        status=answer.status, body=answer.payload(), headers=answer.headers, content_type=answer.content_type
    )
    await response.prepare(request)
    await response.write_eof()
    return response


async def deliver_file(
    request: web.Request, file: File, how: str, *, seconds: float = 0.0, ranges: bool = True
) -> web.StreamResponse:
    """Send a file, or the requested range if `ranges` is true and the file is unchanged. Returns as `deliver` does."""
    match how:
        case "reset":
            return await _reset(request)
        case "hang":
            return await _client_gone()
        case "error" | "lost":
            return web.Response(status=502 if how == "error" else 404)
        case "page":
            return web.Response(text="<html><body>We will be back soon</body></html>", content_type="text/html")
    begin = _begin(request, file) if ranges else 0
    if begin > len(file.body):
        return web.Response(status=416, headers={"Content-Range": f"bytes */{len(file.body)}"})
    response = web.StreamResponse(status=206 if begin else 200, headers={"ETag": file.etag})
    if begin:
        response.headers["Content-Range"] = f"bytes {begin}-{len(file.body) - 1}/{len(file.body)}"
    body = file.body[begin:]
    response.content_type = file.content_type
    response.content_length = len(body) + (1_000 if how == "overlong" else 0)
    await response.prepare(request)
    await _write_slowly(response, body[: len(body) // 2] if how == "cut" else body, seconds)
    if how in ("cut", "overlong"):
        _transport(request).close()
        await _client_gone()
    await response.write_eof()
    return response


def _begin(request: web.Request, file: File) -> int:
    """Return the first byte of the requested range, 0 for the whole file."""
    if request.headers.get("If-Range", file.etag) != file.etag:
        return 0
    try:
        return max(0, request.http_range.start or 0)
    except ValueError:
        return 0


async def _write_slowly(response: web.StreamResponse, body: bytes, seconds: float) -> None:
    pieces = 20 if seconds else 1
    size = -(-len(body) // pieces) or 1
    for start in range(0, len(body), size):
        await asyncio.sleep(seconds / pieces)
        await response.write(body[start : start + size])


async def _drip(request: web.Request, answer: ApiResponse, pause_s: float) -> web.StreamResponse:
    response = await _opened(request, answer)
    for byte in answer.payload():
        await asyncio.sleep(pause_s)
        await response.write(bytes((byte,)))
    await response.write_eof()
    return response


async def _cut(request: web.Request, answer: ApiResponse) -> Never:
    response = await _opened(request, answer)
    payload = answer.payload()
    await response.write(payload[: len(payload) // 2])
    _transport(request).close()
    await _client_gone()


async def _reset(request: web.Request) -> Never:
    transport = _transport(request)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
    await _client_gone()


async def _client_gone() -> Never:
    await asyncio.Event().wait()
    raise AssertionError("this event is never set")


async def _opened(request: web.Request, answer: ApiResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_type = answer.content_type
    response.content_length = len(answer.payload())
    await response.prepare(request)
    return response


def _transport(request: web.Request) -> asyncio.Transport:
    if not isinstance(request.transport, asyncio.Transport):
        raise ConnectionResetError("The client is gone.")
    return request.transport
