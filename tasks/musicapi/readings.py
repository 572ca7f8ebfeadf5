"""What upstream's answers say, in all the shapes they come in. Pure.

`accepted` reads the answer to a POST, `reading` the answer to a poll, `credits_left` the balance.
None of them raises on a strange body: they give None, which means that it cannot be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tasks.musicapi import errors
from tasks.musicapi.layers import (
    Fields,
    Item,
    Layers,
    code_of,
    first,
    is_number,
    message_of,
    named,
    number_of,
    opened,
    says_no,
    text_of,
)
from voicequeue.clip import Clip, Phase, merged, phase_of, plain
from voicequeue.stage import Stage

#: The state of a clip that upstream names without a word.
NO_WORD = "unknown"

#: The names under which an id and a link of a song are seen.
_CLIP_ID = ("clipid", "songid", "trackid", "audioid", "id")
_AUDIO = ("audiourl", "songurl", "mp3url", "audio")

#: Said where nothing is to be read but a text: it is worked on.
_WAIT = re.compile(r"\bnot (yet )?(ready|finished|complete)|\b(still )?in progress\b|\bstill \w+ing\b|\bbeing \w+ed\b")
#: Said of an answer that is an error, and not of the task.
_BUSY = re.compile(r"\bbusy\b|\btry again\b")
#: Upstream's own trouble, or a task that it does not find: no word on what became of the order.
_TROUBLE = re.compile(
    r"\b(internal|server|gateway|unavailable|maintenance|database|network|connect\w*|query|fetch|retrieve|not found|"
    r"unknown task|api[ -]?key|(un)?authori\w+|authenticat\w+|subscription|credits?)\b"
)
#: Said of an order that has failed.
_GAVE_UP = re.compile(
    r"\b(fail(ed|ure|s)?|could not|couldn't|cannot|unable|unsuccessful|rejected|refused|cancel+ed|timed out|expired|"
    r"aborted|moderat\w+|copyright\w*|inappropriate|violat\w+|unsupported|corrupt\w*)\b"
)

#: What an id is, where only its place says that it is one: it has a digit in it, and no space.
_IS_ID = re.compile(r"(?=\D*\d)[\w.:~-]{1,200}", re.ASCII)
_NO_ID = frozenset({"null", "none", "nil", "undefined"})
_BEYOND_ANY_ID = 10**100


@dataclass(frozen=True, slots=True)
class NotReady:
    """Upstream still works on it; `clips` are the songs that it has named so far."""

    clips: tuple[Clip, ...] = ()


@dataclass(frozen=True, slots=True)
class VoiceReady:
    """The voice is made."""

    persona_id: str
    name: str | None


@dataclass(frozen=True, slots=True)
class MusicReady:
    """Every song has settled, at least one succeeded, and each that did has its link."""

    clips: tuple[Clip, ...]


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """Upstream gave up; `message` in its words."""

    message: str


Reading = NotReady | VoiceReady | MusicReady | TaskFailed


# ── orders ─────────────────────────────────────────────────────────────────────────────────────────


def accepted(body: Any) -> str | None:
    """The task id in the answer to a POST, wherever it is and whatever else the answer says: it was charged.

    What is only called `id` beside a refusal at the top is that of the request.
    """
    if (named_id := task_id(body)) or not isinstance(body, dict):
        return named_id
    is_refused = errors.refused_as(body) is not None
    ids = (_id(each) for each in _ids_by_place(body, is_refused=is_refused))
    return next((each for each in ids if each), None)


def task_id(body: Any) -> str | None:
    """The id that an answer, or a webhook, calls that of a task."""
    layers = opened(body)
    objects = [*layers.envelopes, *(item for item in layers.items if item)]
    names = ("taskid", "taskids")
    ids = (_id(each.fields.get(name)) for each in objects for name in names)
    return next((task for task in ids if task), None)


def _ids_by_place(body: dict[str, Any], *, is_refused: bool) -> Iterator[Any]:
    """What may be the task's id though it is not called so."""
    layers, top = opened(body), named(body)
    yield from (each.fields.get("id") for each in layers.envelopes[1:])
    yield from (item.fields.get("id") for item in layers.items if item)
    if not is_refused:
        yield top.get("id")
        for name in ("data", "result", "task"):
            value = top.get(name)
            value = value[0] if isinstance(value, list) and value else value
            if not isinstance(value, str) or _IS_ID.fullmatch(value.strip()):
                yield value


