"""Pausing and limits, of the whole queue or of one batch, while it runs."""

from __future__ import annotations

from voicequeue.client.audited import audited
from voicequeue.client.reading import ReadMethods
from voicequeue.client.unchanged import UNCHANGED, Unchanged
from voicequeue.domain.api_keys import KeyLimits
from voicequeue.domain.budgets import namespace_of_owner
from voicequeue.domain.gate import Limits
from voicequeue.domain.namespaces import named_in
from voicequeue.domain.stage import Stage
from voicequeue.domain.stop_loss import BatchLimitChanges
from voicequeue.errors import InvalidJobError, check_field
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.connection.recorded_change import amend
from voicequeue.texts import require_encodable


class ControlMethods(ReadMethods):
    """Methods of `VoiceQueue` that pause, resume and limit it."""

    _key_limits: KeyLimits

    _source: str

    @audited
    def pause(self, *, stage: Stage | str | None = None, batch: str | None = None, reason: str = "") -> bool:
        """Stop submitting orders: all, those of one stage, or those of one batch.

        Submitted orders are still polled, and their results are stored.

        Args:
            stage: Pause only this stage, `voice` or `music`. None pauses both.
            batch: Pause only this batch. None pauses all jobs.
            reason: The reason, shown by the command line, the API and the page. Not kept for a batch.

        Returns:
            True if something was paused; False if it was paused already.

        Raises:
            BatchNotFoundError: No job is in this batch.
            InvalidJobError: `reason` is not valid Unicode.
            NotOperatorError: The client is limited to one namespace, and no batch is given.
            ValueError: `stage` is unknown, or a stage and a batch are given.
        """
        check_field("reason", require_encodable, reason)
        _require_one_scope(stage, batch)
        if batch is not None:
            return self.set_batch_limits(self.batch(batch).qualified_name, paused=True)
        self._require_operator("pause without a batch")
        with translated_errors():
            return self._store.flow_control.pause(
                self._now(), stage=None if stage is None else Stage(stage), reason=reason
            )

    @audited
    def resume(self, *, stage: Stage | str | None = None, batch: str | None = None) -> bool:
        """Resume submitting orders: all, those of one stage, or those of one batch.

        Without a stage and a batch, it also ends rate limiting, and retries now what is on hold for other reasons.

        Args:
            stage: Resume only this stage, `voice` or `music`. None resumes both.
            batch: Resume only this batch, also if it has stopped itself. None resumes the queue; batches that are
                paused or stopped stay so.

        Returns:
            True if something was resumed; False if nothing was paused or on hold.

        Raises:
            BatchNotFoundError: No job is in this batch.
            NotOperatorError: The client is limited to one namespace, and no batch is given.
            ValueError: `stage` is unknown, or a stage and a batch are given.
        """
        _require_one_scope(stage, batch)
        if batch is not None:
            return self.set_batch_limits(self.batch(batch).qualified_name, paused=False)
        self._require_operator("resume without a batch")
        with translated_errors():
            return self._store.flow_control.resume(self._now(), stage=None if stage is None else Stage(stage))

    def limits(self) -> Limits:
        """Return the limits that apply now: those set with `set_limits`, else the settings of the workers.

        Raises:
            NotOperatorError: The client is limited to one namespace.
        """
        self._require_operator("limits")
        with translated_errors():
            return self._store.flow_control.limits()

    @audited
    def set_limits(
        self,
        *,
        in_flight: float | Unchanged | None = UNCHANGED,
        submit_rate: float | Unchanged | None = UNCHANGED,
        min_balance: float | Unchanged | None = UNCHANGED,
    ) -> Limits:
        """Set limits for all workers, effective at once, and return those that apply now.

        None returns a limit to the settings of the workers. Limits that are not given stay as they are.

        Args:
            in_flight: Maximum number of jobs in flight; a whole number of 1 or more.
            submit_rate: Maximum number of orders submitted per minute; 0.01 or more, or 0 for no limit.
            min_balance: Minimum balance to keep, in credits; a whole number of 0 or more.

        Raises:
            NotOperatorError: The client is limited to one namespace.
            ValueError: A value is out of range.
        """
        self._require_operator("set_limits")
        limits = {"in_flight": in_flight, "submit_rate": submit_rate, "min_balance": min_balance}
        with translated_errors():
            self._store.flow_control.set_limits(
                **{name: limit for name, limit in limits.items() if limit is not UNCHANGED}
            )
            return self._store.flow_control.limits()

    @audited
    def set_budget(
        self,
        owner: str,
        *,
        day: float | Unchanged | None = UNCHANGED,
        month: float | Unchanged | None = UNCHANGED,
        max_in_flight: float | Unchanged | None = UNCHANGED,
        hard: bool | Unchanged = UNCHANGED,
    ) -> bool:
        """Set what an owner may spend and have in flight, effective at once, and return whether that changed anything.

        Credits of jobs in flight, of unsure and of lost orders count as spent. At the limit, jobs wait in the backlog
        until the next day or month (UTC). What is not given stays as it is.

        Args:
            owner: `account`, `namespace/NAME` (`namespace/`: the default one), or `key/NAME` for an API key of the
                gateway's environment; an API key in Redis has its budget as its limits.
            day: Maximum number of credits in a day; None: no limit.
            month: Maximum number of credits in a month; None: no limit.
            max_in_flight: Maximum number of jobs in flight; None: no limit.
            hard: True refuses new jobs (`BudgetExceededError`) that the rest of the day's or month's budget does not
                allow, after what is queued; False enqueues them, and they wait. It can be set for every API key.

        Raises:
            NotOperatorError: The client is limited to one namespace.
            ValueError: `owner` is unknown, or a number is out of range.
            InvalidStateError: Jobs of an earlier release are not counted for their owners yet.
        """
        self._require_operator("set_budget")
        limits = {"day": day, "month": month, "max_in_flight": max_in_flight}
        with translated_errors():
            is_key = owner.startswith("key/")
            amend(namespace=self._namespace_of_key(owner[4:]) if is_key else namespace_of_owner(owner))
            return self._store.flow_control.set_budget(
                owner,
                hard=None if hard is UNCHANGED else bool(hard),
                **{name: limit for name, limit in limits.items() if limit is not UNCHANGED},
            )

    @audited
    def set_budget_callback(self, owner: str, url: str | None) -> bool:
        """Set the URL that receives a callback when 80 and 100 percent of an owner's budget are used or reserved.

        Once in each day or month for each limit. At 100, what remains pays no voice with a song.

        Args:
            owner: `account`, `namespace/NAME` (`namespace/`: the default one), or `key/NAME`, whose secret then signs
                the callbacks.
            url: An `http://` or `https://` URL of at most 2,048 characters. None sends no more callbacks.

        Returns:
            True if that changed anything.

        Raises:
            NotOperatorError: The client is limited to one namespace.
            ValueError: `owner` is unknown, or the URL is invalid.
        """
        self._require_operator("set_budget_callback")
        amend(namespace=namespace_of_owner(owner))
        with translated_errors():
            return self._store.flow_control.set_budget_callback(owner, url, source=self._source)

    @audited
    def set_batch_limits(
        self,
        name: str,
        *,
        paused: bool | None = None,
        max_credits: float | None = None,
        max_in_flight: float | None = None,
        stop_after: float | None = None,
        stop_min: float | None = None,
    ) -> bool:
        """Set the limits of one batch, and return whether that changed anything.

        They apply to each order from now on. A batch can be limited before its first job is enqueued.
        None leaves a value unchanged.

        With `stop_after`, the batch stops itself when that fraction of its settled jobs failed: orders in flight
        finish, and nothing else is submitted until `resume`. Failures that cost nothing are compared with the settled
        jobs and the orders in flight. Only outcomes of orders count: not cancelled jobs, nor
        the failures `expired` and `abandoned`, nor jobs that fail or succeed with the voice of another job. A resumed
        batch counts from the beginning; another limit does not resume it.

        Args:
            name: Name of the batch.
            paused: True submits no orders of the batch; False submits them, also after it has stopped itself.
            max_credits: Maximum total spending of the batch, in credits; a whole number of 0 or more, or `math.inf` for
                no limit.
            max_in_flight: Maximum number of jobs of the batch in flight; a whole number of 1 or more, or `math.inf`
                for no limit.
            stop_after: Fraction of settled jobs of which as many failed that the batch stops itself: above 0, at most
                1 (0.2 is 20 %), or `math.inf` for no limit.
            stop_min: Number of settled jobs without which `stop_after` does not apply; a whole number of 1 or more, or
                `math.inf` for the default, 20.

        Raises:
            ValueError: The name is invalid, or a value is out of range.
        """
        limits: BatchLimitChanges = {
            "max_credits": max_credits,
            "max_in_flight": max_in_flight,
            "stop_after": stop_after,
            "stop_min": stop_min,
        }
        self._require_batch_allowed(name)
        with translated_errors():
            return self._store.set_batch_limits(name, paused=paused, **limits)

    @audited
    def set_batch_callback(self, name: str, url: str | None) -> None:
        """Set the URL that receives a callback each time all jobs of the batch have settled or are unsure.

        It also receives one when the batch stops itself (`stop_after`). It can be set before the first job is enqueued.

        Args:
            name: Name of the batch.
            url: An `http://` or `https://` URL of at most 2,048 characters. None sends no more callbacks.

        Raises:
            ValueError: The name or the URL is invalid.
        """
        self._require_batch_allowed(name)
        with translated_errors():
            self._store.callbacks.set_batch_url(self._store.checked_batch(name), url, source=self._source)

    def _require_batch_allowed(self, name: str) -> None:
        """Raise InvalidJobError if the limits of the API key do not allow this batch."""
        # A caller in one namespace may write it before the name, where it is no part of the name.
        if problem := self._key_limits.problem_of_batch(named_in(self.namespace, name)[1]):
            raise InvalidJobError([problem])


def _require_one_scope(stage: Stage | str | None, batch: str | None) -> None:
    if stage is not None and batch is not None:
        raise ValueError("give a stage or a batch, not both")
