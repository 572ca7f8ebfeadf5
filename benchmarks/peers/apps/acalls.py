"""The whole of a job with aiohttp, as one coroutine: orders, and sleeps between polls."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from work import AGAIN_S, CONCURRENCY, FIRST_S, UPSTREAM, Job, found_in, song_body, voice_body


def open_session() -> aiohttp.ClientSession:
    """A session for the whole process; it keeps its connections."""
    return aiohttp.ClientSession(
        UPSTREAM,
        connector=aiohttp.TCPConnector(limit=CONCURRENCY),
        headers={"Authorization": "Bearer any"},
        timeout=aiohttp.ClientTimeout(30),
    )


async def sing(session: aiohttp.ClientSession, job: Job) -> Any:
    """A voice, then a song with it; gives the clips."""
    voice = await _result(session, await _order(session, "create-voice", voice_body(job)))
    return await _result(session, await _order(session, "create", song_body(job, voice["persona_id"])))


async def _order(session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> str:
    async with session.post(f"/api/v1/sonic/{path}", json=body) as answer:
        answer.raise_for_status()
        return (await answer.json())["task_id"]


async def _result(session: aiohttp.ClientSession, task_id: str) -> Any:
    pause = FIRST_S
    while True:
        if pause:
            await asyncio.sleep(pause)
        async with session.get(f"/api/v1/sonic/task/{task_id}") as answer:
            answer.raise_for_status()
            if (found := found_in(await answer.json())) is not None:
                return found
        pause = AGAIN_S
