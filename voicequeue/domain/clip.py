"""Songs as upstream describes them, and the meaning of its state words. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum
from functools import lru_cache, wraps
from typing import Any, TypeVar

T = TypeVar("T")

#: The number of words of which the results are kept, and their maximum length.
_KEPT_WORDS = 1_000
_KEPT_LENGTH = 60


class Phase(Enum):
    """Meaning of a state word of a clip or a task."""

    FAILED = "failed"
    WORKING = "working"
    DONE = "done"
    #: A word outside the tables, or none.
    UNKNOWN = "unknown"


#: State words without case and punctuation.
_WORDS = {
    Phase.FAILED: (
        "failed failure fail error errored cancelled canceled timeout timedout expired rejected refused denied aborted "
        "terminated interrupted moderated blocked banned censored flagged deleted removed violation unsuccessful "
        "nsfw killed dead abandoned"
    ),
    Phase.WORKING: (
        "notready pending queue queued inqueue submitted scheduled accepted received started inprogress firstsuccess "
        "textsuccess wait notstarted notfinished unfinished incomplete init initial initialized paused onhold"
    ),
    Phase.DONE: (
        "succeeded succeed success successful successfully allsucceeded complete completed completion done finished "
        "finish ready ok okay available active activated enabled usable trained generated processed live"
    ),
}
_PHASES = {word: phase for phase, words in _WORDS.items() for word in words.split()}

#: Endings of other words for a failure or progress, such as `generate_audio_failed` and `rendering`.
_ENDINGS = {"failed": Phase.FAILED, "failure": Phase.FAILED, "error": Phase.FAILED, "ing": Phase.WORKING}

_PUNCTUATION = re.compile(r"[\W_]+")


def _kept_for_short(function: Callable[[str], T]) -> Callable[[str], T]:
    """Keep the results for short words: upstream uses the same ones again and again."""
    kept = lru_cache(_KEPT_WORDS)(function)

    @wraps(function)
    def result(word: str) -> T:
        return kept(word) if len(word) <= _KEPT_LENGTH else function(word)

    return result


@_kept_for_short
def normalize(word: str) -> str:
    """Return a word without case and punctuation: `In Progress`, `in_progress` and `inProgress` are equal."""
    return _PUNCTUATION.sub("", word).lower()


@_kept_for_short
def phase_of(word: str) -> Phase:
    """Return the meaning of a state word."""
    bare = normalize(word)
    endings = (phase for ending, phase in _ENDINGS.items() if bare.endswith(ending))
    return _PHASES.get(bare) or next(endings, Phase.UNKNOWN)


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """A complete file in the archive.

    Attributes:
        url: URL of the file; it does not expire.
        size: Size in bytes.
        sha256: SHA-256 of the content, in hexadecimal.
    """

    url: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Clip:
    """One song of a job, as upstream described it.

    Attributes:
        clip_id: Upstream's id of the song.
        state: State of the song in upstream's words.
        title: Title; None if upstream gave none.
        audio_url: Upstream's link to the audio, which expires; None while the song is missing, and if it failed.
        image_url: Upstream's link to the cover, which expires; None if upstream gave none.
        duration: Length in seconds; None if unknown.
        archived_audio: Audio in the archive, whose link does not expire; None if it is not archived.
        archived_image: Cover in the archive, whose link does not expire; None if it is not archived.
        video_url: Upstream's link to the video, which expires; None if upstream gave none.
        tags: Style tags; None if upstream gave none.
        lyrics: Lyrics; None if upstream gave none.
        mv: Model version; None if upstream gave none.
        created_at: Time when upstream created the song, in upstream's format; None if upstream gave none.
        gpt_description_prompt: Description that the lyrics were generated from; None if upstream gave none.
    """

    clip_id: str
    state: str
    title: str | None = None
    audio_url: str | None = None
    image_url: str | None = None
    duration: float | None = None
    archived_audio: ArchivedFile | None = None
    archived_image: ArchivedFile | None = None
    video_url: str | None = None
    tags: str | None = None
    lyrics: str | None = None
    mv: str | None = None
    created_at: str | None = None
    gpt_description_prompt: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON representation."""
        values = asdict(self)
        return {one.name: values[one.name] for one in fields(Clip)}

    @property
    def has_failed(self) -> bool:
        """True if upstream ended it without a song."""
        return phase_of(self.state) is Phase.FAILED

    @property
    def is_finished(self) -> bool:
        """True if its song is available. A link with an unknown state word counts."""
        return self.audio_url is not None and phase_of(self.state) in (Phase.DONE, Phase.UNKNOWN)

    @property
    def is_missing(self) -> bool:
        """True if its song may still arrive."""
        return not (self.has_failed or self.is_finished)


@dataclass(frozen=True, slots=True)
class NewerClip(Clip):
    """A song with fields that this release does not know; they are stored again with it."""

    unknown: Mapping[str, Any] = field(default_factory=dict)


def unknown_fields(clip: Clip) -> Mapping[str, Any]:
    """Return the fields of a song that this release does not know."""
    return clip.unknown if isinstance(clip, NewerClip) else {}


def with_unknown(clip: Clip, unknown: Mapping[str, Any]) -> Clip:
    """Return a song with these fields, which this release does not know."""
    if not unknown:
        return clip
    return NewerClip(**{one.name: getattr(clip, one.name) for one in fields(Clip)}, unknown=unknown)


def merge_clips(earlier: Iterable[Clip], later: Iterable[Clip]) -> tuple[Clip, ...]:
    """Return the clips of two results of one task; no value of the earlier one is lost."""
    clips = {clip.clip_id: clip for clip in earlier}
    for clip in later:
        before = clips.get(clip.clip_id)
        clips[clip.clip_id] = _filled(before, clip) if before else clip
    return tuple(clips.values())


def _filled(before: Clip, after: Clip) -> Clip:
    """Return the later clip, or the finished one, completed with the values that only the other one has."""
    clip, other = (before, after) if before.is_finished and not after.is_finished else (after, before)
    names = [one.name for one in fields(Clip) if getattr(clip, one.name) is None]
    filled = replace(clip, **{name: getattr(other, name) for name in names})
    return with_unknown(filled, {**unknown_fields(other), **unknown_fields(clip)})
