"""Requests to upstream with aiohttp, and a whole job as one coroutine that sleeps between polls."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from work import AGAIN_S, FIRST_S, UPSTREAM, Job, result_in, song_body, voice_body

#: Connections per process.
CONNECTIONS = 100


def open_session() -> aiohttp.ClientSession:
    """Return the session of the process, which keeps connections open."""
    return aiohttp.ClientSession(
        UPSTREAM,
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        headers={"Authorization": "Bearer any"},
        timeout=aiohttp.ClientTimeout(30),
    )


async def order_voice(session: aiohttp.ClientSession, job: Job) -> str:
    """Order a voice; gives the task's id."""
    return await _post(session, "create-voice", voice_body(job))


async def order_song(session: aiohttp.ClientSession, job: Job, persona_id: str) -> str:
    """Order a song; gives the task's id."""
    return await _post(session, "create", song_body(job, persona_id))


async def poll(session: aiohttp.ClientSession, task_id: str) -> Any:
    """Return the result of a task; None while it is not ready."""
    async with session.get(f"/api/v1/sonic/task/{task_id}") as answer:
        answer.raise_for_status()
        return result_in(await answer.json())


async def sing(session: aiohttp.ClientSession, job: Job) -> Any:
    """Order a voice and a song with it; return the clips."""
    voice = await _result(session, await order_voice(session, job))
    return await _result(session, await order_song(session, job, voice["persona_id"]))


async def _post(session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> str:
    async with session.post(f"/api/v1/sonic/{path}", json=body) as answer:
        answer.raise_for_status()
        return (await answer.json())["task_id"]


async def _result(session: aiohttp.ClientSession, task_id: str) -> Any:
    pause = FIRST_S
    while True:
        if pause:
            await asyncio.sleep(pause)
        if (result := await poll(session, task_id)) is not None:
            return result
        pause = AGAIN_S
