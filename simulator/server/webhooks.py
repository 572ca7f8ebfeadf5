"""The webhooks of settled tasks: planned when a task is charged, signed and sent when they are due."""

import asyncio
import hmac
import json
import math
from hashlib import sha256
from operator import attrgetter
from typing import NamedTuple

import aiohttp

from simulator.contract import answers
from simulator.contract.answers import Json
from simulator.contract.chance import derived_uuid
from simulator.contract.clips import streams_from
from simulator.contract.ledger import Task
from simulator.contract.orders import Hook
from simulator.engine.clock import Clock
from simulator.engine.musicapi import MusicApi

#: A receiver gets 2 s to accept the connection and 5 s to answer. Waiting for a free connection does not count.
_PATIENCE = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=5)
_CONNECTIONS = 100


class Event(NamedTuple):
    """One webhook to come: its name, when it is sent (Unix seconds), and whether it tells the result."""

    name: str
    due: float
    final: bool


def planned(task: Task, mode: str, delay_s: float) -> list[Event]:
    """The webhooks of a task, as the dial has them arrive.

    A song's first one says that it is streaming; a voice, or a song that fails, has the final one alone.
    """
    noun, verb = ("voice" if task.kind == "voice" else "song"), ("failed" if task.fails else "completed")
    final = Event(f"{noun}.{verb}", task.ready_at, final=True)
    first = (
        [Event("song.streaming", streams_from(task), final=False)] if task.kind == "music" and not task.fails else []
    )
    match mode:
        case "once":
            return [*first, final]
        case "twice":
            return [*first, final, final._replace(due=final.due + delay_s)]
        case "late":
            return [*first, final._replace(due=final.due + delay_s)]
        case "out_of_order":
            return [final, *(event._replace(due=final.due + delay_s) for event in first)]
    return []


def headers(task: Task, event: Event, raw: bytes, secret: str | None, now: float) -> dict[str, str]:
    """The headers of a webhook. An event that is sent twice keeps its id; without a secret nothing is signed."""
    event_id = derived_uuid(task.task_id, event.name)
    sent_at = str(int(now))
    signature = {}
    if secret:
        signed = hmac.new(secret.encode(), f"{sent_at}.".encode() + raw, sha256).hexdigest()
        signature = {"X-Webhook-Signature": f"sha256={signed}"}
    return {
        "Content-Type": "application/json",
        "X-Webhook-Id": event_id,
        "Idempotency-Key": event_id,
        "X-Webhook-Event": event.name,
        "X-Webhook-Timestamp": sent_at,
        **signature,
    }


class WebhookSender:
    """Sends the webhooks. What becomes of a delivery is counted and otherwise ignored: no retry, no error."""

    def __init__(self, music_api: MusicApi, clock: Clock) -> None:
        self._music_api = music_api
        self._clock = clock
        #: One round per task that has webhooks to come.
        self._rounds: dict[str, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None

    def plan(self, task: Task) -> None:
        """Start the round of a task's webhooks; for a task that was settled by hand it replaces the former one."""
        if former := self._rounds.pop(task.task_id, None):
            former.cancel()
        events = self._events(task)
        if task.hook and events:
            self._rounds[task.task_id] = asyncio.create_task(self._go(task.hook, task, events))

    async def forget(self) -> None:
        """Drop the webhooks that are to come or under way."""
        rounds, self._rounds = self._rounds, {}
        for each in rounds.values():
            each.cancel()
        await asyncio.gather(*rounds.values(), return_exceptions=True)

    async def close(self) -> None:
        """Stop for good."""
        await self.forget()
        if self._session:
            await self._session.close()

    def _events(self, task: Task) -> list[Event]:
        dials, now = self._music_api.dials, self._clock()
        events = planned(task, dials.webhook, dials.webhook_delay_s)
        # A stalled task is due at infinity: it has no webhooks until somebody settles it, and then no streaming.
        return sorted(
            (event for event in events if event.due < math.inf and (event.final or event.due > now)),
            key=attrgetter("due"),
        )

    async def _go(self, hook: Hook, task: Task, events: list[Event]) -> None:
        for event in events:
            await asyncio.sleep(event.due - self._clock())
            await self._deliver(hook, task, event)
        del self._rounds[task.task_id]

    async def _deliver(self, hook: Hook, task: Task, event: Event) -> None:
        counts = self._music_api.ledger.webhooks
        counts["sent"] += 1
        accepted = await self._is_accepted(hook, task, event)
        counts["delivered" if accepted else "failed"] += 1

    async def _is_accepted(self, hook: Hook, task: Task, event: Event) -> bool:
        raw = json.dumps(self._body(task, event)).encode()
        signed = headers(task, event, raw, hook.secret, self._clock())
        try:
            async with self._client().post(hook.url, data=raw, headers=signed, allow_redirects=False) as answer:
                return answer.ok
        except (aiohttp.ClientError, OSError, ValueError):
            # Nobody listens there, or it is no URL at all.
            return False

    def _body(self, task: Task, event: Event) -> Json:
        told = (
            self._music_api.result(task, self._clock()) if event.final else answers.clips_at(task, streams_from(task))
        )
        return {**told, "task_id": task.task_id, "platform": "musicapi"}

    def _client(self) -> aiohttp.ClientSession:
        # Made at the first use: a session belongs to a running loop.
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
            self._session = aiohttp.ClientSession(connector=connector, timeout=_PATIENCE)
        return self._session
