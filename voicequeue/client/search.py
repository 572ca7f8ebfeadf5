"""Filtered, paginated lists of jobs and batches. A cursor marks where the next page starts."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

from voicequeue.domain.job import Job
from voicequeue.domain.namespaces import Scope, index_of
from voicequeue.domain.search_text import Alternatives, search_text, value_alternatives
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import FailureCode, State
from voicequeue.domain.status import Batch
from voicequeue.domain.token_filter import hashes
from voicequeue.errors import InvalidCursorError, InvalidJobError, Problem, check_field, unencodable_fields
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.audit_log import AuditEntry, AuditFilter, is_entry_id

T = TypeVar("T")

#: Jobs read from Redis by one call.
CHUNK = 500

#: Jobs examined for one page, about. If few match, a page ends with fewer jobs than its limit. Jobs that are passed
#: over (storage/summaries.py) do not count.
EXAMINED_MAX = 10_000

#: A call takes as long as it takes to examine this many jobs: as many are counted for it at least.
CALL_COST = 10

#: Entries of the audit log examined for a page of those of one job, which the page of each job shows.
EXAMINED_OF_JOB_MAX = 2_000

_STATES = {state: number for number, state in enumerate(State)}
_INDEX = re.compile(
    r"state:(?P<state>\w+)(?:/(?P<namespace>[\w.-]+))?|lane:(?P<rank>[0-2]):(?P<lane_batch>[\w./-]*)"
    r"|batch:(?P<batch>[\w./-]+):jobs",
    re.ASCII,
)
_MEMBER = re.compile(r"[\w./-]*", re.ASCII)
_SCORE = re.compile(r"(-?\d{1,40}(\.\d{1,40})?(e[+-]?\d{1,3})?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter of jobs. A job matches if all given conditions hold.

    Args:
        state: In this state.
        stage: In this stage.
        batch: Of this batch.
        code: Failed with this code.
        since: Last changed at this time or later (Unix seconds).
        metadata: Has these metadata.
        text: Has this text as id, key, persona id, upstream task id, id of a Celery message or metadata value, or a
            word of its name, song title or voice name begins with it. Case is ignored. In quotation marks it is found
            as a whole value only.
        until: Last changed before this time (Unix seconds).
        source: Came from here, such as `http:shop`, or from all of a kind: `library`, `cli`, `http`, `message`.

    Raises:
        InvalidJobError: A text is not valid Unicode, or `text` is empty.
    """

    state: State | None = None
    stage: Stage | None = None
    batch: str | None = None
    code: FailureCode | None = None
    since: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    until: float | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        texts = {
            "batch": self.batch,
            "source": self.source,
            "metadata": dict(self.metadata),
            "search": self.text,
        }
        if broken := unencodable_fields(texts):
            raise InvalidJobError(broken)
        if self.text is not None:
            check_field("search", search_text, self.text)
        for name, kind in (("state", State), ("stage", Stage), ("code", FailureCode)):
            value = getattr(self, name)
            if value is not None and value not in set(kind):
                raise InvalidJobError([Problem(name, f"{value!r} is not one of {', '.join(kind)}")])

    def matches(self, job: Job) -> bool:
        """Return whether the metadata and `text` match. scripts/filter_page.lua has checked the other conditions."""
        has_all = all(job.spec.metadata.get(name) == value for name, value in self.metadata.items())
        return has_all and (self.text is None or search_text(self.text).finds(job))

    def script_arguments(self, scope: Scope) -> dict[str, Any]:
        """Return the arguments of scripts/filter_page.lua."""
        arguments: dict[str, Any] = {
            "state": self.state,
            "stage": self.stage,
            "batch": None if self.batch is None else scope.qualify(self.batch),
            "code": self.code,
            "since": self.since,
            "until": self.until,
            "source": self.source,
        }
        if self.metadata:
            arguments["parts"] = [_json(value) for value in self.metadata.values()]
        if self.text is not None:
            arguments["search"] = search_text(self.text).script_arguments()
        if conditions := self._conditions():
            arguments["conditions"] = [
                [[hashes(token) for token in tokens] for tokens in alternatives] for alternatives in conditions
            ]
        return {name: value for name, value in arguments.items() if value is not None}

    def _conditions(self) -> list[Alternatives]:
        """Return the tokens by which ranges of jobs are passed over (storage/summaries.py), for each condition."""
        of_metadata = [value_alternatives(value) for value in self.metadata.values()]
        return of_metadata if self.text is None else [search_text(self.text).alternatives(), *of_metadata]


