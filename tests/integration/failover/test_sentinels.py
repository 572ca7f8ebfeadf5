"""A Redis URL that names sentinels: the library and the broker follow the primary."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kombu import Queue

from config.celeryconfig import configuration
from config.settings import Settings
from tests.conftest import eventually
from tests.support.jobs import voice
from tests.support.scripted_sentinel import scripted_sentinel
from tests.support.sentinels import PASSWORD, SENTINEL_PASSWORD, FailoverGroup, failover_group
from voicequeue import VoiceQueue
from voicequeue.storage.connection.client import connect
from workers.local.ports import free_port
from workers.messaging import redis_transport


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailoverGroup]:
    """Start two servers and three sentinels."""
    with failover_group(tmp_path_factory.mktemp("sentinels")) as started:
        yield started


def test_the_library_continues_on_the_new_primary(group: FailoverGroup) -> None:
    """A call waits for the election, and acknowledged jobs are there."""
    with VoiceQueue(group.url, wait_for_redis_s=30) as queue:
        before = queue.enqueue(voice(key="before")).id
        group.replicate()
        group.fail_over()

        after = queue.enqueue(voice(key="after")).id

        assert {queue.get(before).id, queue.get(after).id} == {before, after}


def test_calls_that_run_during_a_failover_continue(group: FailoverGroup) -> None:
    """Those that wait in Redis, and those that come back to a connection of the old primary, which is a replica now."""
    returned: Counter[str] = Counter()
    is_over = threading.Event()

    def repeat(name: str, call: Callable[[], object]) -> None:
        while not is_over.is_set():
            call()
            returned[name] += 1

    with connect(group.url, wait_s=60) as redis, ThreadPoolExecutor(4) as threads:
        calls = {"blpop": lambda: redis.blpop(["empty"], timeout=0.1), "incr": lambda: redis.incr("number")}
        running = [threads.submit(repeat, name, call) for name, call in calls.items() for _ in range(2)]
        for _ in range(2):
            group.fail_over()
            before = Counter(returned)
            eventually(lambda: all(returned[name] > before[name] + 5 for name in calls), within_s=15)  # noqa: B023
            group.replicate()
        is_over.set()
        for thread in running:
            thread.result()


def test_the_latest_election_counts_that_most_sentinels_know(group: FailoverGroup) -> None:
    """A sentinel that is cut off still names the old primary. One that is alone may name it, too: others are asked as
    long as they are not more than half."""
    address = ("127.0.0.1", group.primary())
    with (
        scripted_sentinel("voices", "192.0.2.1", 6379, epoch=1) as stale,
        scripted_sentinel("voices", *address, epoch=2) as current,
    ):
        hosts = f"127.0.0.1:{stale},127.0.0.1:{free_port()},127.0.0.1:{current}"
        with VoiceQueue(f"sentinel://:{PASSWORD}@{hosts}/voices/0") as queue:
            assert queue.get(queue.enqueue(voice()).id)


def test_messages_follow_the_primary(group: FailoverGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport opens its connections to the primary that the sentinels name."""
    monkeypatch.setattr("kombu.transport.redis.time", time.time)
    conf = configuration(Settings(_env_file=None, REDIS_URL=group.url))
    redis_transport.install(time.time, group.url)

    def connection() -> Any:
        options: dict[str, Any] = conf["broker_transport_options"]
        return redis_transport.Connection(conf["broker_url"], ssl=conf["broker_use_ssl"], transport_options=options)

    with connection() as client:
        Queue("work", channel=client.default_channel).declare()
        client.Producer(client.default_channel).publish("a message", routing_key="work")
        group.replicate()
        group.fail_over()
    with connection() as client:
        client.ensure_connection()
        message = client.default_channel.basic_get("work")

        assert message is not None
        assert message.payload == "a message"
        assert SENTINEL_PASSWORD not in str(client.info())
        message.ack()
