"""Jobs in portions of bounded size: by the jobs that orders expand to and by their text, not by how many orders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from voicequeue.domain.song import Song
from voicequeue.domain.spec import VoiceJob
from voicequeue.errors import InvalidJob

T = TypeVar("T")

#: Jobs written by one call to Redis.
CHUNK = 500

#: Characters of the jobs of one portion; one order that has more is a portion of its own.
TEXT_MAX = 1_048_576

#: What a job weighs beside its long texts: more than its short fields have together.
_SHORT = 500

#: Lists and mappings of an order that was not parsed yet are looked into so deep: nothing that is valid is deeper.
_DEPTH = 3


class Weight(NamedTuple):
    """The jobs that an order expands to, and about how many characters they have in all."""

    jobs: int
    text: int


def weight(order: VoiceJob | InvalidJob | Mapping[str, Any]) -> Weight:
    """Return the weight of an order, parsed or not; what it says of every song counts once for each."""
    if isinstance(order, InvalidJob):
        return Weight(1, _SHORT + sum(len(problem.field) + len(problem.message) for problem in order.problems))
    if isinstance(order, VoiceJob):
        return _weight(len(order.songs), _common(order), sum(map(_of_song, order.songs)))
    songs = order.get("songs")
    if not isinstance(songs, list | tuple):
        songs = ()
    own = _length(songs, _DEPTH - 1)
    return _weight(len(songs), _SHORT + _length(order, _DEPTH) - own, own)


def _weight(songs: int, common: int, own: int) -> Weight:
    jobs = songs or 1
    return Weight(jobs, own + jobs * common)


def _common(job: VoiceJob) -> int:
    found = _SHORT + len(job.audio_url or "") + len(job.callback_url or "")
    if job.metadata:
        found += sum(len(name) + len(value) for name, value in job.metadata.items())
    return found if job.song is None else found + _of_song(job.song)


def _of_song(song: Song) -> int:
    texts = (song.prompt, song.tags, song.negative_tags, song.description)
    return sum(len(text) for text in texts if text)


def _length(value: Any, depth: int) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Song):
        return _of_song(value)
    if not depth or value is None:
        return 0
    if isinstance(value, dict | Mapping):
        return sum(len(str(name)) + _length(inner, depth - 1) for name, inner in value.items())
    return sum(_length(inner, depth - 1) for inner in value) if isinstance(value, list | tuple) else 0


class Portion(Generic[T]):
    """Items collected until they are many jobs or much text."""

    def __init__(self, *, jobs: int = CHUNK, text: int = TEXT_MAX) -> None:
        self._most = Weight(jobs, text)
        self._items: list[T] = []
        self.weight = Weight(0, 0)

    def has_room(self, more: Weight) -> bool:
        """Return whether so much more still belongs to this portion; an empty one takes anything."""
        within = (self.weight.jobs + more.jobs, self.weight.text + more.text)
        return not self._items or (within[0] <= self._most.jobs and within[1] <= self._most.text)

    def add(self, item: T, more: Weight) -> None:
        """Add an item of that weight."""
        self._items.append(item)
        self.weight = Weight(self.weight.jobs + more.jobs, self.weight.text + more.text)

    @property
    def is_full(self) -> bool:
        """Whether not even the smallest item has room."""
        return self.weight.jobs >= self._most.jobs or self.weight.text >= self._most.text

    def take(self) -> list[T]:
        """Return the items and begin with none."""
        items, self._items, self.weight = self._items, [], Weight(0, 0)
        return items


def portions(items: Iterable[T], weigh: Callable[[T], Weight], *, jobs: int = CHUNK) -> Iterator[list[T]]:
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
