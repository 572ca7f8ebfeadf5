"""Namespaces side by side: ids, voices, counters, the view of operators, messages and commands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest
from redis import Redis

from tasks.enqueue import enqueue_or_reject
from tests.store.conftest import Command
from tests.store.life import (
    NOW,
    apply_transition,
    assert_consistent,
    dump_keys,
    enqueue_jobs,
    job_in_state,
)
from tests.support.jobs import URL, voice, voice_with_song
from voicequeue import (
    AsyncVoiceQueue,
    BatchNotFoundError,
    Event,
    Filter,
    InvalidCursorError,
    InvalidJobError,
    JobNotFoundError,
    KeyLimits,
    NotOperatorError,
    State,
    VoiceQueue,
)
from voicequeue.client.queue import with_key_limits
from voicequeue.domain.namespaces import Scope
from voicequeue.storage.job_store import JobStore


@pytest.fixture
def shop(valkey_url: str, prefix: str) -> Iterator[VoiceQueue]:
    """Yield a client in the namespace `shop`."""
    with VoiceQueue(valkey_url, prefix=prefix, namespace="shop") as queue:
        yield queue


# ── ids ───────────────────────────────────────────────────────────────────────────────────────────


def test_an_id_reveals_nothing_of_its_key(queue: VoiceQueue, valkey_url: str, prefix: str, redis: Redis) -> None:
    """It is derived with a secret of the queue, which every process reads, so that a key stays one job."""
    job = queue.enqueue(voice(key="order-7"))

    assert job.id != voice(key="order-7").job_id()
    with VoiceQueue(valkey_url, prefix=prefix) as other:
        assert other.enqueue(voice(key="order-7")).id == job.id
    assert len(redis.get(f"{{{prefix}}}:id_secret") or "") == 64


def test_all_namespaces_of_a_store_read_the_secret_once(store: JobStore, redis: Redis, prefix: str) -> None:
    """A request of the gateway acts in the namespace of its key, and needs no further call to Redis for that."""
    fingerprint = store.in_namespace("shop").job_ids.fingerprint()
    redis.set(f"{{{prefix}}}:id_secret", "ab" * 32)

    assert store.in_namespace("other").job_ids.fingerprint() == store.job_ids.fingerprint() == fingerprint
    store.in_namespace("shop").job_ids.forget()
    assert store.job_ids.fingerprint() != fingerprint


def test_a_queue_with_jobs_of_an_earlier_release_keeps_deriving_their_ids(store: JobStore, queue: VoiceQueue) -> None:
    """Otherwise the rows of a file would be paid again."""
    spec = voice(key="row-1")
    store.enqueue([(spec.job_id(), spec)], NOW)

    assert queue.enqueue(spec).id == spec.job_id()
    assert queue.enqueue_many([spec, voice(key="row-2")]).existing == 1


def test_an_id_differs_in_each_namespace_even_for_a_key_that_imitates_another(
    shop: VoiceQueue, queue: VoiceQueue
) -> None:
    """A key may contain any character."""
    ids = {shop.enqueue(voice(key="k")).id, *(queue.enqueue(voice(key=key)).id for key in ("k", "shop/k", "shop\0k"))}

    assert len(ids) == 4


def test_ids_follow_the_secret_when_the_data_of_redis_were_replaced(
    queue: VoiceQueue, valkey_url: str, prefix: str, redis: Redis
) -> None:
    """A process that has the old secret in memory would otherwise pay a key again."""
    queue.enqueue(voice(key="k"))
    redis.delete(*dump_keys(redis, prefix))
    with VoiceQueue(valkey_url, prefix=prefix) as other:
        job = other.enqueue(voice(key="k"))

    assert queue.enqueue(voice(key="k")).id == job.id


# ── voices ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shared", [{"reuse": True}, {"voice": "ana"}, {"reuse": True, "audio_sha256": "0a" * 32}])
def test_a_voice_is_not_shared_with_another_namespace(
    store: JobStore, redis: Redis, prefix: str, shared: dict[str, object]
) -> None:
    """Each pays for its own; within a namespace it is paid once."""
    in_shop, named = store.in_namespace("shop"), store.in_namespace("named-x")
    first = job_in_state(in_shop, State.PENDING, voice(key="1", batch="b", **shared))
    apply_transition(in_shop, first, State.SUCCEEDED, fields={"persona_id": "p-shop", "settled": str(NOW)})

    [own] = enqueue_jobs(in_shop, voice_with_song(key="2", batch="b", **shared))
    foreign = [
        *enqueue_jobs(store, voice(key="3", batch="b", **shared)),
        *enqueue_jobs(named, voice(key="4", batch="b", **shared)),
    ]

    assert [job.persona_id for job in store.get([own, *foreign]) if job] == ["p-shop", None, None]
    assert {persona.namespace for persona in store.personas.list_all()} == {"shop"}
    assert_consistent(redis, prefix)


# ── counters and the operator's view ──────────────────────────────────────────────────────────────


def test_the_counts_of_the_namespaces_add_up(store: JobStore, queue: VoiceQueue, redis: Redis, prefix: str) -> None:
    """Also of the default one, which has no counters of its own, and after a purge."""
    for namespace in ("", "shop", "other"):
        scoped = store.in_namespace(namespace)
        job_in_state(scoped, State.FAILED, voice_with_song(batch="b"))
        job_in_state(scoped, State.UNSURE)
    scopes = [store.in_namespace(namespace) for namespace in ("", "shop", "other")]

    assert [scope.credits_spent() for scope in scopes] == [4, 4, 4]
    assert [scope.failures_by_code() for scope in scopes] == [{"upstream_failed": 1}] * 3
    assert [scope.flow_control.account(NOW).reserved for scope in scopes] == [19, 19, 19]
    assert (store.credits_spent(), store.failures_by_code()) == (12, {"upstream_failed": 3})
    assert sum(store.purge(NOW + 10, retention_s=1)) == 3
    assert [scope.credits_spent() for scope in scopes] == [4, 4, 4]
    assert [scope.counts_by_state()[State.FAILED] for scope in (*scopes, store)] == [0, 0, 0, 0]
    assert [batch.qualified_name for batch in queue.batches()] == []
    assert queue.audit() == []
    assert_consistent(redis, prefix)


def test_an_operator_names_a_batch_with_its_namespace(shop: VoiceQueue, queue: VoiceQueue) -> None:
    """Both may pause it; the batch of the same name in another namespace continues."""
    for client in (shop, queue):
        client.enqueue(voice(batch="spring"))

    assert queue.pause(batch="shop/spring")

    assert (shop.batch("spring").is_paused, queue.batch("spring").is_paused) == (True, False)
    assert [(batch.name, batch.namespace) for batch in queue.batches()] == [("spring", ""), ("spring", "shop")]
    assert shop.resume(batch="spring")
    with pytest.raises(BatchNotFoundError):
        shop.pause(batch="other/spring")
    with pytest.raises(NotOperatorError, match=r"needs the namespace '\*'"):
        shop.pause()


def test_a_cursor_is_one_of_its_namespace(shop: VoiceQueue, valkey_url: str, prefix: str) -> None:
    """It names a position in an index, which another namespace must not read."""
    for batch in (None, "b", "b"):
        shop.enqueue(voice(batch=batch))
    cursors = [(one, shop.search(one, limit=1).cursor) for one in (Filter(), Filter(batch="b"))]
    assert all(cursor for _, cursor in cursors)

    for name in ("", "other"):
        with VoiceQueue(valkey_url, prefix=prefix, namespace=name) as foreign:
            foreign.enqueue(voice(batch="b"))
            for one, cursor in cursors:
                with pytest.raises(InvalidCursorError):
                    foreign.search(one, cursor=cursor)
    assert [len(shop.search(one, cursor=cursor).items) for one, cursor in cursors] == [2, 1]


def test_refused_jobs_are_listed_in_their_namespace_only(
    shop: VoiceQueue, queue: VoiceQueue, valkey_url: str, prefix: str, redis: Redis
) -> None:
    """Upstream's words may contain those of the job."""
    job = shop.enqueue(voice(batch="b"))
    refused = json.dumps({"own_count": 1, "count": 2, "message": "not this one"})
    redis.hset(f"{{{prefix}}}:job:{job.id}", "refused", refused)
    redis.zadd(f"{{{prefix}}}:refused", {job.id: NOW})

    statuses = [shop.status(), shop.status("b"), queue.status(), queue.status("shop/b")]
    assert [[one.job_id for one in status.refused_jobs] for status in statuses] == [[job.id]] * 4
    with VoiceQueue(valkey_url, prefix=prefix) as foreign:
        assert foreign.status().refused_jobs == ()


