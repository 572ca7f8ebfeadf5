"""The comparison with other queues: its upstream counts correctly, its pins hold, and its table omits no queue."""

from __future__ import annotations

import json
import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.peers import report
from benchmarks.peers.contestants import APPS, CONTESTANTS, STEPS, lock, pins
from benchmarks.peers.flight import Flight, timeout_s
from benchmarks.peers.race import ContestantResult
from benchmarks.peers.realistic import Arrivals, Realistic
from benchmarks.peers.upstream import Upstream, durations
from tasks.musicapi import MusicReady, NotReady, VoiceReady
from tasks.musicapi.responses import accepted_task_id, task_result

FIGURES = {column.name: 1.0 for column in report.COLUMNS}


def ask(upstream: Upstream, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Return the JSON of one response."""
    _, payload = upstream.answer(method.encode(), path.encode(), json.dumps(body or {}).encode())
    return json.loads(payload)


def order_voice(upstream: Upstream, url: str = "https://recordings.example/1.wav") -> str:
    """Order a voice and return the task id."""
    task_id = accepted_task_id(ask(upstream, "POST", "/api/v1/sonic/create-voice", {"audio_url": url}))
    assert task_id is not None
    return task_id


def test_the_upstream_follows_the_contract() -> None:
    """voicequeue's own client reads a voice and a song from it."""
    upstream = Upstream(0.0, 0.0)

    voice = task_result(ask(upstream, "GET", f"/api/v1/sonic/task/{order_voice(upstream)}"))
    assert isinstance(voice, VoiceReady)
    body = {"task_type": "persona_music", "persona_id": voice.persona_id, "prompt": "la", "mv": "sonic-v5"}
    song_id = accepted_task_id(ask(upstream, "POST", "/api/v1/sonic/create", body))
    song = task_result(ask(upstream, "GET", f"/api/v1/sonic/task/{song_id}"))

    assert isinstance(song, MusicReady)
    assert len(song.clips) == 2
    counts = upstream.report()
    assert [counts[name] for name in ("voices", "songs", "polls", "doubles", "unseen", "strays")] == [1, 1, 2, 0, 0, 0]
    assert all(0 <= late < 1 for late in counts["lateness"])


def test_an_order_is_not_ready_before_its_time() -> None:
    """Earlier polls are counted, and the result is unseen."""
    upstream = Upstream(60.0, 60.0)

    result = task_result(ask(upstream, "GET", f"/api/v1/sonic/task/{order_voice(upstream)}"))

    assert isinstance(result, NotReady)
    assert (upstream.report()["polls"], upstream.report()["unseen"]) == (1, 1)


def test_a_reset_clears_the_counts_and_sets_the_duration_of_orders() -> None:
    """Contestants warm up with orders that are ready at once."""
    upstream = Upstream(0.0, 0.0)
    order_voice(upstream)

    ask(upstream, "GET", "/reset/60/90")

    assert upstream.report()["voices"] == 0
    assert isinstance(task_result(ask(upstream, "GET", f"/api/v1/sonic/task/{order_voice(upstream)}")), NotReady)


def test_duplicate_requests_are_counted() -> None:
    """A second order for a recording counts, and a poll for a result that was already returned."""
    upstream = Upstream(0.0, 0.0)
    task_id = order_voice(upstream)
    order_voice(upstream)
    assert upstream.report()["doubles"] == 1

    for _ in range(2):
        ask(upstream, "GET", f"/api/v1/sonic/task/{task_id}")

    assert upstream.report()["doubles"] == 2


@pytest.mark.parametrize("path", ["/api/v1/sonic/task/unknown", "/elsewhere"])
def test_an_unexpected_request_is_counted(path: str) -> None:
    """A contestant that makes one has failed."""
    upstream = Upstream(0.0, 0.0)

    ask(upstream, "GET", path)

    assert upstream.report()["strays"] == 1


def test_every_peer_has_an_app_and_exact_pins() -> None:
    """The release in the table runs, and its dependencies are pinned as well."""
    peers = {contestant.peer for contestant in CONTESTANTS if not contestant.is_ours}

    assert set(pins()) == peers
    for name, requirements in pins().items():
        assert (APPS / f"{name}_app.py").is_file()
        assert all(re.fullmatch(r"[a-z0-9-]+(\[[a-z,]+\])?==[0-9.]+", contestant) for contestant in requirements), name
        pinned = lock(name).read_text(encoding="utf-8").splitlines()
        assert all(re.fullmatch(r"[\w.-]+==[0-9.]+(post\d+)?", contestant) for contestant in pinned), name
        assert {re.sub(r"\[.*\]", "", contestant) for contestant in requirements} <= {
            contestant.lower() for contestant in pinned
        }, name


def test_a_queue_with_two_modes_runs_both() -> None:
    """They have different names and titles; the same program selects the mode by its environment."""
    names = [contestant.name for contestant in CONTESTANTS]

    assert len({*names}) == len({contestant.title for contestant in CONTESTANTS}) == len(names)
    for whole in (contestant for contestant in CONTESTANTS if contestant.is_whole):
        steps = next(contestant for contestant in CONTESTANTS if contestant.name == f"{whole.name}-steps")
        assert (steps.peer, steps.manner, steps.producer) == (whole.peer, STEPS, whole.producer)
        assert steps.env != whole.env


def test_a_queue_that_could_not_run_is_in_the_table_with_the_reason() -> None:
    """No queue is omitted."""
    ours, other = CONTESTANTS[0], CONTESTANTS[1]
    results = [
        ContestantResult(ours, rounds=[FIGURES]),
        ContestantResult(other, errors=["not installed: no such release"]),
    ]

    text = report.markdown(results, FIGURES)

    assert f"| {other.title}" in text
    assert "not installed: no such release." in text


def test_a_queue_with_fewer_jobs_in_flight_is_in_the_table_with_its_count() -> None:
    """Its memory is that of the jobs in flight."""
    ours, other = CONTESTANTS[0], CONTESTANTS[1]
    flights = [
        Flight(ours, 10_000, 20.0, idle=100_000_000, memory=180_000_000, redis=20_000_000),
        Flight(other, 9_600, 90.0, memory=96_000_000, error="400 were not in flight before the timeout"),
    ]

    text = report.flights_markdown(flights)

    assert f"| **{ours.title}** | 10,000 | 20 | 100 | 180 | 20 | 200 |" in text
    assert f"| {other.title} | 9,600 | 90 | 0 | 96 | 0 | 96 |" in text
    assert f"- {other.title}: 400 were not" in text


def test_more_jobs_may_take_longer_to_get_into_flight() -> None:
    """The timeout scales with the number of jobs and has a minimum."""
    assert [timeout_s(jobs) for jobs in (100, 10_000, 100_000)] == [9.0, 90.0, 900.0]


def test_the_plot_has_a_bar_for_each_contestant_in_each_panel() -> None:
    """And is XML that parses."""
    results = [ContestantResult(contestant, rounds=[FIGURES]) for contestant in CONTESTANTS]

    bars = ElementTree.fromstring(report.plot(results)).findall("{http://www.w3.org/2000/svg}rect")

    assert len(bars) == 1 + len(report.PLOTTED) * len(CONTESTANTS)


def test_orders_of_the_realistic_race_take_as_long_as_those_of_musicapi() -> None:
    """The medians are those of voices and songs, and two thirds of the durations are within one deviation."""
    duration_of = durations(60.0, 120.0, 0.2)

    assert [duration_of(kind, 0.5) for kind in ("voice", "song")] == pytest.approx([60.0, 120.0])
    assert duration_of("voice", 0.1587) == pytest.approx(60 * math.exp(-0.2), rel=0.001)
    assert duration_of("song", 0.8413) == pytest.approx(120 * math.exp(0.2), rel=0.001)


def test_the_realistic_race_has_a_table_for_each_rate_and_says_what_failed() -> None:
    """A contestant that failed at the second rate keeps the figures of the first."""
    ours, other = CONTESTANTS[0], CONTESTANTS[1]
    arrivals = Arrivals(12.34, 1.234, 6.5, 150_000_000, [float(late_s) for late_s in range(21)])
    results = [Realistic(ours, {2: arrivals, 10: arrivals}), Realistic(other, {2: arrivals}, "failed: too late")]

    text = report.realistic_markdown(results)

    assert text.count(f"| **{ours.title}** | 12.3 | 1.23 | 6.50 | 150 | 10.0 | 19.9 |") == 2
    assert text.count(f"| {other.title} | 12.3") == 1
    assert "| 2 jobs a second |" in text
    assert text.endswith(f"- {other.title}: failed: too late.\n")
