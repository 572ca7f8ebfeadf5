"""The format stamp: a release that a queue is too new for, or too old, uses it neither for reading nor for writing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from redis import Redis

from tests.store.life import NOW, enqueue_jobs
from tests.support.cli import run_in_process
from tests.support.jobs import voice
from tests.support.monitored import recorded
from tests.support.rights import url_with_rights
from voicequeue import AsyncVoiceQueue, InvalidStateError, StoreFormatError, StoreUnavailableError, VoiceQueue
from voicequeue.domain.store_format import CURRENT, StoreFormat
from voicequeue.storage import scripts
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.format_check import format_key
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.format import FormatStamp
from voicequeue.storage.job_store import JobStore

#: The format of the next release that this one does not understand.
NEXT = StoreFormat(CURRENT.version + 1, CURRENT.version + 1)


@pytest.fixture
def stamp(store: JobStore) -> FormatStamp:
    """Return the stamp of this test's queue."""
    return FormatStamp(store._space)


def test_a_new_queue_has_the_format_of_the_release_that_enqueues_first(store: JobStore, stamp: FormatStamp) -> None:
    """A producer may be first, before any worker."""
    store.job_ids.fingerprint()
    enqueue_jobs(store, voice())

    assert store._redis.hgetall(format_key(store._space.prefix)) == {"version": "1", "oldest_reader": "1"}
    assert stamp.read() == CURRENT