def _id(value: Any) -> str | None:
    """An id as text: of several in a list the first."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if 0 < value < _BEYOND_ANY_ID else None
    text = text_of(value)
    return None if text is None or plain(text) in _NO_ID else text


# ── the account ────────────────────────────────────────────────────────────────────────────────────


def credits_left(body: Any) -> int | None:
    """Credits of the account, extra ones included."""
    if not isinstance(body, dict):
        return None
    left, extra = body.get("credits"), body.get("extra_credits")
    return int(left) + (int(extra) if is_number(extra) else 0) if is_number(left) else None


# ── polls ──────────────────────────────────────────────────────────────────────────────────────────


def reading(body: Any, stage: Stage | None = None) -> Reading | None:
    """What the answer to a poll says of an order of that stage; None: of whichever it speaks."""
    layers = opened(body)
    songs = _songs(layers)
    has_links = isinstance(songs, MusicReady | NotReady) and any(clip.audio_url for clip in songs.clips)
    voice = None if stage is Stage.MUSIC or (stage is None and has_links) else _voice(layers)
    return voice or songs or _task(layers, body)


def _voice(layers: Layers) -> Reading | None:
    """The persona, wherever it is; but the state first: a voice that failed, or is not made yet, is none."""
    for each in layers.innermost_first:
        if persona := first(each.fields, ("personaid",)):
            word = layers.word if each in layers.envelopes else each.word
            match phase_of(word):
                case Phase.FAILED:
                    return TaskFailed(_reason(layers, word))
                case Phase.WORKING:
                    return NotReady()
            return VoiceReady(persona, first(each.fields, ("name", "voicename", "personaname")))
    return None


def _songs(layers: Layers) -> Reading | None:
    """From the songs of an answer. One that failed, or is not begun, may be a bare state without an id."""
    songs = [_clip(item, number) for number, item in enumerate(layers.items, start=1)]
    if not songs:
        return None
    if all(song.has_failed for song in songs):
        return TaskFailed(_reason(layers, songs[0].state))
    clips = merged(
        (), (song for song, item in zip(songs, layers.items, strict=True) if song.audio_url or _has_id(item))
    )
    if any(song.is_finished for song in songs) and all(map(_has_ended, songs)):
        return MusicReady(clips)
    is_known = any(phase_of(song.state) in (Phase.WORKING, Phase.DONE) for song in songs)
    return NotReady(clips) if clips or is_known else None


def _has_ended(clip: Clip) -> bool:
    """Whether nothing is waited for. Beside a song that is finished, a word that nobody knows ends another one."""
    ended_somehow = phase_of(clip.state) is Phase.UNKNOWN and clip.state != NO_WORD
    return clip.is_finished or clip.has_failed or ended_somehow


def _task(layers: Layers, body: Any) -> Reading | None:
    """From an answer that has nothing but a word or a text on what becomes of its task."""
    word, text = layers.word, (message_of(body) or "").lower()
    phase = phase_of(word)
    if phase is Phase.FAILED and plain(word) != "error":
        return TaskFailed(_reason(layers, word))
    is_busy = phase is Phase.FAILED and (code_of(body) or 0) < 400 and _BUSY.search(text)
    if phase is Phase.WORKING or is_busy or _WAIT.search(text):
        return NotReady()
    return TaskFailed(_reason(layers, word)) if _gave_up(layers, body, word, text) else None


def _gave_up(layers: Layers, body: Any, word: str, text: str) -> bool:
    """Whether an answer that is an error tells of the task's end, and not of upstream's trouble or the account's."""
    refused = errors.refused_as(body)
    says_so = phase_of(word) is Phase.FAILED or any(says_no(each.fields) for each in layers.envelopes)
    if not says_so and refused is None:
        return False
    if not text:
        return bool(word)
    error = errors.from_answer(400, body, {}, 0.0)
    if isinstance(error, errors.Moderated):
        return True
    is_plain = says_so or _GAVE_UP.search(text) is not None
    return is_plain and isinstance(error, errors.Refused) and not _TROUBLE.search(text)


def _reason(layers: Layers, word: str) -> str:
    texts = (message_of(each.fields) for each in layers.innermost_first)
    said = next((text for text in texts if text and phase_of(text) is not Phase.DONE), None)
    known = plain(word) in ("", "failed", "error")
    return said or ("upstream gives no reason" if known else f"upstream says: {word}")


def _has_id(item: Item | None) -> bool:
    return item is not None and _clip_id(item.fields) is not None


def _clip_id(fields: Fields) -> str | None:
    return next((clip_id for name in _CLIP_ID if (clip_id := _id(fields.get(name)))), None)


def _clip(item: Item | None, number: int) -> Clip:
    """One song; of one without an id its place is its name."""
    if item is None:
        return Clip(f"clip-{number}", NO_WORD)
    fields = item.fields
    audio_url = _link(fields, *_AUDIO)
    return Clip(
        clip_id=_clip_id(fields) or f"clip-{number}",
        state=item.word or ("succeeded" if audio_url else NO_WORD),
        title=first(fields, ("title", "name")),
        audio_url=audio_url,
        image_url=_link(fields, "imageurl", "coverurl", "image", "cover"),
        duration=number_of(fields.get("duration")),
        video_url=_link(fields, "videourl", "video"),
        tags=_tags(fields.get("tags")),
        lyrics=first(fields, ("lyrics", "lyric")),
        mv=first(fields, ("mv", "model", "modelname")),
        created_at=_moment(fields),
        gpt_description_prompt=first(fields, ("gptdescriptionprompt",)),
    )


def _link(fields: Fields, *names: str) -> str | None:
    links = (text_of(fields.get(name)) for name in names)
    return next((link for link in links if link and link.lower().startswith(("http://", "https://"))), None)


def _tags(value: Any) -> str | None:
    """The style: as a text, or as a list of words."""
    if isinstance(value, list):
        return ", ".join(text for each in value if (text := text_of(each))) or None
    return text_of(value)


def _moment(fields: Fields) -> str | None:
    """When upstream made it, as it says so."""
    value = next((fields[name] for name in ("createdat", "createtime") if fields.get(name)), None)
    return f"{value:.15g}" if is_number(value) else text_of(value)
