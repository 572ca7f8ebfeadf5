"""Portions of jobs, limited by the jobs that orders expand to and by their text, not by the number of orders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from voicequeue.domain.song import Song
from voicequeue.domain.spec import VoiceJob
from voicequeue.errors import InvalidJobError

T = TypeVar("T")

#: Maximum number of jobs written by one call to Redis.
PORTION_JOBS_MAX = 500

#: Maximum characters of one portion; a longer order is a portion by itself.
PORTION_TEXT_MAX = 1_048_576

#: Characters counted for the short fields of a job, an upper bound.
_SHORT = 500

#: Depth to which an unparsed order is measured: no valid order is deeper.
_DEPTH = 3


class Weight(NamedTuple):
    """The number of jobs that an order expands to, and their approximate length in characters."""

    jobs: int
    text: int


def weight(order: VoiceJob | InvalidJobError | Mapping[str, Any]) -> Weight:
    """Return the weight of a parsed or unparsed order; fields shared by all songs count once per song."""
    if isinstance(order, InvalidJobError):
        return Weight(1, _SHORT + sum(len(problem.field) + len(problem.message) for problem in order.problems))
    if isinstance(order, VoiceJob):
        return _weight(len(order.songs), _common(order), sum(map(_song_length, order.songs)))
    if not isinstance(order, Mapping):  # it is rejected
        return Weight(1, _SHORT)
    songs = order.get("songs")
    if not isinstance(songs, list | tuple):
        songs = ()
    own = _length(songs, _DEPTH - 1)
    return _weight(len(songs), _SHORT + _length(order, _DEPTH) - own, own)


def _weight(songs: int, common: int, own: int) -> Weight:
    jobs = songs or 1
    return Weight(jobs, own + jobs * common)


def _common(job: VoiceJob) -> int:
    length = _SHORT + len(job.audio_url or "") + len(job.callback_url or "")
    if job.metadata:
        length += sum(len(name) + len(value) for name, value in job.metadata.items())
    return length if job.song is None else length + _song_length(job.song)


def _song_length(song: Song) -> int:
    texts = (song.prompt, song.tags, song.negative_tags, song.description)
    return sum(len(text) for text in texts if text)


def _length(value: Any, depth: int) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Song):
        return _song_length(value)
    if not depth or value is None:
        return 0
    if isinstance(value, dict | Mapping):
        return sum(len(str(name)) + _length(inner, depth - 1) for name, inner in value.items())
    return sum(_length(inner, depth - 1) for inner in value) if isinstance(value, list | tuple) else 0


class Portion(Generic[T]):
    """Items collected until they reach a number of jobs or characters."""

    def __init__(self, *, jobs: int = PORTION_JOBS_MAX, text: int = PORTION_TEXT_MAX) -> None:
        self._most = Weight(jobs, text)
        self._items: list[T] = []
        self.weight = Weight(0, 0)

    def has_room(self, more: Weight) -> bool:
        """Return whether an item of this weight fits; an empty portion takes any item."""
        jobs, text = self.weight.jobs + more.jobs, self.weight.text + more.text
        return not self._items or (jobs <= self._most.jobs and text <= self._most.text)

    def add(self, item: T, more: Weight) -> None:
        """Add an item of that weight."""
        self._items.append(item)
        self.weight = Weight(self.weight.jobs + more.jobs, self.weight.text + more.text)

    @property
    def is_full(self) -> bool:
        """True if no further item fits."""
        return self.weight.jobs >= self._most.jobs or self.weight.text >= self._most.text

    def take(self) -> list[T]:
        """Return the items and empty the portion."""
        items, self._items, self.weight = self._items, [], Weight(0, 0)
        return items


def split_into_portions(
    items: Iterable[T], weigh: Callable[[T], Weight], *, jobs: int = PORTION_JOBS_MAX
) -> Iterator[list[T]]:
    """Yield the items in portions, each as soon as it is full."""
    portion = Portion[T](jobs=jobs)
    for item in items:
        more = weigh(item)
        if not portion.has_room(more):
            yield portion.take()
        portion.add(item, more)
        if portion.is_full:
            yield portion.take()
    if rest := portion.take():
        yield rest
