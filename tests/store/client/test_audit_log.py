"""The audit log: every change by a person or a program has one entry, which names nothing secret."""

from __future__ import annotations

import inspect
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.store.client.audited_calls import (
    CASES,
    CHANGES,
    ELSEWHERE,
    ENQUEUEING,
    OWN,
    READS,
    Case,
    executed,
    failed,
    queued,
    unsure,
)
from tests.store.life import dump_keys
from tests.support.jobs import numbered_voices, voice
from tests.support.losing import lossy_proxy
from voicequeue import (
    AuditEntry,
    Filter,
    InvalidCursorError,
    InvalidStateError,
    KeyLimits,
    Scope,
    State,
    VoiceQueue,
)
from voicequeue.client import bulk_operations
from voicequeue.client.audited import AUDITED
from voicequeue.client.queue import without_actor
from voicequeue.storage import scripts
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.audit_log import AuditLogRetention


def entries(queue: VoiceQueue, **filters: Any) -> list[AuditEntry]:
    """Return the entries of the audit log, the latest first."""
    return list(queue.audit_log(**filters).items)


def test_every_method_of_the_client_is_known_to_change_something_or_nothing() -> None:
    """A new method needs a case here: a change with its entry, or a read that leaves every key as it was."""
    methods = {name for name, _ in inspect.getmembers(VoiceQueue, callable) if not name.startswith("_")}

    assert methods == set(CHANGES) | set(READS) | set(ELSEWHERE) | ENQUEUEING
    assert {name for name in methods if hasattr(getattr(VoiceQueue, name), AUDITED)} == set(CHANGES)


@pytest.mark.parametrize("name", sorted(READS))
def test_a_method_that_is_not_audited_changes_nothing(
    queue: VoiceQueue, store: JobStore, redis: Redis, prefix: str, name: str
) -> None:
    """All keys are as before, so there is nothing to record."""
    job_id = unsure(store)
    before = dump_keys(redis, prefix)

    result = getattr(queue, name)(*(job_id if argument == "JOB" else argument for argument in READS[name]))
    if inspect.isgenerator(result):
        list(result)

    assert dump_keys(redis, prefix) == before


@pytest.mark.parametrize(("name", "case"), CASES)
def test_every_change_has_one_entry(queue: VoiceQueue, store: JobStore, name: str, case: Case) -> None:
    """It says who, what, to what, how many jobs, at what cost, and why."""
    subject = case.prepare(store)
    acting = queue.on_behalf_of("page:ana", address="203.0.113.7", reason="a customer asked")
    before = store.clock()

    case.call(acting, subject)

    [entry] = entries(queue)
    expected = {"action": name, "reason": "a customer asked", **case.entry}
    assert (entry.actor, entry.address) == ("page:ana", "203.0.113.7")
    assert {field: getattr(entry, field) for field in expected} == expected
    assert before - 0.01 <= entry.at <= store.clock() + 0.01
    if isinstance(subject, str) and name not in ("execute_plan", "pause", "redeliver_callbacks"):
        assert entry.job_id == subject


@pytest.mark.parametrize(("name", "case"), CASES)
def test_no_entry_names_a_secret(
    queue: VoiceQueue, store: JobStore, redis: Redis, prefix: str, name: str, case: Case
) -> None:
    """Neither the query and the login of a URL, nor the token of a plan."""
    case.call(queue, case.prepare(store))

    text = json.dumps(dump_keys(redis, prefix)[f"{{{prefix}}}:audit_log"])
    plans = [key.rpartition(":")[2] for key in redis.scan_iter(match=f"{{{prefix}}}:bulk_plan:*")]
    assert [secret for secret in ("s3cr3t", "pass", "X-Amz", "vq_", *plans) if secret in text] == []


@pytest.fixture
def loaded_scripts(redis: Redis) -> None:
    """Load every script, so that no call sends one."""
    for file in Path(scripts.__file__).parent.glob("*.lua"):
        redis.script_load(scripts.load(file.stem).source)


@pytest.mark.usefixtures("loaded_scripts")
@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_change_after_a_lost_reply_has_one_entry(
    queue: VoiceQueue, store: JobStore, valkey_url: str, prefix: str, name: str, case: Case
) -> None:
    """The script runs twice, and appends once."""
    subject = case.prepare(store)
    with lossy_proxy(valkey_url) as proxy, VoiceQueue(proxy.url, prefix=prefix, namespace="*") as unlucky:
        proxy.drop_reply_to("audit_log")
        with suppress(InvalidStateError):
            case.call(unlucky, subject)
        assert proxy.dropped == 1

    assert len(entries(queue)) == 1


