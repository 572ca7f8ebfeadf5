"""A call of every public method of the client, for tests of what it changes and what the audit log says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.store.life import NOW, enqueue_jobs, fail_job, get_job, job_in_state, job_with_song
from tests.store.outbox.callback_steps import claim_due, voice_with_callback
from tests.support.jobs import voice, voice_with_song
from voicequeue import FailureCode, Filter, KeyLimits, RejectedMessage, Scope, State, VoiceQueue
from voicequeue.auth.api_keys import generate_key
from voicequeue.domain.callback_secrets import StoredSecret
from voicequeue.storage.job_store import JobStore

SIGNED = "https://user:pass@files.example/ana.wav?X-Amz-Signature=s3cr3t"


def failed(store: JobStore, code: FailureCode = FailureCode.DEADLINE) -> str:
    """Return the id of a job of the batch `b` that failed after its voice was ordered."""
    return fail_job(store, job_in_state(store, State.PENDING, voice_with_song(batch="b")), code).id


def uncharged(store: JobStore) -> str:
    """Return the id of a failed job whose voice was never ordered."""
    [job_id] = enqueue_jobs(store, voice(batch="b"))
    store.admit(NOW)
    return fail_job(store, get_job(store, job_id), FailureCode.RECORDING_UNREACHABLE).id


def unsure(store: JobStore) -> str:
    """Return the id of an unsure job of the batch `b`."""
    return job_in_state(store, State.UNSURE, voice_with_song(batch="b")).id


def queued(store: JobStore) -> str:
    """Return the id of a queued job of the batch `b`."""
    return enqueue_jobs(store, voice(batch="b"))[0]


def undelivered(store: JobStore) -> str:
    """Return the id of a callback that was given up."""
    job_in_state(store, State.SUCCEEDED, voice_with_callback())
    [claim] = claim_due(store.callbacks)
    store.callbacks.mark_undelivered(claim.id, NOW, "410", is_attempted=True)
    return claim.id


def paused(store: JobStore) -> None:
    """Pause the queue."""
    store.flow_control.pause(NOW)


def rejected(store: JobStore) -> None:
    """Store two rejected messages."""
    for number in range(2):
        store.rejected_messages.add(RejectedMessage(NOW, str(number), "task", "bad", {}))


def with_persona(store: JobStore) -> None:
    """Create a voice that jobs can share."""
    job_with_song(store, reuse=True)


def of_person(store: JobStore) -> None:
    """Enqueue a job of a person."""
    enqueue_jobs(store, voice(key="p", metadata={"subject": "42"}))


def erased(store: JobStore) -> None:
    """Erase a cancelled job with the key `p`."""
    job = job_in_state(store, State.CANCELLED, voice(key="p"))
    store.erasure.erase([job.id], NOW)


def damaged(store: JobStore) -> None:
    """Remove a job from an index."""
    queued(store)
    paused(store)
    job_id = job_in_state(store, State.CANCELLED, voice(key="x")).id
    store._redis.zrem(store._space.key("state:cancelled"), job_id)


def of_older_format(store: JobStore) -> None:
    """Stamp the queue with an older format than that of this release."""
    store._redis.hset(store._space.key("format"), mapping={"version": 1, "oldest_reader": 0})


def with_callback_secret(store: JobStore) -> None:
    """Store an API key of the name `shop`, and its callback secret."""
    with_api_key(store)
    assert store.callback_secrets.put("shop", StoredSecret("gAAAA-encrypted", 0.0), None)


def with_api_key(store: JobStore) -> None:
    """Store an API key of the name `shop`."""
    key = generate_key("shop", [Scope.READ], "shop")[1]
    assert store.api_keys.write(key, before="")


def _nothing(_: JobStore) -> None:
    return None


#: The namespace of entries: of the store that a case prepares; of what an operator names without a namespace; all.
OWN, UNNAMED, WHOLE = "shop", "", "*"


@dataclass(frozen=True)
class Case:
    """A change: what the store needs, the call, the parts of its entry that matter, and the namespace of the entry."""

    prepare: Callable[[JobStore], Any]
    call: Callable[[VoiceQueue, Any], object]
    entry: dict[str, Any]
    namespace: str = OWN


def executed(queue: VoiceQueue, action: str, **fields: Any) -> object:
    """Plan a bulk change, and execute it."""
    return queue.execute_plan(action, queue.plan_bulk(action, Filter(**fields)).token)


#: Every public method that changes something besides enqueueing, by its name.
CHANGES: dict[str, list[Case]] = {
    "pause": [
        Case(_nothing, lambda queue, _: queue.pause(reason="an alarm"), {"reason": "an alarm", "jobs": None}, WHOLE),
        Case(queued, lambda queue, _: queue.pause(batch="b"), {"batch": "b"}, UNNAMED),
    ],
    "resume": [Case(paused, lambda queue, _: queue.resume(), {"details": {}}, WHOLE)],
    "set_budget_callback": [
        Case(
            _nothing,
            lambda queue, _: queue.set_budget_callback("account", "https://a.example/x?key=1"),
            {"details": {"owner": "account", "url": "a.example"}},
            WHOLE,
        ),
    ],
    "set_budget": [
        Case(
            _nothing,
            lambda queue, _: queue.set_budget("account", day=500),
            {"details": {"owner": "account", "day": 500}},
            WHOLE,
        ),
        Case(
            _nothing,
            lambda queue, _: queue.set_budget("namespace/shop", month=500),
            {"details": {"owner": "namespace/shop", "month": 500}},
        ),
        Case(
            _nothing,
            lambda queue, _: queue.set_budget("namespace/", max_in_flight=5),
            {"details": {"owner": "namespace/", "max_in_flight": 5}},
            UNNAMED,
        ),
        Case(
            with_api_key,
            lambda queue, _: queue.set_budget("key/shop", hard=True),
            {"details": {"owner": "key/shop", "hard": True}},
        ),
    ],
    "set_limits": [
        Case(_nothing, lambda queue, _: queue.set_limits(in_flight=7), {"details": {"in_flight": 7}}, WHOLE)
    ],
    "set_batch_limits": [
        Case(
            _nothing,
            lambda queue, _: queue.set_batch_limits("b", max_credits=50, stop_after=0.2),
            {"batch": "b", "details": {"max_credits": 50, "stop_after": "0.2"}},
            UNNAMED,
        )
    ],
    "set_batch_callback": [
        Case(
            _nothing,
            lambda queue, _: queue.set_batch_callback("b", SIGNED),
            {"details": {"url": "files.example"}},
            UNNAMED,
        )
    ],
    "set_callback_secret": [
        Case(
            _nothing,
            lambda queue, _: queue.set_callback_secret("unknown", "gAAAA-encrypted", overlap_s=60),
            {"details": {"key_name": "unknown", "overlap_s": 60}},
            WHOLE,
        ),
        Case(
            with_api_key,
            lambda queue, _: queue.set_callback_secret("shop", "gAAAA-encrypted"),
            {"details": {"key_name": "shop"}},
        ),
        Case(
            _nothing,
            lambda queue, _: queue.set_callback_secret("configured", "gAAAA-encrypted", namespace="shop"),
            {"details": {"key_name": "configured"}},
        ),
    ],
    "remove_callback_secret": [
        Case(
            with_callback_secret,
            lambda queue, _: queue.remove_callback_secret("shop"),
            {"details": {"key_name": "shop"}},
        )
    ],
    "create_api_key": [
        Case(
            _nothing,
            lambda queue, _: queue.create_api_key(
                "shop", [Scope.READ], namespace="shop", limits=KeyLimits(requests_per_s=5)
            ),
            {"jobs": None, "credits": None},
        )
    ],
    "edit_api_key": [
        Case(
            with_api_key,
            lambda queue, _: queue.edit_api_key("shop", scopes=[Scope.READ, Scope.ENQUEUE]),
            {"jobs": None},
        )
    ],
    "rotate_api_key": [Case(with_api_key, lambda queue, _: queue.rotate_api_key("shop"), {"jobs": None})],
    "revoke_api_key": [Case(with_api_key, lambda queue, _: queue.revoke_api_key("shop"), {"jobs": None})],
    "cancel": [
        Case(queued, lambda queue, job_id: queue.cancel(job_id), {"batch": "b", "jobs": 1, "credits": None}),
        Case(unsure, lambda queue, job_id: queue.cancel(job_id), {"batch": "b", "jobs": 1}),
    ],
    "retry": [
        Case(
            failed,
            lambda queue, job_id: queue.retry(job_id, resubmit=True),
            {"credits": 19, "details": {"resubmit": True}},
        ),
        Case(
            uncharged,
            lambda queue, job_id: queue.retry(job_id, audio_url=SIGNED),
            {"credits": 4, "details": {"audio_url": "files.example"}},
        ),
    ],
    "execute_plan": [
        Case(
            queued,
            lambda queue, _: executed(queue, "cancel", metadata={}, state="queued"),
            {"action": "cancel", "jobs": 1, "credits": None, "details": {"state": "queued"}},
        ),
        Case(
            failed,
            lambda queue, _: executed(queue, "retry", batch="b", code="deadline"),
            {"action": "retry", "batch": "b", "jobs": 1, "credits": 15, "details": {"code": "deadline"}},
            UNNAMED,
        ),
    ],
    "confirm_charged": [
        Case(
            unsure,
            lambda queue, job_id: queue.confirm_charged(job_id, "t-1"),
            {"credits": 4, "details": {"task_id": "t-1"}},
        )
    ],
    "resubmit": [Case(unsure, lambda queue, job_id: queue.resubmit(job_id), {"jobs": 1, "credits": 4})],
    "abandon": [Case(unsure, lambda queue, job_id: queue.abandon(job_id), {"jobs": 1, "batch": "b"})],
    "redeliver_callbacks": [
        Case(undelivered, lambda queue, callback: queue.redeliver_callbacks([callback, "unknown"]), {"jobs": 1})
    ],
    "retry_archive": [Case(job_with_song, lambda queue, job: queue.retry_archive([job.id]), {"jobs": 1})],
    "backfill_archive": [Case(job_with_song, lambda queue, _: queue.backfill_archive(), {"jobs": 1})],
    "clear_rejected_messages": [Case(rejected, lambda queue, _: queue.clear_rejected_messages(), {"jobs": 2}, WHOLE)],
    "forget_persona": [
        Case(with_persona, lambda queue, _: queue.forget_persona("p-1"), {"details": {"persona_id": "p-1"}})
    ],
    "erase": [
        Case(
            of_person,
            lambda queue, _: queue.erase(queue.plan_erasure({"subject": "42"}).token),
            {"jobs": 1, "details": {"metadata": "subject"}},
        )
    ],
    "allow_erased": [
        Case(
            erased,
            lambda queue, _: queue.allow_erased(key="p", audio_url=SIGNED),
            {"jobs": None, "details": {"audio_url": "files.example"}},
            UNNAMED,
        )
    ],
    "upgrade": [Case(of_older_format, lambda queue, _: queue.upgrade(), {}, WHOLE)],
    "repair": [Case(damaged, lambda queue, _: queue.repair(queue.audit()), {"jobs": 1}, WHOLE)],
}

#: Arguments for every method that changes nothing, and methods of the client itself, which are not called.
READS: dict[str, tuple[Any, ...]] = {
    "api_keys": (),
    "archive_counts": (),
    "archive_entries": (),
    "audit": (),
    "audit_log": (),
    "balance_history": (),
    "batch": ("b",),
    "batches": (),
    "budgets": (),
    "batch_names": (),
    "callback": ("unknown",),
    "callback_counts": (),
    "callbacks": (),
    "charge_review": ("JOB",),
    "charge_reviews": (),
    "count_batches": (),
    "events": ("0-0",),
    "first_event_id": (),
    "get": ("JOB",),
    "job_holds": ("JOB",),
    "jobs": (),
    "last_event_id": (),
    "limits": (),
    "namespaces": (),
    "list_batches": (),
    "list_callbacks": (),
    "list_charge_reviews": (),
    "list_personas": (),
    "list_rejected_messages": (),
    "on_behalf_of": ("library:shop",),
    "personas": (),
    "preview": ([],),
    "rejected_messages": (),
    "search": (Filter(),),
    "spending": (["namespace", "day"],),
    "status": (),
    "throughput": (),
    "timeline": ("JOB",),
    "wait": ("JOB",),
    "wait_batch": ("b",),
}
ELSEWHERE = {
    "close": "ends the client",
    "watch": "never ends",
    "position": "takes a job",
    "voice_creator": "takes a job",
    "plan_bulk": "stores a plan that changes no job",
    "plan_jobs": "stores a plan that changes no job",
    "plan_erasure": "stores a plan that changes no job",
}
ENQUEUEING = {"enqueue", "enqueue_many"}

CASES = [
    pytest.param(name, case, id=f"{name}-{number}")
    for name, group in CHANGES.items()
    for number, case in enumerate(group)
]
