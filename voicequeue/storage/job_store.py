"""The job records in Redis: every command that writes them.

Python decides which transitions are legal (`voicequeue.domain.states`); the Lua scripts compare versions and write.
`now` is in Unix seconds. The keys are listed in `scripts/lib/keys.lua`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, product
from typing import cast

from redis import Redis

from voicequeue.domain import serialization
from voicequeue.domain.claims import (
    Admitted,
    ChargedOrder,
    PollClaim,
    PollReschedule,
    StalledJob,
    SubmitClaim,
    SubmitDeferred,
)
from voicequeue.domain.gate import HoldEffect, Limits
from voicequeue.domain.job import Job, Transition, queued_job
from voicequeue.domain.namespaces import ALL, qualify
from voicequeue.domain.source import Source
from voicequeue.domain.spec import VoiceJob, qualified_batch_name
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.domain.states import SETTLED
from voicequeue.domain.stop_loss import limit_text
from voicequeue.storage import script_replies
from voicequeue.storage.api_keys import ApiKeys
from voicequeue.storage.archive import ArchiveOutbox
from voicequeue.storage.callback_secrets import CallbackSecrets
from voicequeue.storage.callbacks import CallbackOutbox
from voicequeue.storage.connection.clock import RedisClock
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX, Keyspace, rows
from voicequeue.storage.connection.retry import failed_attempts
from voicequeue.storage.coordination import Coordination
from voicequeue.storage.enqueue_call import EnqueueCall, EnqueueReply, outcomes_after_retry
from voicequeue.storage.erasure import Erasure
from voicequeue.storage.flow_control import FlowControl
from voicequeue.storage.heartbeats import KINDS, Heartbeats
from voicequeue.storage.indexes import JobIndexes
from voicequeue.storage.job_ids import JobIds
from voicequeue.storage.job_queries import JobQueries
from voicequeue.storage.login_attempts import LoginAttempts
from voicequeue.storage.monitoring.audit_log import AuditLog
from voicequeue.storage.monitoring.event_log import EventLog
from voicequeue.storage.monitoring.metrics import MetricsCounter
from voicequeue.storage.monitoring.samples import Samples
from voicequeue.storage.personas import Personas
from voicequeue.storage.poll_history import PollHistory
from voicequeue.storage.preview import EnqueuePreviewer
from voicequeue.storage.recordings import Recordings
from voicequeue.storage.rejected_messages import RejectedMessages
from voicequeue.storage.sessions import Sessions

#: A claim may precede its due time by this much (seconds), because the clocks of two hosts differ a little.
CLOCK_TOLERANCE_S = 0.05

_PAGE = 500

#: Stores of other scopes that are kept for the next request: building one takes longer than some requests do.
SCOPES_MAX = 1_000


class JobStore(JobQueries):
    """The job records under one prefix of one Redis, and the stores beside them. Safe to share between threads.

    `namespace` is the scope (`*`: all, for workers and operators): reads find no job of another namespace, and new jobs
    are in this one. `limits` are the settings of this process. `reuse` is the default for jobs that do not say whether
    they accept a voice made from the same recording. With `archives`, the songs that this process stores are archived.
    `replicas_ack` is the number of replicas that must have recorded a claim before its order may be sent.
    """

    def __init__(
        self,
        redis: Redis,
        prefix: str = DEFAULT_PREFIX,
        *,
        namespace: str = ALL,
        limits: Limits | None = None,
        reuse: bool = False,
        archives: bool = False,
        replicas_ack: int = 0,
    ) -> None:
        super().__init__(Keyspace(redis, prefix, namespace, replicas_ack=replicas_ack))
        self.job_ids = JobIds(self._space)
        self.clock = RedisClock(redis)
        self.flow_control = FlowControl(self._space, limits)
        self.coordination = Coordination(self._space)
        self.poll_history = PollHistory(self._space)
        self.samples = Samples(self._space)
        self.callbacks = CallbackOutbox(self._space)
        self.callback_secrets = CallbackSecrets(self._space)
        self.indexes = JobIndexes(self._space)
        self.archive = ArchiveOutbox(self._space)
        self.rejected_messages = RejectedMessages(self._space)
        self.personas = Personas(self._space)
        self.erasure = Erasure(self._space)
        self.recordings = Recordings(self._space)
        self.metrics = MetricsCounter(self._space)
        self.sessions = Sessions(self._space)
        self.api_keys = ApiKeys(self._space)
        self.login_attempts = LoginAttempts(self._space)
        self.event_log = EventLog(self._space)
        self.audit_log = AuditLog(self._space)
        self.heartbeats = {kind: Heartbeats(self._space, kind) for kind in KINDS}
        self._limits = self.flow_control.settings.script_arguments()
        self._reuse, self._archives = reuse, archives
        self._scoped: dict[str, JobStore] = {}

    def in_namespace(self, namespace: str) -> JobStore:
        """Return the store of the same queue with another scope. Raises ValueError for an invalid name."""
        if namespace == self.scope.namespace:
            return self
        if (store := self._scoped.get(namespace)) is None:
            store = self._with_scope(namespace)
            if len(self._scoped) >= SCOPES_MAX:
                self._scoped.clear()
            self._scoped[namespace] = store
        return store

    def _with_scope(self, namespace: str) -> JobStore:
        other = JobStore(
            self._redis,
            self._space.prefix,
            namespace=namespace,
            limits=self.flow_control.settings,
            reuse=self._reuse,
            archives=self._archives,
            replicas_ack=self._space.replicas_ack,
        )
        # What was read once for the queue is not read again for each request.
        other.clock, other.metrics, other.job_ids = self.clock, self.metrics, self.job_ids.in_scope_of(other._space)
        return other

    def check_writable(self) -> None:
        """Send Redis a write that changes nothing. Raises RedisRefusalError if Redis accepts no writes."""
        self._space.check_writable()

    # ── enqueueing ─────────────────────────────────────────────────────────────────────────────

    def preview(self) -> EnqueuePreviewer:
        """Return a preview that computes the outcome of enqueueing without writing."""
        return EnqueuePreviewer(self._space, self.job_ids, reuse=self._reuse)

    def enqueue(
        self,
        jobs: Sequence[tuple[str, VoiceJob]],
        now: float,
        *,
        source: str = Source.LIBRARY,
        fingerprint: str = "",
        message_id: str = "",
    ) -> list[EnqueueReply]:
        """Write (id, job) pairs to the backlog, in order; an existing job is left unchanged.

        A job written by this call is NEW, also if the first reply of Redis was lost. `fingerprint` is that of the
        secret from which the ids were derived (`job_ids`), `message_id` the id of their Celery message, which existing
        jobs record too. Raises StaleIdsError if Redis has another secret.
        """
        return self.prepare_enqueue(jobs, now, source=source, fingerprint=fingerprint, message_id=message_id).outcomes()

    def prepare_enqueue(
        self,
        jobs: Sequence[tuple[str, VoiceJob]],
        now: float,
        *,
        source: str = Source.LIBRARY,
        fingerprint: str = "",
        message_id: str = "",
    ) -> EnqueueCall:
        """Return the same call not yet sent, so that the caller can work while Redis runs it."""
        # Most jobs of a call have the same properties, which are sent once.
        kinds: dict[tuple[str | int | float, ...], int] = {}
        arguments: list[str | int] = []
        for job_id, spec in jobs:
            kind = kinds.setdefault((*self._kind(spec), source, message_id), len(kinds))
            arguments += (job_id, spec.canonical_content(), kind, spec.source_row or "")
        call = self._space.prepare_script(
            "enqueue", f"{now:.6f}", fingerprint, len(kinds), *chain.from_iterable(kinds), *arguments
        )

        def after_retry(outcomes: list[EnqueueReply]) -> list[EnqueueReply]:
            return outcomes_after_retry(self._space, jobs, outcomes, now)

        return EnqueueCall(call, now, after_retry, shows_account=self.scope.is_all)

    def new_job(self, job_id: str, spec: VoiceJob, now: float, source: str) -> Job:
        """Return the only new job of a call at that time, as its record is unless it shares a voice that exists."""
        namespace = self.scope.target
        shared_voice = spec.shared_voice(reuse=self._reuse, namespace=namespace)
        return queued_job(job_id, spec, now, source=source, namespace=namespace, shared_voice=shared_voice)

    def _kind(self, spec: VoiceJob) -> tuple[str | int | float, ...]:
        """Return the arguments of scripts/enqueue.lua that many jobs share: all but id, content and source."""
        first, *later = spec.stages
        next_stage = later[0] if later else ""
        start_within_s = "" if spec.start_within_s is None else spec.start_within_s
        namespace = self.scope.target
        shared_voice = spec.shared_voice(reuse=self._reuse, namespace=namespace)
        recording = spec.recording_voice(namespace) if shared_voice else ""
        sha256 = spec.audio_sha256 or ""
        batch = qualify(namespace, spec.batch or "")
        return (spec.priority.rank, batch, first, next_stage, start_within_s, shared_voice, recording, sha256)

    # ── claims ─────────────────────────────────────────────────────────────────────────────────

    def admit(self, now: float, *, at_most: int = 1000) -> Admitted:
        """Admit jobs from the backlog in turn, as many as the limits allow."""
        news, *flat = self._space.run_script("admit", f"{now:.6f}", at_most, *self._limits)
        by_stage: dict[Stage, list[str]] = {}
        for job_id, stage in rows(flat, 2):
            by_stage.setdefault(Stage(stage), []).append(job_id)
        return Admitted(by_stage, news)

    def claim_submit(
        self, job_ids: Sequence[str], stage: Stage, holder: str, now: float, *, lease_s: float
    ) -> list[SubmitClaim | SubmitDeferred | StalledJob | None]:
        """Claim admitted jobs for submission. For each job return a claim, SubmitDeferred if the submit rate is used
        up, or None if there is nothing to send or the gate is closed.

        `holder` is a token unique to this call: a retry with the same token returns the same claims, or StalledJob for
        a job that became unsure in between. A StalledJob changes nothing, because the retry may overtake the first
        attempt.
        """
        expires_at = now + lease_s
        arguments = (f"{now:.6f}", stage, holder, expires_at, *self._limits, *job_ids)
        replies, is_replicated = self._space.run_acknowledged("claim_submit", *arguments)
        return [
            script_replies.parse_submit_claim(
                job_id, stage, reply, expires_at=expires_at, holder=holder, is_replicated=is_replicated
            )
            for job_id, reply in zip(job_ids, replies, strict=True)
        ]

    def claim_poll(
        self,
        job_ids: Sequence[str],
        now: float,
        *,
        lease_s: float,
        coalesce_window_s: float = 0.0,
        overdue_s: float = 0.0,
        at_most: int = 0,
    ) -> list[PollClaim]:
        """Claim those of the jobs that are due for a poll, for `lease_s` seconds.

        Also claims other jobs that are due within `coalesce_window_s` seconds, or have been for as long or for
        `overdue_s`, up to `at_most` jobs in total: if any of the jobs is due, or there are none.
        """
        now += CLOCK_TOLERANCE_S
        flat = self._space.run_script(
            "claim_poll",
            now,
            now - CLOCK_TOLERANCE_S + lease_s,
            now - max(coalesce_window_s, overdue_s),
            now + coalesce_window_s,
            max(0, at_most - len(job_ids)),
            *job_ids,
        )
        return [script_replies.parse_poll_claim(reply) for reply in rows(flat, 12)]

    def reschedule_polls(self, reschedules: Iterable[PollReschedule]) -> list[str]:
        """Reschedule polls; return the ids of the jobs that were still at the given version."""
        arguments = [
            argument
            for look in reschedules
            for argument in (
                look.job_id,
                look.version,
                f"{look.due:.6f}",
                "" if look.last_not_ready_at is None else f"{look.last_not_ready_at:.6f}",
                script_replies.failure_report_argument(look),
                serialization.clips_text(look.clips) if look.clips else "",
            )
        ]
        return cast(list[str], self._space.run_script("reschedule_polls", *arguments)) if arguments else []

    def lease_expired(self, now: float, *, at_most: int = 1000) -> list[StalledJob]:
        """Lease for a minute the queued and waiting jobs that were not started in time."""
        flat = self._space.run_script("lease_expired", f"{now:.6f}", at_most)
        return [script_replies.parse_stalled_job(*row) for row in rows(flat, 5)]

    def lease_overdue(
        self, now: float, *, overdue_s: float, at_most: int = 1000, longest_s: float = 86_400.0
    ) -> list[StalledJob]:
        """Lease the jobs that have been due for more than `overdue_s` seconds.

        Due times more than `longest_s` seconds ahead are moved to that limit: they were written before Redis's clock
        was set back.
        """
        flat = self._space.run_script("lease_overdue", now, overdue_s, at_most, longest_s)
        return [script_replies.parse_stalled_job(*row) for row in rows(flat, 4)]

    # ── transitions ────────────────────────────────────────────────────────────────────────────

    def apply_transitions(self, transitions: Sequence[Transition], now: float) -> list[bool]:
        """Apply transitions, each completely or not; False for a job whose version has changed."""
        return [effect is not None for effect in self.apply_with_effects(transitions, now)]

    def apply_with_effects(
        self, transitions: Sequence[Transition], now: float, within_s: float = 0.0
    ) -> list[HoldEffect | None]:
        """Apply transitions like `apply_transitions`; return how a refused order affects other jobs, None for a job
        whose version has changed. They are applied again for `within_s` seconds until enough replicas record them."""
        order = sorted(range(len(transitions)), key=lambda position: not transitions[position].is_applied_first)
        effects: dict[int, HoldEffect | None] = {}
        for start in range(0, len(order), _PAGE):
            page = order[start : start + _PAGE]
            effects.update(
                zip(page, self._apply([transitions[position] for position in page], now, within_s), strict=True)
            )
        return [effects[position] for position in range(len(transitions))]

    def _apply(self, moves: Sequence[Transition], now: float, within_s: float) -> list[HoldEffect | None]:
        failures_before = failed_attempts()
        texts = [serialization.transition_arguments(move, archive=self._archives) for move in moves]
        codes = self._space.run_change(
            "apply_transitions", f"{now:.6f}", serialization.json_text(texts), *self._limits, within_s=within_s
        )
        effects = [HoldEffect(code) if code else None for code in codes]
        return self._effects_after_retry(moves, effects, now) if failed_attempts() > failures_before else effects

    def _effects_after_retry(
        self, moves: Sequence[Transition], effects: list[HoldEffect | None], now: float
    ) -> list[HoldEffect | None]:
        """Correct the effects of a retried call: transitions made at its very time were made by its first attempt."""
        with self._redis.pipeline(transaction=False) as pipe:
            for move in moves:
                pipe.hmget(self._space.key(f"job:{move.job_id}"), "version", "updated", "state")
            records = pipe.execute()
        ours = [script_replies.is_applied(move, record, now) for move, record in zip(moves, records, strict=True)]
        return [effect or (HoldEffect.NONE if is_ours else None) for effect, is_ours in zip(effects, ours, strict=True)]

    def count_order(self, order: ChargedOrder, now: float, *, reason: str) -> bool | None:
        """Count an accepted order that its job does not use; the job stays unchanged.

        Returns False if the order was already counted, None if there is no such job.
        """
        fields = (order.job_id, order.stage, order.attempt, order.task_id, PRICES[order.stage], reason)
        is_new = self._space.run_change("count_order", f"{now:.6f}", *fields)
        return None if is_new is None else bool(is_new)

    def request_cancellation(self, jobs: Sequence[Job], now: float) -> list[bool]:
        """Mark charging or unsure jobs for cancellation; False for a job whose version has changed."""
        if not jobs:
            return []
        versions = [argument for job in jobs for argument in (job.id, job.version)]
        marks = self._space.run_change("request_cancellation", f"{now:.6f}", *versions)
        return [bool(is_marked) for is_marked in marks]

    def set_batch_limits(self, name: str, **limits: float | None) -> bool:
        """Pause a batch, end its pause or its stop (`paused`), or set its limits: `max_credits`, `max_in_flight`,
        `stop_after` or `stop_min`. Return False if nothing changed.

        None leaves a value unchanged, `math.inf` removes the limit. Raises ValueError for an invalid name or limit.
        """
        key_name = self.checked_batch(name)
        fields = {field: limit_text(field, value) for field, value in limits.items() if value is not None}
        arguments = chain.from_iterable(fields.items())
        return bool(self._space.run_change("set_batch_limits", f"{self.clock():.6f}", key_name, *arguments))

    def checked_batch(self, name: str) -> str:
        """Return the name of a batch, perhaps without jobs yet, with its namespace. Raises ValueError."""
        return qualified_batch_name(self.scope.qualify(name))

    # ── maintenance ────────────────────────────────────────────────────────────────────────────

    def release_waiting(self, now: float) -> int:
        """Release or fail jobs whose voice is decided and that one script could not all process; return how many. Call
        again until it returns 0."""
        return int(self._space.run_script("release_waiting", f"{now:.6f}"))

    def reassign_voice_creators(self, now: float, *, at_most: int = 200) -> int:
        """Let waiting jobs create a voice whose current creator is not allowed to start; return how many now do.
        Examines up to `at_most` waiting jobs; the next call continues with the following ones."""
        return int(self._space.run_script("reassign_voice_creators", f"{now:.6f}", at_most))

    def purge(self, now: float, *, retention_s: float, at_most: int = 100) -> Iterator[int]:
        """Delete jobs that were settled, and callbacks that were given up, more than `retention_s` seconds ago. Each
        step examines up to `at_most` of them and yields how many it deleted; the caller may stop after any step.

        Jobs with pending work stay. Keys of deleted jobs can be used again; their spent credits stay counted.
        """
        for state, namespace in product(sorted(SETTLED), self._space.namespaces()):
            examined, skipped = at_most, 0
            while examined == at_most:
                arguments = (f"{now:.6f}", retention_s, state, skipped, at_most, namespace)
                examined, deleted = map(int, self._space.run_script("purge_jobs", *arguments))
                skipped += examined - deleted
                yield deleted
        while deleted := int(self._space.run_script("purge_callbacks", f"{now:.6f}", retention_s, at_most)):
            yield deleted