def test_the_log_says_that_a_limit_was_removed(queue: VoiceQueue) -> None:
    """Otherwise it would not show that an owner may spend without a limit. Numbers and times are readable."""
    queue.set_budget("namespace/shop", day=500.0, month=9_000)
    queue.set_budget("namespace/shop", day=None)
    queue.set_limits(in_flight=None, submit_rate=2.5)
    queue.set_batch_limits("spring", max_credits=60)
    queue.set_batch_limits("spring", max_credits=inf)
    queue.create_api_key("app", [Scope.READ], namespace="app", limits=KeyLimits(requests_per_s=20.0, expires_at=4e9))
    queue.create_api_key("other", [Scope.READ], namespace="app")

    assert [entry.details for entry in reversed(entries(queue))] == [
        {"owner": "namespace/shop", "day": 500, "month": 9_000},
        {"owner": "namespace/shop", "day": "none"},
        {"in_flight": "none", "submit_rate": "2.5"},
        {"max_credits": 60},
        {"max_credits": "none"},
        {"key_name": "app", "scopes": "read", "limits": "requests_per_s=20, expires_at=2096-10-02T07:06:40.000Z"},
        {"key_name": "other", "scopes": "read", "limits": "none"},
    ]


def test_a_call_that_changes_nothing_has_no_entry(queue: VoiceQueue, store: JobStore) -> None:
    """Also if it raises: the log holds changes, not attempts."""
    job_id = queued(store)
    queue.pause()
    queue.cancel(job_id)
    queue.set_limits(in_flight=7)
    count = len(entries(queue))

    queue.pause()
    queue.set_limits(in_flight=7)
    queue.redeliver_callbacks(["unknown"])
    queue.clear_rejected_messages()
    with pytest.raises(InvalidStateError):
        queue.cancel(job_id)

    assert len(entries(queue)) == count == 3


