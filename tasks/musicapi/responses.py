"""What upstream's answers say, in all the shapes they come in. Pure.

`accepted` reads the answer to a POST, `reading` the answer to a poll, `credits_left` the balance.
None of them raises on a strange body: they give None, which means that it cannot be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.musicapi import errors
from tasks.musicapi.layers import (
    Fields,
    Item,
    Layers,
    code_of,
    complaint_of,
    first,
    is_called_a_song,
    is_number,
    least,
    message_of,
    named,
    number_of,
    opened,
    says_no,
    text_of,
    word_of,
    words_of,
)
from voicequeue.domain.clip import Clip, Phase, merged, phase_of, plain
from voicequeue.domain.spec import CREDITS_MAX
from voicequeue.domain.stage import Stage
from voicequeue.texts import mended

#: The state of a clip that upstream names without a word.
NO_WORD = "unknown"

#: The names under which an id and a link of a song are seen.
_CLIP_ID = ("clipid", "songid", "trackid", "audioid", "id")
_AUDIO = ("audiourl", "songurl", "mp3url", "audio")

#: Said where nothing is to be read but a text: it is worked on.
_WAIT = re.compile(r"\bnot (yet )?(ready|finished|complete)|\b(still )?in progress\b|\bstill \w+ing\b|\bbeing \w+ed\b")
#: Said of an answer that is an error, and not of the task.
_BUSY = re.compile(r"\bbusy\b|\btry again\b")
#: Upstream's own trouble, the account's or the call's: no word on what became of the order.
_TROUBLE = re.compile(
    r"\b(internal|server|gateway|unavailable|maintenance|database|network|connect\w*|query|unknown task|task[ _]?id|"
    r"bad request|forbidden|permissions?|account|keys?|tokens?|(un)?authori\w+|authenticat\w+|subscription|credits?)\b"
    r"|^\W*(request )?time[d -]*out\b"
)
#: Something that upstream does not find: the task, unless it is the recording.
_NOT_FOUND = re.compile(r"\b(not found|fetch|retrieve)\b")
_OF_THE_TASK = re.compile(r"\b(tasks?|jobs?|orders?|results?|status)\b")
_OF_THE_RECORDING = re.compile(r"\b(audio|recordings?|files?|vocals?|speakers?)\b")
#: Says that something went wrong, and not what.
_VAGUE = re.compile(
    r"\b(busy|try again|went wrong|error occurred|(system|unknown) error|unexpected|exception)\b|^\W*error\W*$"
)
#: The codes of an answer whose text is on the order, where it is on nothing else.
_OF_THE_ORDER = (400, 422, 500)
#: Said of an order that has failed.
_GAVE_UP = re.compile(
    r"\b(fail(ed|ure|s)?|could not|couldn't|cannot|unable|unsuccessful|rejected|refused|cancel+ed|timed out|expired|"
    r"aborted|moderat\w+|copyright\w*|inappropriate|violat\w+|unsupported|corrupt\w*)\b"
)

#: What an id is, where only its place says that it is one: it has a digit in it, and no space.
_IS_ID = re.compile(r"(?=\D*\d)[\w.:~-]{1,200}", re.ASCII)
_NO_ID = frozenset({"null", "none", "nil", "undefined"})
_BEYOND_ANY_ID = 10**100
#: A float up to which every whole number is exact.
_LAST_WHOLE = 2.0**53


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

    What is only called `id` beside a refusal at the top is that of the request; that of a song is no task's.
    """
    return _whole(_first_id(_called_a_task(body)) or _first_id(_ids_by_place(body)))


def task_id(body: Any) -> str | None:
    """The id that an answer, or a webhook, calls that of a task."""
    return _whole(_first_id(_called_a_task(body)))


def _called_a_task(body: Any) -> Iterator[Any]:
    return _called(opened(body), "taskid", "taskids")


def _first_id(values: Iterable[Any]) -> str | None:
    """The first that is an id, be it broken: what comes after it is another thing's."""
    return next((found for found in map(_id, values) if found), None)


def _whole(found: str | None) -> str | None:
    """An id that can be sent as it is; one with half a character is none, and mended it would be another's."""
    return found if found is None or mended(found) == found else None


def _called(layers: Layers, *names: str) -> Iterator[Any]:
    """What has one of these names, the outermost first."""
    objects = [*layers.envelopes, *(item for item in layers.items if item)]
    yield from (each.fields.get(name) for each in objects for name in names)


def _ids_by_place(body: Any) -> Iterator[Any]:
    """What may be the task's id though it is not called so."""
    layers = opened(body)
    yield from _called(layers, "jobid", "jobids")
    if isinstance(body, list):
        yield from filter(_is_bare_id, body[:1])
    if not isinstance(body, dict):
        return
    inner = [*layers.envelopes[1:], *(item for item in layers.items if item)]
    yield from (each.fields.get("id") for each in inner if each.name != "persona" and not is_called_a_song(each))
    if errors.refused_as(body) is None:
        yield named(body).get("id")
        values = _called(Layers(layers.envelopes), "data", "result", "task")
        alone = (value[0] if isinstance(value, list) and value else value for value in values)
        yield from (value for value in alone if _is_bare_id(value) or is_number(value))


def _is_bare_id(value: Any) -> bool:
    return isinstance(value, str) and _IS_ID.fullmatch(value.strip()) is not None


