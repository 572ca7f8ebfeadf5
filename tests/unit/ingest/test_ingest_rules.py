"""Rules of `ingest`, without files and Redis: when it stops, what is affordable, how rows and files are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from voicequeue.cli.ingest.budget import Budget
from voicequeue.cli.ingest.max_rejected import SAMPLE_MIN, MaxRejected
from voicequeue.cli.ingest.notes import place
from voicequeue.cli.ingest.paths import IngestPaths
from voicequeue.domain.gate import Account, Gate
from voicequeue.domain.states import State
from voicequeue.domain.status import Status
from voicequeue.ingest.checkpoint import IngestCounts
from voicequeue.ingest.row import FileKind, Row

STATUS = Status(
    states=dict.fromkeys(State, 0),
    gate=Gate(),
    in_flight=0,
    in_flight_limit=1,
    credits=0,
    workers=0,
    account=Account(),
    backlog=(),
    failures={},
    jobs_per_minute=0,
    seconds_left=None,
)


def budget(account: Account, *, min_balance: int = 0) -> Budget:
    """Return the budget of a queue with this account."""
    return Budget(replace(STATUS, account=account), min_balance, account.queued_credits)


def test_credits_that_other_jobs_will_take_are_not_spendable() -> None:
    """Reserved ones, those of the backlog, and the minimum balance: "enough" is what is left for new jobs."""
    account = Account(balance=1_000, updated_at=0, reserved=100, queued_credits=300)

    means = budget(account, min_balance=50)

    assert means.spendable == 550
    assert "; 300 are already needed by queued jobs" in means.explanation(551)
    assert means.explanation(551).endswith("1 too few")
    assert means.explanation(550).endswith("enough")


def test_what_the_backlog_lacks_already_counts_as_too_few() -> None:
    """Spendable credits are negative then; those of an unknown balance are None."""
    means = budget(Account(balance=300, updated_at=0, queued_credits=1_923))
    assert means.spendable == -1_623
    assert means.explanation(19).endswith("; 1,923 are already needed by queued jobs: 1,642 too few")
    assert budget(Account(queued_credits=5)).spendable is None


@pytest.mark.parametrize(
    ("limit", "rejected", "rows", "is_end", "is_exceeded"),
    [
        ("10", 10, 10, True, False),
        ("10", 11, 1_000_000, False, True),
        ("0", 1, 1, False, True),
        ("10%", 100, 1_000, True, False),
        ("10%", 101, 1_000, False, True),
        ("10%", SAMPLE_MIN - 1, SAMPLE_MIN - 1, False, False),
        ("10%", SAMPLE_MIN - 1, SAMPLE_MIN - 1, True, True),
        ("10%", SAMPLE_MIN, SAMPLE_MIN, False, True),
        ("0.5%", 1, 199, False, True),
        ("100%", 1_000, 1_000, True, False),
    ],
)
def test_a_limit_is_exceeded_by_more_than_it_names(
    limit: str, rejected: int, rows: int, is_end: bool, is_exceeded: bool
) -> None:
    """A percentage counts from 20 rows on, or at the end of a shorter file."""
    assert MaxRejected.parse(limit).is_exceeded(rejected, rows, is_end=is_end) == is_exceeded


@pytest.mark.parametrize(("line", "number", "text"), [(23, 17, "row 17 (line 23)"), (5, 5, "row 5"), (5, 0, "line 5")])
def test_a_row_is_named_as_a_spreadsheet_program_numbers_it(line: int, number: int, text: str) -> None:
    """With the line of the file, where that is another number."""
    assert place(Row(line, {}, None, number=number)) == text


@pytest.mark.parametrize(
    ("name", "kind", "rejected", "dry"),
    [
        ("a.csv", FileKind.CSV, "a.csv.rejected.csv", "a.csv.dry-run.rejected.csv"),
        ("a.jsonl", FileKind.JSON, "a.jsonl.rejected.csv", "a.jsonl.dry-run.rejected.csv"),
        ("a.xlsx", FileKind.EXCEL, "a.xlsx.rejected.xlsx", "a.xlsx.dry-run.rejected.xlsx"),
        ("a.csv.rejected.csv", FileKind.CSV, "a.csv.rejected.csv", "a.csv.dry-run.rejected.csv"),
        ("a.xlsx.rejected.xlsx", FileKind.EXCEL, "a.xlsx.rejected.xlsx", "a.xlsx.dry-run.rejected.xlsx"),
    ],
)
def test_names_of_rejected_files_are_stable(name: str, kind: FileKind, rejected: str, dry: str) -> None:
    """A file of rejected rows is replaced by its own; a dry run never replaces a source."""
    folder = Path("folder")
    real, dry_run = IngestPaths(folder / name), IngestPaths(folder / name, is_dry_run=True)

    assert (real.rejected(kind), dry_run.rejected(kind)) == (folder / rejected, folder / dry)
    assert real.lock == folder / f"{name.partition('.rejected')[0]}.lock"
    assert len({real.lock, dry_run.lock, real.partial, dry_run.partial, real.rejected(kind)}) == 5


def test_counts_of_a_run_are_those_since_its_start() -> None:
    """Kinds that did not occur again are left out."""
    counts = IngestCounts(rows=3, new=2, credits=8)
    counts.reject("invalid_row")
    earlier = counts.copy()
    counts.reject("key_conflict")
    counts.warn("share_link")

    since = counts.since(earlier)

    assert (since.rows, since.rejected, since.reasons, since.warnings) == (0, 1, {"key_conflict": 1}, {"share_link": 1})
