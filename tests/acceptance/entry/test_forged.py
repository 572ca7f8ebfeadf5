"""Ten thousand forged webhooks: nothing changes, and no job is delayed."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
from redis import Redis

from tests.acceptance.conftest import Build, System, jobs, settled, verified_states
from tests.acceptance.forged import Forger, send_all
from tests.conftest import eventually
from voicequeue import State
from workers.gateway import heartbeat

PER_KIND = 1_000
COUNT = 100


def redis_usage(system: System) -> tuple[int, int]:
    """Return how many commands the gateway has sent to Redis, and on how many connections."""
    pid = system.supervisor.pid("web")
    assert pid is not None
    ports = {connection.laddr.port for connection in psutil.Process(pid).net_connections() if connection.laddr}
    with Redis.from_url(system.redis_url, decode_responses=True) as redis:
        clients = [client for client in redis.client_list() if int(client["addr"].rpartition(":")[2]) in ports]
    return sum(int(client["tot-cmds"]) for client in clients), len(clients)


def test_ten_thousand_forged_webhooks_change_nothing_while_a_batch_runs(build: Build) -> None:
    """Each is rejected with its status. Only requests with a valid token and signature, for an unknown job, cause a
    Redis command: one each. The workers share nothing else with the gateway, so none reaches them."""
    system = build(workers=2, web=True, dials={"webhook": "never"})
    started_at = time.monotonic()
    commands_before, connections_before = redis_usage(system)
    with system.queue() as queue:
        queue.enqueue_many(jobs(COUNT))
        forger = Forger((system.home / "secret").read_text(), [job.id for job in queue.jobs(batch="voices")])
        kinds = [kind for kind in forger.kinds for _ in range(PER_KIND)]
        random.Random(7).shuffle(kinds)
        assert len(kinds) == 10_000
        with ThreadPoolExecutor(1) as executor:
            flood = executor.submit(send_all, str(system.web), forger, kinds)
            eventually(lambda: settled(queue), within_s=60)
            answers = flood.result(90)
        reasons = {step.reason for job in queue.jobs(batch="voices") for step in queue.timeline(job.id)}

    assert answers == Counter({(kind, status): PER_KIND for kind, (_, status) in forger.kinds.items()})
    assert verified_states(system, COUNT)[State.SUCCEEDED] == COUNT
    assert not [reason for reason in reasons if "webhook" in reason]
    commands, connections = redis_usage(system)
    handshakes = 5 * (connections - connections_before)
    heartbeats = 4 * (1 + (time.monotonic() - started_at) / heartbeat.HEARTBEAT_INTERVAL_S)
    assert PER_KIND <= commands - commands_before <= PER_KIND + handshakes + heartbeats
    assert "Traceback" not in (system.home / "log" / "web.log").read_text()
