"""Errors of the command line: exit codes, text and JSON."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import typer

from voicequeue.cli import errors
from voicequeue.cli.errors import report
from voicequeue.cli.listing import Listing, limit_of
from voicequeue.cli.terminal import CommandError, CommandSetupError
from voicequeue.errors import (
    BatchNotFoundError,
    BudgetExceededError,
    InvalidJobError,
    InvalidStateError,
    KeyConflictError,
    Problem,
    StoreFormatError,
    StoreUnavailableError,
    VoiceQueueError,
)
from voicequeue.texts import pluralize
from workers.gateway import problems

REFERENCE = Path(__file__).parents[3] / "docs/reference/command-line.md"

ERRORS = [
    (InvalidJobError([Problem("name", "is too long")]), 2, "invalid"),
    (KeyConflictError("k", "abc"), 2, "key_conflict"),
    (BatchNotFoundError("b"), 2, "batch_not_found"),
    (BudgetExceededError("account", "day", 19, limit=None, remaining=None, resets_at=0.0), 2, "budget_exceeded"),
    (InvalidStateError("is settled"), 1, "invalid_state"),
    (StoreUnavailableError("Redis does not answer"), 3, "store_unavailable"),
    (StoreFormatError("too new"), 1, "store_unavailable"),
    (CommandSetupError("REDIS_URL: is no URL"), 2, "setup"),
    (CommandError("declined", "nothing was changed"), 1, "declined"),
    (TimeoutError("1 job had not settled"), 4, "timeout"),
    (typer.Abort(), 1, "declined"),
    (typer.BadParameter("--csv and --json cannot be combined"), 2, "usage"),
]


@pytest.mark.parametrize(("error", "exit_code", "code"), ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_is_printed_as_json_with_the_same_exit_code(
    error: VoiceQueueError,
    exit_code: int,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On standard error, as one line; standard output has results only."""
    monkeypatch.setattr(sys, "argv", ["voicequeue", "jobs", "--json"])

    assert report(error) == exit_code

    output = capsys.readouterr()
    [line] = output.err.splitlines()
    printed = json.loads(line)["error"]
    assert (output.out, printed["code"]) == ("", code)
    assert printed["message"]
    monkeypatch.setattr(sys, "argv", ["voicequeue", "jobs"])
    assert report(error) == exit_code
    assert capsys.readouterr().err == f"{printed['message']}\n"


def test_the_json_of_an_error_names_what_a_program_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The invalid fields, and the job that has the key, by the names that HTTP uses."""
    monkeypatch.setattr(sys, "argv", ["voicequeue", "enqueue", "--json"])
    report(InvalidJobError([Problem("song.title", "is too long")]))
    report(KeyConflictError("k", "abc"))

    invalid, conflict = (json.loads(line)["error"] for line in capsys.readouterr().err.splitlines())
    assert invalid["errors"] == [{"field": "song.title", "message": "is too long"}]
    assert conflict["job_id"] == "abc"


def test_the_codes_of_errors_are_those_of_http() -> None:
    """A program that uses both has one list."""
    assert {error: code for error, (_, code) in problems._RAISED.items()} == {
        error: error.code for error in problems._RAISED
    }


def test_the_reference_lists_every_exit_code() -> None:
    """In one table, and no other number."""
    section = REFERENCE.read_text(encoding="utf-8").partition("## Exit codes")[2].partition("\n## ")[0]

    listed = {int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    codes = (errors.OK, errors.FAILED, errors.USAGE, errors.UNREACHABLE, errors.TIMEOUT, errors.INTERRUPTED)
    assert listed == set(codes)


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("items", "limit", "total", "note"),
    [
        (3, 3, 3, ""),
        (4, 3, 12_000, "3 of 12,000 jobs (--limit N, --all)\n"),
        (4, 3, None, "the first 3 jobs, and there are more (--limit N, --all)\n"),
        (4, None, 4, ""),
        (2, 1, None, "the first 1 job, and there are more (--limit N, --all)\n"),
    ],
)
def test_a_list_that_was_cut_says_so(
    items: int, limit: int | None, total: int | None, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, so that a pipe gets rows only."""
    listing = Listing(range(items), limit)

    assert list(listing) == list(range(items))[:limit]
    listing.note_rest("job", lambda: total)

    output = capsys.readouterr()
    assert (output.out, output.err) == ("", note)


def test_limit_and_all_exclude_each_other() -> None:
    """Neither may be ignored silently."""
    assert (limit_of(None, is_all=False), limit_of(7, is_all=False), limit_of(None, is_all=True)) == (50, 7, None)
    with pytest.raises(typer.BadParameter):
        limit_of(7, is_all=True)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 batches"), (1, "1 batch"), (2, "2 batches"), (12_000, "12,000 batches")]
)
def test_a_number_has_its_noun_in_the_right_form(count: int, text: str) -> None:
    """One is singular, zero and all others are plural."""
    assert pluralize(count, "batch", "batches") == text
