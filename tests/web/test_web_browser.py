"""The job page in a real browser, with and without JavaScript."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import eventually
from tests.security.surface import site
from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    claim_admitted,
    enqueue_jobs,
    fail_job,
    get_job,
    job_in_state,
    job_with_song,
)
from tests.store.outbox.callback_steps import claim_due
from tests.support.jobs import voice_with_song
from tests.web.browsing import Window, violations
from tests.web.conftest import KEYS, Build, Gateway
from voicequeue import Clip, FailureCode, Song, Stage, State
from voicequeue.domain import serialization
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.samples import SAMPLED_STATES, Sample
from voicequeue.storage.rejected_messages import RejectedMessage

EVIL = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>"


def _operate(store: JobStore) -> None:
    """Give the pages for operators something to show."""
    for claim in claim_due(store.callbacks):
        store.callbacks.mark_undelivered(claim.id, NOW, "410 Gone", is_attempted=True)
    store.rejected_messages.add(RejectedMessage(NOW, "m-1", "voicequeue.enqueue", "no audio_url", {"key": "x" * 300}))
    now = store.clock()
    for age in (0.0, 100.0):
        facts = {"host": "worker-7.internal.example", "pid": 7, "version": "1.2.3", "load": 0.5, "cpus": 8}
        store.heartbeats["worker"].record(f"worker-{age:.0f}", now - age, facts)
    for age in (120, 60, 0):
        store.samples.record(Sample(now - age, dict.fromkeys(SAMPLED_STATES, age), 3, 20, 1_000 - age, 5_000))


@pytest.fixture
def everything(store: JobStore) -> dict[str, str]:
    """Create a job of each kind and return the paths of all pages."""
    songs = (Clip("c-1", "succeeded", "First, take", "https://cdn.example/1.mp3", None, 61.5),)
    done = job_with_song(store, songs, batch="spring", name="Ana", metadata={"order": "4711"})
    broken = fail_job(
        store, job_in_state(store, State.PENDING, voice_with_song(batch="spring", key="b")), FailureCode.UPSTREAM_FAILED
    )
    late = fail_job(
        store, job_in_state(store, State.PENDING, voice_with_song(batch="spring", key="l")), FailureCode.DEADLINE
    )
    callback = job_in_state(store, State.SUCCEEDED, voice_with_song(key="t", callback_url="https://hooks.example/told"))
    unsure = job_in_state(store, State.UNSURE, voice_with_song(batch="summer", key="u"))
    store.flow_control.pause(NOW, reason="a look at the songs")
    _operate(store)
    return {
        "jobs": "/",
        "failed": "/?state=failed",
        "batch": "/?batch=spring",
        "search": "/?q=order%3D4711",
        "done": f"/job/{done.id}",
        "broken": f"/job/{broken.id}",
        "callback": f"/job/{callback.id}",
        "retry": f"/job/{late.id}/retry",
        "review": f"/job/{unsure.id}/review",
        "batches": "/batches",
        "trends": "/trends",
        "controls": "/controls",
        "audit log": "/audit-log",
        "spending": "/spend",
        "workers": "/workers",
        "voices": "/voices",
        "callbacks": "/callbacks",
        "rejected": "/rejected-messages",
    }


def rows(page: Page) -> list[str]:
    """Return the ids of the listed jobs."""
    return page.locator("tbody a.row code").all_inner_texts()


# ── reading ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.endurance
def test_a_filter_is_part_of_the_url_and_can_be_shared(local: Gateway, store: JobStore, window: Window) -> None:
    """The URL shows the same jobs in another browser."""
    job = fail_job(
        store, job_in_state(store, State.PENDING, voice_with_song(key="a", batch="spring")), FailureCode.UPSTREAM_FAILED
    )
    fail_job(store, job_in_state(store, State.CHARGING, voice_with_song(key="b", batch="spring")), FailureCode.REFUSED)
    enqueue_jobs(store, voice_with_song(key="c", batch="spring"))
    page = window(local.link())

    page.get_by_role("link", name="spring").first.click()
    page.get_by_role("link", name="failed").click()
    page.get_by_role("link", name="upstream_failed").click()
    assert rows(page) == [job.id]

    assert rows(window(local.link(page.url.removeprefix(local.url)))) == [job.id]


@pytest.mark.endurance
def test_a_search_continues_until_a_job_matches(
    local: Gateway, store: JobStore, window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request reads a limited number of jobs."""
    monkeypatch.setattr("voicequeue.client.search.EXAMINED_MAX", 2)
    monkeypatch.setattr("voicequeue.client.search.CHUNK", 2)
    job = job_with_song(store, metadata={"order": "4711"})
    enqueue_jobs(store, *(voice_with_song(key=f"other-{n}") for n in range(5)))
    page = window(local.link())

    page.keyboard.press("/")
    page.keyboard.type("order=4711")
    page.keyboard.press("Enter")

    expect(page.locator("tbody tr")).to_have_count(1)
    assert rows(page) == [job.id]


