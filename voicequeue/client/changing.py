"""Changing jobs: cancel, retry, many at once by plan, and the review of uncertain charges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

from voicequeue.client import bulk_operations
from voicequeue.client.audited import audited
from voicequeue.client.bulk_operations import BulkAction, BulkPlan, BulkResult
from voicequeue.client.correcting import correct_recording
from voicequeue.client.orders import record_charged_order
from voicequeue.client.reading import ReadMethods
from voicequeue.client.search import Filter, Page
from voicequeue.domain import transitions
from voicequeue.domain.balance import Balance
from voicequeue.domain.charge_review import ChargeReview, review_charge
from voicequeue.domain.job import Job, Transition
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import State
from voicequeue.errors import InvalidStateError
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.connection.recorded_change import amend


class ChangeMethods(ReadMethods):
    """Methods of `VoiceQueue` that change jobs."""

    _source: str
    #: The hosts whose links are not judged in a correction; None: as the environment names them.
    _audio_hosts: str | None = None

    # ── one job ────────────────────────────────────────────────────────────────────────────────

    @audited
    def cancel(self, job_id: str) -> Job:
        """Cancel a job, and return it.

        A result that upstream still delivers was paid for, and is kept. A job that is `charging` or `unsure` is only
        marked (`Job.is_cancelling`): it is cancelled as soon as the outcome of its order is known, and no further stage
        is submitted.

        Args:
            job_id: Id of the job.

        Raises:
            JobNotFoundError: No job has this id.
            InvalidStateError: The job is settled.
        """
        while True:
            now, job = self._now(), self.get(job_id)
            if job.is_cancelling or job.state is State.CANCELLED:
                with translated_errors():  # the call that did so may not have been recorded by replicas
                    self._store._space.confirm()
            if transitions.require_cancellable(job).is_cancelling:
                return job
            amend(namespace=job.namespace, batch=job.spec.batch)
            with translated_errors():
                if job.state in transitions.ONLY_MARKABLE:
                    [is_applied] = self._store.request_cancellation([job], now)
                else:
                    [is_applied] = self._store.apply_transitions([transitions.cancel(job, now)], now)
            if is_applied:
                return self.get(job_id)

    @audited
    def retry(
        self, job_id: str, *, resubmit: bool = False, audio_url: str | None = None, version: int | None = None
    ) -> Job:
        """Retry a failed job from the first stage that has no result, and return it.

        Stages that have a result are not paid for again. If upstream has the order, it is polled again, free of charge.
        Of a job that succeeded without all of its songs, the missing ones are polled.

        Args:
            job_id: Id of the job.
            resubmit: Submit a new order, and pay for it, even if the last one can be polled again. Failed jobs only.
            audio_url: URL of the recording that replaces the one of the job, and of all jobs that share its voice by
                name. Only for a job whose voice was never ordered or paid. Its key stays.
            version: `Job.version` of the job for which the retry was decided: if it has changed, a retry may cost more.

        Raises:
            JobNotFoundError: No job has this id.
            InvalidJobError: `audio_url` can never be a recording: `ingest` would reject its link, too.
            InvalidStateError: The job has not failed, and has no missing songs that can be polled; or it has another
                version.
        """
        if audio_url is not None:
            if version is not None:
                transitions.require_version(self.get(job_id), version)
            self._correct_recording(job_id, audio_url)
            version = None  # the correction made a new one, and nothing was paid before, so the cost is the same
        cost = partial(transitions.retry_cost, resubmit=resubmit)
        return self._change(job_id, partial(transitions.retry, resubmit=resubmit, version=version), cost=cost)

    def _correct_recording(self, job_id: str, audio_url: str) -> None:
        is_corrected = False
        while not is_corrected:
            job = self.get(job_id)
            cost = transitions.retry_cost(job) if transitions.is_correctable(job) else None
            amend(namespace=job.namespace, batch=job.spec.batch, credits=cost)
            with translated_errors():
                is_corrected = correct_recording(
                    self._store,
                    job,
                    audio_url,
                    self._now(),
                    source=self._source,
                    allowed_hosts=self._audio_hosts,
                )

    # ── many jobs ──────────────────────────────────────────────────────────────────────────────

    def plan_bulk(self, action: BulkAction | str, filter: Filter, *, resubmit: bool = False) -> BulkPlan:
        """List the jobs that a bulk `cancel` or `retry` would change, and what it may cost. Changes nothing.

        Pass the plan's token to `execute_plan` within an hour. A plan holds up to 100,000 jobs; if more match,
        `BulkPlan.is_complete` is false.

        Args:
            action: `cancel` or `retry`.
            filter: The jobs; those that the action does not apply to are left out.
            resubmit: As in `retry`. It has no effect on a cancel.

        Raises:
            BatchNotFoundError: No job is in the batch of the filter.
            ValueError: `action` is unknown.
        """
        if filter.batch is not None:
            self.batch(filter.batch)
        with translated_errors():
            return bulk_operations.create_plan(self._store, BulkAction(action), filter, self._now(), resubmit=resubmit)

    def plan_jobs(self, action: BulkAction | str, job_ids: Iterable[str], *, resubmit: bool = False) -> BulkPlan:
        """List those of some jobs that a bulk `cancel` or `retry` would change, and what it may cost. Changes nothing.

        Pass the plan's token to `execute_plan` within an hour.

        Args:
            action: `cancel` or `retry`.
            job_ids: Ids of the jobs. Those that are unknown, or to which the action does not apply, are left out.
            resubmit: As in `retry`. It has no effect on a cancel.

        Raises:
            ValueError: `action` is unknown, or there are more than 100,000 ids.
        """
        ids = list(islice(job_ids, bulk_operations.MAX_JOBS + 1))
        if len(ids) > bulk_operations.MAX_JOBS:
            raise ValueError(f"job_ids: a plan holds at most {bulk_operations.MAX_JOBS:,} jobs")
        with translated_errors():
            return bulk_operations.create_plan_of(self._store, BulkAction(action), ids, self._now(), resubmit=resubmit)

    @audited
    def execute_plan(self, action: BulkAction | str, token: str, *, may_resubmit: bool = True) -> BulkResult:
        """Execute a plan. Executing it twice changes nothing more.

        A retry skips jobs that changed after the plan was made; a cancel skips jobs that have settled since.

        Args:
            action: The action of the plan, `cancel` or `retry`.
            token: `BulkPlan.token`.
            may_resubmit: Whether plans with `resubmit` may be executed. False treats them as unknown.

        Raises:
            PlanNotFoundError: The token is unknown or expired, or belongs to the other action.
            ValueError: `action` is unknown.
        """
        with translated_errors():
            return bulk_operations.execute_plan(
                self._store, BulkAction(action), token, self._now(), may_resubmit=may_resubmit
            )

    # ── uncertain charges ──────────────────────────────────────────────────────────────────────

    def charge_reviews(self) -> Iterator[ChargeReview]:
        """Yield the jobs whose order may or may not have been charged, each with the evidence.

        In one namespace the evidence has no balances, because others use the account, too.
        """
        balances = self._balances()
        for job in self.jobs(state=State.UNSURE):
            if (review := review_charge(job, self.timeline(job.id), balances)) is not None:
                yield review

    def list_charge_reviews(
        self, *, batch: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[ChargeReview]:
        """Return a page of the jobs whose order may or may not have been charged, the latest first.

        A page may have fewer than `limit` jobs, even none, and still have a next page.

        Args:
            batch: Only jobs of this batch.
            limit: Maximum number of jobs on the page; 1 or more.
            cursor: `Page.cursor` of the previous page. None returns the first page.

        Raises:
            BatchNotFoundError: No job is in this batch.
            InvalidCursorError: The cursor is not one of this list.
            ValueError: `limit` is below 1.
        """
        page = self.search(Filter(State.UNSURE, batch=batch), limit=limit, cursor=cursor)
        balances = self._balances()
        reviews = (review_charge(job, self.timeline(job.id), balances) for job in page.items)
        return Page(tuple(review for review in reviews if review is not None), page.cursor)

    def charge_review(self, job_id: str) -> ChargeReview:
        """Return the evidence on whether the order of an `unsure` job was charged.

        Args:
            job_id: Id of the job.

        Raises:
            JobNotFoundError: No job has this id.
            InvalidStateError: The job is not `unsure`.
        """
        job = self.get(job_id)
        review = review_charge(job, self.timeline(job_id), self._balances())
        if job.state is not State.UNSURE or review is None:
            raise InvalidStateError(f"only an unsure job can be reviewed; job {job.id} is {job.state}")
        return review

    def _balances(self) -> list[Balance]:
        return self.balance_history() if self._store.scope.is_all else []

    @audited
    def confirm_charged(self, job_id: str, task_id: str, *, attempt: int | None = None) -> Job:
        """Confirm that an order was charged, by the id of its upstream task, and return the job.

        The order is the one that is `unsure`, or the last one whose reply was lost. Its charge is counted, and the job
        continues with its task unless a newer order was submitted.

        Args:
            job_id: Id of the job.
            task_id: Id of the upstream task of the order.
            attempt: Number of the order (`ChargeReview.attempt`), to confirm no other one. None: as above.

        Raises:
            JobNotFoundError: No job has this id.
            InvalidJobError: The task id is not valid Unicode.
            InvalidStateError: The job has no such order, or has this task already.
        """
        job, now = self.get(job_id), self._now()
        order = transitions.lost_order(job, task_id, attempt)
        amend(namespace=job.namespace, batch=job.spec.batch, credits=PRICES[order.stage])
        with translated_errors():
            record_charged_order(self._store, order, now, reason="charge confirmed by task id")
        return self.get(job_id)

    @audited
    def resubmit(self, job_id: str, *, attempt: int | None = None) -> Job:
        """Submit the order of an `unsure` job again, and return the job. The stage may be charged a second time.

        Args:
            job_id: Id of the job.
            attempt: Number of the order that was reviewed (`ChargeReview.attempt`), to submit no other one again. None:
                the one that is unsure.

        Raises:
            JobNotFoundError: No job has this id.
            InvalidStateError: The job is not `unsure`, or is to be cancelled, or another order of it is unsure.
        """
        return self._change(job_id, partial(transitions.resubmit, attempt=attempt), cost=lambda job: PRICES[job.stage])

    @audited
    def abandon(self, job_id: str, *, attempt: int | None = None) -> Job:
        """Give up an `unsure` job, and return it. It fails with the code `abandoned`.

        Args:
            job_id: Id of the job.
            attempt: Number of the order that was reviewed, as in `resubmit`.

        Raises:
            JobNotFoundError: No job has this id.
            InvalidStateError: The job is not `unsure`, or another order of it is.
        """
        return self._change(job_id, partial(transitions.abandon, attempt=attempt))

    def _change(
        self, job_id: str, decide: Callable[[Job, float], Transition], *, cost: Callable[[Job], int] | None = None
    ) -> Job:
        """Apply a transition; decide again as long as the job changes between reading and writing.

        `cost` returns the most credits that it may cost, for the audit log.
        """
        while True:
            now, job = self._now(), self.get(job_id)
            move = decide(job, now)
            amend(namespace=job.namespace, batch=job.spec.batch, credits=cost(job) if cost else None)
            with translated_errors():
                [is_applied] = self._store.apply_transitions([move], now)
            if is_applied:
                return self.get(job_id)
