"""The response bodies of the contract, in all shapes that clients report. Pure."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from simulator.contract.chance import derived_uuid
from simulator.contract.clips import Clip
from simulator.contract.ledger import Task

#: The JSON object of a response.
Json = dict[str, object]

_CODES: dict[str, Json] = {"number": {"code": 200}, "string": {"code": "200"}, "absent": {}}
_TYPES = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 429: "too_many_requests"}
_FAILURES = {
    "voice": "The voice could not be extracted: no clear speaker was found.",
    "music": "The song could not be generated.",
}


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """A response of the API: a JSON object, or text that is sent unchanged."""

    status: int
    body: Json | str
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    def payload(self) -> bytes:
        """Return the body as bytes."""
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return text.encode()


def created(task_id: str, code_shape: str, place: str) -> ApiResponse:
    """Return the response to a POST that was charged."""
    shown_id: int | str = int(task_id) if task_id.isdecimal() else task_id
    places: dict[str, Json] = {
        "top": {"task_id": shown_id},
        "data": {"data": {"task_id": shown_id}},
        "camel": {"taskId": shown_id},
        "data_id": {"data": {"id": shown_id}},
        "data_text": {"data": task_id},
        "data_list": {"data": [{"task_id": shown_id}]},
        "list": {"task_ids": [shown_id]},
    }
    return ApiResponse(200, {**_CODES[code_shape], "message": "success", **places[place]})


def refused(status: int, text: str, place: str = "error", headers: Mapping[str, str] | None = None) -> ApiResponse:
    """Return a refusal; `place` is the field of its text, `error` or `message`."""
    return ApiResponse(status, {place: text, "type": _TYPES[status]}, headers or {})


def not_ready(status: int) -> ApiResponse:
    """Return the response to a poll of a task in progress, without any detail."""
    return ApiResponse(status, {"type": "not_ready", "error": "The task is still in progress. Please try again later."})


def success(result: object) -> Json:
    """Wrap a result in the envelope of the contract."""
    return {"code": 200, "data": result, "message": "success"}


def voice_ready(task: Task, shape: str = "data") -> Json:
    """Return a finished voice. Every poll of the task returns the same persona_id."""
    voice = _voice(task)
    match shape:
        case "top":
            return {"code": 200, "message": "success", **voice}
        case "list":
            return success([voice])
        case "state":
            return {"status": "SUCCESS", "data": voice}
    return success(voice)


def voice_early(task: Task, state: str) -> Json:
    """Return a voice that is in progress or failed but has its persona_id."""
    return success({**_voice(task), "state": state})


def _voice(task: Task) -> Json:
    return {"persona_id": derived_uuid(task.task_id, "persona"), "name": voice_name(task.subject)}


def clips_at(task: Task, moment: float) -> Json:
    """Return a task's clips as a list, in their states at a moment (Unix seconds)."""
    return success([clip.at(moment) for clip in _clips(task)])


def song_ready(task: Task, shape: str, moment: float) -> Json:
    """Return a finished song at a moment (Unix seconds), with its clips in one of the shapes."""
    clips = [clip.at(moment) for clip in _clips(task)]
    match shape:
        case "object":
            return success({"state": "succeeded", "clips": clips})
        case "top":
            return {"code": 200, "message": "success", "clips": clips}
        case "songs":
            return {"status": "SUCCESS", "data": {"songs": clips}}
        case "result":
            return {"success": True, "result": clips}
        case "id":
            return success([{"id" if name == "clip_id" else name: clip[name] for name in clip} for clip in clips])
    return success(clips)


def failed(task: Task, shape: str) -> Json:
    """Return a failed voice or song in one of the shapes: failed clips, a failed object, or a body that is an error."""
    match shape:
        case "clips":
            return clips_at(task, task.ready_at)
        case "object":
            return success({"state": "failed", "error": _FAILURES[task.kind]})
        case "success_false":
            return {"success": False, "error": {"message": _FAILURES[task.kind]}}
        case "code_500":
            return {"code": 500, "message": _FAILURES[task.kind]}
        case "answer":
            return {"status": "error", "message": _FAILURES[task.kind]}
    return success({"state": shape, "error": _FAILURES[task.kind]})


def voice_name(audio_url: str) -> str:
    """Return a readable name for a voice from its URL: ".../anna-maria_01.mp3" gives "Anna Maria 01"."""
    stem = PurePosixPath(unquote(urlsplit(audio_url).path)).stem
    return " ".join(stem.replace("-", " ").replace("_", " ").split()).title() or "Voice"


def retry_after(seconds: float | None, form: str, now: float) -> dict[str, str]:
    """Return the Retry-After header: the seconds, or the date (rounded up to a second) when they have passed."""
    if seconds is None:
        return {}
    written = f"{seconds:g}" if form == "seconds" else formatdate(math.ceil(now + seconds), usegmt=True)
    return {"Retry-After": written}


def _clips(task: Task) -> tuple[Clip, ...]:
    # A voice in the shape of clips has one, a song two.
    return tuple(Clip(task, number) for number in range(1 if task.kind == "voice" else 2))
