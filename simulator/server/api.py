"""The routes of the contract over HTTP, with the faults that the dials select."""

import asyncio
import json

from aiohttp import web

from simulator.contract.answers import ApiResponse
from simulator.contract.ledger import Task
from simulator.contract.orders import Body, Kind, Order
from simulator.engine.clock import Clock
from simulator.engine.faults import TASK_FAULTS, Fault
from simulator.engine.musicapi import MusicApi
from simulator.server.delivery import deliver, deliver_file
from simulator.server.media import TYPES, build_file
from simulator.server.webhooks import WebhookSender


class Api:
    """The handlers of the API's listener."""

    def __init__(
        self, music_api: MusicApi, webhooks: WebhookSender, clock: Clock, *, media_host: str | None = None
    ) -> None:
        """Create the handlers. `media_host`: the host in the links of files; None: that of the request."""
        self._music_api = music_api
        self._webhooks = webhooks
        self._clock = clock
        self._media_host = media_host

    def app(self) -> web.Application:
        """Return the application with its routes."""
        app = web.Application()
        app.add_routes(
            [
                web.post("/api/v1/sonic/create-voice", self.create_voice),
                web.post("/api/v1/sonic/create", self.create_music),
                web.get("/api/v1/sonic/task/{task_id}", self.task),
                web.get("/api/v1/sonic/task{slash:/?}", self.no_task),
                web.get("/api/v1/get-credits", self.credits),
                web.get("/media/{clip_id}.{suffix}", self.media),
            ]
        )
        return app

    async def create_voice(self, request: web.Request) -> web.StreamResponse:
        """POST: 4 credits."""
        return await self._create(request, "voice")

    async def create_music(self, request: web.Request) -> web.StreamResponse:
        """POST: 15 credits."""
        return await self._create(request, "music")

    async def task(self, request: web.Request) -> web.StreamResponse:
        """GET: the state or result of a task."""
        if denied := self._authorize(request, "task"):
            return await self._send(request, denied)
        fault = self._music_api.fault(self._music_api.dials.get_faults, request.path)
        answer = self._music_api.poll(request.match_info["task_id"], self._clock())
        return await self._send(request, answer, fault)

    async def no_task(self, request: web.Request) -> web.StreamResponse:
        """GET without a task id: 400."""
        denied = self._authorize(request, "task")
        return await self._send(request, denied or self._music_api.refused(400, "missing task id."))

    async def credits(self, request: web.Request) -> web.StreamResponse:
        """GET: the balance."""
        if denied := self._authorize(request, "credits"):
            return await self._send(request, denied)
        fault = self._music_api.fault(self._music_api.dials.get_faults, request.path)
        if fault and fault.kind in TASK_FAULTS:
            fault = None
        return await self._send(request, self._music_api.credits(), fault)

    async def media(self, request: web.Request) -> web.StreamResponse:
        """GET: the file of a clip's link, or a part of it; no token is required."""
        clip_id, suffix = request.match_info["clip_id"], request.match_info["suffix"]
        if suffix not in TYPES:
            raise web.HTTPNotFound
        dials, ledger = self._music_api.dials, self._music_api.ledger
        ledger.media["asked"] += 1
        if dials.media_redirect is not None:
            raise web.HTTPFound(dials.media_redirect)
        fault = self._music_api.fault(dials.media_faults, request.path)
        if fault:
            ledger.faults[f"media.{fault.name}"] += 1
        file = build_file(clip_id, suffix, dials.media_bytes)
        how = fault.kind if fault else ""
        response = await deliver_file(request, file, how, seconds=dials.media_s, ranges=dials.media_ranges)
        ledger.media["whole" if response.status == 200 else "parts"] += 1
        return response

    async def _create(self, request: web.Request, kind: Kind) -> web.StreamResponse:
        if denied := self._authorize(request, f"create_{kind}"):
            return await self._send(request, denied)
        body = _json_object(await request.read())
        if body is None:
            return await self._send(request, self._music_api.refused(400, "The request body must be a JSON object."))
        host = request.host if self._media_host is None else f"{self._media_host}:{request.url.port}"
        order = Order(kind, body, base=f"{request.scheme}://{host}")
        return await self._fill(request, order)

    async def _fill(self, request: web.Request, order: Order) -> web.StreamResponse:
        fault = self._music_api.fault(self._music_api.dials.post_faults, order.fingerprint)
        if fault and not fault.after:
            return await self._send(request, ApiResponse(200, {}), fault)
        answer, task = self._music_api.create(order, self._clock())
        if task is None:
            return await self._send(request, answer)
        self._webhooks.plan(task)
        return await self._send(request, answer, fault, task)

    def _authorize(self, request: web.Request, call: str) -> ApiResponse | None:
        """Count a call, and return the refusal of an invalid token, None for a valid one."""
        self._music_api.ledger.calls[call] += 1
        key = self._music_api.dials.api_key
        header = request.headers.get("Authorization")
        if header is None:
            return self._music_api.refused(401, "Authorization header is missing.")
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return self._music_api.refused(401, "Invalid authorization format. It must be: Bearer <api key>.")
        if key is not None and token.strip() != key:
            return self._music_api.refused(401, "Invalid API key.")
        return None

    async def _send(
        self, request: web.Request, answer: ApiResponse, fault: Fault | None = None, task: Task | None = None
    ) -> web.StreamResponse:
        """Send a response, changed by a fault if there is one, and record what the client received."""
        music_api, ledger = self._music_api, self._music_api.ledger
        if music_api.dials.latency_s:
            await asyncio.sleep(music_api.dials.latency_s)
        if fault:
            ledger.faults[fault.name] += 1
            answer = music_api.apply_fault(fault, answer, self._clock())
        response = await deliver(request, answer, fault.kind if fault else "", music_api.dials.drip_s)
        ledger.statuses[answer.status] += 1
        if task and (fault is None or fault.delivers_response):
            ledger.mark_answered(task)
        return response


def _json_object(raw: bytes) -> Body | None:
    try:
        body = json.loads(raw)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
