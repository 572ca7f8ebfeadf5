"""The page of spending: budgets with what is left, and what was charged, in the scope of the user."""

from __future__ import annotations

import csv
from io import StringIO

import pytest

from tests.store.flow.test_spending import charge, charge_everywhere
from tests.web.conftest import Build, Gateway
from tests.web.seen import PageUser, ParsedPage, log_in
from tests.web.test_web_spending import SHOP, WITH_SHOP
from voicequeue import VoiceQueue
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway


def test_an_operator_sees_budgets_and_spending(gateway: Gateway, queue: VoiceQueue, store: JobStore) -> None:
    """What was spent and is left today, and what was charged by day, with an export."""
    queue.set_budget("account", day=60, month=600)
    charge(store, "a", "spring", store.clock())
    user = PageUser(gateway, "read")

    page = user.page("/spend")
    rows = list(
        csv.DictReader(StringIO(user.session.get(f"{gateway.url}/spend.csv?by=namespace,batch", timeout=10).text))
    )

    assert "account day 60 4 0 56" in page.text
    assert "account month 600 4 0 596" in page.text
    assert "4 credits since" in page.text
    assert rows == [{"namespace": "", "batch": "spring", "credits": "4"}]
    assert "/spend" in user.page("/").links()


def test_an_empty_page_says_so(gateway: Gateway) -> None:
    """Without budgets and charges."""
    page = PageUser(gateway, "read").page("/spend?by=batch")

    assert "No budget limits the account" in page.text
    assert "Nothing was spent" in page.text


def test_a_user_of_a_namespace_sees_its_own(build_gateway: Build, queue: VoiceQueue, store: JobStore) -> None:
    """Neither the account's budget, nor what others spent; columns of other namespaces are not offered."""
    gateway = build_gateway(api_keys=WITH_SHOP)
    charge_everywhere(store)
    for owner in ("account", "namespace/shop", "namespace/news"):
        queue.set_budget(owner, day=60)
    cookies = log_in(gateway, SHOP).cookies

    answer = gateway("GET", "/spend?by=month", key=None, cookies=cookies)
    page = ParsedPage(answer.text)

    assert "namespace/shop day" in page.text
    assert "48 credits in all" in page.text
    assert not any(name in answer.text for name in ("news", "account day", "by=namespace"))


@pytest.mark.parametrize("query", ["by=week", "by=batch,key", "since=soon", "since=2001-02-03"])
def test_a_report_that_cannot_be_made_is_refused(gateway: Gateway, query: str) -> None:
    """It says what is wrong."""
    answer = PageUser(gateway, "read").session.get(f"{gateway.url}/spend?{query}", timeout=10)

    assert answer.status_code == 422
    assert ParsedPage(answer.text).text.count("Nothing was changed") == query.startswith("since")
    assert 'role="alert"' in answer.text
