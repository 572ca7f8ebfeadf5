"""`make demo` in this process, without a stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import load
from voicequeue.storage.job_store import JobStore
from workers.local import demo
from workers.local.stack import Addresses, Stack


def test_the_demo_reports_jobs_that_do_not_succeed(
    store: JobStore,
    valkey_url: str,
    prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """If upstream is down the exit code is 1, the gate's reason is printed, and nothing hangs."""
    store.flow_control.add_hold("upstream_down", "no answer", store.clock())
    addresses = Addresses(valkey_url, gateway="", page="", flower="", simulator=None, simulator_control=None)
    monkeypatch.setenv("VOICEQUEUE_PREFIX", prefix)
    monkeypatch.setenv("VOICEQUEUE_DEMO_TIMEOUT_S", "0.3")
    monkeypatch.setattr(demo, "settings", load)
    monkeypatch.setattr(demo, "HOME", tmp_path)
    monkeypatch.setattr(Stack, "start_all", lambda *_, **__: addresses)

    assert demo.main() == 1

    printed = capsys.readouterr().out
    assert "0 of 12 succeeded" in printed
    assert "upstream_down" in printed
