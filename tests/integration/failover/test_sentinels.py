"""A Redis URL that names sentinels: the library and the broker follow the primary."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Queue

from config.celeryconfig import configuration
from config.settings import Settings
from tests.support.jobs import voice
from tests.support.sentinels import SENTINEL_PASSWORD, FailoverGroup, failover_group
from voicequeue import VoiceQueue
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
