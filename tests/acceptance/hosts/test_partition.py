"""A primary that is cut off from its replica and the sentinels, and that some clients still reach."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.conftest import eventually
from tests.support.jobs import voice
from tests.support.network import Host, Network, why_no_network
from tests.support.sentinels import PASSWORD, FailoverGroup
from voicequeue import StoreUnavailableError, VoiceQueue

#: How long clients wait for a primary (seconds).
PATIENT_S = 30.0


@pytest.fixture
def network() -> Iterator[Network]:
    """Make a network."""
    if reason := why_no_network():
        pytest.skip(reason)
    with Network() as network:
        yield network


def test_a_primary_that_is_cut_off_acknowledges_nothing_that_its_successor_lacks(
    network: Network, tmp_path: Path
) -> None:
    """It still answers those who reach it. What asks for a replica's acknowledgement fails there at once; other writes
    fail as soon as it has missed its replicas for `min-replicas-max-lag`. When the link is back, it has what its
    successor has: every job that was acknowledged, and nothing else."""
    hosts = [network.add_host(name) for name in ("first", "second", "third")]
    with ExitStack() as resources:
        resources.enter_context(network.add_host("apps").inside())
        group = FailoverGroup(tmp_path, servers=3, replicas_ack=1, brisk=True, hosts=hosts)
        resources.callback(group.stop)
        group.start()
        queue = resources.enter_context(VoiceQueue(group.url, wait_for_redis_s=PATIENT_S, replicas_ack=1))
        old = group.primary()
        acknowledged = [queue.enqueue(voice(key="before")).id]
        with network.lost(*hosts):
            eventually(lambda: group.primary() != old, within_s=PATIENT_S)
            with pytest.raises(StoreUnavailableError), _at(hosts[0], old) as cut_off:
                cut_off.enqueue(voice(key="lost"))
            with group.client(old) as client:
                eventually(lambda: _refuses(client), within_s=PATIENT_S)
            acknowledged.append(queue.enqueue(voice(key="meanwhile")).id)

        group.replicate()
        assert {job.id for job in queue.jobs()} == {*acknowledged}
        with group.client(old) as client:
            assert client.info("replication")["role"] == "slave"


def _at(host: Host, port: int) -> VoiceQueue:
    """Connect to one server, past the sentinels."""
    return VoiceQueue(f"redis://:{PASSWORD}@{host.address}:{port}/0", replicas_ack=1)


def _refuses(client: Redis) -> bool:
    """Return whether a server refuses writes because it has too few replicas."""
    try:
        client.set("anything", "")
    except ResponseError as error:
        return str(error).startswith("NOREPLICAS")
    return False
