"""How an answer reaches the client: whole, a byte at a time, cut off, or not at all."""

import asyncio
import socket
import struct
from typing import Never

from aiohttp import web

from simulator.answers import Answer

#: Linger on, for no time: closing the socket then sends a TCP reset in place of a proper end.
_NO_LINGER = struct.pack("ii", 1, 0)


async def deliver(request: web.Request, answer: Answer, how: str, drip_s: float) -> web.StreamResponse:
    """Send an answer. Returns once all of it is written; never returns when the client does not get all of it.

    `how` is the kind of a fault; all but reset, hang, cut and drip are answered whole.
    When the client goes away the server cancels this, wherever it waits.
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


async def _drip(request: web.Request, answer: Answer, pause_s: float) -> web.StreamResponse:
    response = await _opened(request, answer)
    for byte in answer.payload():
        await asyncio.sleep(pause_s)
        await response.write(bytes((byte,)))
    await response.write_eof()
    return response


async def _cut(request: web.Request, answer: Answer) -> Never:
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
    raise AssertionError("nobody sets this event")


async def _opened(request: web.Request, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_type = answer.content_type
    response.content_length = len(answer.payload())
    await response.prepare(request)
    return response


def _transport(request: web.Request) -> asyncio.Transport:
    if not isinstance(request.transport, asyncio.Transport):
        raise ConnectionResetError("The client is gone.")
    return request.transport
