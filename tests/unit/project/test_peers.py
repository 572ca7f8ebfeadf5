"""The race with other queues: its upstream counts truly, its pins hold, and its table hides nobody."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.peers import report
from benchmarks.peers.contestants import APPS, CONTESTANTS, STEPS, lock, pins
from benchmarks.peers.flight import Flight, patience_s
from benchmarks.peers.race import Standing
from benchmarks.peers.upstream import Upstream
from tasks.musicapi import MusicReady, NotReady, VoiceReady
from tasks.musicapi.responses import accepted_task_id, task_result

FIGURES = {column.name: 1.0 for column in report.COLUMNS}


def ask(upstream: Upstream, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON of one answer."""
    _, payload = upstream.answer(method.encode(), path.encode(), json.dumps(body or {}).encode())
    return json.loads(payload)


def order_voice(upstream: Upstream, url: str = "https://recordings.example/1.wav") -> str:
    """Order a voice; the task's id."""
    task_id = accepted_task_id(ask(upstream, "POST", "/api/v1/sonic/create-voice", {"audio_url": url}))
    assert task_id is not None
    return task_id


def test_the_upstream_answers_as_the_contract_has_it() -> None:
    """voicequeue's own client reads a voice and a song from it."""
    upstream = Upstream(0.0, 0.0)

    voice = task_result(ask(upstream, "GET", f"/api/v1/sonic/task/{order_voice(upstream)}"))
    assert isinstance(voice, VoiceReady)
    body = {"task_type": "persona_music", "persona_id": voice.persona_id, "prompt": "la", "mv": "sonic-v5"}
    song_id = accepted_task_id(ask(upstream, "POST", "/api/v1/sonic/create", body))
    song = task_result(ask(upstream, "GET", f"/api/v1/sonic/task/{song_id}"))

    assert isinstance(song, MusicReady)
    assert len(song.clips) == 2
    found = upstream.report()
    assert [found[name] for name in ("voices", "songs", "polls", "doubles", "unseen", "strays")] == [1, 1, 2, 0, 0, 0]
    assert all(0 <= late < 1 for late in found["lateness"])


def test_an_order_is_not_ready_before_its_time() -> None:
    """Polls before are counted, and nobody has seen the result."""
    upstream = Upstream(60.0, 60.0)

    found = task_result(ask(upstream, "GET", f"/api/v1/sonic/task/{order_voice(upstream)}"))

    assert isinstance(found, NotReady)
    assert (upstream.report()["polls"], upstream.report()["unseen"]) == (1, 1)


def test_a_reset_forgets_what_was_seen_and_sets_how_long_orders_take() -> None:
    """So everybody warms up with orders that are ready at once."""
    upstream = Upstream(0.0, 0.0)
    order_voice(upstream)

    ask(upstream, "GET", "/reset/60/90")

    assert upstream.report()["voices"] == 0
    assert isinstance(task_result(ask(upstream, "GET", f"/api/v1/sonic/task/{order_voice(upstream)}")), NotReady)


def test_what_is_done_twice_is_counted() -> None:
    """A second order for one recording, and a poll for a result that was seen."""
    upstream = Upstream(0.0, 0.0)
    task_id = order_voice(upstream)
    order_voice(upstream)
    assert upstream.report()["doubles"] == 1

    for _ in range(2):
        ask(upstream, "GET", f"/api/v1/sonic/task/{task_id}")

    assert upstream.report()["doubles"] == 2


@pytest.mark.parametrize("path", ["/api/v1/sonic/task/unknown", "/elsewhere"])
def test_a_call_that_nobody_should_make_is_counted(path: str) -> None:
    """A contestant that makes one has failed."""
    upstream = Upstream(0.0, 0.0)

    ask(upstream, "GET", path)

    assert upstream.report()["strays"] == 1


def test_every_peer_has_an_app_and_exact_pins() -> None:
    """What runs is what the table says, and so is what it requires in turn."""
    peers = {each.peer for each in CONTESTANTS if not each.is_ours}

    assert set(pins()) == peers
    for name, requirements in pins().items():
        assert (APPS / f"{name}_app.py").is_file()
        assert all(re.fullmatch(r"[a-z0-9-]+(\[[a-z,]+\])?==[0-9.]+", each) for each in requirements), name
        locked = lock(name).read_text(encoding="utf-8").splitlines()
        assert all(re.fullmatch(r"[\w.-]+==[0-9.]+(post\d+)?", each) for each in locked), name
        assert {re.sub(r"\[.*\]", "", each) for each in requirements} <= {each.lower() for each in locked}, name


def test_a_peer_that_has_two_ways_runs_both() -> None:
    """Under names of their own, which the table tells apart too; the same program picks by its environment."""
    names = [each.name for each in CONTESTANTS]

    assert len({*names}) == len({each.title for each in CONTESTANTS}) == len(names)
    for whole in (each for each in CONTESTANTS if each.is_whole):
        steps = next(each for each in CONTESTANTS if each.name == f"{whole.name}-steps")
        assert (steps.peer, steps.manner, steps.producer) == (whole.peer, STEPS, whole.producer)
        assert steps.env != whole.env


def test_who_could_not_run_stands_in_the_table_with_the_reason() -> None:
    """Never silently left out."""
    ours, other = CONTESTANTS[0], CONTESTANTS[1]
    standings = [Standing(ours, rounds=[FIGURES]), Standing(other, troubles=["not installed: no such release"])]

    found = report.markdown(standings, FIGURES)

    assert f"| {other.title}" in found
    assert "not installed: no such release." in found


def test_who_did_not_get_all_jobs_into_flight_stands_in_the_table_with_what_it_got() -> None:
    """Memory is that of those it got."""
    ours, other = CONTESTANTS[0], CONTESTANTS[1]
    flights = [
        Flight(ours, 10_000, 20.0, idle=100_000_000, memory=180_000_000, redis=20_000_000),
        Flight(other, 9_600, 90.0, memory=96_000_000, trouble="400 were not in flight when its time was over"),
    ]

    found = report.flights_markdown(flights)

    assert f"| **{ours.title}** | 10,000 | 20 | 100 | 180 | 20 | 200 |" in found
    assert f"| {other.title} | 9,600 | 90 | 0 | 96 | 0 | 96 |" in found
    assert f"- {other.title}: 400 were not" in found


def test_more_jobs_may_take_longer_to_get_into_flight() -> None:
    """In proportion, with some seconds for few."""
    assert [patience_s(jobs) for jobs in (100, 10_000, 100_000)] == [9.0, 90.0, 900.0]


def test_the_plot_has_a_bar_for_each_contestant_in_each_panel() -> None:
    """And is XML that parses."""
    standings = [Standing(each, rounds=[FIGURES]) for each in CONTESTANTS]

    bars = ElementTree.fromstring(report.plot(standings)).findall("{http://www.w3.org/2000/svg}rect")

    assert len(bars) == 1 + len(report.PLOTTED) * len(CONTESTANTS)
