"""A short torture run: nothing is lost or paid twice, and ledger and records agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.torture import torture


@pytest.mark.parametrize("webhooks", [True, False], ids=["with webhooks", "without"])
def test_nothing_is_lost_or_paid_twice_while_processes_are_killed(tmp_path: Path, webhooks: bool) -> None:
    """Kills, freezes, cut connections and every fault of the simulator; `make torture` runs longer."""
    assert torture(seconds=5, seed=7, webhooks=webhooks, home=tmp_path, say=print) == []
