"""The job page in a real browser: what one sees, clicks and types, with and without JavaScript."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.conftest import eventually
from tests.node import MISSING, MODULES
from tests.security.surface import site
from tests.store.life import NOW, accepted, brought_to, charging, failed, make, one, put, song_of
from tests.support.jobs import sung
from tests.web.conftest import KEYS, Build, Gateway
from voicequeue import Clip, Code, Song, Stage, State
from voicequeue.domain import serialization
from voicequeue.storage.job_store import Store

EVIL = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>"

#: A browser's window; what goes wrong in it fails the test.
Window = Callable[..., Page]


@pytest.fixture
def window(browser: Browser) -> Iterator[Window]:
    """Opens windows, each with cookies of its own."""
    contexts: list[BrowserContext] = []
    troubles: list[str] = []

    def opened(url: str, **options: Any) -> Page:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture
def everything(store: Store) -> dict[str, str]:
    """A job of each kind; the paths of all pages there are."""
    songs = (Clip("c-1", "succeeded", "First, take", "https://cdn.example/1.mp3", None, 61.5),)
    done = song_of(store, songs, batch="spring", name="Ana", metadata={"order": "4711"})
    broken = failed(store, brought_to(store, State.PENDING, sung(batch="spring", key="b")), Code.UPSTREAM_FAILED)
    late = failed(store, brought_to(store, State.PENDING, sung(batch="spring", key="l")), Code.DEADLINE)
    told = brought_to(store, State.SUCCEEDED, sung(key="t", callback_url="https://hooks.example/told"))
    unsure = brought_to(store, State.UNSURE, sung(batch="summer", key="u"))
    store.controls.pause(NOW, by="a look at the songs")
    return {
        "jobs": "/",
        "failed": "/?state=failed",
        "batch": "/?batch=spring",
        "search": "/?q=order%3D4711",
        "done": f"/job/{done.id}",
        "broken": f"/job/{broken.id}",
        "told": f"/job/{told.id}",
        "retry": f"/job/{late.id}/retry",
        "review": f"/job/{unsure.id}/review",
        "batches": "/batches",
        "trend": "/trend",
        "controls": "/controls",
    }


def rows(page: Page) -> list[str]:
    """The ids of the jobs that are shown."""
    return page.locator("tbody tr td:first-child a").all_inner_texts()


# ── reading ───────────────────────────────────────────────────────────────────────────────────────


def test_a_filter_stands_in_the_address_and_can_be_sent_to_somebody(
    local: Gateway, store: Store, window: Window
) -> None:
    """Who opens it sees the same."""
    job = failed(store, brought_to(store, State.PENDING, sung(key="a", batch="spring")), Code.UPSTREAM_FAILED)
    failed(store, brought_to(store, State.CHARGING, sung(key="b", batch="spring")), Code.REFUSED)
    put(store, sung(key="c", batch="spring"))
    page = window(local.link())

    page.get_by_role("link", name="spring").first.click()
    page.get_by_role("link", name="failed").click()
    page.get_by_role("link", name="upstream_failed").click()
    assert rows(page) == [job.id]

    assert rows(window(local.link(page.url.removeprefix(local.url)))) == [job.id]


def test_a_search_goes_on_by_itself_until_something_is_found(
    local: Gateway, store: Store, window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at so many jobs at once."""
    monkeypatch.setattr("voicequeue.client.search.LOOKED_AT", 2)
    monkeypatch.setattr("voicequeue.client.search.CHUNK", 2)
    job = song_of(store, metadata={"order": "4711"})
    put(store, *(sung(key=f"other-{n}") for n in range(5)))
    page = window(local.link())

    page.keyboard.press("/")
    page.keyboard.type("order=4711")
    page.keyboard.press("Enter")

    expect(page.locator("tbody tr")).to_have_count(1)
    assert rows(page) == [job.id]