def _id(value: Any) -> str | None:
    """An id as text, which may be broken: of several in a list the first, of an object its own."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        fields = named(value)
        value = next((fields[name] for name in ("taskid", "id") if fields.get(name)), None)
    if isinstance(value, float) and value.is_integer() and value <= _LAST_WHOLE:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if 0 < value < _BEYOND_ANY_ID else None
    text = value.strip() if isinstance(value, str) else ""
    return None if not text or plain(text) in _NO_ID else text


# ── the account ────────────────────────────────────────────────────────────────────────────────────


def credits_left(body: Any) -> int | None:
    """Credits of the account, extra ones included."""
    if not isinstance(body, dict):
        return None
    left, extra = body.get("credits"), body.get("extra_credits")
    if not is_number(left):
        return None
    credits = int(left) + (int(extra) if is_number(extra) else 0)
    return credits if abs(credits) <= CREDITS_MAX else None


# ── polls ──────────────────────────────────────────────────────────────────────────────────────────


def reading(body: Any, stage: Stage | None = None) -> Reading | None:
    """What the answer to a poll says of an order of that stage; None: of whichever it speaks."""
    layers = opened(body)
    songs = _songs(layers)
    has_links = isinstance(songs, MusicReady | NotReady) and any(clip.audio_url for clip in songs.clips)
    is_sung = stage is Stage.MUSIC or (stage is None and has_links)
    voice = None if is_sung else _persona(layers)
    return _voice(voice, layers, body) if voice else songs or _task(layers, layers.envelopes, body)


def _persona(layers: Layers) -> VoiceReady | None:
    """The voice that an answer names, wherever it is, whatever else the answer says."""
    for each in layers.innermost_first:
        names = ("personaid", "id") if each.name == "persona" else ("personaid",)
        if found := _first_id(each.fields.get(name) for name in names):
            persona = _whole(found)
            return VoiceReady(persona, first(each.fields, ("name", "voicename", "personaname"))) if persona else None
    return None


def _voice(voice: VoiceReady, layers: Layers, body: Any) -> Reading | None:
    """The state first, in every object: singing with a voice that failed, or is not made yet, is paid for nothing."""
    objects = list(layers.innermost_first)
    if found := _task(layers, objects, body):
        return found
    phases = [phase_of(word) for each in objects for word in words_of(each.fields)]
    if any(map(_says_otherwise, objects)) or (not phases and any(complaint_of(each.fields) for each in objects)):
        return None
    return voice if all(phase is Phase.DONE for phase in phases) else NotReady()


def _says_otherwise(item: Item) -> bool:
    """Whether an object says that it is no success, or has a code that is none."""
    code = code_of(item.fields)
    is_odd = code is not None and code not in (0, 1) and not 200 <= code < 300
    return is_odd or errors.refused_as(item.fields) is not None


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


def _task(layers: Layers, objects: Sequence[Item], body: Any) -> Reading | None:
    """From the words and texts of these objects on what becomes of their task: the word that promises least counts."""
    word = least(word_of(each.fields) for each in objects)
    phase = phase_of(word)
    if phase is Phase.FAILED and plain(word) != "error":
        return TaskFailed(_reason(layers, word))
    text = _text(layers, body)
    is_busy = phase is Phase.FAILED and (code_of(body) or 0) < 400 and _BUSY.search(text)
    if phase is Phase.WORKING or is_busy or _WAIT.search(text):
        return NotReady()
    return TaskFailed(_reason(layers, word)) if _gave_up(objects, word, text) else None


def _text(layers: Layers, body: Any) -> str:
    """What an answer says, in lower case: the outermost text that is more than a success."""
    said = message_of(body)
    return (said if said and phase_of(said) is not Phase.DONE else _said(layers) or said or "").lower()


def _gave_up(objects: Sequence[Item], word: str, text: str) -> bool:
    """Whether an answer that is an error tells of the task's end, and not of upstream's trouble or the account's."""
    codes = (errors.refused_as(each.fields) for each in objects)
    refused = next((code for code in codes if code is not None), None)
    has_failed = phase_of(word) is Phase.FAILED
    says_so = has_failed or any(says_no(each.fields) for each in objects)
    if not says_so and refused is None:
        return False
    if not text:
        return has_failed
    error = errors.from_answer(400, {"message": text}, {}, 0.0)
    if isinstance(error, errors.Moderated):
        return True
    is_plain = says_so or _GAVE_UP.search(text) or (refused in _OF_THE_ORDER and not _VAGUE.search(text))
    return bool(is_plain) and isinstance(error, errors.Refused) and not _is_trouble(text)


def _is_trouble(text: str) -> bool:
    """Whether a text is on something else than what became of the order."""
    is_recording = _OF_THE_RECORDING.search(text) and not _OF_THE_TASK.search(text)
    return bool(_TROUBLE.search(text) or (_NOT_FOUND.search(text) and not is_recording))


def _reason(layers: Layers, word: str) -> str:
    known = plain(word) in ("failed", "error") or phase_of(word) is not Phase.FAILED
    return _said(layers) or ("upstream gives no reason" if known else f"upstream says: {word}")


def _said(layers: Layers) -> str | None:
    """The innermost text of an answer that is more than a success."""
    texts = (message_of(each.fields) for each in layers.innermost_first)
    return next((text for text in texts if text and phase_of(text) is not Phase.DONE), None)


def _has_id(item: Item | None) -> bool:
    return item is not None and _clip_id(item.fields) is not None


def _clip_id(fields: Fields) -> str | None:
    return _whole(_first_id(fields.get(name) for name in _CLIP_ID))


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
