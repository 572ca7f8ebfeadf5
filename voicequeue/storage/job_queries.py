"""Reads of job records, batches, the backlog and events. Nothing here writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, cast

from voicequeue.domain import serialization
from voicequeue.domain.budgets import Budget
from voicequeue.domain.job import Event, Job, TimelineEntry
from voicequeue.domain.job_holds import JobHold
from voicequeue.domain.namespaces import index_of, namespace_of, split
from voicequeue.domain.newer_records import stored
from voicequeue.domain.spec import Priority
from voicequeue.domain.spending import Spending, SpendingQuery
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import IN_FLIGHT, SETTLED, State
from voicequeue.domain.status import BacklogLane, Batch
from voicequeue.storage.budgets import read_budgets
from voicequeue.storage.connection.key_types import WrongType, wrong_types
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.counters import failures_by_code, read_counters
from voicequeue.storage.job_holds import read_job_holds
from voicequeue.storage.monitoring.server_state import ServerState, read_server_state
from voicequeue.storage.monitoring.spending import read_spending
from voicequeue.storage.monitoring.throughput import TimeBucket, throughput
from voicequeue.texts import replace_unencodable

_PAGE = 500

#: The pace is the average over this many seconds.
RATE_WINDOW_S = 300.0

#: In a lane, songs have their creation time minus this many seconds as score, so that they precede voices
#: (scripts/lib/backlog.lua).
SONG_SCORE_OFFSET = 4e9


class JobQueries:
    """Reads of one queue's jobs, within the scope of its keyspace. Safe to share between threads.

    Batches are named as the caller of that scope names them, or with their namespace (`domain/namespaces.py`).
    """

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis
        self.scope = keyspace.scope

    # ── jobs ───────────────────────────────────────────────────────────────────────────────────

    def get(self, job_ids: Sequence[str]) -> list[Job | None]:
        """Return the jobs with these ids, in the same order; None for an id without a job in scope."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(self._space.key(f"job:{job_id}"))
            records = pipe.execute()
        return [
            serialization.parse_job(job_id, record) if record and self.scope.contains(record.get("batch")) else None
            for job_id, record in zip(job_ids, records, strict=True)
        ]

    def timeline(self, job_id: str) -> list[TimelineEntry]:
        """Return the transitions of a job, oldest first, starting with its enqueueing; none of a job out of scope."""
        record = self._space.key(f"job:{job_id}")
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(record, "created", "stage", "batch")
            pipe.lrange(self._space.key(f"timeline:{job_id}"), 0, -1)
            (created, stage, batch), lines = pipe.execute()
        if not self.scope.contains(batch):
            return []
        steps = [serialization.parse_timeline_entry(line) for line in lines]
        if created is None:
            return steps
        # The record itself says when the job was enqueued: a million queued jobs need no timelines.
        first = steps[0].stage if steps else stored(Stage, stage)
        return [TimelineEntry(at=float(created), state=State.QUEUED, stage=first, reason="enqueued"), *steps]

    def list_ids(self, *, state: State | None = None, batch: str | None = None) -> Iterator[str]:
        """Yield job ids: of a batch in creation order, of the backlog from its head, of any other state from the
        latest to the earliest that entered it."""
        if batch is not None:
            job_ids = self._space.pages(self._batch_key(batch, ":jobs"))
            return job_ids if state is None else self._in_state(job_ids, state)
        states = [state] if state is not None else list(State)
        return (job_id for one_state in states for job_id in self._of_state(one_state))

    def unsure_since(self, before: float, *, at_most: int = 1000) -> list[str]:
        """Return the ids of jobs that became unsure before that time, the earliest first."""
        with self._redis.pipeline(transaction=False) as pipe:
            for key in self._space.indexes(f"state:{State.UNSURE}"):
                pipe.zrange(key, "-inf", before, byscore=True, offset=0, num=at_most, withscores=True)
            entries = sorted((since, job_id) for page in pipe.execute() for job_id, since in page)
        return [job_id for _, job_id in entries[:at_most]]

    def _of_state(self, state: State) -> Iterator[str]:
        if state is not State.QUEUED:
            for key in self._space.indexes(f"state:{state}"):
                yield from self._space.pages(key, latest_first=True)
            return
        for priority in Priority:
            for batch in self._lane_names(priority):
                yield from self._space.pages(self._lane_key(priority, batch))

    def _in_state(self, job_ids: Iterator[str], state: State) -> Iterator[str]:
        while page := list(islice(job_ids, _PAGE)):
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in page:
                    pipe.hget(self._space.key(f"job:{job_id}"), "state")
                states = pipe.execute()
            yield from (job_id for job_id, current in zip(page, states, strict=True) if current == state)

    # ── the backlog ────────────────────────────────────────────────────────────────────────────

    def lanes(self, batch: str | None = None) -> list[BacklogLane]:
        """Return the lanes of the backlog, or those of one batch, in the order in which they are admitted."""
        lanes = [(priority, name) for priority in Priority for name in self._lane_names(priority)]
        lanes = [lane for lane in lanes if batch is None or lane[1] == self.scope.qualify(batch)]
        with self._redis.pipeline(transaction=False) as pipe:
            for lane in lanes:
                key = self._lane_key(*lane)
                pipe.zcard(key)
                pipe.zcount(key, "-inf", "(0")
                pipe.zrange(key, 0, 0, withscores=True)
                pipe.zrange(key, 0, "+inf", byscore=True, offset=0, num=1, withscores=True)
            replies = iter(pipe.execute())
        sizes = zip(lanes, zip(*[replies] * 4, strict=True), strict=True)
        return [
            _lane(lane, count, songs, head[0][0], [score for _, score in (*head, *voices)])
            for lane, (count, songs, head, voices) in sizes
            if head
        ]

    def job_holds(self, job_ids: Sequence[str], now: float) -> list[list[JobHold]]:
        """Return the holds of each job, besides those of the gate; [] for a job that is not queued."""
        return read_job_holds(self._space, job_ids, now)

    def _lane_names(self, priority: Priority) -> list[str]:
        """Return the batches in scope with queued jobs of this priority, in turn order."""
        names = cast(list[str], self._redis.zrange(self._space.key(f"lanes:{priority.rank}"), 0, -1))
        return list(filter(self.scope.contains, names))

    def _lane_key(self, priority: Priority, batch: str) -> str:
        return self._space.key(f"lane:{priority.rank}:{batch}")

    # ── counts ─────────────────────────────────────────────────────────────────────────────────

    def counts_by_state(self, batch: str | None = None, lanes: Sequence[BacklogLane] | None = None) -> dict[State, int]:
        """Return the number of jobs in each state, of one batch or of all; pass `lanes` if they were already read."""
        if batch is not None:
            return serialization.parse_states(cast(dict[str, str], self._redis.hgetall(self._batch_key(batch))))
        namespaces = self._space.namespaces()
        with self._redis.pipeline(transaction=False) as pipe:
            for state in State:
                for namespace in namespaces:
                    pipe.zcard(self._space.key(index_of(f"state:{state}", namespace)))
            counts = iter(pipe.execute())
        counted = {state: sum(islice(counts, len(namespaces))) for state in State}
        return counted | {State.QUEUED: sum(lane.count for lane in (self.lanes() if lanes is None else lanes))}

    def counts_by_state_and_stage(self) -> dict[tuple[State, Stage], int]:
        """Return the number of jobs by state and stage, except queued jobs: see `lanes`."""
        pairs = [(state, stage) for state in State if state is not State.QUEUED for stage in Stage]
        counts = self._redis.hmget(self._space.key("state_counts"), [f"{state}:{stage}" for state, stage in pairs])
        return dict(zip(pairs, map(_integer, cast(list[str | None], counts)), strict=True))

    def count_in_flight(self) -> int:
        """Return the number of jobs in scope that hold a slot."""
        if not self.scope.is_all:
            counts = self.counts_by_state(lanes=())
            return sum(counts[state] for state in IN_FLIGHT)
        return self._redis.zcard(self._space.key("in_flight"))

    def oldest_entry(self, state: State) -> float | None:
        """Return when the job that has been in this state longest entered it (not for queued); None if there is
        none."""
        with self._redis.pipeline(transaction=False) as pipe:
            for key in self._space.indexes(f"state:{state}"):
                pipe.zrange(key, 0, 0, withscores=True)
            return min((since for first in pipe.execute() for _, since in first), default=None)

    def server_state(self) -> ServerState | None:
        """Return the state of the Redis server; None if this user has no right to it."""
        return read_server_state(self._redis)

    def orders_by_stage(self) -> dict[Stage, tuple[int, int]]:
        """Return the number of charged orders of each stage and the credits that they cost."""
        fields = [f"{stage}.{figure}" for stage in Stage for figure in ("charges", "credits")]
        amounts = map(_integer, cast(list[str | None], self._redis.hmget(self._space.key("counters"), fields)))
        return dict(zip(Stage, zip(amounts, amounts, strict=True), strict=True))

    def purged_by_state(self) -> dict[State, int]:
        """Return the number of jobs ever purged, by their final state."""
        states = sorted(SETTLED)
        counts = self._redis.hmget(self._space.key("counters"), [f"purged.{state}" for state in states])
        return dict(zip(states, map(_integer, cast(list[str | None], counts)), strict=True))

    def counts(self, batch: str | None = None) -> Counter[str]:
        """Return the counters of one batch, or of all jobs in scope (`voicequeue.storage.counters`)."""
        return read_counters(self._space, batch)

    def failures_by_code(self, batch: str | None = None) -> dict[str, int]:
        """Return the number of failed jobs by failure code, of one batch or of all."""
        return failures_by_code(self.counts(batch))

    def count_succeeded(self, since: float) -> int:
        """Return the number of jobs that succeeded since then and are still in that state."""
        with self._redis.pipeline(transaction=False) as pipe:
            for key in self._space.indexes(f"state:{State.SUCCEEDED}"):
                pipe.zcount(key, since, "+inf")
            return sum(pipe.execute())

    def jobs_per_minute(self, now: float) -> float:
        """Return the number of jobs that recently succeeded per minute."""
        return self.count_succeeded(now - RATE_WINDOW_S) * 60 / RATE_WINDOW_S

    def credits_spent(self, batch: str | None = None) -> int:
        """Return the credits known to be spent, by one batch or in total."""
        return self.counts(batch)["credits"]

    def throughput(self, now: float, *, span_s: float, buckets: int) -> list[TimeBucket]:
        """Return how many jobs finished in each interval, and how long they took."""
        return throughput(self._space, now, span_s=span_s, buckets=buckets)

    def budgets(self, now: float) -> list[Budget]:
        """Return the budgets of the owners in scope."""
        return read_budgets(self._space, now)

    def spending(self, query: SpendingQuery) -> list[Spending]:
        """Return the rows of a report of spending."""
        return read_spending(self._space, query)

    def namespaces(self) -> list[str]:
        """Return the namespaces in scope that may have jobs; '' is the default one."""
        return self._space.namespaces()

    # ── batches ────────────────────────────────────────────────────────────────────────────────

    def batches(self) -> list[str]:
        """Return the names of all batches, with their namespaces, newest first."""
        with self._redis.pipeline(transaction=False) as pipe:
            for key in self._space.indexes("batches"):
                pipe.zrange(key, 0, -1, desc=True, withscores=True)
            entries = [(since, name) for page in pipe.execute() for name, since in page]
        return [name for _, name in sorted(entries, reverse=True)]

    def batch(self, name: str, *, or_empty: bool = False) -> Batch | None:
        """Return a batch; None if it has no jobs (left). With `or_empty` its name must be valid."""
        [batch] = self.read_batches([name])
        if batch is None and or_empty:
            record = cast(dict[str, str], self._redis.hgetall(self._batch_key(name)))
            return serialization.parse_batch(self.scope.qualify(name), record)
        return batch

    def read_batches(self, names: Sequence[str]) -> list[Batch | None]:
        """Return the batches of these names, in the same order; None for one that has no jobs (left)."""
        qualified_names = [replace_unencodable(self.scope.qualify(name)) for name in names]
        with self._redis.pipeline(transaction=False) as pipe:
            for qualified in qualified_names:
                pipe.zscore(self._space.key(index_of("batches", namespace_of(qualified))), qualified)
            times = cast(list[float | None], pipe.execute())
            # The key of a name that is not listed may hold something else.
            listed = [name for name, created_at in zip(qualified_names, times, strict=True) if created_at is not None]
            for qualified in listed:
                pipe.hgetall(self._space.key(f"batch:{qualified}"))
            records = iter(cast(list[dict[str, str]], pipe.execute()))
        return [
            None if created_at is None else serialization.parse_batch(qualified, next(records), created_at)
            for qualified, created_at in zip(qualified_names, times, strict=True)
        ]

    def _batch_key(self, name: str, suffix: str = "") -> str:
        return self._space.key(f"batch:{self.scope.qualify(name)}{suffix}")

    def stopped_batches(self) -> list[Batch]:
        """Return the batches that have stopped themselves and have jobs that are not settled, the latest stop first."""
        names = cast(list[str], self._redis.zrange(self._space.key("batches:stopped"), 0, -1, desc=True))
        names = list(filter(self.scope.contains, names))
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(self._space.key(f"batch:{name}"))
            batches = list(map(serialization.parse_batch, names, cast(list[dict[str, str]], pipe.execute())))
        return [batch for batch in batches if batch.stop is not None and not batch.is_settled]

    def newly_stopped_batches(self) -> list[Batch]:
        """Return the batches that have stopped since the last call by any process."""
        names = cast(list[str], self._redis.spop(self._space.key("batches:stopped:unlogged"), 100))
        return [batch for batch in map(self.batch, sorted(names)) if batch is not None and batch.stop is not None]

    # ── events ─────────────────────────────────────────────────────────────────────────────────

    def last_event_id(self) -> str:
        """Return the id of the newest event, as a starting point for `events`."""
        newest = cast(list[Any], self._redis.xrevrange(self._space.key("events"), count=1))
        return cast(str, newest[0][0]) if newest else "0-0"

    def events(self, after: str, *, wait_s: float) -> list[Event]:
        """Return the events of all namespaces after that id; wait up to `wait_s` seconds for the first one, [] if there
        is none."""
        positions: dict[Any, Any] = {self._space.key("events"): replace_unencodable(after)}
        reply = cast(list[Any], self._redis.xread(positions, block=max(1, round(wait_s * 1000)), count=1000))
        return [serialization.parse_event(event_id, fields) for _, page in reply or [] for event_id, fields in page]

    # ── Celery's queues ────────────────────────────────────────────────────────────────────────

    def count_messages(self, queues: Sequence[str]) -> dict[str, int]:
        """Return the number of messages in each of these Celery queues."""
        with self._redis.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.llen(self._space.key(f"celery:{queue}"))
            return dict(zip(queues, pipe.execute(), strict=True))

    def wrong_types(self, queues: Sequence[str]) -> list[WrongType]:
        """Return the keys of these Celery queues whose type ends every worker that reads them."""
        return list(wrong_types(self._redis, self._space, queues))


def _lane(lane: tuple[Priority, str], count: int, songs: int, head_id: str, scores: Sequence[float]) -> BacklogLane:
    priority, qualified = lane
    namespace, batch = split(qualified)
    oldest_at = min(score % SONG_SCORE_OFFSET for score in scores)
    return BacklogLane(priority, batch or None, count, oldest_at, songs, namespace, head_id)


def _integer(value: str | None) -> int:
    return int(value or 0)
