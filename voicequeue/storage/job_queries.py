"""Reads of job records, batches, the backlog and events. Nothing here writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, cast

from voicequeue.domain import serialization
from voicequeue.domain.job import Event, Job, TimelineEntry
from voicequeue.domain.spec import Priority
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import SETTLED, State
from voicequeue.domain.status import BacklogLane, Batch
from voicequeue.storage.connection.key_types import WrongType, wrong_types
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.monitoring.throughput import TimeBucket, throughput
from voicequeue.texts import replace_unencodable

_PAGE = 500

#: In a lane, songs have their creation time minus this many seconds as score, so that they precede voices
#: (scripts/lib/backlog.lua).
SONG_SCORE_OFFSET = 4e9


class JobQueries:
    """Reads of one queue's jobs. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis

    # ── jobs ───────────────────────────────────────────────────────────────────────────────────

    def get(self, job_ids: Sequence[str]) -> list[Job | None]:
        """Return the jobs with these ids, in the same order; None for an id without a job."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(self._space.key(f"job:{job_id}"))
            records = pipe.execute()
        return [
            serialization.parse_job(job_id, record) if record else None
            for job_id, record in zip(job_ids, records, strict=True)
        ]

    def timeline(self, job_id: str) -> list[TimelineEntry]:
        """Return the transitions of a job, oldest first, starting with its enqueueing."""
        record = self._space.key(f"job:{job_id}")
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(record, "created", "stage")
            pipe.lrange(self._space.key(f"timeline:{job_id}"), 0, -1)
            (created, stage), lines = pipe.execute()
        steps = [serialization.parse_timeline_entry(line) for line in lines]
        if created is None:
            return steps
        # The record itself says when the job was enqueued: a million queued jobs need no timelines.
        first = steps[0].stage if steps else Stage(stage)
        return [TimelineEntry(at=float(created), state=State.QUEUED, stage=first, reason="enqueued"), *steps]

    def list_ids(self, *, state: State | None = None, batch: str | None = None) -> Iterator[str]:
        """Yield job ids: of a batch in creation order, of the backlog from its head, of any other state from the
        latest to the earliest that entered it."""
        if batch is not None:
            job_ids = self._space.pages(self._space.key(f"batch:{batch}:jobs"))
            return job_ids if state is None else self._in_state(job_ids, state)
        states = [state] if state is not None else list(State)
        return (job_id for one_state in states for job_id in self._of_state(one_state))

    def unsure_since(self, before: float, *, at_most: int = 1000) -> list[str]:
        """Return the ids of jobs that became unsure before that time, the earliest first."""
        key = self._space.key(f"state:{State.UNSURE}")
        return cast(list[str], self._redis.zrange(key, "-inf", before, byscore=True, offset=0, num=at_most))

    def _of_state(self, state: State) -> Iterator[str]:
        if state is not State.QUEUED:
            yield from self._space.pages(self._space.key(f"state:{state}"), latest_first=True)
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
        lanes = [lane for lane in lanes if batch in (None, lane[1])]
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
            BacklogLane(
                priority, name or None, count, min(score % SONG_SCORE_OFFSET for _, score in (*head, *voices)), songs
            )
            for (priority, name), (count, songs, head, voices) in sizes
            if head
        ]

    def _lane_names(self, priority: Priority) -> list[str]:
        """Return the batches with queued jobs of this priority ('' for jobs without a batch), in turn order."""
        return cast(list[str], self._redis.zrange(self._space.key(f"lanes:{priority.rank}"), 0, -1))

    def _lane_key(self, priority: Priority, batch: str) -> str:
        return self._space.key(f"lane:{priority.rank}:{batch}")

    # ── counts ─────────────────────────────────────────────────────────────────────────────────

    def counts_by_state(self, batch: str | None = None, lanes: Sequence[BacklogLane] | None = None) -> dict[State, int]:
        """Return the number of jobs in each state, of one batch or of all; pass `lanes` if they were already read."""
        if batch is not None:
            return serialization.parse_states(
                cast(dict[str, str], self._redis.hgetall(self._space.key(f"batch:{batch}")))
            )
        with self._redis.pipeline(transaction=False) as pipe:
            for state in State:
                pipe.zcard(self._space.key(f"state:{state}"))
            counted = dict(zip(State, pipe.execute(), strict=True))
        return counted | {State.QUEUED: sum(lane.count for lane in (self.lanes() if lanes is None else lanes))}

    def counts_by_state_and_stage(self) -> dict[tuple[State, Stage], int]:
        """Return the number of jobs by state and stage, except queued jobs: see `lanes`."""
        pairs = [(state, stage) for state in State if state is not State.QUEUED for stage in Stage]
        counts = self._redis.hmget(self._space.key("state_counts"), [f"{state}:{stage}" for state, stage in pairs])
        return dict(zip(pairs, map(_integer, cast(list[str | None], counts)), strict=True))

    def count_in_flight(self) -> int:
        """Return the number of jobs that hold a slot."""
        return self._redis.zcard(self._space.key("in_flight"))

    def oldest_entry(self, state: State) -> float | None:
        """Return when the job that has been in this state longest entered it (not for queued); None if there is
        none."""
        first = cast(
            list[tuple[str, float]], self._redis.zrange(self._space.key(f"state:{state}"), 0, 0, withscores=True)
        )
        return first[0][1] if first else None

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

    def failures_by_code(self, batch: str | None = None) -> dict[str, int]:
        """Return the number of failed jobs by failure code, of one batch or of all."""
        key = self._space.key("counters" if batch is None else f"batch:{batch}")
        return serialization.parse_failures(cast(dict[str, str], self._redis.hgetall(key)))

    def count_succeeded(self, since: float) -> int:
        """Return the number of jobs that succeeded since then and are still in that state."""
        return self._redis.zcount(self._space.key(f"state:{State.SUCCEEDED}"), since, "+inf")

    def credits_spent(self, batch: str | None = None) -> int:
        """Return the credits known to be spent, by one batch or in total."""
        if batch is not None:
            return int(self._redis.hget(self._space.key(f"batch:{batch}"), "credits") or 0)
        fields = [f"{name}.credits" for name in (*Stage, "corrected")]
        return sum(map(_integer, cast(list[str | None], self._redis.hmget(self._space.key("counters"), fields))))

    def throughput(self, now: float, *, span_s: float, buckets: int) -> list[TimeBucket]:
        """Return how many jobs finished in each interval, and how long they took."""
        return throughput(self._space, now, span_s=span_s, buckets=buckets)

    # ── batches ────────────────────────────────────────────────────────────────────────────────

    def batches(self) -> list[str]:
        """Return the names of all batches, newest first."""
        return cast(list[str], self._redis.zrange(self._space.key("batches"), 0, -1, desc=True))

    def batch(self, name: str) -> Batch | None:
        """Return a batch; None if it has no jobs (left)."""
        if self._redis.zscore(self._space.key("batches"), replace_unencodable(name)) is None:
            return None  # the key of such a name may hold something else
        return serialization.parse_batch(
            name, cast(dict[str, str], self._redis.hgetall(self._space.key(f"batch:{name}")))
        )

    def stopped_batches(self) -> list[Batch]:
        """Return the batches that have stopped themselves and have jobs that are not settled, the latest stop first."""
        names = cast(list[str], self._redis.zrange(self._space.key("batches:stopped"), 0, -1, desc=True))
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
        """Return the events after that id; wait up to `wait_s` seconds for the first one, [] if there is none."""
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


def _integer(value: str | None) -> int:
    return int(value or 0)
