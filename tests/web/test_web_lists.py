"""Lists and the summary of the job page: order, failures, the gate, the current page, and empty lists."""

from __future__ import annotations

import json

import pytest

from tests.store.life import NOW, claim_admitted, enqueue_jobs, fail_job, job_in_state, refuse_order
from tests.support.jobs import voice, voice_with_song
from tests.web.conftest import Gateway
from tests.web.seen import PageUser, ParsedPage, get_page
from voicequeue import FailureCode, State, VoiceQueue
from voicequeue.client.queue import in_namespace
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway


def job_links(page: ParsedPage) -> list[str]:
    """Return the ids of the listed jobs."""
    return [str(attrs["href"]).split("?")[0][5:] for tag, attrs in page.elements if attrs.get("class") == "row"]


def sorted_header(page: ParsedPage) -> list[str | None]:
    """Return the directions of the headers that sort."""
    return [attrs["aria-sort"] for tag, attrs in page.elements if tag == "th" and "aria-sort" in attrs]


def test_the_newest_jobs_come_first_and_the_header_reverses_the_order(local: Gateway, store: JobStore) -> None:
    """All states are merged; filters are kept."""
    [first] = enqueue_jobs(store, voice(key="1", batch="spring"), now=NOW)
    second = job_in_state(store, State.CANCELLED, voice(key="2", batch="spring"), NOW + 10).id
    [third] = enqueue_jobs(store, voice(key="3"), now=NOW + 20)

    page = get_page(local, "/")
    assert (job_links(page), sorted_header(page)) == ([third, second, first], ["descending"])
    reverse = get_page(local, "/" + next(link for link in page.links() if "sort=" in link))
    assert (job_links(reverse), sorted_header(reverse)) == ([first, second, third], ["ascending"])
    queued = next(link for link in reverse.links() if "state=queued" in link)
    assert job_links(get_page(local, f"/{queued}")) == [first, third]

    batch = get_page(local, "/?batch=spring")
    assert job_links(batch) == [second, first]
    [link] = [link for link in batch.links() if "sort=" in link]
    assert link == "?batch=spring&sort=created"
    assert job_links(get_page(local, f"/{link}")) == [first, second]
    assert job_links(get_page(local, "/?batch=spring&sort=-changed")) == [second, first]  # not an order of this list


def test_the_order_stays_in_the_namespace_of_the_page(gateway: Gateway, queue: VoiceQueue) -> None:
    """So do the pages that follow."""
    shop = in_namespace(queue, "shop")
    ids = [shop.enqueue(voice(key=str(number))).id for number in range(51)]
    operator = PageUser(gateway, "all")

    page = operator.page("/?namespace=shop&sort=changed")
    [following] = [link for link in page.links() if "cursor=" in link]

    assert job_links(page) == ids[:50]
    assert job_links(operator.page(f"/{following}")) == ids[50:]
    assert {link for link in page.links() if "sort=" in link and "namespace=shop" not in link} == set()


def test_a_list_shows_failures_in_the_words_of_musicapi(local: Gateway, store: JobStore) -> None:
    """The beginning of the message is in the list, all of it in the tooltip."""
    job = fail_job(store, job_in_state(store, State.PENDING), FailureCode.MODERATED)
    message = "The lyrics mention <b>a name</b> that is protected. " + "Please rephrase them. " * 20
    failure = json.dumps({"code": "moderated", "stage": "voice", "message": message})
    store._space.redis.hset(store._space.key(f"job:{job.id}"), "failure", failure)

    page = get_page(local, "/?state=failed")

    assert "moderated The lyrics mention <b>a name</b> that is protected." in page.text
    assert message.strip() not in page.text
    assert message in [attrs.get("title") for _, attrs in page.elements]


def test_the_summary_says_that_the_gate_is_on_trial(local: Gateway, store: JobStore) -> None:
    """It is neither open nor closed, and gives no time left."""
    job = job_in_state(store, State.ADMITTED, voice_with_song(key="a"))
    claim_admitted(store, job.id)
    job_in_state(store, State.SUCCEEDED, voice_with_song(key="b"))
    refuse_order(store, job.id, words="503 for all")

    page = get_page(local, "/")

    assert "Gate On trial" in page.text
    assert "On trial, the next job decides:" in page.text
    assert "since " in page.text
    assert "Time left –" in page.text
    assert "notice trial" in [attrs.get("class") for _, attrs in page.elements]


def test_a_closed_gate_gives_its_time_and_no_time_left(local: Gateway, store: JobStore) -> None:
    """The time is that of the clock, and its age."""
    store.flow_control.pause(NOW, reason="a look at the songs")

    page = get_page(local, "/")

    assert "Gate Closed" in page.text
    assert "No new orders are submitted: paused (a look at the songs), since 2025-10-09 08:53:20 UTC (" in page.text
    assert "Time left –" in page.text


@pytest.mark.parametrize("path", ["/", "/batches", "/trends", "/spend", "/controls", "/audit-log"])
def test_the_navigation_marks_the_current_page(local: Gateway, path: str) -> None:
    """Only that one."""
    marked = [attrs["href"] for _, attrs in get_page(local, path).elements if attrs.get("aria-current") == "page"]

    assert marked == [path]


def test_an_empty_list_says_what_to_do(local: Gateway, store: JobStore) -> None:
    """It shows the command of a first job, and how to clear a filter."""
    assert "voicequeue enqueue --batch first" in get_page(local, "/").text
    assert "voicequeue ingest --batch spring" in get_page(local, "/batches").text
    assert "No job finished in the last hour" in get_page(local, "/trends").text
    assert "No changes yet." in get_page(local, "/audit-log").text
    enqueue_jobs(store, voice(batch="spring"))

    for path, text in (("/?state=failed", "Clear the filters"), ("/?q=nothing", "Clear the search")):
        page = get_page(local, path)
        assert text in page.text
        assert "voicequeue enqueue" not in page.text
    assert "Show all states" in get_page(local, "/?batch=spring&state=failed").text
