"""Requests of one client by the kind of its API key, and with 1,000 keys in Redis instead of one.

Each request is sent with one key after the other, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from rich.table import Table

from benchmarks.load import jobs
from benchmarks.running_stack import Crew
from config.settings import Settings
from voicequeue import KeyLimits, VoiceQueue
from voicequeue.auth.api_keys import Scope, generate_key
from voicequeue.domain.spec import Priority
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

KEYS, ROUNDS, REQUESTS, WARM = 1_000, 12, 50, 100

#: A request with one key in Redis needs at least this part of the processor time of one with 1,000; less is not noise.
RATIO_MIN = 0.95

#: The kinds of keys. All but the first are used with a gateway that has 1,000 keys in Redis.
ALONE, AMONG = "in Redis, the only one", f"in Redis, one of {KEYS:,}"
OPERATOR, NAMESPACE = "an operator's, of the environment", "of a namespace, of the environment"
LIMITED = "in Redis, with limits"

#: Limits that these requests do not reach.
_LIMITS = KeyLimits(10_000, Priority.NORMAL, "bench-*")

#: POST of a job, and GET of it.
METHODS = ("POST", "GET")

#: Requests per second by method and kind of key.
Rates = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """A gateway: its host and port, the secrets of the keys in its Redis, and both processes."""

    netloc: str
    secrets: Sequence[str]
    processes: Crew

    def client(self, kind: str, secret: str) -> Client:
        """Return a client with this key."""
        return Client(kind, secret, HTTPConnection(self.netloc, timeout=30), self)

    def cpu(self) -> float:
        """Return the seconds of CPU so far, of the gateway and its Redis."""
        return self.processes.cpu()


@dataclass(frozen=True, slots=True)
class Client:
    """A caller with one key, and its connection to a gateway."""

    kind: str
    secret: str
    connection: HTTPConnection
    gateway: RunningGateway

    def send(self, method: str, path: str, body: str | None = None) -> dict[str, str]:
        """Return the JSON of the response. Raises RuntimeError."""
        headers = {"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"}
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        text = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path} with a key {self.kind}: {response.status} {text[:500]!r}")
        answer: dict[str, str] = json.loads(text)
        return answer


def tables() -> Iterator[Table]:
    """Yield what 1,000 keys in Redis cost, and the requests by kind of key. Raises RuntimeError if they cost more than
    noise."""
    with gateways() as clients:
        few, many, *_ = clients
        _round(clients, "warm", WARM)
        before = [client.gateway.cpu() for client in (few, many)]
        rounds = [_round((few, many), f"number-{number}", REQUESTS) for number in range(ROUNDS)]
        after = [client.gateway.cpu() for client in (few, many)]
        kinds = [_round(clients[1:], f"kind-{number}", REQUESTS) for number in range(ROUNDS)]
    cpu_ms = [1e3 * (end - start) / ROUNDS / REQUESTS for start, end in zip(before, after, strict=True)]
    table = Table("keys in Redis", *METHODS, "CPU of gateway and Redis, ms")
    table.add_row("1", *_rates(rounds, few.kind), f"{cpu_ms[0]:.2f}")
    table.add_row(f"{KEYS:,}", *_rates(rounds, many.kind), f"{cpu_ms[1]:.2f}")
    ratios = [*(_ratio(rounds, method, many.kind, few.kind) for method in METHODS), cpu_ms[0] / cpu_ms[1]]
    table.add_row("as many of those with 1", *(f"{ratio:.1%}" for ratio in ratios))
    yield table
    table = Table("API key", *METHODS, *(f"{method}, of an operator's" for method in METHODS))
    for client in clients[1:]:
        of_operator = (f"{_ratio(kinds, method, client.kind, OPERATOR):.0%}" for method in METHODS)
        table.add_row(client.kind, *_rates(kinds, client.kind), *of_operator)
    yield table
    if ratios[-1] < RATIO_MIN:  # processor time, which other work on the machine does not change
        raise RuntimeError(f"requests cost {cpu_ms[1]:.2f} ms with {KEYS:,} keys in Redis, {cpu_ms[0]:.2f} ms with one")


@contextmanager
def gateways() -> Iterator[Sequence[Client]]:
    """Start a gateway whose Redis has one API key, and another with 1,000; yield a client for each kind of key."""
    operator, operator_key = generate_key("operator", Scope)
    app, app_key = generate_key("app", [Scope.ENQUEUE, Scope.READ], "shop")
    setting = f"{operator_key.as_setting()},{app_key.as_setting()}"
    with ExitStack() as running:
        few = running.enter_context(_gateway(setting, 1))
        many = running.enter_context(_gateway(setting, KEYS))
        yield [
            few.client(ALONE, few.secrets[0]),
            many.client(AMONG, many.secrets[0]),
            many.client(OPERATOR, operator),
            many.client(NAMESPACE, app),
            many.client(LIMITED, many.secrets[-1]),
        ]


@contextmanager
def _gateway(setting: str, count: int) -> Iterator[RunningGateway]:
    """Start a gateway whose Redis has this many keys; the last of several has limits."""
    with tempfile.TemporaryDirectory() as folder, Supervisor(print_line=print) as supervisor:
        env = {"VOICEQUEUE_LOG_LEVEL": "WARNING", "VOICEQUEUE_API_KEYS": setting}
        stack = Stack(supervisor, Settings(_env_file=None), home=Path(folder), env=env)
        with VoiceQueue(stack.start_valkey(), namespace="*") as queue:
            limits = [None] * (count - 1) + [None if count == 1 else _LIMITS]
            secrets = [_created(queue, f"app-{number}", limit) for number, limit in enumerate(limits)]
        netloc = urlsplit(stack.start_gateway(webhooks=False)).netloc
        pids = [pid for name in ("web", "valkey") if (pid := supervisor.pid(name))]
        yield RunningGateway(netloc, secrets, Crew(pids))


def _created(queue: VoiceQueue, name: str, limits: KeyLimits | None) -> str:
    return queue.create_api_key(name, [Scope.ENQUEUE, Scope.READ], namespace="shop", limits=limits).secret


def _round(clients: Sequence[Client], name: str, count: int) -> Rates:
    """Enqueue and read this many jobs with each key; return requests per second, from the median time of a request."""
    specs = [list(jobs(count, f"bench-{name}-{number}")) for number in range(len(clients))]
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for client in clients:
        client.connection.close()  # the gateway may have closed it while it was idle
    for number in range(count):
        for turn in range(len(clients)):
            index = (number + turn) % len(clients)  # none always follows the same one
            client, body = clients[index], specs[index][number].model_dump_json(exclude_defaults=True)
            started = time.perf_counter()
            job_id = client.send("POST", "/v1/jobs", body)["id"]
            enqueued = time.perf_counter()
            client.send("GET", f"/v1/jobs/{job_id}")
            times["POST", client.kind].append(enqueued - started)
            times["GET", client.kind].append(time.perf_counter() - enqueued)
    return {key: 1 / statistics.median(durations) for key, durations in times.items()}


def _rates(rounds: Sequence[Rates], kind: str) -> list[str]:
    return [f"{statistics.median(rates[method, kind] for rates in rounds):,.0f}" for method in METHODS]


def _ratio(rounds: Sequence[Rates], method: str, kind: str, base: str) -> float:
    """Return the median ratio of the rates with two kinds of keys, which a slow round changes alike."""
    return statistics.median(rates[method, kind] / rates[method, base] for rates in rounds)
