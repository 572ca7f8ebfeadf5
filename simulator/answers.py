"""The bodies of the contract in all the shapes they are seen in. Pure: each is a function of what it says."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from simulator.chance import derived_uuid
from simulator.clips import Clip
from simulator.ledger import Task

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
    told: Json = {"task_id": task_id} if place == "top" else {"data": {"task_id": task_id}}
    return Answer(200, {**_CODES[code_shape], "message": "success", **told})


def refused(status: int, text: str, place: str = "error", headers: Mapping[str, str] | None = None) -> Answer:
    """A refusal; its text stands in `error` or in `message`."""
    return Answer(status, {place: text, "type": _TYPES[status]}, headers or {})


def not_ready(status: int) -> Answer:
    """A poll's answer while the task is worked on, without a word on how far it is."""
    return Answer(status, {"type": "not_ready", "error": "The task is still in progress. Please try again later."})


def success(result: object) -> Json:
    """The envelope of a result."""
    return {"code": 200, "data": result, "message": "success"}


def voice_ready(task: Task) -> Json:
    """A finished voice. Its persona_id belongs to the task: every poll gives the same."""
    return success({"persona_id": derived_uuid(task.task_id, "persona"), "name": voice_name(task.subject)})


def clips_at(task: Task, moment: float) -> Json:
    """A task's clips in the states they are in at a moment (Unix seconds), as a list."""
    return success([clip.at(moment) for clip in _clips(task)])


def song_ready(task: Task, shape: str) -> Json:
    """A finished song: its clips as a list, or as an object with a state of its own."""
    clips = [clip.at(task.ready_at) for clip in _clips(task)]
    return success(clips if shape == "list" else {"state": "succeeded", "clips": clips})


def failed(task: Task, shape: str) -> Json:
    """A failed task, voice or song: clips that failed, a failed object, or an answer that is the failure itself."""
    match shape:
        case "clips":
            return clips_at(task, task.ready_at)
        case "object":
            return success({"state": "failed", "error": _FAILURES[task.kind]})
    return {"status": "error", "message": _FAILURES[task.kind]}


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
