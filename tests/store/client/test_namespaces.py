"""Namespaces: neither of two sees, changes or disturbs the other.

The calls are generated from the public methods of `VoiceQueue`: a new method is covered by itself, and a new parameter
fails the test until `arguments` has values for it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import pytest
from redis import Redis

from tests.store.life import NOW, apply_transition, assert_consistent, dump_keys, fail_job, job_in_state, job_with_song
from tests.support.jobs import voice, voice_with_song
from voicequeue import (
    FailureCode,
    Filter,
    Job,
    KeyLimits,
    Scope,
    SpendingGroup,
    State,
    VoiceQueue,
    VoiceQueueError,
)
from voicequeue.domain.namespaces import index_of, qualify
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.rejected_messages import RejectedMessage

METHODS = {
    name: method
    for name, method in inspect.getmembers(VoiceQueue, inspect.isfunction)
    if not name.startswith("_") and name not in ("close", "on_behalf_of")
}
HOOK = "https://hooks.example/"
SECRET = "ab" * 32


@dataclass(frozen=True)
class Owned:
    """The possessions of a namespace: its jobs, and everything by which another caller might name it."""

    namespace: str
    jobs: list[Job]
    callback_ids: list[str]
    tokens: list[str]
    cursors: list[str]

    @property
    def names(self) -> set[str]:
        """The parts of keys, and members of indexes, that are its own."""
        spring = qualify(self.namespace, "spring")
        shared = [index_of(name, self.namespace) for name in ("voices", "rejected_messages", "batches")]
        voices = [job.shared_voice for job in self.jobs if job.shared_voice]
        ids = [job.id for job in self.jobs]
        return {*ids, *self.callback_ids, *shared, *voices, spring, *([self.namespace] if self.namespace else [])}

    def footprint(self, redis: Redis, prefix: str) -> dict[str, Any]:
        """Return all that is in Redis of it: its own keys, and its members of shared ones."""
        names, owned = self.names, {}
        for key, value in dump_keys(redis, prefix).items():
            if names & set(re.split(":", key.removeprefix(f"{{{prefix}}}:"))):
                owned[key] = value
            elif isinstance(value, dict | set | list):
                members = {str(member): value[member] if isinstance(value, dict) else 1 for member in value}
                owned[key] = {member: score for member, score in members.items() if member in names}
        return {key: value for key, value in owned.items() if value}


def populate(store: JobStore, client: VoiceQueue) -> Owned:
    """Fill a namespace with jobs in every state, callbacks, songs to archive, voices, a plan and cursors."""
    fields: dict[str, Any] = {"batch": "spring", "callback_url": HOOK, "metadata": {"of": "the owner"}}
    jobs = [
        job_with_song(store, key="song", **fields),
        job_in_state(store, State.UNSURE, voice_with_song(key="unsure", voice="ana", **fields)),
        job_in_state(store, State.CANCELLED, voice(key="cancelled", **fields)),
    ]
    failed = job_in_state(store, State.PENDING, voice(key="failed", **fields))
    jobs.append(fail_job(store, failed, FailureCode.REFUSED))
    created = job_in_state(
        store, State.PENDING, voice(key="created", reuse=True, audio_url="https://a.example/own.wav", **fields)
    )
    persona = {"persona_id": "p-owner", "voice_name": "ana", "settled": str(NOW)}
    jobs.append(apply_transition(store, created, State.SUCCEEDED, fields=persona))
    jobs.append(job_in_state(store, State.PENDING, voice(key="pending", batch="spring")))
    jobs += [
        client.enqueue(voice(key=f"queued-{n}", batch=batch, priority="bulk"))
        for n, batch in enumerate(["spring", None])
    ]
    callbacks = [callback.id for callback in client.callbacks()]
    store.callbacks.mark_undelivered(callbacks[0], NOW, "gone", is_attempted=True)
    store.archive.retry([jobs[0].id], NOW)
    store.rejected_messages.add(RejectedMessage(NOW, "m", "t", "why", {"of": "the owner"}, client.namespace))
    client.set_batch_callback("spring", HOOK)
    client.set_batch_limits("spring", max_credits=1_000, stop_after=0.9)
    plans = [client.plan_bulk("retry", Filter()).token, client.plan_bulk("cancel", Filter(batch="spring")).token]
    plans.append(client.plan_erasure({"of": "the owner"}).token)
    pages = [client.search(filter_, limit=1).cursor for filter_ in (Filter(), Filter(batch="spring"))]
    pages += [client.list_batches(limit=1).cursor, client.list_callbacks(limit=1).cursor]
    cursors = [cursor for cursor in pages if cursor]
    return Owned(client.namespace, [client.get(job.id) for job in jobs], callbacks, plans, cursors)


def arguments(owned: Owned) -> dict[str, list[Any]]:
    """Return by parameter the values by which another caller may try to reach what is owned."""
    ids = [job.id for job in owned.jobs]
    batches = ["spring", f"{owned.namespace}/spring", "/spring", f"{owned.namespace}/", ""]
    filters = [Filter(), Filter(text="song"), Filter(metadata={"of": "the owner"}), Filter(state=State.QUEUED)]
    spec = voice(key="song", batch="spring", reuse=True)
    return {
        "job_id": ids,
        "job_ids": [ids],
        "callback_id": owned.callback_ids,
        "callback_ids": [owned.callback_ids],
        "batch": [None, *batches],
        "name": batches,
        "filter": [*filters, *(Filter(batch=batch) for batch in batches)],
        "cursor": [None, *owned.cursors],
        "token": owned.tokens,
        "metadata": [{"of": "the owner"}],
        "key": [None, "song"],
        "action": ["retry", "cancel"],
        "persona_id": ["p-owner", "p-1"],
        "state": [None, *State],
        "after": ["0-0"],
        "task_id": ["task-1"],
        "job": [spec, voice(key="unsure"), voice_with_song(key="new", batch="spring", voice="ana")],
        "jobs": [[spec, voice(key="created", reuse=True)]],
        "audio_url": [None, "https://a.example/b.wav"],
        "audio_sha256": [None, "0" * 64],
        "url": [None, "https://elsewhere.example/"],
        "undelivered": [False, True],
        "attempt": [None, 1],
        "sort": ["-created"],
        "prefix": ["", "spr"],
        "message_id": [None, "m"],
        "search": [None, "p-owner"],
        "or_empty": [True],
        "failed": [False, True],
        "resubmit": [True],
        "paused": [True],
        "max_credits": [1],
        "reason": ["to disturb"],
        "stage": [None, "voice"],
        "findings": [[]],
        "key_name": ["shop"],
        "scopes": [[Scope.READ]],
        "namespace": [owned.namespace, "*"],
        "limits": [None, KeyLimits(requests_per_s=1)],
        "overlap": [0.0],
        "timeout": [0.01],
        "limit": [100],
        "in_flight": [1],
        "hard": [True],
        "owner": ["account", f"namespace/{owned.namespace or 'shop'}"],
        "by": [[], *([group] for group in SpendingGroup), ["batch", "day"]],
    }


#: Parameters whose default value says as much as any other.
DEFAULTED = {
    *("on_result", "wait_s", "span_s", "buckets", "max_in_flight", "stop_after", "stop_min"),
    *("submit_rate", "min_balance", "since", "actor", "may_resubmit", "overlap_s", "version"),
    *("day", "month", "hard"),
}


def calls_of(name: str, owned: Owned) -> Iterator[dict[str, Any]]:
    """Yield the arguments of each call of a method."""
    parameters = [one for one in list(inspect.signature(METHODS[name]).parameters)[1:] if one not in DEFAULTED]
    values = arguments(owned)
    if name in ("position", "voice_creator"):
        values["job"] = list(owned.jobs)
    if name == "wait_batch":
        values["batch"] = [batch for batch in values["batch"] if batch is not None]
    if name == "audit_log":
        values["action"] = [None, "cancel"]
    if name == "watch":
        values["batch"] = [None, "spring"]  # the intruder has jobs there by then; other batches are watched forever
    for options in product(*(values[parameter] for parameter in parameters)):
        yield dict(zip(parameters, options, strict=True))


def outcome(client: VoiceQueue, name: str, options: dict[str, Any]) -> str:
    """Return what a call returned or raised, without times."""
    method: Callable[..., Any] = getattr(client, name)
    try:
        result = method(**options)
        if isinstance(result, Iterator):
            result = list(islice(result, 1 if name == "watch" else None))
    except (VoiceQueueError, ValueError) as error:
        result = error
    text = re.sub(r"\b1\d{9}(\.\d+)?\b|\b1\d{12}-\d+\b", "TIME", repr(result))
    return re.sub(r"token='[^']*'|previous_state_s=[\d.]+", "", text)


#: What depends on all namespaces by design: the id of the newest event of any is only a time.
EXCEPT = {"first_event_id", "last_event_id"}


@pytest.fixture(
    params=[
        ("shop", "other"),
        *(pytest.param(pair, marks=pytest.mark.endurance) for pair in (("shop", ""), ("", "shop"))),
    ],
    ids=lambda pair: " and ".join(map(repr, pair)),
)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return the namespaces of an owner and of an intruder."""
    return request.param  # type: ignore[no-any-return]


