"""The doctor on a Redis that fails over: its sentinels, its replicas, and the settings for both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.sentinels import failover_group
from voicequeue.cli import examine
from voicequeue.diagnostics.check_result import CheckResult, Level
from voicequeue.diagnostics.replication import Replicas, SentinelState, replica_results, sentinel_results

A, B = "10.0.0.1:6379", "10.0.0.2:6379"


def states(*primaries: str, quorum_problem: str = "", priorities: tuple[int, ...] = (100,)) -> list[SentinelState]:
    """Return the answers of sentinels that name these primaries; '' is one that does not answer."""
    return [
        SentinelState(f"s{number}", primary=primary, others=2, quorum_problem=quorum_problem, priorities=priorities)
        if primary
        else SentinelState(f"s{number}", "does not answer: refused")
        for number, primary in enumerate(primaries)
    ]


@pytest.mark.parametrize(
    ("answers", "level", "message"),
    [
        (states(A, A, A), Level.OK, f"3 agree on the primary {A}"),
        (states(A, A, ""), Level.WARNING, "the sentinel s2 does not answer: refused"),
        (states(A, "", ""), Level.ERROR, "the sentinel s1 does not answer: refused"),
        (states(A, B, A), Level.ERROR, f"the sentinels name different primaries: {A} by s0, s2; {B} by s1"),
        (states(A, A, A, quorum_problem="NOQUORUM 1 usable"), Level.ERROR, "no failover is possible: NOQUORUM"),
        (states(A, A, A, priorities=(100, 10)), Level.WARNING, "replicas have different priorities"),
        ([SentinelState("s0", primary=A, others=1)], Level.WARNING, "only 2 sentinels watch the primary"),
    ],
)
def test_each_problem_of_sentinels_is_reported(answers: list[SentinelState], level: Level, message: str) -> None:
    """Each with its severity: a failover is at risk, or impossible."""
    assert any(result.level is level and message in result.message for result in sentinel_results(answers))


@pytest.mark.parametrize(
    ("replicas", "level", "message"),
    [
        (Replicas(1, 1, 1, 1, True), Level.OK, "1 of 1 connected replicas are in sync; 1 must record an order"),
        (Replicas(1, 2, 2, 1, True), Level.ERROR, "requires 2, so no order is sent"),
        (Replicas(0, 0, 1, None, False), Level.ERROR, "requires 1, so no order is sent"),
        (Replicas(0, 0, 0, 1, True), Level.ERROR, "a failover would lose jobs, or find no server"),
        (Replicas(1, 1, 0, 1, True), Level.WARNING, "an order may be sent and paid again"),
        (Replicas(2, 2, 1, 1, True), Level.WARNING, "their orders are sent and paid again"),
        (Replicas(2, 2, 2, 1, True), Level.OK, "2 must record an order"),
        (Replicas(1, 1, 1, 0, True), Level.WARNING, "min-replicas-to-write is 0"),
    ],
)
def test_each_problem_of_replicas_is_reported(replicas: Replicas, level: Level, message: str) -> None:
    """Each with what it may cost."""
    assert any(result.level is level and message in result.message for result in replica_results(replicas))


def test_a_single_server_needs_neither() -> None:
    """Nothing is reported about sentinels and replicas that it does not have."""
    assert list(sentinel_results([])) == []
    assert list(replica_results(Replicas(0, 0, 0, 0, False))) == []


def test_the_doctor_asks_each_sentinel_and_counts_the_replicas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the logins of the URL; a sentinel that is down is named."""
    monkeypatch.setattr(examine, "_worker_checks", lambda: None)
    monkeypatch.setenv("VOICEQUEUE_REPLICAS_ACK", "1")

    def reported() -> list[CheckResult]:
        return [result for result in examine._results() if result.check in ("sentinels", "replicas", "redis")]

    with failover_group(tmp_path) as group:
        monkeypatch.setitem(os.environ, "REDIS_URL", group.url)
        assert [result.level for result in reported()] == [Level.OK, Level.OK, Level.OK]

        group.kill(group.sentinel_ports[2])

        [problem] = [result for result in reported() if result.level is not Level.OK]
        assert f"the sentinel 127.0.0.1:{group.sentinel_ports[2]} does not answer" in problem.message
