"""The processor time of each test: `python -m pytest -p tests.tools.cpu_times tests/store` lists the most expensive.

It includes fixtures and all processes that a test starts, so it hardly depends on what else runs on the machine. A test
pays for a fixture of its module if it is the first that uses it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROPERTY = "cpu_s"
LISTED = 40

_started_s = pytest.StashKey[float]()
_times: dict[str, float] = {}


def cpu_s() -> float:
    """Return the processor time of this process and its descendants, ended ones included, in seconds."""
    # The fields after the name: utime, stime, and both of children that have ended.
    ticks = sum(_ticks(pid) for pid in _descendants(os.getpid()))
    times = os.times()
    return ticks / TICKS_PER_S + time.process_time() + times.children_user + times.children_system


def _descendants(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids = [int(child) for child in children.read_text().split()]
        except OSError:  # the thread has ended
            continue
        for child in pids:
            yield child
            yield from _descendants(child)


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # the process has ended
        return 0
    return sum(map(int, fields[11:15]))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember the processor time before the test's fixtures."""
    item.stash[_started_s] = cpu_s()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the time of the whole test to the report of its teardown, which reaches the main process."""
    report = yield
    if call.when == "teardown":
        report.user_properties.append((PROPERTY, cpu_s() - item.stash[_started_s]))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the times."""
    for name, value in report.user_properties:
        if name == PROPERTY and report.when == "teardown":
            _times[report.nodeid] = float(str(value))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the tests that took most."""
    terminalreporter.section(f"processor time: {sum(_times.values()):.0f} s")
    for nodeid in sorted(_times, key=_times.__getitem__, reverse=True)[:LISTED]:
        terminalreporter.write_line(f"{_times[nodeid]:8.2f} s  {nodeid}")
