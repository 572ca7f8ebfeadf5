"""`voicequeue budget` and `voicequeue spend`: as tables, JSON and CSV."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from io import StringIO

import pytest

from tests.store.conftest import Command
from tests.store.flow.test_spending import charge, charge_everywhere
from tests.store.life import NOW
from voicequeue.storage.job_store import JobStore


def test_a_budget_is_set_and_listed(command: Command) -> None:
    """What is not given stays as it is; `none` removes a limit."""
    assert command("budget", "list").out == "no budgets\n"
    assert command("budget", "set", "namespace/shop", "--day", 500, "--month", 9_000, "--json").json()["changed"]
    command("budget", "set", "namespace/shop", "--day", "none", "--reason", "a contract")
    command("budget", "set", "account", "--day", 1_000)

    budgets = command("budget", "list", "--json").json()

    assert [(budget["owner"], budget["period"], budget["limit"], budget["remaining"]) for budget in budgets] == [
        ("account", "day", 1_000, 1_000),
        ("namespace/shop", "month", 9_000, 9_000),
    ]
    assert command("budget", "list", "--namespace", "shop", "--json").json() == budgets[1:]
    assert "9,000" in command("budget", "list").out
    assert not budgets[1]["hard"]
    command("budget", "set", "namespace/shop", "--hard")
    assert [budget["hard"] for budget in command("budget", "list", "--json").json()] == [False, True]
    command("budget", "set", "namespace/shop", "--soft")
    assert command("budget", "list", "--json").json() == budgets
    [*_, entry, _] = command("audit-log", "--json").json()
    assert (entry["action"], entry["reason"]) == ("set_budget", "a contract")


def test_a_budget_without_limits_is_none(command: Command) -> None:
    """The output says that the owner may spend without a limit."""
    command("budget", "set", "account", "--day", 5)

    assert "may spend without a limit" in command("budget", "set", "account", "--day", "none").out
    assert command("budget", "list", "--json").json() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("account",), "give --day, --month, --max-in-flight, --hard, --soft or --callback-url"),
        (("account", "--day", "many"), "must be a whole number"),
        (("account", "--day", "0.5"), "whole number"),
        (("account", "--day", "-1"), "at least 0"),
        (("shop", "--day", "5"), "'account'"),
    ],
)
def test_a_wrong_budget_is_refused(command: Command, arguments: tuple[str, ...], words: str) -> None:
    """The exit code is 2, and the error says what is allowed."""
    result = command("budget", "set", *arguments)

    assert result.code == 2
    assert words in " ".join(result.err.replace("│", " ").split())


def test_spending_is_shown_by_columns(command: Command, store: JobStore) -> None:
    """As a table with a total, and as CSV and JSON with the same numbers."""
    charge_everywhere(store)
    day = datetime.fromtimestamp(NOW, UTC).date().isoformat()

    table = command("spend", "--by", "namespace,day").out
    rows = list(csv.DictReader(StringIO(command("spend", "--by", "namespace,day", "--csv").out)))
    objects = command("spend", "--by", "day, namespace", "--json").json()

    assert f"(default)  {day}" in table
    assert "144 credits in total" in table
    assert rows[0] == {"namespace": "", "day": day, "credits": "8"}
    assert (
        [int(row["credits"]) for row in rows] == [row["credits"] for row in objects] == [8, 8, 8, *[24] * 3, *[16] * 3]
    )
    assert objects[0] == {
        "namespace": "", "key": None, "batch": None, "day": day, "month": None, "credits": 8
    }  # fmt: skip


def test_spending_of_a_namespace_is_its_own(command: Command, store: JobStore) -> None:
    """With `--namespace`; a batch is shown with its namespace."""
    charge_everywhere(store)

    rows = command("spend", "--by", "batch", "--csv", "--namespace", "shop").out.splitlines()

    assert rows == ["namespace,batch,credits", "shop,,24", "shop,spring,24"]


def test_all_columns_but_the_key_can_be_combined(command: Command, store: JobStore) -> None:
    """A row for each batch and day."""
    charge_everywhere(store)

    rows = command("spend", "--by", "namespace,batch,day,month", "--csv").out.splitlines()

    assert rows[0] == "namespace,batch,day,month,credits"
    assert len(rows) == 1 + 3 * 2 * 3


def test_a_correction_is_a_number_in_a_spreadsheet(command: Command, store: JobStore) -> None:
    """A repair may subtract credits; the row has no day."""
    charge(store, "a", None, NOW)
    store._redis.hset(store._space.key("counters"), "corrected.credits", -3)

    rows = command("spend", "--by", "day", "--csv").out.splitlines()

    assert rows[1] == ",-3"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--by", "week"), "'week' is unknown"),
        (("--by", "batch,key"), "key and batch cannot be combined"),
        (("--since", "soon"), "a date such as 2026-03-01"),
        (("--since", "2001-02-03"), "too long ago"),
        (("--csv", "--json"), "cannot be combined"),
    ],
)
def test_a_report_that_cannot_be_made_is_refused(command: Command, options: tuple[str, ...], words: str) -> None:
    """The exit code is 2, and the error says what is allowed."""
    result = command("spend", *options)

    assert result.code == 2
    assert words in " ".join(result.err.replace("│", " ").split())


def test_without_charges_nothing_was_spent(command: Command) -> None:
    """The output says so."""
    assert command("spend").out == "nothing was spent\n"
    assert command("spend", "--since", "30d", "--json").json() == []
