"""Lists of jobs and batches, filtered, a page at a time: a cursor tells where the next one begins."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from voicequeue.domain.job import Code, Job, State
from voicequeue.domain.stage import Stage
from voicequeue.domain.status import Batch
from voicequeue.errors import BadCursor, InvalidJob, half_texts
from voicequeue.storage.job_store import Store

T = TypeVar("T")

#: Jobs read by one call to Redis.
CHUNK = 500

#: Jobs looked at for one page. Where few match, a page may end with less than was asked for.
LOOKED_AT = 10_000

_STATES = {state: place for place, state in enumerate(State)}
_INDEX = re.compile(
    r"state:(?P<state>\w+)|line:(?P<rank>[0-2]):(?P<of>[\w.-]*)|batch:(?P<batch>[\w.-]+):jobs", re.ASCII
)
_MEMBER = re.compile(r"[\w.-]*", re.ASCII)
_SCORE = re.compile(r"(-?\d{1,40}(\.\d{1,40})?(e[+-]?\d{1,3})?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs: each that all of these are true of.

    `since` (Unix seconds): its last move was then or later. `called`: that very text is its key, its name, the title
    of its song, the id or name of its voice, one of upstream's task ids, or the value of one of its metadata.
    Raises InvalidJob for a text with half a character.
    """

    state: State | None = None
    stage: Stage | None = None
    batch: str | None = None
    code: Code | None = None
    since: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    called: str | None = None

    def __post_init__(self) -> None:
        texts = {"batch": self.batch, "metadata": dict(self.metadata), "called": self.called}
        if broken := half_texts(texts):
            raise InvalidJob(broken)

    def matches(self, job: Job) -> bool:
        """Whether its metadata and texts match; scripts/filter_page.lua has tested the rest."""
        has_all = all(job.spec.metadata.get(name) == value for name, value in self.metadata.items())
        return has_all and (self.called is None or self.called in _names(job))

    def sifted(self) -> dict[str, Any]:
        """As scripts/filter_page.lua takes it."""
        wanted: dict[str, Any] = {
            "state": self.state,
            "stage": self.stage,
            "batch": self.batch,
            "code": self.code,
            "since": self.since,
        }
        if self.metadata:
            wanted["parts"] = [_json(value) for value in self.metadata.values()]
        if self.called is not None:
            wanted["called"] = {"is": self.called, "part": _json(self.called)}
        return {name: value for name, value in wanted.items() if value is not None}


def _names(job: Job) -> tuple[str | None, ...]:
    spec = job.spec
    title = spec.song.title if spec.song else None
    given = (spec.key, spec.name, title, job.persona_id, job.voice_name)
    return (*given, *job.orders.values(), *spec.metadata.values())


def _json(text: str) -> str:
    """As it stands in a spec's content."""
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of a list, and where to go on (None: that was all)."""

    items: tuple[T, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where in which index a page ended; without a member before the index's first."""

    index: str
    member: str = ""
    score: str = ""

    @property
    def after(self) -> tuple[str, str] | None:
        """Member and score that came last."""
        return (self.member, self.score) if self.member else None

    def text(self) -> str:
        """As a cursor."""
        parts = json.dumps([self.index, self.member, self.score], separators=(",", ":"))
        return urlsafe_b64encode(parts.encode()).decode().rstrip("=")