def test_a_queue_of_a_release_without_stamps_has_the_first_format(
    store: JobStore, stamp: FormatStamp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first process of a later release stamps it so, although that release writes a later one."""
    enqueue_jobs(store, voice())
    store._redis.delete(format_key(store._space.prefix))

    scripts.load.cache_clear()
    monkeypatch.setattr(scripts, "_START", "local FORMAT_KNOWN, FORMAT_OLDEST_READER = 7, 7")
    stamp.ensure()
    scripts.load.cache_clear()

    assert stamp.read() == StoreFormat(1, 1)


@pytest.mark.parametrize(
    "use",
    [
        lambda queue: queue.get("x"),
        lambda queue: queue.status(),
        lambda queue: list(queue.jobs()),
        lambda queue: queue.enqueue(voice()),
        lambda queue: queue.pause(),
        lambda queue: queue.audit(),
    ],
    ids=["get", "status", "jobs", "enqueue", "pause", "audit"],
)
def test_a_client_refuses_a_queue_that_needs_a_newer_release(
    valkey_url: str, prefix: str, stamp: FormatStamp, use: Callable[[VoiceQueue], object]
) -> None:
    """Every method, also those that only read, with the cure; it is an error of the store like others."""
    stamp.raise_to(NEXT)

    with VoiceQueue(valkey_url, prefix=prefix, namespace="*") as queue, pytest.raises(StoreFormatError) as caught:
        use(queue)

    assert str(caught.value) == (
        "this release is too old for the queue: it knows format 1, and the queue needs format 2; upgrade voicequeue "
        "here"
    )
    assert isinstance(caught.value, StoreUnavailableError)


def test_an_asynchronous_client_refuses_it_as_well(valkey_url: str, prefix: str, stamp: FormatStamp) -> None:
    """It is the same client."""
    stamp.raise_to(NEXT)

    async def use() -> None:
        async with AsyncVoiceQueue(valkey_url, prefix=prefix) as queue:
            await queue.get("x")

    with pytest.raises(StoreFormatError, match="too old"):
        asyncio.run(use())


def test_a_client_refuses_a_queue_that_is_older_than_it_can_use(valkey_url: str, prefix: str, redis: Redis) -> None:
    """A release in between has to upgrade it first."""
    redis.hset(format_key(prefix), mapping={"version": 0, "oldest_reader": 0})

    with VoiceQueue(valkey_url, prefix=prefix) as queue, pytest.raises(StoreFormatError, match="a release in between"):
        queue.get("x")


def test_a_program_that_was_running_changes_nothing_after_the_upgrade(store: JobStore, stamp: FormatStamp) -> None:
    """Each script checks the stamp in the same step as it writes: there is no moment in between."""
    [job_id] = enqueue_jobs(store, voice())
    stamp.raise_to(NEXT)
    before = {key: store._redis.dump(key) for key in store._redis.scan_iter(f"{store._space.key('')}*")}

    for change in (
        lambda: enqueue_jobs(store, voice(key="another")),
        lambda: store.admit(NOW),
        lambda: store.claim_submit([job_id], voice().stages[0], "h", NOW, lease_s=60),
        lambda: store._space.run_acknowledged("claim_submit", str(NOW), "voice", "h", NOW, "", "", "", "", job_id),
        lambda: store._space.prepare_script("admit", str(NOW), 1).result(),
    ):
        with pytest.raises(StoreFormatError, match="upgrade voicequeue here"):
            change()

    assert {key: store._redis.dump(key) for key in store._redis.scan_iter(f"{store._space.key('')}*")} == before


def test_older_readers_that_the_stamp_allows_are_not_disturbed(
    valkey_url: str, prefix: str, stamp: FormatStamp
) -> None:
    """A release that only adds fields raises the version, and releases beside it continue."""
    stamp.raise_to(StoreFormat(7, 1))

    with VoiceQueue(valkey_url, prefix=prefix) as queue:
        assert queue.get(queue.enqueue(voice()).id)


def test_the_check_costs_one_command_per_connection(valkey_url: str, prefix: str, redis: Redis) -> None:
    """Calls have no further round trips."""
    with recorded(redis) as commands, VoiceQueue(valkey_url, prefix=prefix) as queue:
        for number in range(3):
            queue.enqueue(voice(key=str(number)))
            queue.status()

    assert len([command for command in commands if format_key(prefix) in command]) == 1


def test_a_user_that_may_not_read_the_stamp_is_not_kept_out(valkey_url: str, prefix: str) -> None:
    """One that reads a few keys only, as docs/explanation/security.md describes."""
    with connect(url_with_rights(valkey_url, "producer", prefix), prefix=prefix) as client:
        assert client.ping()


@pytest.mark.parametrize("text", ["x", "\u00b2", "0x10", "inf", "9" * 5000])
def test_a_damaged_stamp_is_that_of_a_queue_without_one(valkey_url: str, prefix: str, redis: Redis, text: str) -> None:
    """It keeps no program out, and an upgrade replaces it."""
    redis.hset(format_key(prefix), mapping={"version": text, "oldest_reader": text})

    with VoiceQueue(valkey_url, prefix=prefix, namespace="*") as queue:
        assert queue.enqueue(voice())
        queue.upgrade()

    assert redis.hgetall(format_key(prefix)) == {"version": "1", "oldest_reader": "1"}


def test_a_stamp_of_another_type_is_refused_with_its_cure(valkey_url: str, prefix: str, redis: Redis) -> None:
    """Redis's own error would name neither the key nor a way out."""
    redis.set(format_key(prefix), "1")

    with VoiceQueue(valkey_url, prefix=prefix) as queue, pytest.raises(StoreFormatError, match=r"delete it \(DEL \{"):
        queue.get("x")


# ── the upgrade ───────────────────────────────────────────────────────────────────────────────


def test_an_upgrade_waits_for_processes_that_do_not_know_the_format(
    store: JobStore, queue: VoiceQueue, redis: Redis
) -> None:
    """It names them, and works once they are gone. The format never falls."""
    redis.hset(format_key(store._space.prefix), mapping={"version": 1, "oldest_reader": 0})
    now = store.clock()
    store.heartbeats["worker"].record("worker-1@old", now, {"format": 0})
    store.heartbeats["gateway"].record("gateway-1@new", now, {"format": 1})

    with pytest.raises(InvalidStateError, match="format 1 is not known to worker-1@old: upgrade these processes"):
        queue.upgrade()
    store.heartbeats["worker"].remove("worker-1@old")

    assert (queue.upgrade(), queue.upgrade()) == (True, False)
    assert not FormatStamp(Keyspace(redis, store._space.prefix)).raise_to(StoreFormat(0, 0))


def test_the_command_says_which_format_the_queue_has(
    valkey_url: str, prefix: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be run again. A release that is too old reports what to do."""
    monkeypatch.setenv("VOICEQUEUE_PREFIX", prefix)

    first, second = (run_in_process(valkey_url, "upgrade") for _ in range(2))
    redis.hset(format_key(prefix), mapping={"version": 2, "oldest_reader": 2})
    refused, status, doctor = (run_in_process(valkey_url, name) for name in ("upgrade", "status", "doctor"))

    assert (first.returncode, second.returncode) == (0, 0)
    assert "has format 1" in second.stdout
    assert (refused.returncode, status.returncode, doctor.returncode) == (1, 1, 1)
    assert refused.stderr.startswith("this release is too old for the queue")
    assert "too old" in doctor.stdout
