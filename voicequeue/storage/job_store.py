"""The job records in Redis: every command that writes them.

Python decides which transitions are legal (`voicequeue.domain.job`); the Lua scripts compare versions and write.
`now` is in Unix seconds. The keys are listed in `scripts/lib/keys.lua`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from math import inf
from typing import Any, cast

from redis import Redis

from voicequeue.domain import serialization
from voicequeue.domain.claims import Admitted, Charged, ChargedOrder, Claimed, Later, Outcome, Overdue, Planned
from voicequeue.domain.gate import Effect, Limits
from voicequeue.domain.job import FINAL, WHEN_CANCELLING, WITH_THE_VOICE, Job, Move, State
from voicequeue.domain.origin import Origin
from voicequeue.domain.spec import VoiceJob, batch_name
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.storage import scripts
from voicequeue.storage.archive import Archive
from voicequeue.storage.callbacks import Callbacks
from voicequeue.storage.connection.clock import RedisClock
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX, Keyspace, rows
from voicequeue.storage.connection.retry import failures
from voicequeue.storage.coordination import Coordination
from voicequeue.storage.flow_control import Controls
from voicequeue.storage.heartbeats import KINDS, Pulses
from voicequeue.storage.indexes import Lookup
from voicequeue.storage.job_queries import JobQueries
from voicequeue.storage.login_attempts import LoginAttempts
from voicequeue.storage.monitoring.event_log import Story
from voicequeue.storage.monitoring.metrics import Tally
from voicequeue.storage.personas import Voices
from voicequeue.storage.poll_history import PollHistory
from voicequeue.storage.preview import Preview
from voicequeue.storage.rejected_messages import Rejects
from voicequeue.storage.sessions import Sessions

#: A claim may precede its due time by this much (seconds), because the clocks of two hosts differ a little.
EARLY_S = 0.05

_PAGE = 500


class Enqueueing:
    """A running call that enqueues jobs."""

    def __init__(self, call: scripts.Call, after_retry: Callable[[list[Outcome]], list[Outcome]]) -> None:
        self._call, self._after_retry = call, after_retry

    def begin(self) -> None:
        """Send the call to Redis."""
        self._call.begin()

    def outcomes(self) -> list[Outcome]:
        """Wait for the reply and return the outcome of each job."""
        outcomes = [Outcome(code) for code in self._call.result()]
        return self._after_retry(outcomes) if self._call.is_second_try() else outcomes


class Store(JobQueries):
    """The job records under one prefix of one Redis, and the stores that belong to them. Safe to share between threads.

    `limits` are the settings of this process. `reuse` is the default for jobs that do not say whether they accept a
    voice made from the same recording. With `archives`, the songs that this process stores are archived.
    """

    def __init__(
        self,
        redis: Redis,
        prefix: str = DEFAULT_PREFIX,
        *,
        limits: Limits | None = None,
        reuse: bool = False,
        archives: bool = False,
    ) -> None:
        super().__init__(Keyspace(redis, prefix))
        self.clock = RedisClock(redis)
        self.controls = Controls(self._space, limits)
        self.coordination = Coordination(self._space)
        self.poll_history = PollHistory(self._space)
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

    def write_nothing(self) -> None:
        """Send Redis a write that changes nothing. Raises RedisRefusalError if Redis accepts no writes."""
        self._redis.setrange(self._space.key("nothing"), 0, "")

    # ── enqueueing ─────────────────────────────────────────────────────────────────────────────

    def preview(self) -> Preview:
        """Return a preview that computes the outcome of enqueueing without writing."""
        return Preview(self._space, reuse=self._reuse)

    def enqueue(
        self, jobs: Sequence[tuple[str, VoiceJob]], now: float, *, origin: str = Origin.LIBRARY
    ) -> list[Outcome]:
        """Write (id, job) pairs to the backlog, in order; an existing job is left unchanged.

        A job written by this call is NEW, also if the first reply of Redis was lost.
        """
        return self.enqueueing(jobs, now, origin=origin).outcomes()

    def enqueueing(
        self, jobs: Sequence[tuple[str, VoiceJob]], now: float, *, origin: str = Origin.LIBRARY
    ) -> Enqueueing:
        """Return the same call not yet sent, so that the caller can work while Redis runs it."""
        # Most jobs of a call have the same properties, which are sent once.
        kinds: dict[tuple[str | int | float, ...], int] = {}
        arguments: list[str | int] = []
        for job_id, spec in jobs:
            arguments += (job_id, spec.content(), kinds.setdefault((*self._kind(spec), origin), len(kinds)))
        call = self._space.call("enqueue", f"{now:.6f}", len(kinds), *chain.from_iterable(kinds), *arguments)

        def after_retry(outcomes: list[Outcome]) -> list[Outcome]:
            return self._outcomes_after_retry(jobs, outcomes, now)

        return Enqueueing(call, after_retry)

    def _kind(self, spec: VoiceJob) -> tuple[str | int | float, ...]:
        """Return the arguments of scripts/enqueue.lua that many jobs share: all but id, content and origin."""
        first, *later = spec.stages
        next_stage = later[0] if later else ""
        start_within_s = "" if spec.start_within_s is None else spec.start_within_s
        shares = spec.shares(reuse=self._reuse)
        recording = spec.recording() if shares else ""
        sha256 = spec.audio_sha256 or ""
        return (spec.priority.rank, spec.batch or "", first, next_stage, start_within_s, shares, recording, sha256)

    def _outcomes_after_retry(
        self, jobs: Sequence[tuple[str, VoiceJob]], outcomes: list[Outcome], now: float
    ) -> list[Outcome]:
        """Correct the outcomes of a retried call: jobs created at its very time were created by its first attempt."""
        # If a job occurs twice in one call, only its first occurrence can be new.
        positions = {job_id: position for position, (job_id, _) in reversed(list(enumerate(jobs)))}
        known_ids = [job_id for job_id, position in positions.items() if outcomes[position] is Outcome.KNOWN]
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in known_ids:
                pipe.hmget(self._space.key(f"job:{job_id}"), "created", "stage", "state")
            records = cast(list[list[str]], pipe.execute())
        latest = now + 1e-5 * len(jobs)  # the script creates the jobs of one call microseconds apart
        ours = {
            positions[job_id]: _outcome_at_creation(jobs[positions[job_id]][1], stage, state)
            for job_id, (created, stage, state) in zip(known_ids, records, strict=True)
            if now - 1e-6 < float(created) < latest
        }
        return [ours.get(position, outcome) for position, outcome in enumerate(outcomes)]

    # ── claims ─────────────────────────────────────────────────────────────────────────────────

    def admit(self, now: float, *, at_most: int = 1000) -> Admitted:
        """Admit jobs from the backlog in turn, as many as the limits allow."""
        news, *flat = self._space.run("admit", f"{now:.6f}", at_most, *self._limits)
        by_stage: dict[Stage, list[str]] = {}
        for job_id, stage in rows(flat, 2):
            by_stage.setdefault(Stage(stage), []).append(job_id)
        return Admitted(by_stage, news)

    def charge(
        self, job_ids: Sequence[str], stage: Stage, holder: str, now: float, *, lease: float
    ) -> list[Charged | Later | Overdue | None]:
        """Claim admitted jobs for submission. For each job return a claim, Later if the submit rate is used up, or
        None if there is nothing to send or the gate is closed.

        `holder` is a token unique to this call: a retry with the same token returns the same claims, or Overdue for a
        job that became unsure in between. Overdue changes nothing, because the retry may overtake the first attempt.
        """
        expires_at = now + lease
        replies = self._space.run("claim_submit", f"{now:.6f}", stage, holder, expires_at, *self._limits, *job_ids)
        return [_submit_claim(job_id, stage, expires_at, reply) for job_id, reply in zip(job_ids, replies, strict=True)]

    def claim(
        self, job_ids: Sequence[str], stage: Stage, now: float, *, lease: float, near: float = 0.0, most: int = 0
    ) -> list[Claimed]:
        """Claim those of the jobs that are due for a poll, for `lease` seconds.

        Also claims other jobs of the stage that are due within `near` seconds, up to `most` jobs in total.
        """
        others = max(0, most - len(job_ids))
        flat = self._space.run("claim_poll", now + EARLY_S, stage, now + lease, now + EARLY_S + near, others, *job_ids)
        return [
            Claimed(
                job_id,
                int(version),
                State(state),
                stage,
                task_id,
                since=float(since),
                asked=float(asked) if asked else None,
                next_stage=Stage(next_stage) if next_stage else None,
                model=model,
                clips=serialization.clips(clips),
                doubt=serialization.doubt(doubt),
                reorder=bool(reorder),
            )
            for job_id, version, state, task_id, since, asked, next_stage, model, clips, doubt, reorder in rows(
                flat, 11
            )
        ]

    def plan(self, looks: Iterable[Planned]) -> list[str]:
        """Reschedule polls; return the ids of the jobs that were still at the given version."""
        arguments = [
            argument
            for look in looks
            for argument in (
                look.job_id,
                look.version,
                f"{look.due:.6f}",
                "" if look.asked is None else f"{look.asked:.6f}",
                _doubt_argument(look),
                serialization.clips_text(look.clips) if look.clips else "",
            )
        ]
        return cast(list[str], self._space.run("reschedule_polls", *arguments)) if arguments else []

    def expired(self, now: float, *, at_most: int = 1000) -> list[Overdue]:
        """Lease for a minute the queued and waiting jobs that were not started in time."""
        flat = self._space.run("lease_expired", f"{now:.6f}", at_most)
        return [
            Overdue(job_id, int(version), State(state), Stage(stage), may_be_charged=bool(lost))
            for job_id, version, state, stage, lost in rows(flat, 5)
        ]

    def overdue(self, now: float, *, patience: float, at_most: int = 1000, longest: float = 86_400.0) -> list[Overdue]:
        """Lease the jobs that have been due for more than `patience` seconds.

        Due times more than `longest` seconds ahead are moved to that limit: they were written before Redis's clock was
        set back.
        """
        return [
            Overdue(job_id, int(version), State(state), Stage(stage))
            for job_id, version, state, stage in rows(
                self._space.run("lease_overdue", now, patience, at_most, longest), 4
            )
        ]

    # ── transitions ────────────────────────────────────────────────────────────────────────────

    def apply(self, moves: Sequence[Move], now: float) -> list[bool]:
        """Apply transitions, each completely or not; False for a job whose version has changed."""
        return [effect is not None for effect in self.write(moves, now)]

    def write(self, moves: Sequence[Move], now: float) -> list[Effect | None]:
        """Apply transitions like `apply`; return how a refused order affects other jobs, None for a job whose version
        has changed."""
        order = sorted(range(len(moves)), key=lambda position: not moves[position].goes_first)
        effects: dict[int, Effect | None] = {}
        for start in range(0, len(order), _PAGE):
            page = order[start : start + _PAGE]
            effects.update(zip(page, self._apply([moves[position] for position in page], now), strict=True))
        return [effects[position] for position in range(len(moves))]

    def _apply(self, moves: Sequence[Move], now: float) -> list[Effect | None]:
        failures_before = failures()
        texts = [serialization.move_text(move, archive=self._archives) for move in moves]
        codes = self._space.run("apply_transitions", f"{now:.6f}", json.dumps(texts, ensure_ascii=False), *self._limits)
        effects = [Effect(code) if code else None for code in codes]
        return self._effects_after_retry(moves, effects, now) if failures() > failures_before else effects

    def _effects_after_retry(
        self, moves: Sequence[Move], effects: list[Effect | None], now: float
    ) -> list[Effect | None]:
        """Correct the effects of a retried call: transitions made at its very time were made by its first attempt."""
        with self._redis.pipeline(transaction=False) as pipe:
            for move in moves:
                pipe.hmget(self._space.key(f"job:{move.job_id}"), "v", "updated", "state")
            records = pipe.execute()
        ours = [_is_applied(move, record, now) for move, record in zip(moves, records, strict=True)]
        return [effect or (Effect.NONE if is_ours else None) for effect, is_ours in zip(effects, ours, strict=True)]

    def book(self, order: ChargedOrder, now: float, *, reason: str) -> bool | None:
        """Count an accepted order that its job does not use; the job stays unchanged.

        Returns False if the order was already counted, None if there is no such job.
        """
        fields = (order.job_id, order.stage, order.attempt, order.task_id, PRICES[order.stage], reason)
        is_new = self._space.run("count_order", f"{now:.6f}", *fields)
        return None if is_new is None else bool(is_new)

    def withdraw(self, jobs: Sequence[Job], now: float) -> list[bool]:
        """Mark charging or unsure jobs for cancellation; False for a job whose version has changed."""
        if not jobs:
            return []
        versions = [argument for job in jobs for argument in (job.id, job.version)]
        return [bool(is_marked) for is_marked in self._space.run("request_cancellation", f"{now:.6f}", *versions)]

    def limit_batch(self, name: str, **limits: float | None) -> bool:
        """Set `paused`, `max_credits` or `max_in_flight` of a batch; None leaves a value unchanged, `math.inf` removes
        the limit. Return False if nothing changed.

        Raises ValueError if `name` is not a valid batch name.
        """
        key = self._space.key(f"batch:{batch_name(name)}")
        before = {"paused": "0"} | cast(dict[str, str], self._redis.hgetall(key))
        after = {
            field: None if value == inf else str(int(value)) for field, value in limits.items() if value is not None
        }
        for field, value in after.items():
            if value is None:
                self._redis.hdel(key, field)
            else:
                self._redis.hset(key, field, value)
        return any(before.get(field) != value for field, value in after.items())

    # ── maintenance ────────────────────────────────────────────────────────────────────────────

    def release(self, now: float) -> int:
        """Release or fail jobs whose voice is decided and that one script could not all process; return how many. Call
        again until it returns 0."""
        return int(self._space.run("release_waiting", f"{now:.6f}"))

    def hasten(self, now: float, *, at_most: int = 200) -> int:
        """Let waiting jobs create a voice whose current creator is not allowed to start; return how many now do.
        Examines up to `at_most` waiting jobs; the next call continues with the following ones."""
        return int(self._space.run("reassign_voice_creators", f"{now:.6f}", at_most))

    def purge(self, now: float, *, keep: float, at_most: int = 100) -> Iterator[int]:
        """Delete jobs that were settled, and callbacks that were given up, more than `keep` seconds ago. Each step
        examines up to `at_most` of them and yields how many it deleted; the caller may stop after any step.

        Jobs with pending work stay. Keys of deleted jobs can be used again; their spent credits stay counted.
        """
        for state in sorted(FINAL):
            examined, skipped = at_most, 0
            while examined == at_most:
                examined, deleted = map(int, self._space.run("purge_jobs", f"{now:.6f}", keep, state, skipped, at_most))
                skipped += examined - deleted
                yield deleted
        while deleted := int(self._space.run("purge_callbacks", f"{now:.6f}", keep, at_most)):
            yield deleted


def _submit_claim(
    job_id: str, stage: Stage, expires_at: float, reply: list[Any] | None
) -> Charged | Later | Overdue | None:
    match reply:
        case [version, attempt, content, persona_id]:
            return Charged(job_id, int(version), stage, int(attempt), content, persona_id, expires_at)
        case [version, "unsure"]:
            return Overdue(job_id, int(version), State.UNSURE, stage)
        case [seconds]:
            return Later(float(seconds))
    return None


def _doubt_argument(look: Planned) -> str:
    """Return the `doubt` argument of scripts/reschedule_polls.lua."""
    if look.doubt is None:
        return "" if look.keeps_doubt else "-"
    return serialization.doubt_text(look.doubt)


def _is_applied(move: Move, record: Sequence[str | None], now: float) -> bool:
    """Return whether a record is in the state after this transition. The same script may have moved on a job that
    shares a voice, and cancels a job marked for cancellation."""
    version, updated, state = record
    is_updated_now = int(version or 0) > move.version and updated == f"{now:.6f}"
    if_refused = {State.FAILED} if move.refused else set()
    alternatives = {*WITH_THE_VOICE.get(move.to, ()), *WHEN_CANCELLING.get(move.state, ())}
    return is_updated_now and state in {move.to, *alternatives, *if_refused}


def _outcome_at_creation(spec: VoiceJob, stage: str, state: str) -> Outcome:
    """Return the outcome of enqueueing a job, derived from its record a moment later."""
    return Outcome.SHARES if state == State.WAITING or stage != spec.stages[0] else Outcome.NEW
