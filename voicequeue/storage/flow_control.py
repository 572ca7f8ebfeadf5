"""Flow control in Redis: the gate and its holds, the limits, and the account's balance."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from itertools import chain
from typing import Any, cast

from voicequeue.domain import serialization
from voicequeue.domain.balance import Balance, UncountedSpending
from voicequeue.domain.budgets import Budget
from voicequeue.domain.gate import SUBMIT_RATE_MIN, Account, Gate, Hold, HoldEffect, HoldReason, Limits
from voicequeue.domain.stage import Stage
from voicequeue.domain.status import RefusedJob
from voicequeue.storage.budgets import forget_days, report_budgets, write_budget, write_budget_callback
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.counters import read_counters
from voicequeue.texts import pluralize

#: The longest hold (seconds) after upstream failures, before one job is tried.
UPSTREAM_HOLD_MAX_S = 60.0

DAY_S = 86_400

#: The largest number of refused jobs that are read.
REFUSED_JOBS_MAX = 500


@dataclass(frozen=True, slots=True)
class UpstreamFailure:
    """A request that upstream did not answer, or answered with an error that may concern every request.

    `subject` is the id of the task in question; '' if the error concerns every task (no connection, invalid API key).
    `wait_s` is the wait that upstream asked for, in seconds.
    """

    subject: str
    reason: HoldReason
    detail: str
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class InFlightLimit:
    """The number of jobs that may be in flight: `limit` now, `maximum` by the settings."""

    limit: int
    maximum: int


class FlowControl:
    """The gate, the limits and the account, shared by all workers and namespaces. Safe to share between threads.

    `limits` are the settings of this process; limits set at run time take precedence.
    """

    def __init__(self, keyspace: Keyspace, limits: Limits | None = None) -> None:
        self._space = keyspace
        self._redis = keyspace.redis
        self.settings = limits or Limits()

    # ── the gate ───────────────────────────────────────────────────────────────────────────────

    def add_hold(self, reason: str, detail: str, now: float, until: float | None = None) -> bool:
        """Add a hold for this reason; False if there already was one."""
        return bool(
            self._space.run_change("close_gate", f"{now:.6f}", reason, detail, "" if until is None else f"{until:.6f}")
        )

    def record_failures(
        self, failures: Sequence[UpstreamFailure], now: float, *, initial_hold_s: float
    ) -> list[HoldEffect]:
        """Record failed requests; return for each how it affects submission. ALONE: it is the only one.

        The first hold lasts `initial_hold_s` seconds; each failed trial doubles it, up to a minute.
        """
        arguments: list[tuple[str | float, ...]] = [astuple(failure) for failure in failures]
        codes = self._space.run_script(
            "upstream_failure", f"{now:.6f}", initial_hold_s, UPSTREAM_HOLD_MAX_S, *chain.from_iterable(arguments)
        )
        return [HoldEffect(code) for code in codes]

    def clear_failures(self) -> None:
        """Reset the count of failed requests, because upstream answers."""
        self._redis.hdel(self._space.key("flow"), "failures")
        self._redis.delete(self._space.key(f"unanswered:{HoldReason.UPSTREAM_DOWN}"))

    def refused_jobs(self, batch: str | None = None) -> list[RefusedJob]:
        """Return the jobs that upstream refuses while it accepts others, at most `REFUSED_JOBS_MAX` of them."""
        entries = cast(
            list[tuple[str, float]],
            self._redis.zrange(self._space.key("refused"), 0, REFUSED_JOBS_MAX - 1, withscores=True),
        )
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id, _ in entries:
                pipe.hmget(self._space.key(f"job:{job_id}"), "refused", "stage", "batch")
            records = pipe.execute()
        scope = self._space.scope
        jobs = [
            serialization.parse_refused_job(job_id, until, record)
            for (job_id, until), (*record, job_batch) in zip(entries, records, strict=True)
            if (scope.contains(job_batch) if batch is None else job_batch == scope.qualify(batch))
        ]
        return [job for job in jobs if job]

    def pause(self, now: float, *, stage: Stage | None = None, reason: str = "") -> bool:
        """Stop submission, of all stages or of one, until `resume`; False if it was already paused."""
        hold = HoldReason.PAUSED if stage is None else f"{HoldReason.PAUSED}.{stage}"
        return self.add_hold(hold, reason, now)

    def resume(self, now: float, *, stage: Stage | None = None) -> bool:
        """Remove pauses, and start a trial for every other hold; False if there was no hold."""
        return bool(self._space.run_change("resume", f"{now:.6f}", stage or ""))

    def gate(self, now: float) -> Gate:
        """Return the gate with every hold; in one namespace without upstream's words, which may name other jobs."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._space.key("gate"))
            pipe.hget(self._space.key("account"), "shortage")
            entries, shortage = pipe.execute()
        holds = [_hold(reason, json.loads(entry), now) for reason, entry in sorted(entries.items())]
        current = [hold for hold in holds if hold.is_on_trial or hold.until is None or hold.until > now]
        if shortage and HoldReason.OUT_OF_CREDITS not in entries:
            current.append(self._shortage_hold(json.loads(shortage)))
        if not self._space.scope.is_all:
            current = [hold if hold.reason.startswith("paused") else replace(hold, detail="") for hold in current]
        return Gate(tuple(current))

    def _shortage_hold(self, shortage: dict[str, Any]) -> Hold:
        account, floor = self.account(), self.limits().min_balance
        reserved = f", {account.reserved:,} of them reserved for jobs in flight or unsure" if account.reserved else ""
        minimum = f", the minimum balance is {floor:,}" if floor else ""
        balance = pluralize(account.balance or 0, "credit")
        detail = f"{balance} left{reserved}{minimum}; the next job costs {shortage['cost']}"
        return Hold(HoldReason.OUT_OF_CREDITS, detail, float(shortage["since"]))

    # ── the limits ─────────────────────────────────────────────────────────────────────────────

    def limits(self) -> Limits:
        """Return the current limits: set at run time, else from the workers' settings, else from this process."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._space.key("settings"))
            pipe.hgetall(self._space.key("limits"))
            worker_settings, run_time_limits = pipe.execute()
        limits = self.settings.as_text() | worker_settings | run_time_limits
        return Limits(
            in_flight=int(limits["in_flight"]),
            initial_in_flight=int(limits["initial_in_flight"]),
            submit_rate=float(limits["submit_rate"]) or None,
            min_balance=int(limits["min_balance"]),
        )

    def set_limits(self, **limits: float | None) -> None:
        """Set `in_flight`, `submit_rate` (0: unlimited) or `min_balance` for all workers at once; None returns to the
        setting. Raises ValueError."""
        fields = ((name, _limit_text(name, value) or "") for name, value in limits.items())
        self._space.run_change("set_fields", "limits", *chain.from_iterable(fields))

    def set_budget(self, owner: str, *, hard: bool | None = None, **limits: float | None) -> bool:
        """Set what an owner may spend in a `day` and in a `month` (UTC), in credits, and how many of its jobs may be in
        flight (`max_in_flight`), effective at once; None: unlimited. With `hard`, new jobs over the budget are refused.
        Return whether that changed anything. Raises ValueError and InvalidStateError."""
        return write_budget(self._space, owner, hard=hard, **limits)

    def set_budget_callback(self, owner: str, url: str | None, *, source: str) -> bool:
        """Set the URL that is notified of the use of an owner's budget (None: no URL) and who set it. Return whether
        that changed anything. Raises ValueError."""
        return write_budget_callback(self._space, owner, url, source=source)

    def report_budgets(self, now: float) -> list[Budget]:
        """Write the callbacks of budgets that have come to a level of use; return these budgets, each once for each
        level in its period and in all processes."""
        return report_budgets(self._space, now)

    def forget_days(self, now: float) -> None:
        """Delete what owners spent on days that are no longer kept (`DAYS_KEPT`)."""
        forget_days(self._space, now)

    def publish_settings(self) -> None:
        """Publish the limits in this worker's settings."""
        self._redis.hset(self._space.key("settings"), mapping=cast(dict[Any, Any], self.settings.as_text()))

    def in_flight_limit(self) -> InFlightLimit:
        """Return how many jobs may be in flight now."""
        limit, limits = self._redis.hget(self._space.key("flow"), "limit"), self.limits()
        return InFlightLimit(min(limits.in_flight, int(limit) if limit else limits.initial_in_flight), limits.in_flight)

    # ── the account ────────────────────────────────────────────────────────────────────────────

    def record_balance(self, credits: int, *, spent_before: int, requested_at: float, now: float) -> int:
        """Record the balance that upstream reported; return the balance by our count.

        The request was sent at `requested_at`, when `spent_before` credits were spent.
        """
        report = (credits, spent_before)
        return int(
            self._space.run_script(
                "record_balance", f"{now:.6f}", f"{requested_at:.6f}", *report, *self.settings.script_arguments()
            )
        )

    def balances(self) -> list[Balance]:
        """Return the balances that upstream reported in the last days, oldest first."""
        lines = cast(list[str], self._redis.lrange(self._space.key("balances"), 0, -1))
        return [serialization.parse_balance(line) for line in lines]

    def record_uncounted(self, uncounted: UncountedSpending | None) -> bool:
        """Record the difference between the reported and the counted balance, or its end. Return True if there was
        none before, or its assumed price has changed."""
        key = self._space.key("account")
        before = serialization.parse_uncounted_spending(cast(str | None, self._redis.hget(key, "drift")))
        if uncounted is None:
            self._redis.hdel(key, "drift")
            return False
        self._redis.hset(key, "drift", serialization.uncounted_spending_text(uncounted))
        return before is None or uncounted.price not in (None, before.price)

    def account(self, now: float = 0.0) -> Account:
        """Return the account by our count; `now` selects the day of `spent_today`. In one namespace, only its part: the
        balance is unknown."""
        if not self._space.scope.is_all:
            counts, day = read_counters(self._space), f"day.{int(now // DAY_S)}"
            queued = max(0, counts["queued_credits"])
            return Account(reserved=counts["reserved"], spent_today=counts[day], queued_credits=queued)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(self._space.key("account"), "credits", "at", "drift")
            pipe.hmget(self._space.key("counters"), "reserved", f"day.{int(now // DAY_S)}")
            pipe.hget(self._space.key("backlog"), "queued_credits")
            (balance, updated_at, uncounted), (reserved, spent_today), queued = pipe.execute()
        return Account(
            balance=None if balance is None else int(balance),
            updated_at=None if updated_at is None else float(updated_at),
            reserved=int(reserved or 0),
            queued_credits=max(0, int(queued or 0)),
            spent_today=int(spent_today or 0),
            uncounted=serialization.parse_uncounted_spending(uncounted),
        )