def test_no_method_sees_or_changes_what_another_namespace_owns(
    redis: Redis, prefix: str, valkey_url: str, pair: tuple[str, str]
) -> None:
    """Each call of the intruder ends as if the owner did not exist, and leaves everything of the owner as it was."""
    owner, intruder = pair
    empty = f"{prefix}-empty"
    for one in (prefix, empty):
        redis.set(f"{{{one}}}:id_secret", SECRET)
    with (
        VoiceQueue(valkey_url, prefix=prefix, namespace=owner) as owning,
        VoiceQueue(valkey_url, prefix=prefix, namespace=intruder) as intruding,
        VoiceQueue(valkey_url, prefix=empty, namespace=intruder) as alone,
    ):
        owned = populate(JobStore(redis, prefix, namespace=owner), owning)
        before = owned.footprint(redis, prefix)
        assert len(before) > 40
        for name in sorted(METHODS.keys() - EXCEPT, key=lambda name: (name == "watch", name)):
            for options in calls_of(name, owned):
                assert outcome(intruding, name, options) == outcome(alone, name, options), (name, options)
                assert owned.footprint(redis, prefix) == before, (name, options)
        assert VoiceQueue(valkey_url, prefix=prefix, namespace="*").audit() == []
        assert_consistent(redis, prefix)
