"""The workers and MusicAPI of a test: they process jobs as scripted, step by step, in this process."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from threading import RLock

from voicequeue.auth.signatures import callback_headers, receiver_secret
from voicequeue.domain.claims import SubmitClaim
from voicequeue.domain.gate import Limits
from voicequeue.domain.job import Job, Transition
from voicequeue.domain.namespaces import ALL
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import State
from voicequeue.net.http_types import Target, UrlNotAllowed
from voicequeue.storage.callbacks import CallbackClaim, UndeliverableError
from voicequeue.storage.connection.client import RedisClient
from voicequeue.storage.job_store import JobStore
from voicequeue.testing import steps
from voicequeue.testing.callbacks import Receiver, SentCallback, accept
from voicequeue.testing.outcomes import Ending, Outcome, Scripts

#: More jobs in flight than a test has.
_LIMITS = Limits(in_flight=100_000, initial_in_flight=100_000)

_LEASE_S = 60.0

#: Seconds after which a callback that its receiver did not accept would be sent again.
_RETRY_S = 3_600.0


class FakeWorker:
    """Processes the jobs of one queue, in all its namespaces. Safe to share between threads."""

    def __init__(self, redis: RedisClient, prefix: str, scripts: Scripts, callback_root: str) -> None:
        self._store = JobStore(redis, prefix, namespace=ALL, limits=_LIMITS)
        self._scripts = scripts
        self._callback_root = callback_root
        self._lock = RLock()
        self.receiver: Receiver = accept
        self.sent: list[SentCallback] = []

    def advance(self) -> bool:
        """Take each job one step further, and send the callbacks that are due. Return whether there was anything."""
        with self._lock:
            # Read first, so that no job takes two steps.
            queued, admitted, pending = map(self._jobs, (State.QUEUED, State.ADMITTED, State.PENDING))
            has_failed = self._fail([*queued, *admitted])
            done = [self._expire(), has_failed, self._poll(pending), self._submit(admitted), self._admit()]
            return self._deliver() or any(done)

    # ── jobs ───────────────────────────────────────────────────────────────────────────────────

    def _admit(self) -> bool:
        now = self._store.clock()
        released = 0
        if self._jobs(State.WAITING):
            released = self._store.release_waiting(now) + self._store.reassign_voice_creators(now)
        return bool(self._store.admit(now).by_stage) or released > 0

    def _expire(self) -> bool:
        """Fail the jobs that were not submitted within `start_within_s`, as the maintenance of workers does."""
        now = self._store.clock()
        return self._apply([steps.expired(job, now) for job in self._store.lease_expired(now)])

    def _fail(self, jobs: Sequence[Job]) -> bool:
        """Fail those of the jobs that fail before their order."""
        now = self._store.clock()
        moves = [steps.not_ordered(job, self._outcome(job), now) for job in jobs]
        return self._apply([move for move in moves if move is not None])

    def _submit(self, admitted: Sequence[Job]) -> bool:
        done = [self._submit_stage(stage, [job for job in admitted if job.stage is stage]) for stage in Stage]
        return any(done)

    def _submit_stage(self, stage: Stage, jobs: Sequence[Job]) -> bool:
        jobs = [job for job in jobs if self._outcome(job).code not in steps.UNORDERED]
        now, holder = self._store.clock(), secrets.token_hex(8)
        ids = [job.id for job in jobs]
        claims = self._store.claim_submit(ids, stage, holder, now, lease_s=_LEASE_S) if ids else []
        return self._apply(
            [
                steps.ordered(job, claim, self._outcome(job), f"task-{secrets.token_hex(6)}", now)
                for job, claim in zip(jobs, claims, strict=True)
                if isinstance(claim, SubmitClaim)
            ]
        )

    def _poll(self, pending: Sequence[Job]) -> bool:
        jobs = {job.id: job for job in pending}
        moves: list[Transition] = []
        for stage in Stage:
            ids = [job.id for job in jobs.values() if job.stage is stage and not self._stays_pending(job)]
            now = self._store.clock()
            for claim in self._store.claim_poll(ids, now, lease_s=_LEASE_S) if ids else []:
                job = jobs[claim.job_id]
                moves.append(steps.finished(job, claim, self._outcome(job), now))
        return self._apply(moves)

    def _stays_pending(self, job: Job) -> bool:
        return self._outcome(job).ending is Ending.STAYS_PENDING

    def _outcome(self, job: Job) -> Outcome:
        """Return the outcome of the stage of a job: success, if another stage is scripted."""
        outcome = self._scripts.outcome_of(job)
        is_of_stage = outcome.stage in (None, job.stage)
        return outcome if is_of_stage or outcome.ending is Ending.SUCCEEDS else Outcome(Ending.SUCCEEDS)

    def _jobs(self, state: State) -> list[Job]:
        ids = list(self._store.list_ids(state=state))
        return [job for job in self._store.get(ids) if job is not None] if ids else []

    def _apply(self, moves: Sequence[Transition]) -> bool:
        if not moves:
            return False
        for move in moves:
            if move.to_state in (State.SUCCEEDED, State.FAILED, State.UNSURE):
                self._scripts.use(move.job_id)
        return any(self._store.apply_transitions(moves, self._store.clock()))

    # ── callbacks ──────────────────────────────────────────────────────────────────────────────

    def _deliver(self) -> bool:
        outbox, now = self._store.callbacks, self._store.clock()
        claims = outbox.claim(outbox.lease(now, lease_s=_LEASE_S), now, lease_s=_LEASE_S)
        for claim in claims:
            self._send(claim)
        return bool(claims)

    def _send(self, claim: CallbackClaim) -> None:
        outbox, now = self._store.callbacks, self._store.clock()
        try:
            url, body = claim.url(), claim.body()
            secret = receiver_secret(self._callback_root, Target.parse(url).origin)
        except (UndeliverableError, UrlNotAllowed) as error:
            outbox.mark_undelivered(claim.id, now, str(error), is_attempted=False)
            return
        callback = SentCallback(url, callback_headers([secret], claim.id, body, time.time()), body)
        self.sent.append(callback)
        status: object = self.receiver(callback)
        if not isinstance(status, int):
            raise TypeError(f"the receiver of deliver_to must return the HTTP status, such as 200, not {status!r}")
        if 200 <= status < 300:
            outbox.mark_delivered(claim.id, now)
        elif status == 410:
            outbox.mark_undelivered(claim.id, now, f"HTTP {status}", is_attempted=True)
        else:
            outbox.schedule_retry(claim.id, now, now + _RETRY_S, f"HTTP {status}", is_attempted=True)