def test_the_async_client_has_a_namespace_too(shop: VoiceQueue, valkey_url: str, prefix: str) -> None:
    """Its methods are those of `VoiceQueue`; events of other namespaces are not reported."""
    mine = shop.enqueue(voice())

    async def use() -> list[str]:
        async with AsyncVoiceQueue(valkey_url, prefix=prefix, namespace="other") as other:
            with pytest.raises(JobNotFoundError):
                await other.get(mine.id)
            job = await other.enqueue(voice())
            events = [event async for event in _first(other.watch(after="0-0"))]
            return [other.namespace, job.namespace, *(event.namespace for event in events)]

    assert asyncio.run(use()) == ["other"] * 3


async def _first(events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    async for event in events:
        yield event
        return


def test_a_page_of_batches_is_by_age_over_all_namespaces(store: JobStore, queue: VoiceQueue) -> None:
    """The cursor continues in each of them."""
    for number in range(7):
        enqueue_jobs(store.in_namespace(("", "shop", "other")[number % 3]), voice(batch=f"b{number}"), now=NOW + number)
    names, cursor = [], None
    while True:
        page = queue.list_batches(limit=2, cursor=cursor)
        names += [batch.name for batch in page.items]
        if (cursor := page.cursor) is None:
            break

    assert names == [f"b{number}" for number in reversed(range(7))]


def test_an_audit_finds_and_repairs_a_namespace_that_is_not_listed(
    shop: VoiceQueue, queue: VoiceQueue, redis: Redis, prefix: str
) -> None:
    """Its jobs would otherwise be missing in the view of operators, and never be purged."""
    shop.enqueue(voice())
    redis.delete(f"{{{prefix}}}:namespaces")
    redis.hincrby(f"{{{prefix}}}:namespace:shop", "queued_credits", 3)

    findings = queue.audit()

    assert sorted(str(finding) for finding in findings) == [
        "namespace shop: counts 7 queued_credits, the records say 4",
        "namespaces: shop is missing",
    ]
    assert sorted(map(str, queue.repair(findings))) == sorted(map(str, findings))
    assert queue.audit() == []
    assert_consistent(redis, prefix)


def test_the_name_of_a_namespace_is_checked(valkey_url: str, store: JobStore) -> None:
    """Names are part of keys and of batch names."""
    for name in ("a/b", "-a", "x" * 41, "ä", "a:b", " ", "**"):
        with pytest.raises(ValueError, match="1 to 40 characters"):
            VoiceQueue(valkey_url, namespace=name)
        with pytest.raises(ValueError, match="characters"):
            store.set_batch_limits(f"{name}/b", paused=True)
    assert Scope("shop").qualify("shop/b") == Scope("shop").qualify("b") == "shop/b"


# ── messages and commands ─────────────────────────────────────────────────────────────────────────


def test_a_message_names_the_namespace_of_its_job(store: JobStore, shop: VoiceQueue) -> None:
    """A rejected message belongs to it, too; one with an invalid name to the default namespace."""
    job_id = enqueue_or_reject(store, [{"audio_url": URL}], {"namespace": "shop"}, message_id="1", now=NOW)
    for job, namespace in (({"audio_url": "x"}, "shop"), ({"audio_url": URL}, "a/b"), ({"audio_url": URL}, 7)):
        with pytest.raises(InvalidJobError):
            enqueue_or_reject(store, [job], {"namespace": namespace}, message_id="2", now=NOW)

    assert shop.get(job_id).namespace == "shop"
    assert [message.namespace for message in shop.rejected_messages()] == ["shop"]
    reasons = [message.reason for message in store.in_namespace("").rejected_messages.latest()]
    assert reasons == ["namespace: must be a text", *(reason for reason in reasons[1:] if "namespace: 'a/b'" in reason)]
    assert len(store.rejected_messages.latest()) == 3


def test_a_command_acts_in_one_namespace_or_in_all(
    command: Command, shop: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New jobs are in the default namespace unless one is named; by the option, or by the environment."""
    ids = [
        command("enqueue", "--audio-url", URL, "--batch", "b", "--json").json()["id"],
        command("enqueue", "--audio-url", URL, "--batch", "b", "--json", "--namespace", "shop").json()["id"],
    ]

    def listed(*options: str) -> list[str]:
        return sorted(job["id"] for job in command("jobs", "--json", *options).json())

    assert listed() == listed("--namespace", "*") == sorted(ids)
    assert listed("--namespace", "shop") == listed("--batch", "shop/b") == ids[1:]
    assert command("job", ids[0], "--namespace", "shop").code == 2
    assert command("pause", "--namespace", "shop").code == 2
    monkeypatch.setenv("VOICEQUEUE_NAMESPACE", "shop")
    assert listed() == ids[1:]
    assert listed("--namespace", "") == ids[:1]


def test_a_namespace_before_the_name_of_a_batch_is_not_compared_with_the_pattern_of_a_key(
    valkey_url: str, prefix: str
) -> None:
    """Otherwise a key of `shop` with the pattern `shop*` could limit every batch, and one with `spring*` none."""
    with VoiceQueue(valkey_url, prefix=prefix, namespace="shop") as queue:
        queue.enqueue(voice(batch="spring"))
        limited = with_key_limits(queue, KeyLimits(batch_pattern="shop*"))
        with pytest.raises(InvalidJobError, match="does not match the batch names"):
            limited.set_batch_limits("shop/spring", max_credits=1)
        with_key_limits(queue, KeyLimits(batch_pattern="spring*")).set_batch_limits("shop/spring", max_credits=1)
        assert queue.batch("spring").max_credits == 1


def test_a_position_counts_the_queued_jobs_of_the_namespace_only(valkey_url: str, prefix: str) -> None:
    """How many jobs another namespace has is not to be learned from it."""
    with (
        VoiceQueue(valkey_url, prefix=prefix, namespace="shop") as shop,
        VoiceQueue(valkey_url, prefix=prefix, namespace="other") as other,
    ):
        other.enqueue_many(voice(priority="high", batch=f"b{number % 2}") for number in range(5))
        shop.enqueue(voice(batch="spring"))

        positions = [shop.position(shop.enqueue(voice(batch=batch))) for batch in ("spring", "summer")]

    assert positions == [2, 2]
