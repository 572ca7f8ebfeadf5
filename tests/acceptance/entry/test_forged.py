"""Ten thousand forged webhooks: nothing changes, and no job is delayed."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
from redis import Redis

from tests.acceptance.conftest import Build, jobs, settled, verified_states
from tests.acceptance.forged import Forger, send_all
from tests.conftest import eventually
from tests.support.monitored import recorded
from voicequeue import State

PER_KIND = 1_000
COUNT = 100

#: The gateway's commands that belong to no request: of a new connection, its clock and its heartbeat.
VERBS_AT_REST = {"AUTH", "HELLO", "CLIENT", "PING", "TIME"}
KEYS_AT_REST = {"{voicequeue}:format", "{voicequeue}:gateway:heartbeats", "{voicequeue}:gateway:heartbeats:facts"}


def test_ten_thousand_forged_webhooks_change_nothing_while_a_batch_runs(build: Build) -> None:
    """Each is rejected with its status. Only requests with a valid token and signature, for an unknown job, cause a
    Redis command: one each. The workers share nothing else with the gateway, so none reaches them."""
    system = build(workers=2, web=True, dials={"webhook": "never"})
    gateway = psutil.Process(system.supervisor.pid("web"))
    with Redis.from_url(system.redis_url) as redis, system.queue() as queue, recorded(redis, gateway) as sent:
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
    of_requests = [
        command for command in sent if command[0] not in VERBS_AT_REST and KEYS_AT_REST.isdisjoint(command[1:2])
    ]
    assert len(of_requests) == PER_KIND
    assert all(verb == "HGETALL" and key.startswith("{voicequeue}:job:") for verb, key in of_requests)
    assert len(sent) < 2 * PER_KIND  # no kind of request costs a command at rest
    assert "Traceback" not in (system.home / "log" / "web.log").read_text()
