"""The control port: dials, ledger, tasks. It is not subject to faults."""

import json
from collections.abc import Mapping

from aiohttp import web

from simulator.contract.ledger import Task
from simulator.engine.clock import Clock
from simulator.engine.dials import InvalidDial
from simulator.engine.musicapi import MusicApi
from simulator.engine.validators import Check, number, whole
from simulator.server.listener import Listener
from simulator.server.webhooks import WebhookSender


class Control:
    """The handlers of the control listener."""

    def __init__(self, music_api: MusicApi, webhooks: WebhookSender, clock: Clock, api_listener: Listener) -> None:
        self._music_api = music_api
        self._webhooks = webhooks
        self._clock = clock
        self._api_listener = api_listener

    def app(self) -> web.Application:
        """Return the application with its routes."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self.healthz),
                web.get("/dials", self.dials),
                web.patch("/dials", self.turn),
                web.get("/ledger", self.ledger),
                web.post("/credits", self.add_credits),
                web.post("/reset", self.reset),
                web.post("/refuse", self.refuse),
                web.post("/tasks/{task_id}/finish", self.finish),
                web.post("/tasks/{task_id}/fail", self.fail),
            ]
        )
        return app

    async def healthz(self, _: web.Request) -> web.Response:
        """GET: the health of the process."""
        return web.json_response({"status": "ok"})

    async def dials(self, _: web.Request) -> web.Response:
        """GET: all dials by name."""
        return web.json_response(self._music_api.dials.as_json())

    async def turn(self, request: web.Request) -> web.Response:
        """PATCH {name: value, ...}: set some dials, all or none; answers with all of them."""
        try:
            self._music_api.set_dials(await _json_object(request))
        except InvalidDial as error:
            raise _bad_request(str(error)) from error
        return web.json_response(self._music_api.dials.as_json())

    async def ledger(self, request: web.Request) -> web.Response:
        """GET: the ledger; `?charges=0` leaves out the list of charges."""
        with_charges = request.query.get("charges") != "0"
        return web.json_response(self._music_api.ledger.as_json(charges=with_charges))

    async def add_credits(self, request: web.Request) -> web.Response:
        """POST {"add": n}: n more credits; answers {"credits_left": n}."""
        ledger = self._music_api.ledger
        ledger.set_credits(ledger.credits_left + int(await _number(request, "add", whole())))
        return web.json_response({"credits_left": ledger.credits_left})

    async def reset(self, _: web.Request) -> web.Response:
        """POST: remove tasks, charges, counts and pending webhooks; restore the credits and the random values."""
        await self._webhooks.forget()
        self._music_api.reset()
        return web.json_response({"credits_left": self._music_api.ledger.credits_left})

    async def refuse(self, request: web.Request) -> web.Response:
        """POST {"for_s": seconds}: the API's port refuses connections for that long, from this answer on."""
        for_s = await _number(request, "for_s", number(0.01, 3600))
        await self._api_listener.refuse(for_s)
        return web.json_response({"refuses_for_s": for_s})

    async def finish(self, request: web.Request) -> web.Response:
        """POST: make a task in progress ready now; 404 for an unknown one, 409 for a settled one."""
        return self._settle(request, fails=False)

    async def fail(self, request: web.Request) -> web.Response:
        """POST: make a task in progress fail now; 404 for an unknown one, 409 for a settled one."""
        return self._settle(request, fails=True)

    def _settle(self, request: web.Request, *, fails: bool) -> web.Response:
        task = self._task(request.match_info["task_id"])
        if not self._music_api.ledger.settle(task, self._clock(), fails=fails):
            return web.json_response({"error": f"task {task.task_id} is settled already"}, status=409)
        self._webhooks.plan(task)
        return web.json_response({"task_id": task.task_id, "state": "failed" if fails else "succeeded"})

    def _task(self, task_id: str) -> Task:
        try:
            return self._music_api.ledger.tasks[task_id]
        except KeyError:
            text = json.dumps({"error": f"there is no task {task_id}"})
            raise web.HTTPNotFound(text=text, content_type="application/json") from None


async def _json_object(request: web.Request) -> Mapping[str, object]:
    try:
        body = json.loads(await request.read())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise _bad_request("the body must be a JSON object")
    return body


async def _number(request: web.Request, name: str, check: Check) -> float:
    value = (await _json_object(request)).get(name)
    if not (isinstance(value, int | float) and check.accepts(value)):
        raise _bad_request(f"{name}: it must be {check.allowed}")
    return value


def _bad_request(text: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=json.dumps({"error": text}), content_type="application/json")
