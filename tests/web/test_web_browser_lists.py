"""Lists in a real browser: times in the viewer's time zone, and rows and the summary on a phone."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from playwright.sync_api import expect

from tests.store.life import NOW, enqueue_jobs, fail_job, job_in_state
from tests.support.jobs import voice, voice_with_song
from tests.web.browsing import Window
from tests.web.conftest import Gateway
from voicequeue import FailureCode, State
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.endurance

PHONE = {"width": 390, "height": 844}


def test_times_are_in_the_time_zone_of_the_viewer(local: Gateway, store: JobStore, window: Window) -> None:
    """UTC is the tooltip; without JavaScript it is the text. Updates of the page keep it so."""
    job = fail_job(store, job_in_state(store, State.PENDING), FailureCode.REFUSED)
    page = window(local.link(f"/job/{job.id}"), timezone_id="America/New_York")
    created = page.locator("dd time").first

    expect(created).to_have_text("2025-10-09 04:53:20")
    expect(created).to_have_attribute("title", "2025-10-09 08:53:20 UTC")
    expect(page.locator("footer")).to_contain_text("Times in America/New_York")
    page.goto(local.url + "/")
    expect(page.locator("tbody time").first).to_have_attribute("title", "2025-10-09 04:53:20 (2025-10-09 08:53:20 UTC)")
    enqueue_jobs(store, voice(key="new"), now=time.time())  # a transition, which updates the page
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.locator("tbody time").last).to_have_attribute("title", "2025-10-09 04:53:20 (2025-10-09 08:53:20 UTC)")

    plain = window(local.link(f"/job/{job.id}"), java_script_enabled=False, timezone_id="America/New_York")
    expect(plain.locator("dd time").first).to_have_text("2025-10-09 08:53:20 UTC")
    expect(plain.locator("footer")).to_contain_text("Times in UTC")


def test_a_phone_shows_the_summary_in_one_line_that_unfolds(local: Gateway, store: JobStore, window: Window) -> None:
    """It stays as it is while the page is updated."""
    fail_job(store, job_in_state(store, State.PENDING, voice(key="a")), FailureCode.REFUSED)
    page = window(local.link(), viewport=PHONE)
    line, tiles = page.locator("#summary-fold summary"), page.locator(".summary")

    expect(line).to_have_text("0 queued 0 in flight 1 failed")
    assert line.evaluate("line => line.getBoundingClientRect().height") < 30
    expect(tiles).to_be_hidden()
    line.click()
    expect(tiles).to_be_visible()
    enqueue_jobs(store, voice(key="b"))
    expect(line).to_contain_text("1 queued")
    expect(tiles).to_be_visible()


def test_a_phone_shows_the_name_and_the_state_of_a_job_first(local: Gateway, store: JobStore, window: Window) -> None:
    """Side by side; the rest is below, with labels."""
    job_in_state(store, State.PENDING, voice_with_song(name="Ana Kowalska", batch="spring"), NOW)
    page = window(local.link(), viewport=PHONE)

    # At once: an update of the page replaces the row.
    name, state, batch = page.locator("tbody tr").evaluate(
        "row => ['a.row b', '.state', '[data-label=Batch]'].map("
        "(part) => row.querySelector(part).getBoundingClientRect().toJSON())"
    )
    assert name["right"] <= state["left"]
    assert state["right"] <= PHONE["width"]
    assert abs(name["top"] - state["top"]) < 10
    assert batch["top"] >= name["bottom"]
    label = page.locator("[data-label=Batch]").evaluate("it => getComputedStyle(it, '::before').content")
    assert label == '"Batch "'


def test_the_labels_of_charts_are_legible_on_a_phone(local: Gateway, store: JobStore, window: Window) -> None:
    """They are as large as elsewhere, and do not overlap."""
    job_in_state(store, State.SUCCEEDED, now=time.time() - 60)
    page = window(local.link("/trends"), viewport=PHONE)
    ticks = page.locator(".picture").first.locator(".ticks span:visible")

    expect(ticks).to_have_count(3)
    edges = [
        tick.evaluate("it => { const b = it.querySelector('time').getBoundingClientRect(); return [b.left, b.right] }")
        for tick in ticks.all()
    ]
    assert all(one[1] < following[0] for one, following in pairwise(edges))
    assert float(ticks.first.evaluate("it => parseFloat(getComputedStyle(it).fontSize)")) >= 12


def test_a_phone_shows_where_the_user_is_in_the_navigation(local: Gateway, window: Window) -> None:
    """It scrolls sideways; the name of the page and logging out share a line."""
    page = window(local.link("/keys"), viewport=PHONE)

    current, mark, log_out = (
        page.locator(part).evaluate("it => it.getBoundingClientRect().toJSON()")
        for part in ("header nav [aria-current]", ".mark", "form[action='/logout'] button")
    )
    assert current["left"] >= 0
    assert current["right"] <= PHONE["width"]
    assert abs(mark["top"] - log_out["top"]) < 10
