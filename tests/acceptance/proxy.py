"""A reverse proxy as people put before Flower: one path of its own leads there, everything else is elsewhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import ClientSession, web

from workers.stack import free_port

#: They belong to one connection, not to the message.
_HOP = {"transfer-encoding", "connection", "keep-alive", "content-encoding", "content-length"}


@contextmanager
def behind_a_proxy(prefix: str, port: int) -> Iterator[str]:
    """A proxy whose `prefix` leads to that port of this machine; its address."""
    address, up, down = free_port(), threading.Event(), threading.Event()
    # In a thread with a loop of its own: the browser's driver has one in this thread.
    thread = threading.Thread(target=lambda: asyncio.run(_passing_on(prefix, port, address, up, down)))
    thread.start()
    assert up.wait(timeout=10)
    try:
        yield f"http://127.0.0.1:{address}"
    finally:
        down.set()
        thread.join()


async def _passing_on(prefix: str, port: int, address: int, up: threading.Event, down: threading.Event) -> None:
    runner = await _started(prefix, port, address)
    up.set()
    await asyncio.to_thread(down.wait)
    await runner.cleanup()


async def _started(prefix: str, port: int, address: int) -> web.AppRunner:
    app = web.Application()

    async def passed_on(request: web.Request) -> web.Response:
        async with ClientSession() as session:
            answer = await session.request(
                request.method,
                f"http://127.0.0.1:{port}{request.rel_url}",
                headers=request.headers,
                data=await request.read(),
                allow_redirects=False,
            )
            headers = [(name, value) for name, value in answer.headers.items() if name.lower() not in _HOP]
            return web.Response(status=answer.status, headers=headers, body=await answer.read())

    app.router.add_route("*", prefix + "{rest:.*}", passed_on)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", address).start()
    return runner
