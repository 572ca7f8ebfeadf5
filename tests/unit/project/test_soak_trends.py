"""The verdict of `make soak`: what grows is found, and a single slow sample is no growth."""

from __future__ import annotations

import math

import pytest

from tests.tools.soak_trends import LATENCY, MEMORY, trend, trends

#: The times of the samples of an hour, in seconds.
TIMES = range(0, 3600, 30)


def test_a_leak_grows() -> None:
    """A process of 100 MB that gains 18 MB an hour gains 12 MB after the warm-up."""
    leak = trend("memory of worker.1", "MB", [(at, 100 + 18 * at / 3600) for at in TIMES], MEMORY)

    assert leak.hourly == pytest.approx(18)
    assert leak.growth == pytest.approx(12, abs=0.2)
    assert leak.grows
    assert str(leak).endswith("GROWS")


def test_what_grows_during_the_warm_up_and_then_rests_is_steady() -> None:
    """Processes load their modules, and Redis fills until the first jobs are purged."""
    assert not trend("memory of Redis", "MB", [(at, min(at / 10, 100)) for at in TIMES], MEMORY).grows


def test_slow_samples_are_no_growth() -> None:
    """Other programs share the machine; the slope is the median of those of all pairs."""
    durations = [(at, 2000.0 if at > 3400 else 5 + math.sin(at)) for at in TIMES]

    assert not trend("status", "ms", durations, LATENCY).grows


def test_each_figure_of_the_samples_has_a_trend() -> None:
    """A process that was not there at first has one of its own samples."""
    samples = [(at, {("ms", "list"): 5.0, ("s", "delay of the latest poll"): float(at)}) for at in TIMES]

    assert [(figure.name, figure.grows) for figure in trends(samples)] == [
        ("list", False),
        ("delay of the latest poll", True),
    ]
