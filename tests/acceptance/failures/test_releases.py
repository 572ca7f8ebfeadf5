"""The previous release and this one side by side: producers, workers and the gateway of both."""

from __future__ import annotations

from pathlib import Path

from tests.tools.rolling import run


def test_two_releases_share_a_queue_while_processes_are_upgraded(tmp_path: Path) -> None:
    """Five hundred jobs of both releases: none is lost, charged twice or unsure, and the records agree.

    One worker stays on the previous release; the other one, the gateway and the callbacks are upgraded under load.
    `python -m tests.tools.rolling` restarts every process, again and again, and goes back as well.
    """
    processes = ("worker.1", "worker.2", "web", "callbacks")
    restarted = ("worker.1", "web", "callbacks")

    assert run(rounds=1, jobs=500, seed=4, home=tmp_path, say=print, processes=processes, restarted=restarted) == []