def _place(cursor: str) -> Place:
    """The place that a cursor names. Raises BadCursor."""
    try:
        parts = json.loads(urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
        index, member, score = (part if isinstance(part, str) else "\0" for part in parts)
    except (ValueError, TypeError, RecursionError):
        raise BadCursor from None
    known = index == "batches" or _order(index) is not None
    if not (known and _MEMBER.fullmatch(member) and _SCORE.fullmatch(score)):
        raise BadCursor
    return Place(index, member, score) if score else Place(index)


def batches(store: Store, *, limit: int, cursor: str | None = None) -> Page[Batch]:
    """Batches, the newest first."""
    place = _place(cursor) if cursor else Place("batches")
    if place.index != "batches":
        raise BadCursor
    found = store.lookup.walk("batches", place.after, limit, latest_first=True)
    named = (store.batch(name) for name, _ in found)
    end = Place("batches", *found[-1]).text() if len(found) == limit else None
    return Page(tuple(batch for batch in named if batch is not None), end)


def page(store: Store, wanted: Filter, *, limit: int, cursor: str | None = None) -> Page[Job]:
    """Up to `limit` jobs; fewer, even none, where few of many match. Raises BadCursor.

    A batch is told in the order it came, a state by the latest to enter it, the backlog by priority, batch
    and age, and all jobs state by state. A job that moves meanwhile may be told twice.
    """
    found: list[Job] = []
    looked_at = 0
    places = _places(store, wanted, cursor)
    for start in places:
        place: Place | None = start
        while place is not None:
            jobs, place, seen = _some(store, wanted, place, limit - len(found))
            found += jobs
            looked_at += seen
            if len(found) >= limit or looked_at >= LOOKED_AT:
                after = place or next(places, None)
                return Page(tuple(found), after.text() if after else None)
    return Page(tuple(found), None)


def matching(store: Store, wanted: Filter) -> Iterator[Job]:
    """All such jobs, each once though it move meanwhile."""
    told: set[str] = set()
    cursor: str | None = None
    while True:
        some = page(store, wanted, limit=CHUNK, cursor=cursor)
        for job in some.items:
            if job.id not in told:
                told.add(job.id)
                yield job
        if (cursor := some.cursor) is None:
            return


def _some(store: Store, wanted: Filter, place: Place, room: int) -> tuple[list[Job], Place | None, int]:
    """What fits of an index's next members, up to `room`; where to go on in it, and how many were looked at."""
    latest_first = place.index.startswith("state:")
    chunk = CHUNK if _is_picky(wanted) else min(CHUNK, room)
    looked_at, last, fitting = store.lookup.sift(
        place.index, place.after, chunk, wanted.sifted(), latest_first=latest_first
    )
    jobs = [job for job in store.get([job_id for job_id, _ in fitting]) if job is not None and wanted.matches(job)]
    if len(jobs) > room or (len(jobs) == room and looked_at == chunk):
        end = jobs[room - 1].id
        return jobs[:room], Place(place.index, end, dict(fitting)[end]), looked_at
    # In a state the latest come first: from here on all came before that time.
    over = looked_at < chunk or (latest_first and wanted.since is not None and float(last[1]) < wanted.since)
    return jobs, None if over else Place(place.index, *last), looked_at


def _is_picky(wanted: Filter) -> bool:
    """Whether few may match of what stands in the indexes."""
    return wanted != Filter(state=wanted.state, batch=wanted.batch) or (
        wanted.batch is not None and wanted.state not in (None, State.QUEUED)
    )


def _places(store: Store, wanted: Filter, cursor: str | None) -> Iterator[Place]:
    """Where to look, one index after the other, from the cursor on."""
    indexes = _indexes(store, wanted)
    if cursor is None:
        return (Place(index) for index in indexes)
    start = _place(cursor)
    if not _may_hold(start.index, wanted):
        raise BadCursor
    # A line that has emptied meanwhile still has its place among the others.
    later = [Place(index) for index in indexes if (_order(index) or ()) > (_order(start.index) or ())]
    return iter([start, *later])


def _indexes(store: Store, wanted: Filter) -> list[str]:
    if wanted.batch is not None and wanted.state is not State.QUEUED:
        return [f"batch:{wanted.batch}:jobs"]
    found: list[str] = []
    for state in [wanted.state] if wanted.state else list(State):
        if state is State.QUEUED:
            found += [f"lane:{priority.rank}:{batch}" for priority, batch in store.lookup.lines(wanted.batch)]
        else:
            found.append(f"state:{state}")
    return found


def _may_hold(index: str, wanted: Filter) -> bool:
    """Whether a page of this filter may have ended there."""
    found = _INDEX.fullmatch(index)
    if found is None:
        return False
    if found["batch"] is not None:
        return wanted.batch == found["batch"]
    return wanted.batch is None or (wanted.state is State.QUEUED and found["of"] == wanted.batch)


def _order(index: str) -> tuple[int, int, str] | None:
    """Indexes stand in this order; None for what is none of them."""
    found = _INDEX.fullmatch(index)
    if found is None:
        return None
    if found["state"] is not None:
        return (_STATES[State(found["state"])], 0, "") if found["state"] in list(State) else None
    return (_STATES[State.QUEUED], int(found["rank"] or 0), found["of"] or "")
