"""Parsers of upstream's response bodies, in every shape that was seen. Pure.

A parser returns None for a body it cannot read; none of them raises.
"""

from __future__ import annotations

from typing import Any

from tasks.musicapi import errors
from tasks.musicapi.response_body import (
    Fields,
    JsonObject,
    UnwrappedBody,
    first_text,
    is_number,
    to_number,
    to_text,
    unwrap,
)
from tasks.musicapi.results import MusicReady, NotReady, TaskFailed, TaskResult, VoiceReady
from tasks.musicapi.task_ids import first_id, intact, named_task_ids, unnamed_task_ids
from tasks.musicapi.task_state import failure_reason, task_state
from voicequeue.domain.clip import Clip, Phase, merge_clips, phase_of
from voicequeue.domain.spec import CREDITS_MAX
from voicequeue.domain.stage import Stage

#: State of a clip for which upstream gives no state.
NO_STATE = "unknown"

#: Names of the fields that hold the id and the link of a song.
_CLIP_ID = ("clipid", "songid", "trackid", "audioid", "id")
_AUDIO = ("audiourl", "songurl", "mp3url", "audio")


def accepted_task_id(body: Any) -> str | None:
    """Return the task id in the response to a POST: with one, the order was charged despite any error."""
    return intact(first_id(named_task_ids(body)) or first_id(unnamed_task_ids(body)))


def find_task_id(body: Any) -> str | None:
    """Return the id in a field named `task_id` of a response or a webhook."""
    return intact(first_id(named_task_ids(body)))


def account_credits(body: Any) -> int | None:
    """Return the credits on the account, extra credits included."""
    if not isinstance(body, dict):
        return None
    credits_left, extra = body.get("credits"), body.get("extra_credits")
    if not is_number(credits_left):
        return None
    total = int(credits_left) + (int(extra) if is_number(extra) else 0)
    return total if abs(total) <= CREDITS_MAX else None


def task_result(body: Any, stage: Stage | None = None) -> TaskResult | None:
    """Return the result in the response to a poll; `stage` is what the task was ordered for (None: unknown)."""
    body = Fields.of(body) if isinstance(body, dict) else body
    unwrapped = unwrap(body)
    songs = _songs(unwrapped)
    has_links = isinstance(songs, MusicReady | NotReady) and any(clip.audio_url for clip in songs.clips)
    is_music = stage is Stage.MUSIC or (stage is None and has_links)
    voice = None if is_music else _persona(unwrapped)
    return _voice(voice, unwrapped, body) if voice else songs or task_state(unwrapped, unwrapped.envelopes, body)


def _persona(unwrapped: UnwrappedBody) -> VoiceReady | None:
    """Return the voice named anywhere in the body, in any state."""
    for item in unwrapped.innermost_first:
        names = ("personaid", "id") if item.name == "persona" else ("personaid",)
        if text := first_id(item.fields.get(name) for name in names):
            persona_id = intact(text)
            name = first_text(item.fields, ("name", "voicename", "personaname"))
            return VoiceReady(persona_id, name) if persona_id else None
    return None


def _voice(voice: VoiceReady, unwrapped: UnwrappedBody, body: Any) -> TaskResult | None:
    """Return the voice only if no object reports a failure or progress: a song with an unfinished voice is a waste of
    credits."""
    objects = list(unwrapped.innermost_first)
    if state := task_state(unwrapped, objects, body):
        return state
    phases = [phase_of(word) for item in objects for word in item.fields.state_words]
    if any(map(_is_error, objects)) or (not phases and any(item.fields.error_text for item in objects)):
        return None
    return voice if all(phase is Phase.DONE for phase in phases) else NotReady()


def _is_error(item: JsonObject) -> bool:
    """Return whether an object reports a failure or has a code that is not a success."""
    code = item.fields.status_code
    is_error_code = code is not None and code not in (0, 1) and not 200 <= code < 300
    return is_error_code or errors.error_status_in(item.fields) is not None


def _songs(unwrapped: UnwrappedBody) -> TaskResult | None:
    """Return the result in the songs of a body. A failed or queued song may be a bare state without an id."""
    songs = [_clip(item, number) for number, item in enumerate(unwrapped.items, start=1)]
    if not songs:
        return None
    if all(song.has_failed for song in songs):
        return TaskFailed(failure_reason(unwrapped, songs[0].state))
    clips = merge_clips(
        (), (song for song, item in zip(songs, unwrapped.items, strict=True) if song.audio_url or _has_id(item))
    )
    if any(song.is_finished for song in songs) and all(map(_has_ended, songs)):
        return MusicReady(clips)
    is_in_progress = any(phase_of(song.state) in (Phase.WORKING, Phase.DONE) for song in songs)
    return NotReady(clips) if clips or is_in_progress else None


def _has_ended(clip: Clip) -> bool:
    """Return whether a song has ended. Beside a finished song, an unknown state word counts as an end."""
    has_unknown_state = phase_of(clip.state) is Phase.UNKNOWN and clip.state != NO_STATE
    return clip.is_finished or clip.has_failed or has_unknown_state


def _has_id(item: JsonObject | None) -> bool:
    return item is not None and _clip_id(item.fields) is not None


def _clip_id(fields: Fields) -> str | None:
    return intact(first_id(fields.get(name) for name in _CLIP_ID))


def _clip(item: JsonObject | None, number: int) -> Clip:
    """Return one song; without an id it is named after its place."""
    if item is None:
        return Clip(f"clip-{number}", NO_STATE)
    fields = item.fields
    audio_url = _link(fields, *_AUDIO)
    return Clip(
        clip_id=_clip_id(fields) or f"clip-{number}",
        state=item.state or ("succeeded" if audio_url else NO_STATE),
        title=first_text(fields, ("title", "name")),
        audio_url=audio_url,
        image_url=_link(fields, "imageurl", "coverurl", "image", "cover"),
        duration=to_number(fields.get("duration")),
        video_url=_link(fields, "videourl", "video"),
        tags=_tags(fields.get("tags")),
        lyrics=first_text(fields, ("lyrics", "lyric")),
        mv=first_text(fields, ("mv", "model", "modelname")),
        created_at=_created_at(fields),
        gpt_description_prompt=first_text(fields, ("gptdescriptionprompt",)),
    )


def _link(fields: Fields, *names: str) -> str | None:
    for name in names:
        link = to_text(fields.get(name))
        if link and link[:8].lower().startswith(("http://", "https://")):
            return link
    return None


def _tags(value: Any) -> str | None:
    """Return the style tags, a text or a list of words, as one text."""
    if isinstance(value, list):
        return ", ".join(text for element in value if (text := to_text(element))) or None
    return to_text(value)


def _created_at(fields: Fields) -> str | None:
    """Return the creation time as upstream writes it."""
    value = next((fields[name] for name in ("createdat", "createtime") if fields.get(name)), None)
    return f"{value:.15g}" if is_number(value) else to_text(value)
