"""One song of a job as upstream gives it, and what the words for its state mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from enum import Enum


class Phase(Enum):
    """What a word for a state means: of a clip, or of a task as a whole."""

    FAILED = "failed"
    WORKING = "working"
    DONE = "done"
    #: A word of none of the tables, or no word at all.
    UNKNOWN = "unknown"


#: The words, without case and punctuation.
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

#: How words of any task end that failed or is worked on: `generate_audio_failed`, `rendering`.
_ENDINGS = {"failed": Phase.FAILED, "failure": Phase.FAILED, "error": Phase.FAILED, "ing": Phase.WORKING}

_PUNCTUATION = re.compile(r"[\W_]+")


def plain(word: str) -> str:
    """The word without case and punctuation: `In Progress`, `in_progress` and `inProgress` are one."""
    return _PUNCTUATION.sub("", word).lower()


def phase_of(word: str) -> Phase:
    """What this word for a state means."""
    bare = plain(word)
    endings = (phase for ending, phase in _ENDINGS.items() if bare.endswith(ending))
    return _PHASES.get(bare) or next(endings, Phase.UNKNOWN)


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """A file that lies whole in the archive: where, its `size` in bytes, its SHA-256 in hex."""

    url: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Clip:
    """One song of a job, as upstream gave it; `duration` in seconds. Upstream's links die, those of what was
    archived don't."""

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

    @property
    def has_failed(self) -> bool:
        """Whether upstream ended it without a song."""
        return phase_of(self.state) is Phase.FAILED

    @property
    def is_finished(self) -> bool:
        """Whether its song is there. A link under a word that nobody knows is one."""
        return self.audio_url is not None and phase_of(self.state) in (Phase.DONE, Phase.UNKNOWN)

    @property
    def is_missing(self) -> bool:
        """Whether its song may still come."""
        return not (self.has_failed or self.is_finished)


def merged(earlier: Iterable[Clip], later: Iterable[Clip]) -> tuple[Clip, ...]:
    """The clips of two readings of one task: nothing is lost that the earlier one had."""
    clips = {clip.clip_id: clip for clip in earlier}
    for clip in later:
        clips[clip.clip_id] = _filled(clips.get(clip.clip_id, clip), clip)
    return tuple(clips.values())


def _filled(before: Clip, after: Clip) -> Clip:
    """The later of the two, or the one that is finished, with what only the other one knows."""
    clip, other = (before, after) if before.is_finished and not after.is_finished else (after, before)
    names = [field.name for field in fields(Clip) if getattr(clip, field.name) is None]
    return replace(clip, **{name: getattr(other, name) for name in names})
