"""Kinds of damage to the indexes and counters of a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis

from tests.store.life import NOW, enqueue_jobs, job_in_state
from tests.support.jobs import voice, voice_with_song
from voicequeue import State
from voicequeue.domain.budgets import spent_fields
from voicequeue.storage.job_store import JobStore

#: The counters of what was spent on the day and in the month of `NOW`.
TODAY, MONTH = spent_fields(NOW).values()


@dataclass(frozen=True)
class Damaged:
    """A store to damage: it has a job of batch `b` in every state of a whole life."""

    redis: Redis
    root: str
    jobs: dict[State, str]

    def key(self, name: str) -> str:
        """Return the full key for a name."""
        return self.root + name


def consistent_store(redis: Redis, store: JobStore, prefix: str) -> Damaged:
    """Return the consistent store."""
    # From the last state to the first, so that a waiting job is not admitted instead.
    states = [State.SUCCEEDED, State.FAILED, State.UNSURE, State.PENDING, State.CHARGING, State.ADMITTED]
    jobs = {state: job_in_state(store, state, voice_with_song(batch="b", key=state)).id for state in states}
    jobs[State.CANCELLED] = job_in_state(store, State.CANCELLED, voice(batch="b", key="cancelled")).id
    [jobs[State.QUEUED]] = enqueue_jobs(store, voice(batch="b", key="queued"))
    enqueue_jobs(store, voice(key="alone"), source="http:app")
    [_, jobs[State.WAITING]] = enqueue_jobs(
        store, *(voice_with_song(batch="b", key=key, reuse=True) for key in ("creator", "waits"))
    )
    return Damaged(redis, f"{{{prefix}}}:", jobs)


def without(index: str, state: State) -> Callable[[Damaged], str]:
    """Remove the job in that state from the index."""

    def deed(store: Damaged) -> str:
        assert store.redis.zrem(store.key(index), store.jobs[state]) == 1
        return f"{index}: job {store.jobs[state]} is missing"

    return deed


def also(index: str, state: State | None) -> Callable[[Damaged], str]:
    """Add the job in that state (None: an id without a record) to the index."""

    def deed(store: Damaged) -> str:
        job_id = "ghost" if state is None else store.jobs[state]
        assert store.redis.zadd(store.key(index), {job_id: 1}) == 1
        return f"{index}: job {job_id} does not belong there"

    return deed


def counted(counters: str, field: str, by: int, words: str) -> Callable[[Damaged], str]:
    """Change a counter."""

    def deed(store: Damaged) -> str:
        amount = store.redis.hincrby(store.key(counters), field, by)
        return words.format(found=amount, right=amount - by)

    return deed


def without_turn(store: Damaged) -> str:
    """Remove the turn of a batch with queued jobs, which would never be admitted."""
    assert store.redis.zrem(store.key("lanes:1"), "b") == 1
    return "lanes:1: batch b is missing"


def also_turn(store: Damaged) -> str:
    """Add a turn for a batch without queued jobs."""
    store.redis.zadd(store.key("lanes:2"), {"idle": 1})
    return "lanes:2: batch idle does not belong there"


def unlisted(store: Damaged) -> str:
    """Remove a batch with jobs from the list."""
    assert store.redis.zrem(store.key("batches"), "b") == 1
    return "batches: batch b is missing"


def listed(store: Damaged) -> str:
    """List a batch without jobs."""
    store.redis.zadd(store.key("batches"), {"empty": 1})
    store.redis.hset(store.key("batch:empty"), "credits", 0)
    return "batches: batch empty does not belong there"


def not_listed_as_stopped(store: Damaged) -> str:
    """Stop a batch without listing it among the stopped ones."""
    stop = {"at": "1", "settled": 20, "failed_by_code": {"refused": 20}, "stop_after": "0.2"}
    store.redis.hset(store.key("batch:b"), "stopped", json.dumps(stop))
    return "batches:stopped: batch b is missing"


def listed_as_stopped(store: Damaged) -> str:
    """List a batch among the stopped ones that is none."""
    store.redis.zadd(store.key("batches:stopped"), {"calm": 1})
    return "batches:stopped: batch calm does not belong there"


def budget_not_listed(store: Damaged) -> str:
    """Set a budget without listing its owner."""
    store.redis.hset(store.key("budget:account"), "day", 500)
    return "budgets: account is missing"


def owner_not_listed(store: Damaged) -> str:
    """Remove an API key from the owners of jobs."""
    assert store.redis.zrem(store.key("owners"), "key/app") == 1
    return "owners: key/app is missing"


def listed_without_budget(store: Damaged) -> str:
    """List an owner among those with a budget that has none."""
    store.redis.sadd(store.key("budgets"), "namespace/calm")
    return "budgets: namespace/calm does not belong there"


def shared_voice(store: Damaged) -> str:
    """Return the voice that a job waits for."""
    return str(store.redis.hget(store.key(f"job:{store.jobs[State.WAITING]}"), "shared_voice"))


def not_waiting(store: Damaged) -> str:
    """Remove a waiting job from its voice, so that it would never be released."""
    assert store.redis.zrem(store.key(f"waiting:{shared_voice(store)}"), store.jobs[State.WAITING]) == 1
    return f"waiting:{shared_voice(store)}: job {store.jobs[State.WAITING]} is missing"


def unmade(store: Damaged) -> str:
    """Remove the creator of an awaited voice."""
    assert store.redis.hdel(store.key(f"voice:{shared_voice(store)}"), "creator") == 1
    return f"voices: jobs wait for {shared_voice(store)}, and no job creates it"


def made_by_a_ghost(store: Damaged) -> str:
    """Set a creator that does not exist."""
    store.redis.hset(store.key(f"voice:{shared_voice(store)}"), "creator", "ghost")
    return f"voices: jobs wait for {shared_voice(store)}, and no job creates it"


DAMAGES: dict[str, Callable[[Damaged], str]] = {
    "queued, not in its line": without("lane:1:b", State.QUEUED),
    "pending, not in flight": without("in_flight", State.PENDING),
    "pending, not in its state": without("state:pending", State.PENDING),
    "unsure, not in its state": without("state:unsure", State.UNSURE),
    "failed, not in its batch": without("batch:b:jobs", State.FAILED),
    "a ghost in a line": also("lane:1:b", None),
    "a ghost in a line of its own": also("lane:0:", None),
    "a ghost in flight": also("in_flight", None),
    "a ghost in a state": also("state:failed", None),
    "a ghost among those that may be late": also("late_results", None),
    "a ghost in a batch": also("batch:b:jobs", None),
    "a ghost in a batch of its own": also("batch:other:jobs", None),
    "succeeded and in flight": also("in_flight", State.SUCCEEDED),
    "admitted and in the line": also("lane:1:b", State.ADMITTED),
    "queued in a line of another priority": also("lane:2:b", State.QUEUED),
    "failed and cancelled": also("state:cancelled", State.FAILED),
    "queued and waited for": also("late_results", State.QUEUED),
    "in two batches": also("batch:other:jobs", State.QUEUED),
    "a ghost to be archived": also("archive:pending", None),
    "never to be archived, and given up": also("archive:failed", State.SUCCEEDED),
    "a batch counts one too many": counted(
        "batch:b", "succeeded", 1, "batch b: counts {found} succeeded, the records say {right}"
    ),
    "a batch counts less than nothing": counted(
        "batch:b", "waiting", -2, "batch b: counts {found} waiting, the records say {right}"
    ),
    "a batch spent more": counted("batch:b", "credits", 4, "batch b: counts {found} credits, the records say {right}"),
    "a batch has promised less": counted(
        "batch:b", "reserved", -15, "batch b: counts {found} reserved, the records say {right}"
    ),
    "more was promised": counted(
        "counters", "reserved", 4, "counters: counts {found} reserved, the records say {right}"
    ),
    "a batch will spend more": counted(
        "batch:b", "queued_credits", 4, "batch b: counts {found} queued_credits, the records say {right}"
    ),
    "less will be spent": counted(
        "backlog", "queued_credits", -4, "backlog: counts {found} queued_credits, the records say {right}"
    ),
    "a batch counts a failure too many": counted(
        "batch:b", "failed.refused", 1, "batch b: counts 1 failed.refused, the records say 0"
    ),
    "one too many has failed": counted(
        "counters", "failed.refused", 1, "counters: counts 1 failed.refused, the records say 0"
    ),
    "a batch that is none counts": counted("batch:x", "queued", 3, "batch x: counts 3 queued, the records say 0"),
    "more was spent": counted("counters", "music.credits", 15, "counters: counts 27 credits, the records say 12"),
    "waiting, and never released": not_waiting,
    "waiting for a voice without a creator": unmade,
    "waiting for a voice that a ghost makes": made_by_a_ghost,
    "a ghost that waits for a voice": also("waiting:named-x", None),
    "a batch has no turn": without_turn,
    "a batch has a turn and no line": also_turn,
    "a batch is not listed": unlisted,
    "an empty batch is listed": listed,
    "a stopped batch is not listed": not_listed_as_stopped,
    "a batch is listed as stopped": listed_as_stopped,
    "an API key has more jobs in flight": counted(
        "key:app", "in_flight", 1, "key app: counts {found} in_flight, the records say {right}"
    ),
    "the default namespace has reserved less": counted(
        "namespace:", "reserved", -1, "namespace : counts {found} reserved, the records say {right}"
    ),
    "an API key has spent more today": counted(
        "key:app", TODAY, 15, f"key app: counts {{found}} {TODAY}, the records say {{right}}"
    ),
    "the account has spent less this month": counted(
        "counters", MONTH, -4, f"counters: counts {{found}} {MONTH}, the records say {{right}}"
    ),
    "an owner is not listed": owner_not_listed,
    "a budget is not listed": budget_not_listed,
    "an owner without a budget is listed": listed_without_budget,
}
