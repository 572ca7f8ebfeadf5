"""The webhooks of tasks: planned when a task is charged, signed and sent when they are due."""

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

#: A receiver has 2 s to accept the connection and 5 s to respond. Waiting for a free connection does not count.
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=5)
_CONNECTIONS = 100


class Event(NamedTuple):
    """A planned webhook: its name, its time (Unix seconds), and whether it contains the result."""

    name: str
    due: float
    final: bool


def plan_webhooks(task: Task, mode: str, delay_s: float) -> list[Event]:
    """Return the webhooks of a task in the mode that the dial selects.

    A song has one for the start of streaming and a final one. A voice, or a song that fails, has the final one alone.
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
    """Return the headers of a webhook. An event that is sent twice keeps its id; without a secret it is not signed."""
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
    """The sender of webhooks. Failed deliveries are counted and not retried."""

    def __init__(self, music_api: MusicApi, clock: Clock) -> None:
        self._music_api = music_api
        self._clock = clock
        #: One asyncio task for each task with planned webhooks.
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None

    def plan(self, task: Task) -> None:
        """Plan the webhooks of a task, replacing its former plan if the control port has settled it."""
        if former := self._sending.pop(task.task_id, None):
            former.cancel()
        events = self._events(task)
        if task.hook and events:
            self._sending[task.task_id] = asyncio.create_task(self._send_all(task.hook, task, events))

    async def forget(self) -> None:
        """Cancel the webhooks that are planned or in progress."""
        sending, self._sending = self._sending, {}
        for running in sending.values():
            running.cancel()
        await asyncio.gather(*sending.values(), return_exceptions=True)

    async def close(self) -> None:
        """Cancel all webhooks and close the connections."""
        await self.forget()
        if self._session:
            await self._session.close()

    def _events(self, task: Task) -> list[Event]:
        dials, now = self._music_api.dials, self._clock()
        events = plan_webhooks(task, dials.webhook, dials.webhook_delay_s)
        # A stalled task is due at infinity: no webhooks until the control port settles it, and then no streaming.
        return sorted(
            (event for event in events if event.due < math.inf and (event.final or event.due > now)),
            key=attrgetter("due"),
        )

    async def _send_all(self, hook: Hook, task: Task, events: list[Event]) -> None:
        for event in events:
            await asyncio.sleep(event.due - self._clock())
            await self._deliver(hook, task, event)
        del self._sending[task.task_id]

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
            # No receiver, or an invalid URL.
            return False

    def _body(self, task: Task, event: Event) -> Json:
        fields = (
            self._music_api.result(task, self._clock()) if event.final else answers.clips_at(task, streams_from(task))
        )
        return {**fields, "task_id": task.task_id, "platform": "musicapi"}

    def _client(self) -> aiohttp.ClientSession:
        # Created at the first use, because a session belongs to a running loop.
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
            self._session = aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT)
        return self._session
