"""The namespace that an operator's page is limited to, and what operators do to batches of namespaces."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from redis import Redis

from tests.store.client.test_namespaces import populate
from tests.support.jobs import voice
from tests.web.conftest import KEYS, Build, Gateway, app_of
from tests.web.seen import PageUser, ParsedPage
from tests.web.test_web_page_namespaces import requests_of
from voicequeue import VoiceQueue
from voicequeue.auth.api_keys import Scope, generate_key
from voicequeue.client.queue import in_namespace
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway

#: Paths that are the same in all namespaces.
EVERYWHERE = re.compile(r"/(static|docs|logout|workers|keys?)\b.*|https?:.*|#.*")

#: Parts that differ between an operator and a user of the namespace: who is logged in, and how to see more.
OF_THE_USER = re.compile(
    r'<header>.*?</header>|name="(token|plan)" value="[^"]*"|of the key \w+|'
    r'<p class="facts">[^<]*(<a [^<]*)?all namespaces.*?</p>',
    re.DOTALL,
)
TIMES = re.compile(r"data-now=\"[\d.]+\"|\d{4}-\d\d-\d\d[T ][\d:.]+Z?|\b\d+ (s|min|h) ago|\d+\.\d\d s")


@pytest.fixture
def shop_key(monkeypatch: pytest.MonkeyPatch) -> str:
    """Add a key of the namespace `shop` with every scope, and return the setting of all keys."""
    monkeypatch.setitem(KEYS, "shop", generate_key("shop", Scope, "shop"))
    return ",".join(configured.as_setting() for _, configured in KEYS.values())


def request(user: PageUser, path: str, fields: dict[str, str]) -> requests.Response:
    """Request a page."""
    return user.session.get(user.url + path, params=fields, timeout=20)


def content_of(answer: requests.Response) -> tuple[int, str]:
    """Return the status and the page without what differs between users, and without empty lines."""
    text = OF_THE_USER.sub("", answer.text).replace("?namespace=shop&amp;", "?").replace("&amp;namespace=shop", "")
    text = re.sub(r"\n\s*\n", "\n", text.replace('"?namespace=shop"', '"?"').replace("?namespace=shop", ""))
    return answer.status_code, TIMES.sub(
        "TIME", text.replace('<input type="hidden" name="namespace" value="shop">', "")
    )


@pytest.mark.endurance
def test_an_operator_sees_a_namespace_as_its_users_do_and_stays_in_it(
    build_gateway: Build, redis: Redis, prefix: str, queue: VoiceQueue, shop_key: str
) -> None:
    """Each page with `?namespace=shop` shows the same as without to a key of `shop`, and links to such pages only."""
    gateway = build_gateway(api_keys=shop_key)
    owned = populate(JobStore(redis, prefix, namespace="shop"), in_namespace(queue, "shop"))
    for namespace in ("", "other"):
        in_namespace(queue, namespace).enqueue(voice(key="song", batch="spring"))
    operator, user = PageUser(gateway, "all"), PageUser(gateway, "shop")
    count = 0
    for method, path, fields in requests_of(app_of(gateway), owned):
        if method != "GET" or path.startswith("/key"):
            continue
        answer = request(operator, path, {**fields, "namespace": "shop"})
        assert content_of(answer) == content_of(request(user, path, fields)), (path, fields)
        page = ParsedPage(answer.text)
        leaving = [link for link in targets(page) if not EVERYWHERE.fullmatch(link) and not stays(link)]
        assert leaving == [], (path, fields)
        count += 1
    assert count > 50


def targets(page: ParsedPage) -> list[str]:
    """Return the links and the actions of the forms of a page, with the fields of forms that are sent by GET."""
    choosing = [form for form in page.forms if "Switch" in form["buttons"]]
    forms = (form for form in page.forms if form not in choosing and form["method"] != "dialog")
    return page.links() + [
        f"{form['action']}?namespace={form['fields'].get('namespace')}" if form["method"] == "get" else form["action"]
        for form in forms
    ]


def stays(link: str) -> bool:
    """Return whether a link leads to a page of the namespace, or back to all of them on purpose."""
    return parse_qs(urlsplit(link).query).get("namespace") in (["shop"], ["*"])


def test_an_operator_acts_on_the_batch_that_the_page_shows(gateway: Gateway, queue: VoiceQueue) -> None:
    """Neither links, forms nor redirects confuse it with the batch of the same name in the default namespace."""
    shop, default = in_namespace(queue, "shop"), in_namespace(queue, "")
    for client in (shop, default):
        client.enqueue(voice(batch="spring"))
    operator = PageUser(gateway, "all")

    for batches in ("/batches", "/batches?namespace=shop"):
        [link] = [link for link in operator.page(batches).links() if "spring" in link and ("shop" in link)]
        page = operator.page(f"/{link.lstrip('/')}")
        paused = operator.submit(page, "Pause", reason="too fast")
        assert shop.batch("spring").is_paused
        resumed = operator.submit(paused, "Resume", reason="fine again")
        assert not shop.batch("spring").is_paused
        saved = operator.submit(resumed, "Save limits", max_credits="50", reason="agreed")
        assert shop.batch("spring").max_credits == 50
        cancelled = operator.submit(operator.submit(saved, "Cancel all…"), "Cancel 1 job")
        assert "Cancelled 1 of 1 job." in cancelled.text
        shop.set_batch_limits("spring", max_credits=float("inf"))
        shop.enqueue(voice(batch="spring"))
        reasons = [entry.reason for entry in shop.audit_log(actor="page").items[:4]]
        assert reasons[1:] == ["agreed", "fine again", "too fast by all"]
    assert (default.batch("spring").is_paused, default.batch("spring").max_credits) == (False, None)
    assert default.audit_log().items == ()


def test_a_search_for_a_batch_or_a_job_stays_in_the_namespace(gateway: Gateway, queue: VoiceQueue) -> None:
    """The name of a batch denotes that of the namespace; without a namespace, that of the default one."""
    shop = in_namespace(queue, "shop")
    job = shop.enqueue(voice(batch="spring"))
    operator = PageUser(gateway, "all")

    def target(query: str) -> str:
        return operator.session.get(f"{operator.url}/?{query}", allow_redirects=False, timeout=10).headers.get(
            "Location", ""
        )

    assert target("q=spring&namespace=shop") == "/?batch=spring&namespace=shop"
    assert target("q=shop/spring") == "/?batch=shop%2Fspring"
    assert target(f"q={job.id}&namespace=shop") == f"/job/{job.id}?namespace=shop"
    assert target(f"q={job.id}&namespace=other") == target("q=spring") == ""
    operator.page(f"/job/{job.id}?namespace=other", status=404)


def test_a_user_of_a_namespace_cannot_choose_another(build_gateway: Build, shop_key: str) -> None:
    """Nor all of them; an invalid name is an error, too."""
    gateway = build_gateway(api_keys=shop_key)
    user = PageUser(gateway, "shop")

    for path in ("/", "/batches", "/audit-log", "/controls", "/live"):
        user.page(f"{path}?namespace=other", status=403)
        user.page(f"{path}?namespace=*", status=403)
    assert "Switch" not in str(user.page("/?namespace=shop").forms)
    assert PageUser(gateway, "all").page("/?namespace=a/b", status=422)
    [token] = {form["fields"]["token"] for form in user.page("/").forms if "token" in form["fields"]}
    assert user.post("/do/pause?namespace=*", {"token": token}).status_code == 403
