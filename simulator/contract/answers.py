"""The bodies of the contract in all the shapes they are seen in. Pure: each is a function of what it says."""

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

#: A JSON object on its way out.
Json = dict[str, object]

_CODES: dict[str, Json] = {"number": {"code": 200}, "string": {"code": "200"}, "absent": {}}
_TYPES = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 429: "too_many_requests"}
_FAILURES = {
    "voice": "The voice could not be extracted: no clear speaker was found.",
    "music": "The song could not be generated.",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the API: a JSON object, or text that is sent as it stands."""

    status: int
    body: Json | str
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    def payload(self) -> bytes:
        """The body's bytes."""
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return text.encode()


def created(task_id: str, code_shape: str, place: str) -> Answer:
    """The answer to a POST that was charged."""
    given: int | str = int(task_id) if task_id.isdecimal() else task_id
    places: dict[str, Json] = {
        "top": {"task_id": given},
        "data": {"data": {"task_id": given}},
        "camel": {"taskId": given},
        "data_id": {"data": {"id": given}},
        "data_text": {"data": task_id},
        "data_list": {"data": [{"task_id": given}]},
        "list": {"task_ids": [given]},
    }
    return Answer(200, {**_CODES[code_shape], "message": "success", **places[place]})


def refused(status: int, text: str, place: str = "error", headers: Mapping[str, str] | None = None) -> Answer:
    """A refusal; its text stands in `error` or in `message`."""
    return Answer(status, {place: text, "type": _TYPES[status]}, headers or {})


def not_ready(status: int) -> Answer:
    """A poll's answer while the task is worked on, without a word on how far it is."""
    return Answer(status, {"type": "not_ready", "error": "The task is still in progress. Please try again later."})


def success(result: object) -> Json:
    """The envelope of a result."""
    return {"code": 200, "data": result, "message": "success"}


def voice_ready(task: Task, shape: str = "data") -> Json:
    """A finished voice. Its persona_id belongs to the task: every poll gives the same."""
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
    """A voice that is in progress or failed, and shows its persona_id all the same."""
    return success({**_voice(task), "state": state})


def _voice(task: Task) -> Json:
    return {"persona_id": derived_uuid(task.task_id, "persona"), "name": voice_name(task.subject)}


def clips_at(task: Task, moment: float) -> Json:
    """A task's clips in the states they are in at a moment (Unix seconds), as a list."""
    return success([clip.at(moment) for clip in _clips(task)])


def song_ready(task: Task, shape: str, moment: float) -> Json:
    """A finished song at a moment (Unix seconds): its clips in one of the shapes that they are seen in."""
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
    """A failed task, voice or song: clips that failed, a failed object, or an answer that is the failure itself."""
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
    """A readable name for a voice, made from its file's: ".../anna-maria_01.mp3" is "Anna Maria 01"."""
    stem = PurePosixPath(unquote(urlsplit(audio_url).path)).stem
    return " ".join(stem.replace("-", " ").replace("_", " ").split()).title() or "Voice"


def retry_after(seconds: float | None, form: str, now: float) -> dict[str, str]:
    """The Retry-After header: seconds, or the date (whole seconds, never too early) when they are over."""
    if seconds is None:
        return {}
    written = f"{seconds:g}" if form == "seconds" else formatdate(math.ceil(now + seconds), usegmt=True)
    return {"Retry-After": written}


def _clips(task: Task) -> tuple[Clip, ...]:
    # A voice that is told as clips has one, a song two.
    return tuple(Clip(task, number) for number in range(1 if task.kind == "voice" else 2))
