"""The jobs' records in Redis: the one place that reads and writes them.

Python owns which moves are legal (`voicequeue.job`); the Lua scripts compare and write. Every
method takes `now` in Unix seconds where time matters. The key map stands in
`scripts/lib/record.lua`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import Any, cast

from redis import Redis

from voicequeue import records, scripts
from voicequeue.balance import Balance
from voicequeue.job import Job, Move, State, Step
from voicequeue.reconnect import KeepTrying, failures
from voicequeue.spec import VoiceJob, stored
from voicequeue.stage import Stage

DEFAULT_PREFIX = "voicequeue"

#: A claim may come this much before its time (seconds): clocks of two machines differ a little.
EARLY_S = 0.05

_PAGE = 500

#: What may stand in a key's hash tag.
_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,40}")


def connect(url: str, *, wait_s: float = 0.0) -> Redis:
    """A client for the jobs' Redis; each call keeps trying for `wait_s` seconds while Redis is away.

    Raises ValueError if `url` is no Redis URL, without quoting it: there may be a password in it.
    """
    try:
        return Redis.from_url(
            url,
            decode_responses=True,
            protocol=2,  # answers keep one shape whatever the server and redis-py prefer
            socket_connect_timeout=5,
            socket_timeout=10,
            health_check_interval=25,
            retry=KeepTrying(wait_s),
        )
    except ValueError:
        raise ValueError("the Redis URL must look like redis://[user:password@]host:port/database") from None


class Outcome(IntEnum):
    """What became of one job that was enqueued."""

    NEW = 1
    KNOWN = 0
    CONFLICT = -1


@dataclass(frozen=True, slots=True)
class Charged:
    """A claim to send one POST, which `charging` was written for.

    It holds `until` then (Unix seconds); later somebody else may have decided over the job.
    `persona_id` is the voice that this job has made; `content` is what `spec` reads.
    """

    job_id: str
    version: int
    stage: Stage
    attempt: int
    content: str
    persona_id: str | None
    until: float

    def spec(self) -> VoiceJob:
        """What was asked for. Raises ValueError for a record of a release with other rules."""
        return stored(self.content)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim to ask upstream about one job; `since` is when the stage was paid (Unix seconds).

    `state` is pending; or failed or cancelled, where only what comes late is still to be kept.
    """

    job_id: str
    version: int
    state: State
    stage: Stage
    task_id: str
    since: float
    next_stage: Stage | None