@pytest.mark.endurance
def test_songs_that_arrive_while_the_page_is_open_are_loaded(local: Gateway, store: JobStore, window: Window) -> None:
    """Their host was unknown when the page was loaded."""
    requested: list[tuple[str, str]] = []
    with site(log=requested) as media_url:
        cover = f"{media_url.replace('127.0.0.1', 'localhost')}/cover"
        voice = job_in_state(store, State.PENDING, voice_with_song())
        job = apply_transition(store, voice, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p-1"})
        claim_admitted(store, job.id)
        page = window(local.link(f"/job/{job.id}"))
        expect(page.get_by_role("heading", name=job.id)).to_be_visible()

        clips = serialization.clips_text((Clip("c-1", "succeeded", "First, take", None, cover),))
        apply_transition(store, accept_order(store, job.id), State.SUCCEEDED, NOW + 60, fields={"clips": clips})

        eventually(lambda: "/cover" in {path for path, _ in requested})


@pytest.mark.endurance
def test_rows_are_reached_with_the_keyboard(local: Gateway, store: JobStore, window: Window) -> None:
    """Keys move down and up, open a row, and show the list of shortcuts."""
    enqueue_jobs(store, *(voice_with_song(key=f"k{n}") for n in range(3)))
    page = window(local.link())
    ids = rows(page)

    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Next row")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    for key in "jjjjk":
        page.keyboard.press(key)
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name=ids[1])).to_be_visible()


@pytest.mark.endurance
def test_every_page_works_without_javascript(
    local: Gateway, store: JobStore, everything: dict[str, str], window: Window
) -> None:
    """Pages are complete as served, and forms work."""
    page = window(local.link(), java_script_enabled=False)
    for path in everything.values():
        page.goto(local.url + path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()

    page.goto(local.url + everything["controls"])
    page.get_by_role("button", name="Resume").click()

    expect(page.get_by_role("status")).to_have_text("The queue is resumed.")
    assert store.flow_control.gate(NOW).is_open


@pytest.mark.endurance
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360)])
def test_every_page_is_accessible_and_fits(
    local: Gateway, everything: dict[str, str], window: Window, scheme: str, width: int
) -> None:
    """axe finds nothing: contrast, names, landmarks, order, keyboard. No page scrolls sideways."""
    page = window(local.link(), color_scheme=scheme, viewport={"width": width, "height": 740})
    for path in everything.values():
        page.goto(local.url + path)
        assert violations(page) == {}, path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        tables = page.locator(".scroll:has(.cards)").all()
        assert [table.evaluate("it => it.scrollWidth - it.clientWidth") for table in tables] == [0] * len(tables), path


@pytest.mark.endurance
def test_text_from_others_never_runs(local: Gateway, store: JobStore, window: Window) -> None:
    """This covers every text field, filled in by callers, operators or MusicAPI."""
    spec = voice_with_song(
        key=EVIL, name=EVIL[:60], metadata={EVIL: EVIL}, song=Song(title=EVIL[:80], tags=EVIL, prompt=EVIL)
    )
    job = fail_job(store, job_in_state(store, State.PENDING, spec), FailureCode.UPSTREAM_FAILED)
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
    store.flow_control.pause(NOW, reason=EVIL)
    page = window(local.link())

    for path in ("/", f"/job/{job.id}", f"/job/{job.id}/retry", "/controls", "/trends", "/?q=x"):
        page.goto(local.url + path)
        page.wait_for_load_state("networkidle" if path == "/trends" else "load")
        assert page.locator("main img, main script").count() == 0
    page.get_by_role("searchbox").fill(EVIL)
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("onerror")