#: The limits that can be set at run time: minimum, and whether it is a whole number. A submit rate of 0 is unlimited.
_LIMITS = {"in_flight": (1, True), "submit_rate": (SUBMIT_RATE_MIN, False), "min_balance": (0, True)}


def _limit_text(name: str, value: float | None) -> str | None:
    if name not in _LIMITS:
        raise ValueError(f"{name} is not a limit; the limits are {', '.join(_LIMITS)}")
    if value is None:
        return None
    minimum, is_whole = _LIMITS[name]
    is_unlimited = name == "submit_rate" and value == 0
    is_valid = math.isfinite(value) and value >= minimum and (not is_whole or value == int(value))
    if not (is_unlimited or is_valid):
        or_zero = ", or 0 for no limit" if name == "submit_rate" else ""
        kind = "a whole number" if is_whole else "a number"
        raise ValueError(f"{name}: {value} must be {kind} of at least {minimum}{or_zero}")
    return str(int(value)) if is_whole else repr(float(value))


def _hold(reason: str, entry: dict[str, Any], now: float) -> Hold:
    until = float(entry["ends_at"]) if "ends_at" in entry else None
    ends_with_trial = reason in (HoldReason.OUT_OF_CREDITS, HoldReason.UNAUTHORIZED, HoldReason.UPSTREAM_DOWN)
    is_trial = until is not None and until <= now and ends_with_trial
    return Hold(reason, entry["detail"], float(entry["since"]), until, is_trial)
