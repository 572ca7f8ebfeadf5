"""Random sequences of commands: indexes and counters always agree with the records, and no limit is exceeded."""

from __future__ import annotations

import json
from collections import Counter
from math import inf
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis import Redis

from tests.store.jobs.job_walk import JobWalk, is_batch, some
from tests.store.life import (
    assert_consistent,
    get_job,
    refuse_order,
)
from tests.store.spending import reserved_credits, unsettled_credits
from voicequeue import Gate, Priority, Stage, State
from voicequeue.domain.claims import Admitted
from voicequeue.domain.gate import HoldReason
from voicequeue.domain.namespaces import namespace_of
from voicequeue.domain.source import Source
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import IN_FLIGHT
from voicequeue.storage.flow_control import UpstreamFailure

#: Reasons that upstream's answers give.
_REFUSED = (HoldReason.OUT_OF_CREDITS, HoldReason.UNAUTHORIZED, HoldReason.UPSTREAM_DOWN, HoldReason.COOLDOWN)

stages = st.sampled_from([None, *Stage])


def walk_on(redis: Redis) -> type[RuleBasedStateMachine]:
    """Return a state machine that calls every command in any order, with a prefix of its own."""

    class Walk(JobWalk):
        def __init__(self) -> None:
            super().__init__(redis)

        # ── flow control ──────────────────────────────────────────────────────────────────────

        @rule(reason=st.sampled_from(HoldReason), seconds=st.sampled_from([0.5, 40.0, None]))
        def close(self, reason: HoldReason, seconds: float | None) -> None:
            before = self.store.flow_control.gate(self.now)
            until = self.now + seconds if seconds else (None if reason in _WITHOUT_END else self.now + 9)
            news = self.store.flow_control.add_hold(reason, "", self.now, until)
            known_hold = self.reported_hold(before, reason)
            # An API key that is invalid again in its trial is reported as new, too.
            assert news == (known_hold is None or (known_hold.is_on_trial and reason is HoldReason.UNAUTHORIZED))
            hold = self.reported_hold(self.store.flow_control.gate(self.now), reason)
            assert hold is not None
            assert not hold.is_on_trial
            assert hold.until is None or (until is not None and hold.until >= until)

        def reported_hold(self, gate: Gate, reason: str) -> Any:
            """Return the hold with this reason, except the one for insufficient credits by our own count."""
            return gate.hold_for(reason) if reason in self.record("gate") else None

        @rule(stage=stages)
        def pause(self, stage: Stage | None) -> None:
            self.store.flow_control.pause(self.now, stage=stage)
            assert not self.store.flow_control.pause(self.now, stage=stage)

        @rule(stage=stages)
        def resume(self, stage: Stage | None) -> None:
            self.store.flow_control.resume(self.now, stage=stage)
            names = {"paused", "paused.voice", "paused.music"} if stage is None else {f"paused.{stage}"}
            assert not names & self.record("gate").keys()

        @precondition(lambda self: self.specs)
        @rule(number=some, reason=st.sampled_from([*_REFUSED]), tries=st.integers(1, 2))
        def refuse(self, number: int, reason: HoldReason, tries: int) -> None:
            """Upstream refuses a charging order: it is sent again, or the job fails."""
            before, charging = (
                self.store.flow_control.in_flight_limit(),
                sorted(self.store.list_ids(state=State.CHARGING)),
            )
            if not charging:
                return
            job_id = charging[number % len(charging)]
            refuse_order(self.store, job_id, reason, self.now, max_attempts=tries)
            assert get_job(self.store, job_id).state in (State.QUEUED, State.FAILED)
            assert self.store.flow_control.in_flight_limit().limit <= max(
                before.limit, self.store.counts_by_state()[State.PENDING]
            )

        @rule(subject=st.sampled_from(["", "a", "b"]), reason=st.sampled_from([*_REFUSED]))
        def record_failure(self, subject: str, reason: HoldReason) -> None:
            self.store.flow_control.record_failures(
                [UpstreamFailure(subject, reason, "502", 5.0)], self.now, initial_hold_s=5
            )

        @rule()
        def recovered(self) -> None:
            self.store.flow_control.clear_failures()

        @rule(credits=st.integers(0, 200))
        def balance(self, credits: int) -> None:
            spent = self.store.credits_spent()
            assert (
                self.store.flow_control.record_balance(credits, spent_before=spent, requested_at=self.now, now=self.now)
                == credits
            )

        @rule(
            in_flight=st.sampled_from([None, 1, 3, 20]),
            submit_rate=st.sampled_from([None, 0, 6, 600]),
            min_balance=st.sampled_from([None, 0, 30]),
        )
        def set_limits(self, **limits: float | None) -> None:
            self.store.flow_control.set_limits(**limits)

        @rule(
            batch=st.sampled_from(["spring", "summer", "shop/summer"]),
            paused=st.sampled_from([None, False, False, True]),
            max_credits=st.sampled_from([None, None, 30, 10_000]),
            max_in_flight=st.sampled_from([None, None, 1, 100]),
        )
        def limit_batch(self, batch: str, **limits: int | None) -> None:
            self.store.set_batch_limits(batch, **limits)
            assert not self.store.set_batch_limits(batch, **limits)

        @rule(
            owner=st.sampled_from(["account", "namespace/", "namespace/shop", "key/app"]),
            day=st.sampled_from([None, None, 0, 60, 10_000]),
            month=st.sampled_from([None, None, 100]),
            slots=st.sampled_from([None, None, 1]),
        )
        def set_budget(self, owner: str, day: int | None, month: int | None, slots: int | None) -> None:
            limits: Any = {"day": day, "month": month, "max_in_flight": None if owner == "account" else slots}
            self.store.flow_control.set_budget(owner, **limits)
            assert not self.store.flow_control.set_budget(owner, **limits)
            self.budgets[owner] = {name: limit for name, limit in limits.items() if limit is not None}

        # ── admission ─────────────────────────────────────────────────────────────────────────

        @rule(at_most=st.sampled_from([0, 1, 2, 1000]))
        def admit(self, at_most: int) -> None:
            before, gate = self.all_records(), self.store.flow_control.gate(self.now)
            admitted = self.store.admit(self.now, at_most=at_most)
            job_ids = [job_id for stage in admitted.by_stage.values() for job_id in stage]
            self.nothing_passes_the_gate(gate, admitted)
            self.no_limit_is_passed(before, job_ids, at_most)
            if job_ids or at_most == 1000:
                self.nothing_waits_that_may_begin(gate, job_ids, at_most)

        def nothing_passes_the_gate(self, gate: Gate, admitted: Admitted) -> None:
            holds = [hold for hold in gate.holds if hold.reason in self.record("gate")]
            if any(not hold.is_on_trial and not hold.reason.startswith("paused.") for hold in holds):
                assert admitted == Admitted({})
            for stage in admitted.by_stage:
                assert not gate.hold_for(f"paused.{stage}")
            if any(hold.is_on_trial for hold in holds):
                counts = self.store.counts_by_state()
                assert not admitted.by_stage or counts[State.ADMITTED] + counts[State.CHARGING] == 1

        def no_limit_is_passed(self, before: dict[str, dict[str, str]], job_ids: list[str], at_most: int) -> None:
            limits, account = self.store.flow_control.limits(), self.store.flow_control.account()
            assert len(job_ids) <= at_most
            if job_ids:
                assert self.store.count_in_flight() <= self.store.flow_control.in_flight_limit().limit
                assert account.balance is None or account.balance - account.reserved >= limits.min_balance
            begun = Counter(before[job_id].get("batch") for job_id in job_ids)
            for name in filter(is_batch, begun):
                batch, record = self.store.batch(str(name)), self.record(f"batch:{name}")
                assert batch is not None
                assert not batch.is_paused
                flying = sum(batch.states[state] for state in IN_FLIGHT)
                assert batch.max_in_flight is None or flying <= batch.max_in_flight
                spends = batch.credits + int(record["reserved"])
                assert batch.max_credits is None or spends <= batch.max_credits

        def nothing_waits_that_may_begin(self, gate: Gate, job_ids: list[str], at_most: int) -> None:
            """Check that no job waits that may start, except for lack of slots, credits or rate, and none of a lower
            priority was admitted before it."""
            shut = any(
                hold.reason in self.record("gate") and not hold.reason.startswith("paused.") for hold in gate.holds
            )
            short = "shortage" in self.record("account")
            full = (
                self.store.count_in_flight() >= self.store.flow_control.in_flight_limit().limit
                or len(job_ids) >= at_most
            )
            lowest = max((self.specs[job_id].priority.rank for job_id in job_ids), default=-1)
            if "paused" in self.record("gate") or (shut and not job_ids):
                return
            rated = self.store.flow_control.limits().submit_rate is not None
            for line in self.store.lanes():
                if line.priority.rank < lowest or not (shut or short or full or rated):
                    assert not self.may_start(line.priority, line.qualified_batch, gate)

        def may_start(self, priority: Priority, batch: str, gate: Gate) -> bool:
            """Return whether the head of a lane, of the stages that are not paused, is not held back itself."""
            key = f"{{{self.prefix}}}:lane:{priority.rank}:{batch}"
            line: Any = redis.zrange(key, 0, -1, withscores=True)
            resting: Any = redis.zrange(f"{{{self.prefix}}}:refused", f"({self.now}", "+inf", byscore=True)
            heads = [
                job_id
                for job_id, score in line
                if not gate.hold_for(f"paused.{Stage.MUSIC if score < 0 else Stage.VOICE}") and job_id not in resting
            ]
            held_from: dict[str, int] = {}  # by API key at a limit: the cost of the first of its jobs
            for job_id in heads:
                record = self.record(f"job:{job_id}")
                cost, key = reserved_credits({**record, "state": State.ADMITTED}), Source.http_caller(record["source"])
                if cost >= held_from.get(key, inf):
                    continue
                if not self.batch_allows(batch, cost) or not self.budgets_allow(
                    ["account", f"namespace/{namespace_of(batch)}"], cost
                ):
                    return False
                if not key or self.budgets_allow([f"key/{key}"], cost):
                    return True
                held_from[key] = cost
            return False

        def budgets_allow(self, owners: list[str], cost: int) -> bool:
            """Return whether these owners may start one more job, at this cost."""
            return all(self.has_budget(owner, slots=1, cost=cost) for owner in owners)

        def batch_allows(self, batch: str, cost: int) -> bool:
            """Return whether a batch may start one more job, at this cost."""
            if not is_batch(batch):
                return True
            result, record = self.store.batch(batch), self.record(f"batch:{batch}")
            assert result is not None
            flying = sum(result.states[state] for state in IN_FLIGHT)
            spends = result.credits + int(record.get("reserved", 0)) + cost
            return not (
                result.is_paused
                or (result.max_in_flight is not None and flying >= result.max_in_flight)
                or (result.max_credits is not None and spends > result.max_credits)
            )

        # ── invariants ────────────────────────────────────────────────────────────────────────

        @invariant()
        def the_indexes_say_what_the_records_say(self) -> None:
            assert_consistent(redis, self.prefix)

        @invariant()
        def no_batch_exceeds_its_credits(self) -> None:
            """Check that spent and possibly spent credits grow only with orders within the limit."""
            before, self.at_stake = self.at_stake, Counter()
            for record in self.all_records().values():
                if is_batch(name := record.get("batch", "")):
                    under_way = record["state"] in (State.CHARGING, State.UNSURE)
                    self.at_stake[name] += under_way * PRICES[Stage(record["stage"])] + unsettled_credits(record)
            for name in filter(is_batch, {record.get("batch", "") for record in self.all_records().values()}):
                batch = self.store.batch(name)
                self.at_stake[name] += batch.credits if batch else 0
                limit = inf if batch is None or batch.max_credits is None else batch.max_credits
                assert self.at_stake[name] <= max(before[name], limit)

        @invariant()
        def nothing_more_is_ordered_for_what_is_to_be_cancelled(self) -> None:
            for job_id, record in self.all_records().items():
                assert "cancelling" not in record or record["state"] in (State.CHARGING, State.UNSURE)
                assert int(record.get("attempt", 0)) <= self.withdrawn.get(job_id, 10**6)

        @invariant()
        def no_job_is_lost(self) -> None:
            assert sorted(self.store.list_ids()) == sorted(self.specs)
            assert sum(self.store.counts_by_state().values()) == len(self.specs)

        @invariant()
        def a_timeline_tells_every_version(self) -> None:
            for job_id in self.specs:
                steps = self.store.timeline(job_id)
                job = get_job(self.store, job_id)
                assert len(steps) == job.version
                assert steps[-1].state is job.state

        @invariant()
        def the_limit_is_one_that_may_be(self) -> None:
            flow = self.store.flow_control.in_flight_limit()
            assert 1 <= flow.limit <= flow.maximum

        @invariant()
        def what_wakes_is_there_once_or_not_at_all(self) -> None:
            assert redis.llen(f"{{{self.prefix}}}:wake") <= 1

        @invariant()
        def each_reason_has_held_since_some_time_ago(self) -> None:
            for reason, entry in self.record("gate").items():
                assert float(json.loads(entry)["since"]) <= self.now
                assert reason.split(".")[0] in set(HoldReason)

    return Walk


#: Reasons of holds without an end.
_WITHOUT_END = {HoldReason.PAUSED, HoldReason.OUT_OF_CREDITS, HoldReason.UNAUTHORIZED}


@pytest.mark.hypothesis
def test_the_indexes_always_agree_with_the_records(redis: Redis) -> None:
    """They agree after every step of random walks."""
    # To see the shortest walk that goes wrong, add Phase.shrink: that takes minutes.
    few = settings(max_examples=settings().max_examples // 4, stateful_step_count=50, phases=[Phase.generate])

    run_state_machine_as_test(walk_on(redis), settings=few)