def _json(text: str) -> str:
    """Return the text as it is encoded in a stored spec."""
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list.

    Attributes:
        items: The items of the page.
        cursor: Pass it to get the next page; None on the last page.
    """

    items: tuple[T, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class PagePosition:
    """A position in an index: after `member`, or at the start if it is empty."""

    index: str
    member: str = ""
    score: str = ""

    @property
    def after(self) -> tuple[str, str] | None:
        """The last member that was read, and its score."""
        return (self.member, self.score) if self.member else None

    def text(self) -> str:
        """Return the position as a cursor."""
        parts = json.dumps([self.index, self.member, self.score], separators=(",", ":"))
        return urlsafe_b64encode(parts.encode()).decode().rstrip("=")


def decode_position(cursor: str) -> PagePosition:
    """Decode a cursor of any index. Raises InvalidCursorError."""
    try:
        parts = json.loads(urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
        index, member, score = (part if isinstance(part, str) else "\0" for part in parts)
    except (ValueError, TypeError, RecursionError):
        raise InvalidCursorError from None
    if not (_MEMBER.fullmatch(member) and _SCORE.fullmatch(score)):
        raise InvalidCursorError
    return PagePosition(index, member, score) if score else PagePosition(index)


def _decode_cursor(cursor: str) -> PagePosition:
    """Decode a cursor of an index. Raises InvalidCursorError."""
    position = decode_position(cursor)
    if position.index != "batches" and _order(position.index) is None:
        raise InvalidCursorError
    return position


def list_batches(
    store: JobStore, *, limit: int, cursor: str | None = None, text: str | None = None, latest_first: bool = True
) -> Page[Batch]:
    """Return a page of the batches whose names contain a text, in the order of their creation.

    Raises InvalidCursorError.
    """
    position = _decode_cursor(cursor) if cursor else PagePosition("batches")
    if position.index != "batches":
        raise InvalidCursorError
    members = list(islice(_batch_members(store, position, text or "", latest_first=latest_first), limit))
    end = PagePosition("batches", *members[-1]).text() if len(members) == limit else None
    batches = store.read_batches([name for name, _ in members])
    return Page(tuple(batch for batch in batches if batch is not None), end)


def _batch_members(
    store: JobStore, position: PagePosition, text: str, *, latest_first: bool = True
) -> Iterator[tuple[str, str]]:
    """Yield the names of batches that contain the text in any case, with their times, from a position on."""
    while members := store.indexes.read_batches(position.after, CHUNK, latest_first=latest_first):
        yield from (member for member in members if text.casefold() in member[0].casefold())
        position = PagePosition("batches", *members[-1])


def count_batches(store: JobStore, text: str | None) -> int:
    """Return the number of batches whose names contain a text."""
    return sum(1 for _ in _batch_members(store, PagePosition("batches"), text or ""))


def batch_names(store: JobStore, prefix: str, *, limit: int) -> list[str]:
    """Return up to `limit` names of batches that begin with a prefix, the newest first."""
    members = _batch_members(store, PagePosition("batches"), prefix)
    return list(islice((name for name, _ in members if name.startswith(prefix)), limit))


def audit_entries(
    store: JobStore, entry_filter: AuditFilter, *, limit: int, cursor: str | None = None
) -> Page[AuditEntry]:
    """Return a page of the audit log, the latest entries first. Raises InvalidCursorError."""
    if cursor is not None and not is_entry_id(cursor):
        raise InvalidCursorError
    matches: list[AuditEntry] = []
    examined, last_id = 0, ""
    at_most = EXAMINED_MAX if entry_filter.job_id is None else EXAMINED_OF_JOB_MAX
    for page in store.audit_log.pages(entry_filter.since, before=cursor):
        for entry in page:
            if len(matches) == limit or examined == at_most:
                return Page(tuple(matches), last_id)
            if entry_filter.matches(entry):
                matches.append(entry)
            examined, last_id = examined + 1, entry.id
    return Page(tuple(matches), None)


def search(
    store: JobStore, job_filter: Filter, *, limit: int, cursor: str | None = None, examines_all: bool = False
) -> Page[Job]:
    """Return a page of up to `limit` jobs; fewer, even none, if few of many match. Raises InvalidCursorError.

    With `examines_all`, no job is passed over (storage/summaries.py).

    Order: within a batch as enqueued; within a state by the latest to enter it; the backlog by priority, batch and age;
    all jobs state by state, all namespaces of a state one by one. A job that changes its state between two pages may be
    on both.
    """
    jobs: list[Job] = []
    examined, arguments = 0, job_filter.script_arguments(store.scope)
    if examines_all:
        arguments.pop("conditions", None)
    positions = _positions(store, job_filter, cursor)
    for start in positions:
        position: PagePosition | None = start
        while position is not None:
            matches, position, count = _matches(store, job_filter, arguments, position, limit - len(jobs))
            jobs += matches
            examined += max(count, CALL_COST)
            if len(jobs) >= limit or examined >= EXAMINED_MAX:
                after = position or next(positions, None)
                return Page(tuple(jobs), after.text() if after else None)
    return Page(tuple(jobs), None)


def iter_matching(store: JobStore, job_filter: Filter) -> Iterator[Job]:
    """Yield all jobs that match, each once even if it changes meanwhile.

    Every job is examined: an erasure must not miss one, even if an older release has left a summary wrong.
    """
    yielded_ids: set[str] = set()
    cursor: str | None = None
    while True:
        jobs = search(store, job_filter, limit=CHUNK, cursor=cursor, examines_all=True)
        for job in jobs.items:
            if job.id not in yielded_ids:
                yielded_ids.add(job.id)
                yield job
        if (cursor := jobs.cursor) is None:
            return


def _matches(
    store: JobStore, job_filter: Filter, arguments: Mapping[str, Any], position: PagePosition, limit: int
) -> tuple[list[Job], PagePosition | None, int]:
    """Return up to `limit` matches, where to continue in the index (None: its end), and how many jobs were examined."""
    latest_first = position.index.startswith("state:")
    chunk = CHUNK if is_selective(job_filter) else min(CHUNK, limit)
    page = store.indexes.filter_page(position.index, position.after, chunk, arguments, latest_first=latest_first)
    read = store.get([job_id for job_id, _ in page.members])
    jobs = [job for job in read if job is not None and job_filter.matches(job)]
    if len(jobs) > limit or (len(jobs) == limit and not page.is_last):
        end = jobs[limit - 1].id
        return jobs[:limit], PagePosition(position.index, end, dict(page.members)[end]), page.examined
    # A state is read from the latest change on: if a job is older than `since`, all later ones are too.
    since = job_filter.since if latest_first else None
    is_end = page.is_last or (since is not None and float(page.last[1]) < since)
    return jobs, None if is_end else PagePosition(position.index, *page.last), page.examined


def is_selective(job_filter: Filter) -> bool:
    """Return whether few members of the indexes may match."""
    return job_filter != Filter(state=job_filter.state, batch=job_filter.batch) or (
        job_filter.batch is not None and job_filter.state not in (None, State.QUEUED)
    )


def _positions(store: JobStore, job_filter: Filter, cursor: str | None) -> Iterator[PagePosition]:
    """Return where to read, index by index, starting at the cursor."""
    indexes = _indexes(store, job_filter)
    if cursor is None:
        return (PagePosition(index) for index in indexes)
    start = _decode_cursor(cursor)
    if not _may_hold(start.index, job_filter, store.scope):
        raise InvalidCursorError
    # A lane that has become empty still has its position among the others.
    later = [PagePosition(index) for index in indexes if (_order(index) or ()) > (_order(start.index) or ())]
    return iter([start, *later])


def _indexes(store: JobStore, job_filter: Filter) -> list[str]:
    if job_filter.batch is not None and job_filter.state is not State.QUEUED:
        return [f"batch:{store.scope.qualify(job_filter.batch)}:jobs"]
    indexes: list[str] = []
    namespaces = sorted(store.namespaces())
    for state in [job_filter.state] if job_filter.state else list(State):
        if state is State.QUEUED:
            indexes += [f"lane:{priority.rank}:{batch}" for priority, batch in store.indexes.lanes(job_filter.batch)]
        else:
            indexes += [index_of(f"state:{state}", namespace) for namespace in namespaces]
    return indexes


def _may_hold(index: str, job_filter: Filter, scope: Scope) -> bool:
    """Return whether a page with this filter and in this scope can end in the index."""
    match = _INDEX.fullmatch(index)
    if match is None:
        return False
    batch = None if job_filter.batch is None else scope.qualify(job_filter.batch)
    if match["batch"] is not None:
        return batch == match["batch"]
    if batch is not None:
        return job_filter.state is State.QUEUED and match["lane_batch"] == batch
    owner = f"{match['namespace'] or ''}/" if match["state"] is not None else match["lane_batch"]
    return scope.contains(owner)


def _order(index: str) -> tuple[int, int, str] | None:
    """Return the sort key of an index; None if it is none."""
    match = _INDEX.fullmatch(index)
    if match is None:
        return None
    if match["state"] is not None:
        namespace = match["namespace"] or ""
        return (_STATES[State(match["state"])], 0, namespace) if match["state"] in list(State) else None
    return (_STATES[State.QUEUED], int(match["rank"] or 0), match["lane_batch"] or "")
