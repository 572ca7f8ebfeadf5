"""A short torture: whatever dies, nothing is lost, nothing is paid twice, and the books agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.torture import torture


@pytest.mark.parametrize("webhooks", [True, False], ids=["with webhooks", "without"])
def test_nothing_is_lost_or_paid_twice_while_everything_dies(tmp_path: Path, webhooks: bool) -> None:
    """Kills, freezes, cut connections and every fault of the simulator; `make torture` does it for longer."""
    assert torture(seconds=8, seed=7, webhooks=webhooks, home=tmp_path, say=print) == []
