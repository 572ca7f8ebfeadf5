"""Flow control in Redis: the gate, the limits, the account, the workers' pulses."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import chain
from typing import Any, cast

from voicequeue.domain import serialization
from voicequeue.domain.balance import Balance, Drift
from voicequeue.domain.gate import SUBMIT_RATE_MIN, Account, Effect, Gate, Hold, Limits, Reason
from voicequeue.domain.poll_schedule import REMEMBERED, Span
from voicequeue.domain.stage import Stage
from voicequeue.domain.status import RefusedJob
from voicequeue.storage.keyspace import Keyspace

#: The longest that an upstream which does not answer is left alone before one job is tried (seconds).
TROUBLE_MAX_S = 60.0

DAY_S = 86_400

#: Of so many jobs that upstream refuses is looked which it refuses alone.
REFUSED_READ = 500

#: A wait must end before the connection takes Redis for dead.
_WAIT_MAX_S = 5.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """A call that upstream did not answer, or refused to. `about` is what it asked about, '' where that is of no
    concern: there is no connection, or it does not know the key. `wait_s`: for so long upstream asked us to wait."""

    about: str
    reason: Reason
    detail: str
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Flow:
    """How many jobs may be in flight now: what upstream was found to bear, and `most` by the settings."""

    limit: int
    most: int


class Controls:
    """What all workers share to keep their pace. `limits` are this process's settings; what somebody
    set while it runs goes before them. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace, limits: Limits | None = None) -> None:
        self._space = keyspace
        self._redis = keyspace.redis
        self.settings = limits or Limits()

    # ── the gate ───────────────────────────────────────────────────────────────────────────────

    def close(self, reason: str, detail: str, now: float, until: float | None = None) -> bool:
        """Hold charges back for this reason; False if it held them back already."""
        return bool(self._space.run("close", f"{now:.6f}", reason, detail, "" if until is None else f"{until:.6f}"))

    def trouble(self, troubles: Sequence[Trouble], now: float, *, wait: float) -> list[Effect]:
        """Note calls that upstream did not answer, or refused; gives for each what follows for orders. ALONE: it was
        the only one.

        If the gate closes, then first for `wait` seconds, after trials that failed for longer, up to a minute.
        """
        calls: list[tuple[str | float, ...]] = [astuple(trouble) for trouble in troubles]
        codes = self._space.run("trouble", f"{now:.6f}", wait, TROUBLE_MAX_S, *chain.from_iterable(calls))
        return [Effect(code) for code in codes]

    def recovered(self) -> None:
        """Upstream answers: what it did not is forgotten."""
        self._redis.hdel(self._space.key("flow"), "failures")
        self._redis.delete(self._space.key(f"unanswered:{Reason.UPSTREAM_DOWN}"))

    def refused(self, batch: str | None = None) -> list[RefusedJob]:
        """The jobs, or the first of them, that upstream refuses while it takes others."""
        found = cast(
            list[tuple[str, float]],
            self._redis.zrange(self._space.key("refused"), 0, REFUSED_READ - 1, withscores=True),
        )
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id, _ in found:
                pipe.hmget(self._space.key(f"job:{job_id}"), "refused", "stage", "batch")
            answers = pipe.execute()
        jobs = [
            serialization.refused(job_id, until, record)
            for (job_id, until), (*record, of) in zip(found, answers, strict=True)
            if batch is None or of == batch
        ]
        return [job for job in jobs if job]

    def pause(self, now: float, *, stage: Stage | None = None, by: str = "") -> bool:
        """Charge nothing more, or nothing of one stage, till `resume`; False if it was so already."""
        reason = Reason.PAUSED if stage is None else f"{Reason.PAUSED}.{stage}"
        return self.close(reason, by, now)

    def resume(self, now: float, *, stage: Stage | None = None) -> bool:
        """Go on, and try what is held back for other reasons; False if nothing was held back."""
        return bool(self._space.run("resume", f"{now:.6f}", stage or ""))

    def gate(self, now: float) -> Gate:
        """All that holds charges back."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._space.key("gate"))
            pipe.hget(self._space.key("account"), "short")
            entries, short = pipe.execute()
        holds = [_hold(reason, json.loads(entry), now) for reason, entry in sorted(entries.items())]
        found = [hold for hold in holds if hold.trial or hold.until is None or hold.until > now]
        if short and Reason.OUT_OF_CREDITS not in entries:
            found.append(self._short(json.loads(short)))
        return Gate(tuple(found))

    def _short(self, short: dict[str, Any]) -> Hold:
        account, floor = self.account(), self.limits().credit_floor
        promised = f", {account.committed:,} of them promised to jobs in flight or unsure" if account.committed else ""
        above = f", {floor:,} are not to be touched" if floor else ""
        detail = f"{account.left or 0:,} credits left{promised}{above}; the next job costs {short['cost']}"
        return Hold(Reason.OUT_OF_CREDITS, detail, float(short["since"]))

    # ── the limits ─────────────────────────────────────────────────────────────────────────────

    def limits(self) -> Limits:
        """As they are now: what somebody set, or else the workers' settings, or (nobody worked yet) our own."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._space.key("settings"))
            pipe.hgetall(self._space.key("limits"))
            of_workers, set_now = pipe.execute()
        found = self.settings.as_text() | of_workers | set_now
        return Limits(
            in_flight=int(found["in_flight"]),
            first_in_flight=int(found["first_in_flight"]),
            submit_rate=float(found["submit_rate"]) or None,
            credit_floor=int(found["credit_floor"]),
        )

    def set_limits(self, **given: float | None) -> None:
        """Set `in_flight`, `submit_rate` (0: any) or `credit_floor` for all workers, now; None goes back to
        the settings. Raises ValueError."""
        texts = {name: _limit_text(name, value) for name, value in given.items()}
        key = self._space.key("limits")
        for name, text in texts.items():
            if text is None:
                self._redis.hdel(key, name)
            else:
                self._redis.hset(key, name, text)

    def flow(self) -> Flow:
        """How many jobs may be in flight now."""
        found, limits = self._redis.hget(self._space.key("flow"), "limit"), self.limits()
        return Flow(min(limits.in_flight, int(found) if found else limits.first_in_flight), limits.in_flight)

    # ── the account ────────────────────────────────────────────────────────────────────────────

    def note_balance(self, credits: int, *, spent_before: int, asked: float, now: float) -> int:
        """Note the credits that upstream said are left, asked for when so many were spent; gives our count."""
        known = (credits, spent_before)
        return int(self._space.run("balance", f"{now:.6f}", f"{asked:.6f}", *known, *self.settings.arguments()))

    def balances(self) -> list[Balance]:
        """What upstream said was left on the account in the last days, oldest first."""
        lines = cast(list[str], self._redis.lrange(self._space.key("balances"), 0, -1))
        return [serialization.balance(line) for line in lines]

    def note_drift(self, found: Drift | None) -> bool:
        """Note what left the account uncounted, if anything did; whether that is news, or the price that it seems to be
        is."""
        key = self._space.key("account")
        known = serialization.drift(cast(str | None, self._redis.hget(key, "drift")))
        if found is None:
            self._redis.hdel(key, "drift")
            return False
        self._redis.hset(key, "drift", serialization.drift_text(found))
        return known is None or found.price not in (None, known.price)

    def account(self, now: float = 0.0) -> Account:
        """The account by our count."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(self._space.key("account"), "credits", "at", "drift")
            pipe.hmget(self._space.key("counters"), "committed", f"day.{int(now // DAY_S)}")
            (left, at, drift), (committed, today) = pipe.execute()
        return Account(
            left=None if left is None else int(left),
            at=None if at is None else float(at),
            committed=int(committed or 0),
            spent_today=int(today or 0),
            drift=serialization.drift(drift),
        )

    # ── how long upstream takes ────────────────────────────────────────────────────────────────

    def note_spans(self, kind: str, spans: Sequence[Span]) -> None:
        """Note how long orders of that kind took."""
        with self._redis.pipeline(transaction=False) as pipe:
            key = self._space.key(f"spans:{kind}")
            pipe.lpush(key, *[f"{span.over:.3f} {span.within:.3f}" for span in spans])
            pipe.ltrim(key, 0, REMEMBERED - 1)
            pipe.sadd(self._space.key("kinds"), kind)
            pipe.execute()

    def spans(self, kind: str) -> list[Span]:
        """How long the last orders of that kind took, the latest first."""
        lines = cast(list[str], self._redis.lrange(self._space.key(f"spans:{kind}"), 0, -1))
        return [Span(*map(float, line.split())) for line in lines]

    def kinds(self) -> list[str]:
        """Of which something was noted."""
        return sorted(cast(set[str], self._redis.smembers(self._space.key("kinds"))))

    def set_schedule(self, kind: str, ages: Sequence[float]) -> None:
        """When to ask about orders of that kind, for all workers."""
        self._redis.hset(self._space.key("schedules"), kind, json.dumps([round(age, 3) for age in ages]))

    def schedules(self) -> dict[str, list[float]]:
        """By kind: the ages (seconds) at which to ask."""
        found = cast(dict[str, str], self._redis.hgetall(self._space.key("schedules")))
        return {kind: json.loads(ages) for kind, ages in found.items()}

    # ── the pulses ─────────────────────────────────────────────────────────────────────────────

    def turn(self, name: str, *, every: float) -> bool:
        """Whether it is the caller's turn to do what one worker does for all, once in `every` seconds."""
        return bool(self._redis.set(self._space.key(f"turn:{name}"), "taken", nx=True, px=max(1, round(every * 1000))))

    def note_settings(self) -> None:
        """Note this worker's settings, for whoever asks."""
        self._redis.hset(self._space.key("settings"), mapping=cast(dict[Any, Any], self.settings.as_text()))

    def woken(self, within: float) -> bool:
        """Wait until there may be something to admit, at most so many seconds (and 5); of many one is woken."""
        return self._redis.blpop([self._space.key("wake")], timeout=min(within, _WAIT_MAX_S)) is not None


#: What somebody may set while it runs: the least, and whether it is a whole number. A submit rate of 0 is none.
_LIMITS = {"in_flight": (1, True), "submit_rate": (SUBMIT_RATE_MIN, False), "credit_floor": (0, True)}


def _limit_text(name: str, value: float | None) -> str | None:
    if name not in _LIMITS:
        raise ValueError(f"{name} is no limit; there are {', '.join(_LIMITS)}")
    if value is None:
        return None
    least, whole = _LIMITS[name]
    is_off = name == "submit_rate" and value == 0
    if not (is_off or (math.isfinite(value) and value >= least and (not whole or value == int(value)))):
        off = ", or 0 for any" if name == "submit_rate" else ""
        raise ValueError(f"{name}: {value} is not {'a whole number' if whole else 'a number'} from {least} on{off}")
    return str(int(value)) if whole else repr(float(value))


def _hold(reason: str, entry: dict[str, Any], now: float) -> Hold:
    until = float(entry["till"]) if "till" in entry else None
    tried = reason in (Reason.OUT_OF_CREDITS, Reason.UNAUTHORIZED, Reason.UPSTREAM_DOWN)
    return Hold(reason, entry["detail"], float(entry["since"]), until, until is not None and until <= now and tried)