def test_a_large_plan_has_one_entry_for_all_its_pages(queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the number of jobs and the credits of the plan, which the actor confirmed."""
    monkeypatch.setattr(bulk_operations, "CHUNK", 2)
    queue.enqueue_many(numbered_voices(7))

    executed(queue, "cancel")

    [entry] = entries(queue)
    assert (entry.action, entry.jobs) == ("cancel", 7)


def test_a_filter_by_personal_data_is_recorded_without_it(queue: VoiceQueue) -> None:
    """Entries outlive jobs, so they name the field and not the person."""
    queue.enqueue(voice(metadata={"subject": "Ana Lind"}))

    executed(queue, "cancel", metadata={"subject": "Ana Lind"})

    [entry] = entries(queue)
    assert entry.details == {"metadata": "subject"}


def test_threads_that_share_a_queue_do_not_share_entries(queue: VoiceQueue) -> None:
    """Each change is recorded with its own actor and job."""
    ids = [queue.enqueue(spec).id for spec in numbered_voices(40)]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda job_id: queue.on_behalf_of(f"key:{job_id}").cancel(job_id), ids))

    assert sorted((entry.actor, entry.job_id) for entry in entries(queue)) == sorted((f"key:{i}", i) for i in ids)


def test_what_workers_do_is_not_in_the_audit_log(queue: VoiceQueue, store: JobStore) -> None:
    """Transitions without a caller are events; they are in the timeline."""
    unsure(store)
    failed(store)

    assert entries(queue) == []


def test_a_queue_without_an_actor_changes_nothing(queue: VoiceQueue, store: JobStore) -> None:
    """A route of a server that forgets its caller fails in its first test, instead of recording no actor."""
    job_id = queued(store)

    with pytest.raises(RuntimeError, match="on_behalf_of"):
        without_actor(queue).cancel(job_id)

    assert queue.get(job_id).state is State.QUEUED


def test_the_library_acts_as_its_app(valkey_url: str, prefix: str) -> None:
    """Without `on_behalf_of`, changes are those of the program."""
    with VoiceQueue(valkey_url, prefix=prefix, app="shop", namespace="*") as queue:
        queue.pause()
        assert [entry.actor for entry in entries(queue)] == ["library:shop"]


def test_an_entry_belongs_to_the_namespace_that_it_concerns(queue: VoiceQueue, valkey_url: str, prefix: str) -> None:
    """Also if an operator made the change: the namespace sees it, and no other does."""
    with (
        VoiceQueue(valkey_url, prefix=prefix, namespace="shop") as shop,
        VoiceQueue(valkey_url, prefix=prefix, namespace="other") as other,
    ):
        single, batched = shop.enqueue(voice()).id, shop.enqueue(voice(batch="spring")).id
        queue.cancel(single)
        executed(queue, "cancel", batch="shop/spring")
        shop.set_batch_limits("spring", max_credits=5)
        queue.set_batch_limits("shop/spring", max_credits=6)
        queue.set_batch_limits("spring", max_credits=7)
        queue.pause()

        rows = [(entry.action, entry.namespace, entry.batch) for entry in entries(shop)]
        assert rows == [
            ("set_batch_limits", "shop", "spring"),
            ("set_batch_limits", "shop", "spring"),
            ("cancel", "shop", "spring"),
            ("cancel", "shop", None),
        ]
        assert entries(shop, batch="spring") == entries(queue, batch="shop/spring") == entries(shop)[:3]
        assert entries(other) == []
        assert [entry.namespace for entry in entries(queue)[:2]] == ["*", ""]
        assert queue.get(batched).state is State.CANCELLED


@pytest.mark.parametrize(("name", "case"), CASES)
def test_an_operators_change_is_recorded_in_the_namespace_that_it_concerns(
    queue: VoiceQueue, redis: Redis, prefix: str, valkey_url: str, name: str, case: Case
) -> None:
    """`*` is the namespace of what concerns the whole queue only."""
    store = JobStore(redis, prefix, namespace="shop" if case.namespace == OWN else "")

    case.call(queue, case.prepare(store))

    [entry] = entries(queue)
    assert entry.namespace == case.namespace, name
    with VoiceQueue(valkey_url, prefix=prefix, namespace="shop") as shop:
        assert entries(shop) == ([entry] if case.namespace == OWN else [])


def test_a_change_of_jobs_of_several_namespaces_has_an_entry_in_each(
    queue: VoiceQueue, valkey_url: str, prefix: str
) -> None:
    """With its own number of jobs, and the credits of these."""
    clients = [VoiceQueue(valkey_url, prefix=prefix, namespace=namespace) for namespace in ("", "other", "shop")]
    for number, client in enumerate(clients, start=1):
        store = JobStore(client._redis, prefix, namespace=client.namespace)
        for _ in range(number):
            failed(store)

    queue.execute_plan("retry", queue.plan_bulk("retry", Filter(), resubmit=True).token)
    executed(queue, "cancel")

    for number, client in enumerate(clients, start=1):
        rows = [(entry.action, entry.namespace, entry.jobs, entry.credits) for entry in entries(client)]
        namespace = client.namespace
        assert rows == [("cancel", namespace, number, None), ("retry", namespace, number, 19 * number)]
        client.close()
    assert len(entries(queue)) == 6


def test_entries_are_filtered_and_paged(queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """By time, actor or kind of actor, action and batch; each entry is on one page."""
    monkeypatch.setattr("voicequeue.storage.monitoring.audit_log._PAGE", 3)
    for number in range(5):
        actor = queue.on_behalf_of(f"key:shop{number % 2}")
        actor.set_batch_limits(f"b{number}", max_credits=number + 1)
    queue.pause()

    assert [entry.batch for entry in entries(queue, actor="key:shop1")] == ["b3", "b1"]
    assert len(entries(queue, actor="key")) == 5
    assert [entry.action for entry in entries(queue, action="pause")] == ["pause"]
    assert [entry.batch for entry in entries(queue, batch="b4")] == ["b4"]
    assert entries(queue, since=entries(queue)[0].at + 1) == []
    listed_ids, cursor = [], None
    while True:
        page = queue.audit_log(limit=2, cursor=cursor)
        listed_ids += [entry.id for entry in page.items]
        if (cursor := page.cursor) is None:
            break
    assert listed_ids == [entry.id for entry in entries(queue)]
    with pytest.raises(InvalidCursorError):
        queue.audit_log(cursor="nothing")


def test_a_rare_entry_is_found_page_by_page(queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call examines a bounded number of entries; a page may be empty and have a successor."""
    monkeypatch.setattr("voicequeue.client.search.EXAMINED_MAX", 2)
    queue.pause()
    for number in range(3):
        queue.set_batch_limits("b", max_credits=number + 1)

    first = queue.audit_log(action="pause")
    second = queue.audit_log(action="pause", cursor=first.cursor)

    assert (first.items, [entry.action for entry in second.items]) == ((), ["pause"])


@pytest.mark.parametrize(
    ("retention_s", "max_entries", "kept"), [(float("inf"), 2, 2), (-60.0, 100, 0), (60.0, 100, 3)]
)
def test_old_entries_are_trimmed(
    queue: VoiceQueue, store: JobStore, retention_s: float, max_entries: int, kept: int
) -> None:
    """By age and by number, the oldest first."""
    for number in range(3):
        queue.set_batch_limits("b", max_credits=number + 1)

    store.audit_log.trim(store.clock(), AuditLogRetention(retention_s, max_entries))

    assert [entry.details["max_credits"] for entry in entries(queue)] == [3, 2, 1][:kept]
