"""What upstream's answers say, in all the shapes they come in. Pure.

`accepted` reads the answer to a POST, `reading` the answer to a poll, `credits_left` the balance.
None of them raises on a strange body: they give None, which means that it cannot be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

from tasks.musicapi.errors import message_of
from voicequeue.job import Clip

_WORKING = frozenset({"not_ready", "pending", "running", "streaming", "queued", "processing", "submitted"})
_FAILED = frozenset({"failed", "error"})
_DONE = frozenset({"succeeded", "success", "complete", "completed"})


@dataclass(frozen=True, slots=True)
class NotReady:
    """Upstream still works on it."""


@dataclass(frozen=True, slots=True)
class VoiceReady:
    """The voice is made."""

    persona_id: str
    name: str | None


@dataclass(frozen=True, slots=True)
class MusicReady:
    """Every song has settled, and at least one succeeded."""

    clips: tuple[Clip, ...]


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """Upstream gave up; `message` in its words."""

    message: str


Reading = NotReady | VoiceReady | MusicReady | TaskFailed


def accepted(body: Any) -> str | None:
    """The task id in the answer to a POST, at the top or under `data`."""
    if not isinstance(body, dict):
        return None
    for place in (body, body.get("data")):
        task_id = place.get("task_id") if isinstance(place, dict) else None
        if isinstance(task_id, str) and task_id.strip():
            return task_id.strip()
    return None


def credits_left(body: Any) -> int | None:
    """Credits of the account, extra ones included."""
    if not isinstance(body, dict):
        return None
    left, extra = body.get("credits"), body.get("extra_credits")
    return int(left + (extra if _is_number(extra) else 0)) if _is_number(left) else None


def reading(body: Any) -> Reading | None:
    """What the answer to a poll says."""
    if not isinstance(body, dict):
        return None
    found = body.get("data")
    if isinstance(found, list):
        return _clips_reading(found)
    if isinstance(found, dict):
        return _object_reading(found) or _state_reading(body)
    return _state_reading(body)


def _object_reading(found: dict[str, Any]) -> Reading | None:
    persona = found.get("persona_id")
    if isinstance(persona, str) and persona.strip():
        return VoiceReady(persona.strip(), _text(found.get("name")))
    if isinstance(found.get("clips"), list) and (clips := _clips_reading(found["clips"])):
        return clips
    return _state_reading(found)


def _state_reading(found: dict[str, Any]) -> Reading | None:
    """From an object that carries only a word: `state` or `status`, or the `type` of a wait."""
    words = {str(found.get(name)).lower() for name in ("state", "status")}
    if words & _FAILED:
        return TaskFailed(_reason(found))
    return NotReady() if words & _WORKING or found.get("type") == "not_ready" else None


def _clips_reading(found: list[Any]) -> Reading | None:
    if not found or not all(isinstance(clip, dict) and _text(clip.get("clip_id")) for clip in found):
        # A failed task may list bare states without clip ids.
        return _bare_states(found)
    clips = tuple(_clip(clip) for clip in found)
    states = {clip.state for clip in clips}
    if not states <= _FAILED | _DONE:
        return NotReady()
    return MusicReady(clips) if states & _DONE else TaskFailed(_reason(*found))


def _bare_states(found: list[Any]) -> Reading | None:
    readings = [_state_reading(clip) for clip in found if isinstance(clip, dict)]
    if not readings or None in readings:
        return None
    failed = next((each for each in readings if isinstance(each, TaskFailed)), None)
    return failed if all(isinstance(each, TaskFailed) for each in readings) else NotReady()


def _reason(*found: dict[str, Any]) -> str:
    messages = (message_of(each) or _text(each.get("error_message")) or _text(each.get("reason")) for each in found)
    return next((message for message in messages if message), "upstream gives no reason")


def _clip(found: dict[str, Any]) -> Clip:
    duration = found.get("duration")
    return Clip(
        clip_id=str(found["clip_id"]),
        state=str(found.get("state", "")).lower(),
        title=_text(found.get("title")),
        audio_url=_text(found.get("audio_url")),
        image_url=_text(found.get("image_url")),
        duration=float(duration) if _is_number(duration) else None,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
