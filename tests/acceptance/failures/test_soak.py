"""A short soak run: nothing is lost or charged twice under a steady load, and every figure has a trend."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.soak import soak


def test_nothing_is_lost_or_charged_twice_under_a_steady_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Jobs of all kinds, failures, callbacks, the archive and the purge.

    Trends are printed and not judged: in seconds they are those of the start, and of what else runs. `make soak` does.
    """
    findings = soak(seconds=20, seed=7, home=tmp_path, say=print)

    assert [finding for finding in findings if " grows by " not in finding] == []
    output = capsys.readouterr().out
    assert all(
        name in output for name in ("memory of worker.1", "memory of Redis", "enqueue", "delay of the latest poll")
    )
