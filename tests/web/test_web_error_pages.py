"""Errors in a browser are pages that say what happened and what to do; programs get JSON."""

from __future__ import annotations

import pytest
import requests

from tests.store.life import job_in_state
from tests.web.conftest import Build, Gateway, problem
from tests.web.seen import PageUser, ParsedPage
from voicequeue import State, VoiceQueue
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def person(gateway: Gateway) -> PageUser:
    """Return a user who is logged in with a browser."""
    user = PageUser(gateway, "all")
    user.session.headers.update(BROWSER)
    return user


def shown(answer: requests.Response, status: int) -> ParsedPage:
    """Return the page of an error with this status."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "text/html; charset=utf-8"), answer.text
    return ParsedPage(answer.text)


@pytest.mark.parametrize(
    ("method", "path", "status", "advice"),
    [
        ("GET", "/missing", 404, "Check the address"),
        ("GET", "/job/missing", 404, "It may have been purged or erased"),
        ("GET", "/do/plan", 405, "This address takes forms only"),
        ("POST", "/batches", 405, "This address takes forms only"),
        ("GET", "/?cursor=x", 200, ""),
        ("GET", "/job/x/nothing", 422, "Correct the address"),
    ],
)
def test_an_error_says_what_to_do(person: PageUser, method: str, path: str, status: int, advice: str) -> None:
    """The page has the navigation of the user."""
    page = shown(person.session.request(method, person.url + path, timeout=10), status)

    assert advice in page.text
    assert "/batches" in page.links()


def test_an_api_client_gets_json(gateway: Gateway) -> None:
    """Also from a browser's address line under /v1: the API has one format."""
    problem(gateway("GET", "/missing", key=None), 404, "not_found")
    problem(gateway("GET", "/missing", key=None, headers={"Accept": "application/json, text/html"}), 404, "not_found")
    problem(gateway("GET", "/v1/jobs/x", key=None, headers=BROWSER), 401, "unauthorized")


def test_without_a_login_an_error_page_shows_nothing_else(gateway: Gateway) -> None:
    """No navigation, no summary."""
    page = shown(gateway("GET", "/missing", key=None, headers=BROWSER), 404)

    assert page.links() == ["#main", "/", "/"]


def test_a_form_of_another_login_changes_nothing(person: PageUser, store: JobStore) -> None:
    """The page says that the login changed, not that the user may not do it."""
    job = job_in_state(store, State.PENDING)

    page = shown(person.post(f"/job/{job.id}/cancel", {"token": "an old one"}), 403)

    assert "You logged in again, or logged out" in page.text
    assert f"/job/{job.id}" in page.links()


def test_a_form_after_the_login_ended_returns_to_its_page(gateway: Gateway) -> None:
    """The user logs in, and is back where the form is."""
    headers = {"Referer": f"{gateway.url}/controls?namespace=shop"}
    answer = gateway("POST", "/do/pause", key=None, headers=headers, data={"reason": "x"})

    assert "the form was not sent and nothing was changed" in answer.text
    assert ParsedPage(answer.text).forms[0]["fields"]["next"] == "/controls?namespace=shop"
    headers = {"Referer": f"{gateway.url}/do/plan"}
    answer = gateway("POST", "/do/execute", key=None, headers=headers, data={"reason": "x"})
    assert ParsedPage(answer.text).forms[0]["fields"]["next"] == "/"


def test_a_form_that_is_too_large_says_so(person: PageUser) -> None:
    """Without a limit on forms a page could fill the memory."""
    assert "Shorten what you entered" in shown(person.post("/do/pause", {"reason": "x" * 9_000}), 413).text


def test_a_defect_is_a_page(person: PageUser, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names no internals."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(VoiceQueue, "throughput", broken)

    page = shown(person.session.get(f"{person.url}/trends", timeout=10), 500)

    assert "Jobs are not affected" in page.text
    assert "a defect" not in page.text


def test_a_defect_of_every_page_is_json(person: PageUser, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing better left."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("workers.gateway.page.error_pages.context_of", broken)
    monkeypatch.setattr(VoiceQueue, "throughput", broken)

    problem(person.session.get(f"{person.url}/trends", timeout=10), 500, "internal")


def test_an_outage_of_redis_is_a_page(build_gateway: Build) -> None:
    """With the seconds after which to try again."""
    gateway = build_gateway(REDIS_URL="redis://127.0.0.1:1/0")
    answer = gateway("GET", "/batches", key=None, headers=BROWSER)

    assert "No job is lost" in shown(answer, 503).text
    assert answer.headers["Retry-After"] == "5"


def test_a_page_of_another_site_is_refused_with_a_page(gateway: Gateway) -> None:
    """A browser shows the reason as text."""
    headers = {**BROWSER, "Origin": "https://evil.example"}

    assert "pages of other origins are refused" in shown(gateway("POST", "/login", key=None, headers=headers), 403).text


def test_a_link_from_another_site_finds_the_login(person: PageUser) -> None:
    """The browser withholds the cookie from that request, and sends it when the page opens itself again."""
    navigation = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    answer = requests.get(f"{person.url}/batches?a=1&b=2", headers={**BROWSER, **navigation}, timeout=10)

    [refresh] = [attrs for tag, attrs in shown(answer, 200).elements if tag == "meta" and "http-equiv" in attrs]
    assert refresh["content"] == "0; url=/batches?a=1&b=2"