# ── changing ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_failed_job_is_found_and_retried(local: Gateway, store: JobStore, window: Window) -> None:
    """The way leads from the list to its page, to the cost, and back."""
    job = fail_job(
        store, job_in_state(store, State.PENDING, voice_with_song(batch="spring")), FailureCode.UPSTREAM_FAILED
    )
    page = window(local.link())

    page.get_by_role("link", name="failed").click()
    page.get_by_role("link", name=job.id).click()
    expect(page.get_by_text("in the voice stage")).to_be_visible()
    page.get_by_role("link", name="Retry…").click()
    expect(page.get_by_text("charged again: 4 credits")).to_be_visible()
    page.get_by_role("button", name="Retry for up to 19 credits").click()

    expect(page.get_by_role("status")).to_have_text("The job is now pending.")
    assert get_job(store, job.id).state is State.PENDING


@pytest.mark.endurance
def test_many_jobs_are_retried_after_confirmation(local: Gateway, store: JobStore, window: Window) -> None:
    """The jobs of the current filter are retried."""
    for number in range(3):
        fail_job(
            store,
            job_in_state(store, State.CHARGING, voice_with_song(key=f"f{number}", batch="spring")),
            FailureCode.REFUSED,
        )
    page = window(local.link("/?batch=spring&state=failed"))

    page.get_by_role("button", name="Retry failed…").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Retry 3 jobs?")
    page.get_by_role("button", name="Retry 3 jobs for up to 57 credits").click()

    expect(page.get_by_role("status")).to_have_text("Retried 3 of 3 jobs.")
    assert store.counts_by_state("spring")[State.QUEUED] == 3


@pytest.mark.endurance
def test_an_unsure_job_continues_with_its_task_id(local: Gateway, store: JobStore, window: Window) -> None:
    """It is not charged again."""
    job = job_in_state(store, State.UNSURE)
    page = window(local.link("/?state=unsure"))

    page.get_by_role("link", name=job.id).click()
    page.get_by_role("link", name="Review…").click()
    page.get_by_label("MusicAPI task id").fill("t-17")
    page.get_by_role("button", name="Confirm charge and continue").click()

    expect(page.get_by_role("status")).to_have_text("The job is now pending.")
    assert get_job(store, job.id).task_ids[job.stage] == "t-17"


@pytest.mark.endurance
def test_a_pause_is_shown_on_all_open_pages(local: Gateway, store: JobStore, window: Window) -> None:
    """So is resuming. Unsaved input stays."""
    enqueue_jobs(store, voice_with_song(key="a"))
    page, other, writer = window(local.link("/controls")), window(local.link()), window(local.link("/controls"))
    other.evaluate("window.isTheSame = true")
    writer.get_by_label("Max. in flight").fill("77")
    gate = other.locator(".summary div").filter(has_text="Gate")

    page.get_by_label("Reason").first.fill("a look at the songs")
    page.get_by_role("button", name="Pause").first.click()
    expect(page.get_by_role("status")).to_have_text("The queue is paused.")
    enqueue_jobs(store, voice_with_song(key="b"))  # a transition, which reloads the page
    expect(gate).to_contain_text("Closed")
    expect(other.get_by_text("a look at the songs")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    enqueue_jobs(store, voice_with_song(key="c"))
    expect(gate).to_contain_text("Open")

    assert other.evaluate("window.isTheSame")
    expect(writer.get_by_label("Max. in flight")).to_have_value("77")


# ── access ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.endurance
def test_a_key_with_only_read_is_offered_no_changes(
    build_gateway: Build, store: JobStore, window: Window, browser: Browser
) -> None:
    """The login redirects to the requested page, which has no buttons for changes."""
    gateway = build_gateway()
    job = fail_job(store, job_in_state(store, State.PENDING), FailureCode.UPSTREAM_FAILED)
    page = window(f"{gateway.url}/job/{job.id}")

    page.get_by_label("API key").fill(KEYS["read"][0])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name=job.id)).to_be_visible()
    expect(page.get_by_role("link", name="Retry…")).to_have_count(0)
    page.get_by_role("link", name="Controls").click()
    expect(page.get_by_text("needs the scope operate")).to_be_visible()
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    page.get_by_role("button", name="Log out read").click()

    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.goto(f"{gateway.url}/")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_a_key_with_operate_retries_a_job_after_login(build_gateway: Build, store: JobStore, window: Window) -> None:
    """The login redirects to the confirmation."""
    gateway = build_gateway()
    job = fail_job(store, job_in_state(store, State.PENDING), FailureCode.UPSTREAM_FAILED)
    page = window(f"{gateway.url}/job/{job.id}/retry")

    page.get_by_label("API key").fill(KEYS["all"][0])
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Retry for").click()

    expect(page.get_by_role("status")).to_have_text("The job is now pending.")
    assert get_job(store, job.id).state is State.PENDING
