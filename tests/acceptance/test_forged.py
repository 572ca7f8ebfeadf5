"""Ten thousand forged webhooks: nothing changes, and nobody is slower for it."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
from redis import Redis

from tests.acceptance.conftest import Build, House, jobs, nothing_lost_nothing_paid_twice, settled
from tests.acceptance.forged import Forger, send_all
from tests.conftest import eventually
from voicequeue import State
from workers.gateway import heartbeat

EACH = 1_000
COUNT = 100


def asked_of_redis(house: House) -> tuple[int, int]:
    """How many commands the gateway has sent to Redis by now, on how many connections."""
    pid = house.supervisor.pid("web")
    assert pid is not None
    ports = {connection.laddr.port for connection in psutil.Process(pid).net_connections() if connection.laddr}
    with Redis.from_url(house.redis_url, decode_responses=True) as redis:
        clients = [each for each in redis.client_list() if int(each["addr"].rpartition(":")[2]) in ports]
    return sum(int(each["tot-cmds"]) for each in clients), len(clients)


def test_ten_thousand_forged_webhooks_change_nothing_while_a_batch_runs_through(build: Build) -> None:
    """Each is refused as it must be. Redis hears of those alone whose token and signature hold: of an unknown job,
    with one question each; so that the workers, who share nothing else with the gateway, hear of none.
    """
    began = time.monotonic()
    house = build(workers=2, web=True, dials={"webhook": "never"})
    with house.queue() as queue:
        queue.enqueue_many(jobs(COUNT))
        forger = Forger((house.home / "secret").read_text(), [job.id for job in queue.jobs(batch="voices")])
        kinds = [kind for kind in forger.kinds for _ in range(EACH)]
        random.Random(7).shuffle(kinds)
        assert len(kinds) == 10_000
        with ThreadPoolExecutor(1) as aside:
            flood = aside.submit(send_all, str(house.web), forger, kinds)
            eventually(lambda: settled(queue), within_s=60)
            answers = flood.result(90)
        reasons = {step.reason for job in queue.jobs(batch="voices") for step in queue.timeline(job.id)}

    assert answers == Counter({(kind, status): EACH for kind, (_, status) in forger.kinds.items()})
    assert nothing_lost_nothing_paid_twice(house, COUNT)[State.SUCCEEDED] == COUNT
    assert not [reason for reason in reasons if "webhook" in reason]
    commands, connections = asked_of_redis(house)
    greetings = 5 * connections
    said_that_it_lives = 4 * (1 + (time.monotonic() - began) / heartbeat.EVERY_S)
    assert EACH <= commands <= EACH + greetings + said_that_it_lives
    assert "Traceback" not in (house.home / "log" / "web.log").read_text()
