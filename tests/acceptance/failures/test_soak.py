"""A short soak run: a steady load leaves memory and latency as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tools.soak import soak

LATENCY = re.compile(r" grows by .* m?s an hour$")


def test_nothing_grows_or_is_lost_under_a_steady_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs of all kinds, failures, callbacks, the archive and the purge; `make soak` runs for an hour.

    Here latencies are measured and not judged: they depend on what else runs.
    """
    faults = soak(seconds=20, seed=7, home=tmp_path, say=print)

    assert [fault for fault in faults if not LATENCY.search(fault)] == []

    assert "memory of worker.1" in capsys.readouterr().out
