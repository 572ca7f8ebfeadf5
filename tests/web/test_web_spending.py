"""Budgets and reports of spending over HTTP: operators see all of them, a key of a namespace its own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.store.flow.test_spending import TIMES, charge_everywhere
from tests.web.conftest import SETTING, Build, Gateway, problem
from voicequeue import VoiceQueue
from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway

SHOP, _HASHED = api_keys.generate_key("shop", [Scope.READ, Scope.OPERATE])
WITH_SHOP = f"{SETTING},{api_keys.ApiKey('shop', frozenset(Scope), _HASHED.digest, 'shop').as_setting()}"
OF_SHOP: dict[str, Any] = {"key": None, "headers": {"Authorization": f"Bearer {SHOP}"}}


def test_a_budget_is_set_and_read(gateway: Gateway) -> None:
    """PUT replaces the whole budget and returns it; without a period there is none."""
    put = gateway("PUT", "/v1/budgets/namespace/shop", json={"day": 500, "month": 9_000})
    assert gateway.get("/v1/budgets") == put.json()
    assert [(budget["period"], budget["remaining"]) for budget in put.json()["data"]] == [
        ("day", 500),
        ("month", 9_000),
    ]
    put = gateway("PUT", "/v1/budgets/namespace%2Fshop?reason=agreed", json={"month": 100})
    assert [(budget["period"], budget["limit"]) for budget in put.json()["data"]] == [("month", 100)]
    put = gateway("PUT", "/v1/budgets/namespace/", json={"month": 100, "hard": True})
    assert [(budget["owner"], budget["hard"]) for budget in put.json()["data"]] == [("namespace/", True)]
    assert gateway("PUT", "/v1/budgets/namespace/shop", json={}).json()["data"] == []


def test_a_key_of_a_namespace_reads_its_own_budget_and_sets_none(build_gateway: Build, queue: VoiceQueue) -> None:
    """It learns neither the account's budget nor that of another namespace."""
    gateway = build_gateway(api_keys=WITH_SHOP)
    for owner in ("account", "namespace/shop", "namespace/news"):
        queue.set_budget(owner, day=60)

    assert [budget["owner"] for budget in gateway.get("/v1/budgets", **OF_SHOP)["data"]] == ["namespace/shop"]
    problem(gateway("PUT", "/v1/budgets/namespace/shop", json={"day": 1_000}, **OF_SHOP), 403, "not_operator")
    assert {budget.limit for budget in queue.budgets()} == {60}


@pytest.mark.parametrize(
    ("owner", "body", "field"),
    [
        ("shop", {"day": 5}, "owner"),
        ("namespace/a/b", {"day": 5}, "owner"),
        ("key/a/b", {"day": 5}, "owner"),
        ("account", {"day": -1}, "day"),
        ("account", {"day": 0.5}, "day"),
        ("account", {"week": 5}, "week"),
    ],
)
def test_a_wrong_budget_is_refused(gateway: Gateway, owner: str, body: dict[str, Any], field: str) -> None:
    """The problem names the field."""
    assert field in problem(gateway("PUT", f"/v1/budgets/{owner}", json=body), 422, "invalid")


def test_spending_is_reported_in_the_scope_of_the_key(build_gateway: Build, store: JobStore) -> None:
    """All reports of a key have the same sum; `?namespace=` of an operator gives what the namespace's key sees."""
    gateway = build_gateway(api_keys=WITH_SHOP)
    charge_everywhere(store)
    day = datetime.fromtimestamp(TIMES[0], UTC).date().isoformat()

    reports = [
        gateway.get(f"/v1/spend?by={by}") for by in ("namespace", "day", "month", "batch", "namespace,day", "key")
    ]
    assert {report["credits"] for report in reports} == {144}
    assert all(sum(row["credits"] for row in report["data"]) == 144 for report in reports)
    own = gateway.get("/v1/spend?by=namespace,day", **OF_SHOP)
    assert own == gateway.get("/v1/spend?by=namespace,day&namespace=shop")
    assert own["credits"] == 48
    assert own["data"][0] == {
        "namespace": "shop", "key": None, "batch": None, "day": day, "month": None, "credits": 16,
    }  # fmt: skip
    assert gateway.get("/v1/spend?since=2001-02-01") == gateway.get("/v1/spend")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("by=week", "by"),
        ("by=", "by"),
        ("by=batch,key", "by"),
        ("since=2001-02-03", "since"),
        ("since=soon", "since"),
        ("since=0", "since"),
        ("since=20260301", "since"),
        ("by=batch&since=2001-02-03", "since"),
    ],
)
def test_a_report_that_cannot_be_made_is_refused(gateway: Gateway, query: str, field: str) -> None:
    """The problem names the parameter."""
    assert field in problem(gateway("GET", f"/v1/spend?{query}"), 422, "invalid")
