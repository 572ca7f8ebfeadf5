"""The simulator of `make up` over restarts of the stack: the same port, tasks and credits."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from config.settings import Settings
from workers.local import stack
from workers.local.ports import free_port
from workers.local.readiness import answers_http, wait_until
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

VOICE = {"audio_url": "https://recordings.example/ana.wav"}


@pytest.mark.endurance
def test_links_and_credits_survive_a_restart_of_the_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a kill of the simulator in between, which the supervisor restarts."""
    monkeypatch.setattr(stack, "SIMULATOR_PORT", free_port())
    monkeypatch.setattr(stack, "CONTROL_PORT", free_port())
    reports: list[str] = []
    addresses: list[tuple[str, str]] = []
    ledgers: list[dict[str, Any]] = []
    for _ in range(2):
        with Supervisor(reports.append) as supervisor:
            local = Stack(supervisor, Settings(_env_file=None), home=tmp_path, print_line=reports.append)
            base, control = local.start_lasting_simulator()
            if not ledgers:
                ordered = requests.post(
                    f"{base}/api/v1/sonic/create-voice", json=VOICE, headers={"Authorization": "Bearer any"}, timeout=10
                )
                assert ordered.status_code == 200
                with supervisor.held_down("simulator"):
                    pass
                wait_until(partial(answers_http, f"{control}/healthz"), "the simulator was not restarted")
            addresses.append((base, control))
            ledgers.append(requests.get(f"{control}/ledger", timeout=10).json())

    assert addresses[0] == addresses[1]
    assert ledgers[0]["charges"] == ledgers[1]["charges"]
    assert [ledger["credits_left"] for ledger in ledgers] == [100_000 - 4] * 2
    assert not [report for report in reports if "taken" in report]