def test_songs_that_come_while_one_looks_on_are_loaded(local: Gateway, store: Store, window: Window) -> None:
    """From a host that was not known when the page was loaded."""
    asked: list[tuple[str, str]] = []
    with site(asked=asked) as found:
        cover = f"{found.replace('127.0.0.1', 'localhost')}/cover"
        voice = brought_to(store, State.PENDING, sung())
        job = make(store, voice, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p-1"})
        charging(store, job.id)
        page = window(local.link(f"/job/{job.id}"))
        expect(page.get_by_role("heading", name=job.id)).to_be_visible()

        clips = serialization.clips_text((Clip("c-1", "succeeded", "First, take", None, cover),))
        make(store, accepted(store, job.id), State.SUCCEEDED, NOW + 60, fields={"clips": clips})

        eventually(lambda: "/cover" in {path for path, _ in asked})


def test_keys_lead_through_the_rows(local: Gateway, store: Store, window: Window) -> None:
    """Down, up, into one; and tell which there are."""
    put(store, *(sung(key=f"k{n}") for n in range(3)))
    page = window(local.link())
    ids = rows(page)

    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("next row")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    for key in "jjjjk":
        page.keyboard.press(key)
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name=ids[1])).to_be_visible()


def test_all_of_it_can_be_read_and_done_without_javascript(
    local: Gateway, store: Store, everything: dict[str, str], window: Window
) -> None:
    """Every page is whole when it comes."""
    page = window(local.link(), java_script_enabled=False)
    for path in everything.values():
        page.goto(local.url + path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()

    page.goto(local.url + everything["controls"])
    page.get_by_role("button", name="Resume").click()

    expect(page.get_by_role("status")).to_have_text("Everything goes on.")
    assert store.controls.gate(NOW).open


def test_no_page_is_wider_than_a_phone(local: Gateway, everything: dict[str, str], window: Window) -> None:
    """What is wider (a table) scrolls in itself."""
    page = window(local.link(), viewport={"width": 360, "height": 740})

    for path in everything.values():
        page.goto(local.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible(local: Gateway, everything: dict[str, str], window: Window, scheme: str) -> None:
    """axe finds nothing serious: contrast, names, order, keyboard."""
    script = MODULES / "axe-core" / "axe.min.js"
    if not script.is_file():
        pytest.fail(MISSING)
    page = window(local.link(), color_scheme=scheme)
    found = {}
    for path in everything.values():
        page.goto(local.url + path)
        page.evaluate(script.read_text(encoding="utf-8"))
        for violation in page.evaluate("axe.run().then((told) => told.violations)"):
            if violation["impact"] in ("serious", "critical"):
                found[path, violation["id"]] = [node["html"] for node in violation["nodes"]]

    assert found == {}


def test_nothing_that_somebody_wrote_runs(local: Gateway, store: Store, window: Window) -> None:
    """In every field that takes text, by whoever filled it in: callers, operators, upstream."""
    spec = sung(key=EVIL, name=EVIL[:60], metadata={EVIL: EVIL}, song=Song(title=EVIL[:80], tags=EVIL, prompt=EVIL))
    job = failed(store, brought_to(store, State.PENDING, spec), Code.UPSTREAM_FAILED)
    failure = json.dumps({"code": "upstream_failed", "stage": "voice", "message": EVIL})
    clips = json.dumps([{"clip_id": EVIL, "state": EVIL, "title": EVIL, "audio_url": "javascript:alert(3)"}])
    record: dict[Any, Any] = {
        "failure": failure,
        "clips": clips,
        "persona_id": EVIL,
        "voice_name": EVIL,
        "voice.task": EVIL,
    }
    store._space.redis.hset(store._space.key(f"job:{job.id}"), mapping=record)
    store.controls.pause(NOW, by=EVIL)
    page = window(local.link())

    for path in ("/", f"/job/{job.id}", f"/job/{job.id}/retry", "/controls", "/trend", "/?q=x"):
        page.goto(local.url + path)
        page.wait_for_load_state("networkidle" if path == "/trend" else "load")
        assert page.locator("main img, main script").count() == 0
    page.get_by_role("searchbox").fill(EVIL)
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("onerror")


# ── doing ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_failed_job_is_found_understood_and_retried(local: Gateway, store: Store, window: Window) -> None:
    """From the list to its page, to what it costs, and back."""
    job = failed(store, brought_to(store, State.PENDING, sung(batch="spring")), Code.UPSTREAM_FAILED)
    page = window(local.link())

    page.get_by_role("link", name="failed").click()
    page.get_by_role("link", name=job.id).click()
    expect(page.get_by_text("in the voice stage")).to_be_visible()
    page.get_by_role("link", name="Retry…").click()
    expect(page.get_by_text("charged again: 4 credits")).to_be_visible()
    page.get_by_role("button", name="Retry, for up to 19 credits").click()

    expect(page.get_by_role("status")).to_have_text("The job is pending now.")
    assert one(store, job.id).state is State.PENDING


def test_many_are_retried_after_it_was_told_how_many(local: Gateway, store: Store, window: Window) -> None:
    """By the filter that is shown."""
    for number in range(3):
        failed(store, brought_to(store, State.CHARGING, sung(key=f"f{number}", batch="spring")), Code.REFUSED)
    page = window(local.link("/?batch=spring&state=failed"))

    page.get_by_role("button", name="Retry those that failed…").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Retry 3 jobs?")
    page.get_by_role("button", name="Retry 3 jobs, for up to 57 credits").click()

    expect(page.get_by_role("status")).to_have_text("3 of 3 jobs are retried.")
    assert store.counts("spring")[State.QUEUED] == 3


def test_an_unsure_job_is_reviewed_by_somebody_who_knows(local: Gateway, store: Store, window: Window) -> None:
    """With upstream's task id it goes on without paying."""
    job = brought_to(store, State.UNSURE)
    page = window(local.link("/?state=unsure"))

    page.get_by_role("link", name=job.id).click()
    page.get_by_role("link", name="Review…").click()
    page.get_by_label("MusicAPI's task id").fill("t-17")
    page.get_by_role("button", name="Take the task up").click()

    expect(page.get_by_role("status")).to_have_text("The job is pending now.")
    assert one(store, job.id).task_ids[job.stage] == "t-17"


def test_a_pause_is_seen_by_everybody_at_once(local: Gateway, store: Store, window: Window) -> None:
    """And so is that it goes on; what one is about to write stays."""
    put(store, sung(key="a"))
    page, other, writer = window(local.link("/controls")), window(local.link()), window(local.link("/controls"))
    other.evaluate("window.isTheSame = true")
    writer.get_by_label("In flight, at most").fill("77")
    gate = other.locator(".summary div").filter(has_text="gate")

    page.get_by_label("Why").first.fill("a look at the songs")
    page.get_by_role("button", name="Pause").first.click()
    expect(page.get_by_role("status")).to_have_text("Everything is paused.")
    put(store, sung(key="b"))  # a move; the page looks then
    expect(gate).to_contain_text("closed")
    expect(other.get_by_text("a look at the songs")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    put(store, sung(key="c"))
    expect(gate).to_contain_text("open")

    assert other.evaluate("window.isTheSame")
    expect(writer.get_by_label("In flight, at most")).to_have_value("77")


# ── who ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_login_leads_to_where_one_wanted_to_go_and_a_key_that_reads_changes_nothing(
    build_gateway: Build, store: Store, window: Window, browser: Browser
) -> None:
    """No button is there for it, and what is sent all the same is refused."""
    gateway = build_gateway()
    job = failed(store, brought_to(store, State.PENDING), Code.UPSTREAM_FAILED)
    page = window(f"{gateway.url}/job/{job.id}")

    page.get_by_label("API key").fill(KEYS["read"][0])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name=job.id)).to_be_visible()
    expect(page.get_by_role("link", name="Retry…")).to_have_count(0)
    page.get_by_role("link", name="Controls").click()
    expect(page.get_by_text("needs one with the scope operate")).to_be_visible()
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    page.get_by_role("button", name="Log out read").click()

    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.goto(f"{gateway.url}/")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_somebody_who_may_operate_does_it_with_a_login(build_gateway: Build, store: Store, window: Window) -> None:
    """The form knows whose it is."""
    gateway = build_gateway()
    job = failed(store, brought_to(store, State.PENDING), Code.UPSTREAM_FAILED)
    page = window(f"{gateway.url}/job/{job.id}/retry")

    page.get_by_label("API key").fill(KEYS["all"][0])
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Retry, for").click()

    expect(page.get_by_role("status")).to_have_text("The job is pending now.")
    assert one(store, job.id).state is State.PENDING
