"""What upstream's answers say, in all the shapes they come in. Pure.

`accepted` reads the answer to a POST, `reading` the answer to a poll, `credits_left` the balance.
None of them raises on a strange body: they give None, which means that it cannot be read.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, TypeGuard

from tasks.musicapi.errors import message_of, text_of
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
        if isinstance(place, dict) and (task_id := text_of(place.get("task_id"))):
            return task_id
    return None


def credits_left(body: Any) -> int | None:
    """Credits of the account, extra ones included."""
    if not isinstance(body, dict):
        return None
    left, extra = body.get("credits"), body.get("extra_credits")
    return int(left) + (int(extra) if _is_number(extra) else 0) if _is_number(left) else None


def reading(body: Any) -> Reading | None:
    """What the answer to a poll says."""
    if not isinstance(body, dict):
        return None
    found = body.get("data")
    if isinstance(found, list):
        return _clips_reading(found) or _state_reading(body)
    if isinstance(found, dict):
        return _object_reading(found) or _state_reading(body)
    return _state_reading(body)


def _object_reading(found: dict[str, Any]) -> Reading | None:
    if persona := text_of(found.get("persona_id")):
        return VoiceReady(persona, text_of(found.get("name")))
    if isinstance(found.get("clips"), list) and (clips := _clips_reading(found["clips"], _state(found))):
        return clips
    return _state_reading(found)


def _state_reading(found: dict[str, Any]) -> Reading | None:
    """From an object that carries only a word: `state` or `status`, or the `type` of a wait."""
    words = {_word(found.get("state")), _word(found.get("status"))}
    if words & _FAILED:
        return TaskFailed(_reason(found))
    return NotReady() if words & _WORKING or found.get("type") == "not_ready" else None


def _clips_reading(found: list[Any], common: str = "") -> Reading | None:
    """From a list of clips. One that failed, or is not begun, may be a bare state without an id;
    one without a state is in the `common` one."""
    if not found or not all(isinstance(clip, dict) for clip in found):
        return None
    states = {_state(clip) or common for clip in found}
    clips = tuple(_clip(clip, common) for clip in found if text_of(clip.get("clip_id")))
    if states <= _FAILED:
        return TaskFailed(_reason(*found))
    if states <= _FAILED | _DONE:
        return MusicReady(clips) if any(clip.state in _DONE for clip in clips) else None
    return NotReady() if clips or states & _WORKING else None


def _reason(*found: dict[str, Any]) -> str:
    messages = (message_of(each) or text_of(each.get("error_message")) or text_of(each.get("reason")) for each in found)
    return next((message for message in messages if message), "upstream gives no reason")


def _clip(found: dict[str, Any], common: str) -> Clip:
    duration = found.get("duration")
    return Clip(
        clip_id=text_of(found["clip_id"]) or "",
        state=_state(found) or common,
        title=text_of(found.get("title")),
        audio_url=text_of(found.get("audio_url")),
        image_url=text_of(found.get("image_url")),
        duration=float(duration) if _is_number(duration) else None,
    )


def _state(found: dict[str, Any]) -> str:
    return _word(found.get("state")) or _word(found.get("status"))


def _word(value: Any) -> str:
    return value.strip().lower() if isinstance(value, str) else ""


def _is_number(value: Any) -> TypeGuard[int | float]:
    # JSON's true is an int to Python, and its parser lets pass NaN, Infinity and numbers too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
