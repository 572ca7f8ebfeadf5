"""The jobs' records in Redis: the one place that reads and writes them.

Python owns which moves are legal (`voicequeue.domain.job`); the Lua scripts compare and write. Every
method takes `now` in Unix seconds where time matters. The key map stands in
`scripts/lib/keys.lua`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from math import inf
from typing import Any, cast

from redis import Redis

from voicequeue.domain import serialization
from voicequeue.domain.claims import Admitted, Charged, ChargedOrder, Claimed, Later, Outcome, Overdue, Planned
from voicequeue.domain.gate import Effect, Limits
from voicequeue.domain.job import FINAL, WHEN_CANCELLING, WITH_THE_VOICE, Event, Job, Move, State, Step
from voicequeue.domain.origin import Origin
from voicequeue.domain.spec import Priority, VoiceJob, batch_name
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.domain.status import Batch, Line
from voicequeue.storage import scripts
from voicequeue.storage.archive import Archive
from voicequeue.storage.callbacks import Callbacks
from voicequeue.storage.clock import RedisClock
from voicequeue.storage.connection import KeepTrying, failures
from voicequeue.storage.event_log import Story
from voicequeue.storage.flow_control import Controls
from voicequeue.storage.heartbeats import KINDS, Pulses
from voicequeue.storage.indexes import Lookup
from voicequeue.storage.key_types import WrongType, wrong_types
from voicequeue.storage.keyspace import DEFAULT_PREFIX, Keyspace, rows
from voicequeue.storage.login_attempts import LoginAttempts
from voicequeue.storage.metrics import Tally
from voicequeue.storage.personas import Voices
from voicequeue.storage.preview import Preview
from voicequeue.storage.redis_refusals import PlainConnection, SecureConnection
from voicequeue.storage.redis_url import validate_redis_url
from voicequeue.storage.rejected_messages import Rejects
from voicequeue.storage.sessions import Sessions
from voicequeue.storage.throughput import Stretch, trend
from voicequeue.texts import mended

#: A claim may come this much before its time (seconds): clocks of two machines differ a little.
EARLY_S = 0.05

_PAGE = 500

#: Queued songs stand so many seconds ahead of queued voices, below zero. See scripts/lib/line.lua.
SONGS_AHEAD = 4e9


def connect(url: str, *, wait_s: float = 0.0) -> Redis:
    """A client for the jobs' Redis; each call keeps trying for `wait_s` seconds while Redis is away or refuses.

    Raises ValueError if `url` is no Redis URL that every process can use, without quoting it: there may be a password
    in it.
    """
    return Redis.from_url(
        validate_redis_url(url),
        connection_class=SecureConnection if url.startswith("rediss:") else PlainConnection,
        decode_responses=True,
        protocol=2,  # answers keep one shape whatever the server and redis-py prefer
        socket_connect_timeout=5,
        socket_timeout=10,
        health_check_interval=25,
        retry=KeepTrying(wait_s),
    )


class Enqueueing:
    """Jobs on their way into the backlog."""

    def __init__(self, call: scripts.Call, after_all: Callable[[list[Outcome]], list[Outcome]]) -> None:
        self._call, self._after_all = call, after_all

    def begin(self) -> None:
        """Have Redis take them."""
        self._call.begin()

    def outcomes(self) -> list[Outcome]:
        """What became of each of them; waits for it."""
        found = [Outcome(code) for code in self._call.result()]
        return self._after_all(found) if self._call.is_second_try() else found


class Store:
    """Job records under one prefix of one Redis; `controls` is what holds them back, `lookup` how they are listed,
    `callbacks` who is told of them, `archive` whose songs are kept, `rejects` the messages that became no job,
    `voices` what was made, `pulses` which processes live, `tally` what they count beside the records, `story` which
    moves were logged, `sessions` who is logged in to the page, `logins` which logins failed. Safe to share between
    threads. `limits` are this process's settings; `reuse` holds for jobs that do not say whether a voice made from the
    same recording serves them; with `archives` the songs that it writes are to be archived."""

    def __init__(
        self,
        redis: Redis,
        prefix: str = DEFAULT_PREFIX,
        *,
        limits: Limits | None = None,
        reuse: bool = False,
        archives: bool = False,
    ) -> None:
        self._space = Keyspace(redis, prefix)
        self._redis = redis
        self.clock = RedisClock(redis)
        self.controls = Controls(self._space, limits)
        self.callbacks = Callbacks(self._space)
        self.lookup = Lookup(self._space)
        self.archive = Archive(self._space)
        self.rejects = Rejects(self._space)
        self.voices = Voices(self._space)
        self.tally = Tally(self._space)
        self.sessions = Sessions(self._space)
        self.logins = LoginAttempts(self._space)
        self.story = Story(self._space)
        self.pulses = {kind: Pulses(self._space, kind) for kind in KINDS}
        self._limits = self.controls.settings.arguments()
        self._reuse = reuse
        self._archives = archives

    # ── writing ────────────────────────────────────────────────────────────────────────────────

    def write_nothing(self) -> None:
        """Ask Redis to write, and change nothing. Raises RedisRefusalError where it takes no writes for now."""
        self._redis.setrange(self._space.key("nothing"), 0, "")

    def enqueue(
        self, jobs: Sequence[tuple[str, VoiceJob]], now: float, *, origin: str = Origin.LIBRARY
    ) -> list[Outcome]:
        """Write (id, job) pairs to the backlog, in order; a job that is there already is left alone.

        A job that this very call has written is NEW, also where Redis's first answer was lost.
        """
        return self.enqueueing(jobs, now, origin=origin).outcomes()

    def enqueueing(
        self, jobs: Sequence[tuple[str, VoiceJob]], now: float, *, origin: str = Origin.LIBRARY
    ) -> Enqueueing:
        """The same, while the caller does something else."""
        # Most jobs of a call are of one kind, and it is told once.
        kinds: dict[tuple[str | int | float, ...], int] = {}
        of_jobs: list[str | int] = []
        for job_id, spec in jobs:
            of_jobs += (job_id, spec.content(), kinds.setdefault((*self._kind(spec), origin), len(kinds)))
        call = self._space.call("enqueue", f"{now:.6f}", len(kinds), *chain.from_iterable(kinds), *of_jobs)

        def after_all(found: list[Outcome]) -> list[Outcome]:
            return self._new_after_all(jobs, found, now)

        return Enqueueing(call, after_all)

    def _kind(self, spec: VoiceJob) -> tuple[str | int | float, ...]:
        """What scripts/enqueue.lua is told of a job beside its id, content and origin."""
        first, *later = spec.stages
        after = later[0] if later else ""
        within = "" if spec.start_within_s is None else spec.start_within_s
        shares = spec.shares(reuse=self._reuse)
        recording = spec.recording() if shares else ""
        return (spec.priority.rank, spec.batch or "", first, after, within, shares, recording, spec.audio_sha256 or "")

    def admit(self, now: float, *, at_most: int = 1000) -> Admitted:
        """Take jobs from the backlog into flight, whose turn it is and as many as the limits allow."""
        news, *flat = self._space.run("admit", f"{now:.6f}", at_most, *self._limits)
        by_stage: dict[Stage, list[str]] = {}
        for job_id, stage in rows(flat, 2):
            by_stage.setdefault(Stage(stage), []).append(job_id)
        return Admitted(by_stage, news)

    def charge(
        self, job_ids: Sequence[str], stage: Stage, holder: str, now: float, *, lease: float
    ) -> list[Charged | Later | Overdue | None]:
        """Claim jobs for their POSTs; for each Later if the submit rate says so, None if there is nothing to send
        (any more, or while the gate is closed).

        `holder` is a token of this very asking: asking again with it gives the same answer, or Overdue if the job
        has gone unsure in between. That changes nothing: of two askings, the one that comes late may be the first.
        """
        until = now + lease
        found = self._space.run("charge", f"{now:.6f}", stage, holder, until, *self._limits, *job_ids)
        return [_charge(job_id, stage, until, told) for job_id, told in zip(job_ids, found, strict=True)]

    def claim(
        self, job_ids: Sequence[str], stage: Stage, now: float, *, lease: float, near: float = 0.0, most: int = 0
    ) -> list[Claimed]:
        """Those of the jobs that are due to be asked about; nobody else gets them for `lease` seconds.

        With them come others of the stage that are due within `near` seconds: as many as make `most` with those named.
        """
        others = max(0, most - len(job_ids))
        flat = self._space.run("claim", now + EARLY_S, stage, now + lease, now + EARLY_S + near, others, *job_ids)
        return [
            Claimed(
                job_id,
                int(version),
                State(state),
                stage,
                task_id,
                since=float(since),
                asked=float(asked) if asked else None,
                next_stage=Stage(after) if after else None,
                model=model,
                clips=serialization.clips(clips),
                doubt=serialization.doubt(doubt),
                reorder=bool(reorder),
            )
            for job_id, version, state, task_id, since, asked, after, model, clips, doubt, reorder in rows(flat, 11)
        ]

    def apply(self, moves: Sequence[Move], now: float) -> list[bool]:
        """Make moves, each whole or not at all; False where the job had moved on meanwhile."""
        return [effect is not None for effect in self.write(moves, now)]

    def write(self, moves: Sequence[Move], now: float) -> list[Effect | None]:
        """Make moves likewise; gives what follows for others from an order that upstream refused, None where the job
        had moved on."""
        order = sorted(range(len(moves)), key=lambda place: not moves[place].goes_first)
        written: dict[int, Effect | None] = {}
        for start in range(0, len(order), _PAGE):
            page = order[start : start + _PAGE]
            written.update(zip(page, self._apply([moves[place] for place in page], now), strict=True))
        return [written[place] for place in range(len(moves))]

    def _apply(self, moves: Sequence[Move], now: float) -> list[Effect | None]:
        before = failures()
        lines = json.dumps(
            [serialization.move_text(move, archive=self._archives) for move in moves], ensure_ascii=False
        )
        codes = self._space.run("apply", f"{now:.6f}", lines, *self._limits)
        written = [Effect(code) if code else None for code in codes]
        return self._written_after_all(moves, written, now) if failures() > before else written

    def book(self, order: ChargedOrder, now: float, *, reason: str) -> bool | None:
        """Count an order that upstream took, and that its job does without; the job stays as it is.

        Returns False if it was counted before, None if there is no such job.
        """
        named = (order.job_id, order.stage, order.attempt, order.task_id, PRICES[order.stage], reason)
        counted = self._space.run("book", f"{now:.6f}", *named)
        return None if counted is None else bool(counted)

    def withdraw(self, jobs: Sequence[Job], now: float) -> list[bool]:
        """Mark jobs that are charging or unsure as to be cancelled; False where one has moved on since it was read."""
        if not jobs:
            return []
        named = [part for job in jobs for part in (job.id, job.version)]
        return [bool(each) for each in self._space.run("withdraw", f"{now:.6f}", *named)]

    def plan(self, looks: Iterable[Planned]) -> list[str]:
        """Say when jobs are to be asked about; gives the ids of those that still are."""
        given = [
            part
            for look in looks
            for part in (
                look.job_id,
                look.version,
                f"{look.due:.6f}",
                "" if look.asked is None else f"{look.asked:.6f}",
                _doubt(look),
                serialization.clips_text(look.clips) if look.clips else "",
            )
        ]
        return cast(list[str], self._space.run("plan", *given)) if given else []

    def unsure_since(self, before: float, *, at_most: int = 1000) -> list[str]:
        """Ids of jobs that went unsure before then, the longest first."""
        key = self._space.key(f"state:{State.UNSURE}")
        return cast(list[str], self._redis.zrange(key, "-inf", before, byscore=True, offset=0, num=at_most))

    def limit_batch(self, name: str, **given: float | None) -> bool:
        """Set `paused`, `max_credits` or `max_in_flight` of a batch; None leaves it, `math.inf` sets no limit. False
        if all was so already.

        Raises ValueError for what cannot be a batch's name.
        """
        key = self._space.key(f"batch:{batch_name(name)}")
        before = {"paused": "0"} | cast(dict[str, str], self._redis.hgetall(key))
        wanted = {
            field: None if value == inf else str(int(value)) for field, value in given.items() if value is not None
        }
        for field, value in wanted.items():
            if value is None:
                self._redis.hdel(key, field)
            else:
                self._redis.hset(key, field, value)
        return any(before.get(field) != value for field, value in wanted.items())

    def expired(self, now: float, *, at_most: int = 1000) -> list[Overdue]:
        """Jobs that should have begun by now and are queued or waiting; each given to one caller, for a minute."""
        found = rows(self._space.run("expired", f"{now:.6f}", at_most), 5)
        return [
            Overdue(job_id, int(version), State(state), Stage(stage), may_be_charged=bool(lost))
            for job_id, version, state, stage, lost in found
        ]

    def release(self, now: float) -> int:
        """Let jobs go on, or fail, whose voice is there, or failed, and that one script was not enough for; gives
        how many: there may be more."""
        return int(self._space.run("release", f"{now:.6f}"))

    def purge(self, now: float, *, keep: float, at_most: int = 100) -> Iterator[int]:
        """Let go of jobs that have been over for more than `keep` seconds, and of callbacks that were given up so long
        ago. Each step looks at so many and gives how many are gone; whoever stops between two may go on later.

        Jobs for which something is still to be done stay. Keys of those that go are free again; what they spent stays
        counted.
        """
        for state in sorted(FINAL):
            looked, stay = at_most, 0
            while looked == at_most:
                looked, gone = map(int, self._space.run("purge", f"{now:.6f}", keep, state, stay, at_most))
                stay += looked - gone
                yield gone
        while gone := int(self._space.run("discard", f"{now:.6f}", keep, at_most)):
            yield gone

    def hasten(self, now: float, *, at_most: int = 200) -> int:
        """Let jobs that wait for a voice make it, where its maker may not begin and they may; gives how many. Looks at
        so many of those who wait, at the others when it is called again."""
        return int(self._space.run("hasten", f"{now:.6f}", at_most))

    def overdue(self, now: float, *, patience: float, at_most: int = 1000, longest: float = 86_400.0) -> list[Overdue]:
        """Jobs whose time passed `patience` seconds ago, each given to one caller.

        Jobs in flight that are put off for more than `longest` seconds are due after that: their time was noted before
        Redis's clock was set back.
        """
        return [
            Overdue(job_id, int(version), State(state), Stage(stage))
            for job_id, version, state, stage in rows(self._space.run("overdue", now, patience, at_most, longest), 4)
        ]

    # ── reading ────────────────────────────────────────────────────────────────────────────────

    def preview(self) -> Preview:
        """Foresees what enqueueing would come to."""
        return Preview(self._space, reuse=self._reuse)

    def get(self, job_ids: Sequence[str]) -> list[Job | None]:
        """The jobs of these ids, in their order; None where there is none."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(self._space.key(f"job:{job_id}"))
            found = pipe.execute()
        return [
            serialization.job(job_id, record) if record else None for job_id, record in zip(job_ids, found, strict=True)
        ]

    def timeline(self, job_id: str) -> list[Step]:
        """The moves of a job, oldest first, from its enqueueing on."""
        record = self._space.key(f"job:{job_id}")
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(record, "created", "stage")
            pipe.lrange(self._space.key(f"timeline:{job_id}"), 0, -1)
            (created, stage), lines = pipe.execute()
        steps = [serialization.step(line) for line in lines]
        if created is None:
            return steps
        # Enqueueing is told from the record itself: a million queued jobs need no timelines.
        first = steps[0].stage if steps else Stage(stage)
        return [Step(at=float(created), state=State.QUEUED, stage=first, reason="enqueued"), *steps]

    def ids(self, *, state: State | None = None, batch: str | None = None) -> Iterator[str]:
        """Ids of a batch in the order they came, of the backlog from its head, of any other state by
        when they entered it (latest first)."""
        if batch is not None:
            found = self._space.pages(self._space.key(f"batch:{batch}:jobs"))
            return found if state is None else self._in_state(found, state)
        states = [state] if state is not None else list(State)
        return (job_id for each in states for job_id in self._of_state(each))

    def counts(self, batch: str | None = None, lines: Sequence[Line] | None = None) -> dict[State, int]:
        """How many jobs stand in each state, of one batch or of all; with the `lines`, if the caller knows them."""
        if batch is not None:
            return serialization.states(cast(dict[str, str], self._redis.hgetall(self._space.key(f"batch:{batch}"))))
        with self._redis.pipeline(transaction=False) as pipe:
            for state in State:
                pipe.zcard(self._space.key(f"state:{state}"))
            counted = dict(zip(State, pipe.execute(), strict=True))
        return counted | {State.QUEUED: sum(line.count for line in (self.lines() if lines is None else lines))}

    def lines(self, batch: str | None = None) -> list[Line]:
        """The backlog, or what one batch has in it: what goes first comes first."""
        every = [(priority, each) for priority in Priority for each in self._turns(priority)]
        named = [line for line in every if batch in (None, line[1])]
        with self._redis.pipeline(transaction=False) as pipe:
            for line in named:
                key = self._line(*line)
                pipe.zcard(key)
                pipe.zcount(key, "-inf", "(0")
                pipe.zrange(key, 0, 0, withscores=True)
                pipe.zrange(key, 0, "+inf", byscore=True, offset=0, num=1, withscores=True)
            found = iter(pipe.execute())
        sizes = zip(named, zip(*[found] * 4, strict=True), strict=True)
        return [
            Line(priority, name or None, count, min(score % SONGS_AHEAD for _, score in (*head, *voices)), songs)
            for (priority, name), (count, songs, head, voices) in sizes
            if head
        ]

    def stands(self) -> dict[tuple[State, Stage], int]:
        """How many jobs stand where, but for those that are queued: see `lines`."""
        places = [(state, stage) for state in State if state is not State.QUEUED for stage in Stage]
        found = self._redis.hmget(self._space.key("stands"), [f"{state}:{stage}" for state, stage in places])
        counts = (int(count or 0) for count in cast(list[str | None], found))
        return dict(zip(places, counts, strict=True))

    def messages(self, queues: Sequence[str]) -> dict[str, int]:
        """Count the messages that lie in each of these queues of Celery."""
        with self._redis.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.llen(self._space.key(f"celery:{queue}"))
            return dict(zip(queues, pipe.execute(), strict=True))

    def wrong_types(self, queues: Sequence[str]) -> list[WrongType]:
        """List the keys of these queues of Celery that have a wrong type, which ends every worker."""
        return list(wrong_types(self._redis, self._space, queues))

    def trend(self, now: float, *, span_s: float, stretches: int) -> list[Stretch]:
        """How many jobs were finished over time, and how long they took."""
        return trend(self._space, now, span_s=span_s, stretches=stretches)

    def oldest(self, state: State) -> float | None:
        """When the job entered that state (any but queued) which is in it longest; None where none is."""
        first = cast(
            list[tuple[str, float]], self._redis.zrange(self._space.key(f"state:{state}"), 0, 0, withscores=True)
        )
        return first[0][1] if first else None

    def charged(self) -> dict[Stage, tuple[int, int]]:
        """How many orders of each stage were charged, and the credits that they cost."""
        wanted = [f"{stage}.{what}" for stage in Stage for what in ("charges", "credits")]
        found = map(
            int, (n or 0 for n in cast(list[str | None], self._redis.hmget(self._space.key("counters"), wanted)))
        )
        return dict(zip(Stage, zip(found, found, strict=True), strict=True))

    def purged(self) -> dict[State, int]:
        """How many jobs were ever let go of, by the final state that they stood in."""
        states = sorted(FINAL)
        found = self._redis.hmget(self._space.key("counters"), [f"purged.{state}" for state in states])
        return dict(zip(states, (int(count or 0) for count in cast(list[str | None], found)), strict=True))

    def failures(self) -> dict[str, int]:
        """How many jobs stand failed, by code."""
        counters = cast(dict[str, str], self._redis.hgetall(self._space.key("counters")))
        by_code = {name.removeprefix("failed."): int(n) for name, n in counters.items() if name.startswith("failed.")}
        return {code: count for code, count in by_code.items() if count}

    def finished(self, since: float) -> int:
        """How many jobs have succeeded since then, and stand so."""
        return self._redis.zcount(self._space.key(f"state:{State.SUCCEEDED}"), since, "+inf")

    def credits(self, batch: str | None = None) -> int:
        """Credits spent for certain, by one batch or in all."""
        if batch is not None:
            return int(self._redis.hget(self._space.key(f"batch:{batch}"), "credits") or 0)
        counted = [f"{each}.credits" for each in (*Stage, "corrected")]
        spent = self._redis.hmget(self._space.key("counters"), counted)
        return sum(int(amount or 0) for amount in cast(list[str | None], spent))

    def batches(self) -> list[str]:
        """Names of all batches, the newest first."""
        return cast(list[str], self._redis.zrange(self._space.key("batches"), 0, -1, desc=True))

    def batch(self, name: str) -> Batch | None:
        """A batch as it stands; None if it has no jobs (that are kept)."""
        if self._redis.zscore(self._space.key("batches"), mended(name)) is None:
            return None  # what lies under such a key may be something else
        return serialization.batch(name, cast(dict[str, str], self._redis.hgetall(self._space.key(f"batch:{name}"))))

    def in_flight(self) -> int:
        """How many slots are taken."""
        return self._redis.zcard(self._space.key("flight"))

    def last_event(self) -> str:
        """The id of the newest event, to read on from."""
        newest = cast(list[Any], self._redis.xrevrange(self._space.key("events"), count=1))
        return cast(str, newest[0][0]) if newest else "0-0"

    def events(self, after: str, *, wait_s: float) -> list[Event]:
        """Events after that id, waiting up to `wait_s` for the first; [] if none came."""
        places: dict[Any, Any] = {self._space.key("events"): mended(after)}
        answer = cast(list[Any], self._redis.xread(places, block=max(1, round(wait_s * 1000)), count=1000))
        return [serialization.event(event_id, fields) for _, page in answer or [] for event_id, fields in page]

    def _of_state(self, state: State) -> Iterator[str]:
        if state is not State.QUEUED:
            yield from self._space.pages(self._space.key(f"state:{state}"), latest_first=True)
            return
        for priority in Priority:
            for batch in self._turns(priority):
                yield from self._space.pages(self._line(priority, batch))

    def _turns(self, priority: Priority) -> list[str]:
        """Batches that have queued jobs of this priority ('' for those of none), whose turn is first, first."""
        return cast(list[str], self._redis.zrange(self._space.key(f"turns:{priority.rank}"), 0, -1))

    def _line(self, priority: Priority, batch: str) -> str:
        return self._space.key(f"line:{priority.rank}:{batch}")

    def _new_after_all(self, jobs: Sequence[tuple[str, VoiceJob]], found: list[Outcome], now: float) -> list[Outcome]:
        """The outcomes, when they are those of a second try: what came at that very time came with the first."""
        # Of a job that was given twice in one call only the first can be new.
        places = {job_id: place for place, (job_id, _) in reversed(list(enumerate(jobs)))}
        known = [job_id for job_id, place in places.items() if found[place] is Outcome.KNOWN]
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in known:
                pipe.hmget(self._space.key(f"job:{job_id}"), "created", "stage", "state")
            came = cast(list[list[str]], pipe.execute())
        latest = now + 1e-5 * len(jobs)  # the script sets jobs of one call microseconds apart
        ours = {
            places[job_id]: _as_it_came(jobs[places[job_id]][1], stage, state)
            for job_id, (at, stage, state) in zip(known, came, strict=True)
            if now - 1e-6 < float(at) < latest
        }
        return [ours.get(place, outcome) for place, outcome in enumerate(found)]

    def _written_after_all(self, moves: Sequence[Move], found: list[Effect | None], now: float) -> list[Effect | None]:
        """What was written, when this was a second try: a job that took this step at that very time took it with us."""
        with self._redis.pipeline(transaction=False) as pipe:
            for move in moves:
                pipe.hmget(self._space.key(f"job:{move.job_id}"), "v", "updated", "state")
            stand = pipe.execute()
        ours = [_is_made(move, stood, now) for move, stood in zip(moves, stand, strict=True)]
        return [written or (Effect.NONE if mine else None) for written, mine in zip(found, ours, strict=True)]

    def _in_state(self, job_ids: Iterator[str], state: State) -> Iterator[str]:
        while page := list(islice(job_ids, _PAGE)):
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in page:
                    pipe.hget(self._space.key(f"job:{job_id}"), "state")
                states = pipe.execute()
            yield from (job_id for job_id, found in zip(page, states, strict=True) if found == state)