@dataclass(frozen=True, slots=True)
class Overdue:
    """A job of which something is to come, and that nobody looked after in time."""

    job_id: str
    version: int
    state: State
    stage: Stage


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether admission is held back, why, and until when (Unix seconds; None: till somebody opens it)."""

    open: bool
    reason: str | None = None
    detail: str | None = None
    since: float | None = None
    until: float | None = None


class Store:
    """Job records under one prefix of one Redis. Safe to share between threads."""

    def __init__(self, redis: Redis, prefix: str = DEFAULT_PREFIX) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ValueError("the prefix must be 1 to 40 of the letters A-Z and a-z, digits, '.', '_' and '-'")
        self._redis = redis
        self._root = f"{{{prefix}}}:"

    # ── writing ────────────────────────────────────────────────────────────────────────────────

    def enqueue(self, jobs: Sequence[tuple[str, VoiceJob]], now: float) -> list[Outcome]:
        """Write (id, job) pairs to the backlog, in order; a job that is there already is left alone.

        A job that this very call has written is NEW, also where Redis's first answer was lost.
        """
        before = failures()
        arguments: list[str | int | float] = [now]
        for job_id, spec in jobs:
            first, *later = spec.stages
            after = later[0] if later else ""
            arguments += (job_id, spec.content(), spec.priority.rank, spec.batch or "", first, after)
        outcomes = [Outcome(code) for code in self._run("enqueue", *arguments)]
        return self._new_after_all(jobs, outcomes, now) if failures() > before else outcomes

    def admit(self, now: float, *, limit: int, at_most: int = 1000) -> dict[Stage, list[str]]:
        """Take jobs from the head of the backlog, up to `limit` in flight, by the stage they stand at."""
        flat = self._run("admit", now, limit, at_most)
        admitted: dict[Stage, list[str]] = {}
        for job_id, stage in _rows(flat, 2):
            admitted.setdefault(Stage(stage), []).append(job_id)
        return admitted

    def charge(self, job_id: str, stage: Stage, holder: str, now: float, *, lease: float) -> Charged | None:
        """Claim one job for its POST; None if there is nothing to send (any more, or for now).

        `holder` is a token of this very claim: asking again with it gives the same answer.
        """
        found = self._run("charge", now, job_id, stage, holder, now + lease)
        if found is None or found == "closed":
            return None
        version, attempt, content, persona_id = found
        return Charged(job_id, int(version), stage, int(attempt), content, persona_id, now + lease)

    def claim(self, job_ids: Iterable[str], stage: Stage, now: float, *, lease: float) -> list[Claimed]:
        """Those of the jobs that are due to be asked about; nobody else gets them for `lease` seconds."""
        flat = self._run("claim", now + EARLY_S, stage, now + lease, *job_ids)
        return [
            Claimed(job_id, int(version), State(state), stage, task_id, float(since), Stage(after) if after else None)
            for job_id, version, state, task_id, since, after in _rows(flat, 6)
        ]

    def apply(self, moves: Sequence[Move], now: float) -> list[bool]:
        """Make moves, each whole or not at all; False where the job had moved on meanwhile."""
        if not moves:
            return []
        before = failures()
        lines = json.dumps([records.move_text(move) for move in moves], ensure_ascii=False)
        written = [bool(each) for each in self._run("apply", now, lines)]
        return self._written_after_all(moves, written, now) if failures() > before else written

    def plan(self, jobs: Iterable[tuple[str, int]], due: float) -> list[str]:
        """Say when jobs, given as (id, version), are due to be asked about; gives the ids that still are."""
        pairs = [part for job in jobs for part in job]
        return cast(list[str], self._run("plan", due, *pairs)) if pairs else []

    def unsure_since(self, before: float, *, at_most: int = 1000) -> list[str]:
        """Ids of jobs that went unsure before then, the longest first."""
        key = self._key(f"state:{State.UNSURE}")
        return cast(list[str], self._redis.zrange(key, "-inf", before, byscore=True, offset=0, num=at_most))

    def overdue(self, now: float, *, patience: float, at_most: int = 1000) -> list[Overdue]:
        """Jobs whose time passed `patience` seconds ago, each given to one caller."""
        return [
            Overdue(job_id, int(version), State(state), Stage(stage))
            for job_id, version, state, stage in _rows(self._run("overdue", now, patience, at_most), 4)
        ]

    def close_gate(self, reason: str, detail: str, now: float, until: float | None = None) -> None:
        """Hold admission back, till `until` or (None) till somebody opens it; never for less than it is."""
        self._run("close", now, reason, detail, "" if until is None else until)

    def turn(self, name: str, *, every: float) -> bool:
        """Whether it is the caller's turn to do what one worker does for all, once in `every` seconds."""
        return bool(self._redis.set(self._key(f"turn:{name}"), "taken", nx=True, px=max(1, round(every * 1000))))

    def note_balance(self, credits: int, *, spent_before: int, asked: float, now: float) -> int:
        """Note the credits that upstream said are left, asked about when `credits()` were spent; gives our count."""
        return int(self._run("balance", now, asked, credits, spent_before))

    def heard(self, worker: str, now: float) -> None:
        """Note that a worker's pulse beats; those not heard for a day are forgotten."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd(self._key("pulses"), {worker: now})
            pipe.zremrangebyscore(self._key("pulses"), "-inf", now - 86_400)
            pipe.execute()

    # ── reading ────────────────────────────────────────────────────────────────────────────────

    def get(self, job_ids: Sequence[str]) -> list[Job | None]:
        """The jobs of these ids, in their order; None where there is none."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(self._key(f"job:{job_id}"))
            found = pipe.execute()
        return [records.job(job_id, record) if record else None for job_id, record in zip(job_ids, found, strict=True)]

    def timeline(self, job_id: str) -> list[Step]:
        """The moves of a job, oldest first, from its enqueueing on."""
        record = self._key(f"job:{job_id}")
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hget(record, "created")
            pipe.lrange(self._key(f"timeline:{job_id}"), 0, -1)
            created, lines = pipe.execute()
        steps = [records.step(line) for line in lines]
        if created is None:
            return steps
        # Enqueueing is told from the record itself: a million queued jobs need no timelines.
        first = steps[0].stage if steps else Stage(cast(str, self._redis.hget(record, "stage")))
        return [Step(at=float(created), state=State.QUEUED, stage=first, reason="enqueued"), *steps]

    def ids(self, *, state: State | None = None, batch: str | None = None) -> Iterator[str]:
        """Ids of a batch in the order they came, of the backlog from its head, of any other state by
        when they entered it (latest first)."""
        if batch is not None:
            found = self._pages(self._key(f"batch:{batch}:jobs"), False)
            return found if state is None else self._in_state(found, state)
        states = [state] if state is not None else list(State)
        return (job_id for each in states for job_id in self._pages(*self._index(each)))

    def counts(self, batch: str | None = None) -> dict[State, int]:
        """How many jobs stand in each state, of one batch or of all."""
        if batch is not None:
            record = cast(dict[str, str], self._redis.hgetall(self._key(f"batch:{batch}")))
            return {state: int(record.get(state, 0)) for state in State}
        with self._redis.pipeline(transaction=False) as pipe:
            for state in State:
                pipe.zcard(self._index(state)[0])
            return dict(zip(State, pipe.execute(), strict=True))

    def credits(self, batch: str | None = None) -> int:
        """Credits spent for certain, by one batch or in all."""
        if batch is not None:
            return int(self._redis.hget(self._key(f"batch:{batch}"), "credits") or 0)
        spent = self._redis.hmget(self._key("counters"), [f"{each}.credits" for each in (*Stage, "corrected")])
        return sum(int(amount or 0) for amount in cast(list[str | None], spent))

    def balances(self) -> list[Balance]:
        """What upstream said was left on the account in the last days, oldest first."""
        lines = cast(list[str], self._redis.lrange(self._key("balances"), 0, -1))
        return [records.balance(line) for line in lines]

    def batches(self) -> list[str]:
        """Names of all batches, the newest first."""
        return cast(list[str], self._redis.zrange(self._key("batches"), 0, -1, desc=True))

    def has_batch(self, name: str) -> bool:
        """Whether any job was ever enqueued into this batch."""
        return self._redis.zscore(self._key("batches"), scripts.encodable(name)) is not None

    def in_flight(self) -> int:
        """How many slots are taken."""
        return self._redis.zcard(self._key("flight"))

    def gate(self, now: float) -> Gate:
        """Whether admission is held back, and why."""
        record = cast(dict[str, str], self._redis.hgetall(self._key("gate")))
        until = float(record["until"]) if "until" in record else None
        if not record or (until is not None and until <= now):
            return Gate(open=True)
        return Gate(False, record["reason"], record["detail"], float(record["since"]), until)

    def workers(self, since: float) -> list[str]:
        """Workers whose pulse was heard after `since`."""
        return cast(list[str], self._redis.zrange(self._key("pulses"), f"({since}", "+inf", byscore=True))

    def last_event(self) -> str:
        """The id of the newest event, to read on from."""
        newest = cast(list[Any], self._redis.xrevrange(self._key("events"), count=1))
        return cast(str, newest[0][0]) if newest else "0-0"

    def events(self, after: str, *, wait_s: float) -> list[tuple[str, dict[str, str]]]:
        """Events after that id, waiting up to `wait_s` for the first; [] if none came."""
        key = self._key("events")
        answer = cast(list[Any], self._redis.xread({key: after}, block=max(1, round(wait_s * 1000)), count=1000))
        return [(event_id, fields) for _, page in answer or [] for event_id, fields in page]

    # ── below ──────────────────────────────────────────────────────────────────────────────────

    def _key(self, name: str) -> str:
        return self._root + scripts.encodable(name)

    def _index(self, state: State) -> tuple[str, bool]:
        """The sorted set of a state's ids, and whether it is read from its end."""
        return (self._key("backlog"), False) if state is State.QUEUED else (self._key(f"state:{state}"), True)

    def _run(self, name: str, *arguments: str | float) -> Any:
        return scripts.run(self._redis, name, self._root, *arguments)

    def _new_after_all(self, jobs: Sequence[tuple[str, VoiceJob]], found: list[Outcome], now: float) -> list[Outcome]:
        """The outcomes, when they are those of a second try: what came at that very time came with the first."""
        # Of a job that was given twice in one call only the first can be new.
        places = {job_id: place for place, (job_id, _) in reversed(list(enumerate(jobs)))}
        known = [job_id for job_id, place in places.items() if found[place] is Outcome.KNOWN]
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in known:
                pipe.hget(self._key(f"job:{job_id}"), "created")
            came = pipe.execute()
        latest = now + 1e-5 * len(jobs)  # the script sets jobs of one call microseconds apart
        new = {places[job_id] for job_id, at in zip(known, came, strict=True) if now - 1e-6 < float(at) < latest}
        return [Outcome.NEW if place in new else outcome for place, outcome in enumerate(found)]

    def _written_after_all(self, moves: Sequence[Move], found: list[bool], now: float) -> list[bool]:
        """What was written, when this was a second try: a job that took this step at that very time took it with us."""
        with self._redis.pipeline(transaction=False) as pipe:
            for move in moves:
                pipe.hmget(self._key(f"job:{move.job_id}"), "v", "updated")
            stand = pipe.execute()
        ours = [(str(move.version + 1), now) == (v, float(at or 0)) for move, (v, at) in zip(moves, stand, strict=True)]
        return [written or mine for written, mine in zip(found, ours, strict=True)]

    def _pages(self, key: str, latest_first: bool) -> Iterator[str]:
        """Every member of a sorted set by its score, a page at a time, though it change meanwhile."""
        cursor, end = ("+inf", "-inf") if latest_first else ("-inf", "+inf")
        told: set[str] = set()  # members already told that share the cursor's score
        while True:
            page = cast(
                list[tuple[str, float]],
                self._redis.zrange(
                    key, cursor, end, desc=latest_first, withscores=True, byscore=True, offset=0, num=_PAGE + len(told)
                ),
            )
            fresh = [member for member, _ in page if member not in told]
            if not fresh:
                return
            yield from fresh
            last = page[-1][1]
            told = {member for member, score in page if score == last}
            cursor = repr(last)

    def _in_state(self, job_ids: Iterator[str], state: State) -> Iterator[str]:
        while page := list(islice(job_ids, _PAGE)):
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in page:
                    pipe.hget(self._key(f"job:{job_id}"), "state")
                states = pipe.execute()
            yield from (job_id for job_id, found in zip(page, states, strict=True) if found == state)


def _rows(flat: list[str], width: int) -> Iterator[tuple[str, ...]]:
    return zip(*[iter(flat)] * width, strict=True)
