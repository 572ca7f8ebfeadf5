"""`voicequeue audit-log`: who changed what, as a table, JSON or CSV."""

from __future__ import annotations

import csv
import getpass
import socket
from io import StringIO

import pytest

from tests.store.conftest import Command
from tests.store.life import enqueue_jobs
from tests.support.jobs import voice
from voicequeue import VoiceQueue
from voicequeue.storage.job_store import JobStore


def test_a_command_is_recorded_with_its_user_and_machine(command: Command, store: JobStore) -> None:
    """Also with its reason; `--json` has every field."""
    [job_id] = enqueue_jobs(store, voice(batch="b"))
    command("cancel", job_id, "--reason", "ordered twice")
    command("pause", "--reason", "an alarm")
    command("limits", "--batch", "b", "--max-credits", "5", "--reason", "a budget")

    entries = command("audit-log", "--json").json()

    assert [(entry["action"], entry["reason"]) for entry in entries] == [
        ("set_batch_limits", "a budget"),
        ("pause", "an alarm"),
        ("cancel", "ordered twice"),
    ]
    assert {entry["actor"] for entry in entries} == {f"cli:{getpass.getuser()}@{socket.gethostname()}"}
    assert (entries[2]["job_id"], entries[2]["batch"], entries[2]["jobs"]) == (job_id, "b", 1)


def test_the_log_is_filtered(command: Command, queue: VoiceQueue) -> None:
    """By time, actor, action and batch."""
    queue.on_behalf_of("key:shop").set_batch_limits("b", max_credits=5)
    command("pause")

    def actions(*options: str) -> list[str]:
        return [entry["action"] for entry in command("audit-log", "--json", *options).json()]

    assert actions("--actor", "key:shop") == actions("--batch", "b") == ["set_batch_limits"]
    assert actions("--actor", "cli") == actions("--action", "pause") == actions("--limit", "1") == ["pause"]
    assert actions("--since", "1h") == actions("--since", "2020-01-01") == ["pause", "set_batch_limits"]
    assert actions("--since", "2100-01-01") == []


def test_csv_is_safe_in_a_spreadsheet(command: Command, queue: VoiceQueue) -> None:
    """Cells that begin like a formula are texts."""
    queue.on_behalf_of("key:shop", address="203.0.113.7", reason="=1+1").set_batch_limits("b", stop_after=0.5)

    [row] = csv.DictReader(StringIO(command("audit-log", "--csv").out))

    assert (row["actor"], row["address"], row["batch"]) == ("key:shop", "203.0.113.7", "b")
    assert (row["reason"], row["details"]) == ("'=1+1", "stop_after: 0.5")


def test_a_terminal_shows_no_control_characters(command: Command, queue: VoiceQueue) -> None:
    """Reasons are texts of callers."""
    assert command("audit-log").out == "no changes\n"
    queue.on_behalf_of("key:shop", reason="\x1b[2J[red]x").pause()

    output = command("audit-log").out

    assert "\x1b" not in output
    assert "[red]x" in output


@pytest.mark.parametrize("options", [("--since", "soon"), ("--csv", "--json")])
def test_wrong_options_are_refused(command: Command, options: tuple[str, ...]) -> None:
    """The exit code is 2."""
    assert command("audit-log", *options).code == 2
