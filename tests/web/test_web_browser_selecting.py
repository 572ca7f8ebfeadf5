"""Selecting rows, corrected forms and links from other sites, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.security.surface import site
from tests.store.life import enqueue_jobs, get_job
from tests.support.jobs import voice_with_song
from tests.web.browsing import Window
from tests.web.conftest import Gateway
from voicequeue import State
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.endurance


def test_selected_rows_are_counted_and_survive_changes(local: Gateway, store: JobStore, window: Window) -> None:
    """One box selects all; a change of the queue does not replace a selection; without one it does."""
    first, second = enqueue_jobs(store, voice_with_song(key="a"), voice_with_song(key="b"))
    page = window(local.link())
    boxes = page.locator("td.box input")
    everything = page.get_by_label("Select all on this page")

    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.get_by_role("button", name="Cancel 1 selected…")).to_be_visible()
    assert everything.evaluate("box => box.indeterminate")
    everything.check()
    expect(page.get_by_role("button", name="Cancel 2 selected…")).to_be_visible()
    enqueue_jobs(store, voice_with_song(key="c"))
    page.wait_for_timeout(2_500)
    expect(boxes).to_have_count(2)
    everything.uncheck()
    expect(boxes).to_have_count(3)
    expect(everything).to_be_visible()

    page.locator(f"input[name=select-{first}]").check()
    page.get_by_role("button", name="Cancel 1 selected…").click()
    page.get_by_role("button", name="Cancel 1 job").click()

    expect(page.get_by_role("status")).to_have_text("Cancelled 1 of 1 job.")
    assert [get_job(store, job).state for job in (first, second)] == [State.CANCELLED, State.QUEUED]


def test_the_first_wrong_field_has_the_focus(local: Gateway, browser: Browser) -> None:
    """With its error as its description, and what was entered."""
    page = browser.new_page()
    page.goto(local.link("/controls"))
    page.get_by_label("Minimum balance").fill("few")
    page.get_by_label("Orders per minute").fill("12")
    page.get_by_role("button", name="Save limits").click()

    field = page.get_by_label("Minimum balance")
    expect(field).to_be_focused()
    expect(field).to_have_value("few")
    expect(field).to_have_accessible_description("must be a number")
    expect(page.get_by_label("Orders per minute")).to_have_value("12")
    page.close()


def test_a_link_on_another_site_opens_the_page_within_the_login(local: Gateway, window: Window) -> None:
    """The browser sends no cookie with that request."""
    page = window(local.link())
    with site(f'<a href="{local.url}/batches">the batches</a>') as url:
        page.goto(url.replace("127.0.0.1", "localhost"))

        page.get_by_role("link", name="the batches").click()

        expect(page.get_by_role("heading", name="Batches", exact=True)).to_be_visible()