def _charge(job_id: str, stage: Stage, until: float, told: list[Any] | None) -> Charged | Later | Overdue | None:
    match told:
        case [version, attempt, content, persona_id]:
            return Charged(job_id, int(version), stage, int(attempt), content, persona_id, until)
        case [version, "unsure"]:
            return Overdue(job_id, int(version), State.UNSURE, stage)
        case [seconds]:
            return Later(float(seconds))
    return None


def _doubt(look: Planned) -> str:
    """Return what scripts/plan.lua makes of it."""
    if look.doubt is None:
        return "" if look.keeps_doubt else "-"
    return serialization.doubt_text(look.doubt)


def _is_made(move: Move, stood: Sequence[str | None], now: float) -> bool:
    """Whether a job stands as after this move. One that shares a voice may have been moved on in the same script, and
    one that was to be cancelled is."""
    version, updated, state = stood
    at_once = int(version or 0) > move.version and updated == f"{now:.6f}"
    refused = {State.FAILED} if move.refused else set()
    instead = {*WITH_THE_VOICE.get(move.to, ()), *WHEN_CANCELLING.get(move.state, ())}
    return at_once and state in {move.to, *instead, *refused}


def _as_it_came(spec: VoiceJob, stage: str, state: str) -> Outcome:
    """What enqueueing it came to, from where it stands a moment later."""
    return Outcome.SHARES if state == State.WAITING or stage != spec.stages[0] else Outcome.NEW
