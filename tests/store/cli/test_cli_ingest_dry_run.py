"""The command `ingest --dry-run`: counts, cost and rejected rows, without a change of the queue."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from redis import Redis

from tests.store.cli.test_cli_ingest import rejected, write
from tests.store.conftest import Command
from tests.store.life import dump_keys, job_in_state
from tests.support.jobs import numbered_voices, voice
from voicequeue import State, VoiceQueue
from voicequeue.domain.spec import parse_spec
from voicequeue.storage.job_store import JobStore

EXISTING = {"audio_url": "https://a.example/2.wav", "batch": "spring"}
HEADER = "audio_url,prompt,voice"
MIXED = [
    "https://a.example/1.wav,la,ana",
    "https://a.example/1.wav,lo,ana",
    f"{EXISTING['audio_url']},,",
    *["bad,,"] * 7,
]


def set_balance(store: JobStore, credits: int) -> None:
    """Set the balance that upstream reports."""
    store.flow_control.record_balance(
        credits, spent_before=store.credits_spent(), requested_at=time.time(), now=time.time()
    )


def test_a_dry_run_reports_and_enqueues_nothing(
    command: Command, queue: VoiceQueue, store: JobStore, redis: Redis, prefix: str, working_folder: Path
) -> None:
    """New, known and rejected jobs, the first reasons, and the cost, in which a shared voice counts once."""
    file = write(working_folder / "voices.csv", HEADER, *MIXED)
    queue.enqueue(parse_spec(EXISTING).with_row_key())
    set_balance(store, 40)
    before = dump_keys(redis, prefix)

    ended = command("ingest", file, "--batch", "spring", "--dry-run", "--max-credits", "5", "--json")

    output = ended.json()
    assert ended.code == 1
    assert (output["new"], output["existing"], output["rejected"], output["reasons"]) == (2, 1, 7, {"invalid_row": 7})
    assert [problem["line"] for problem in output["problems"]] == [5, 6, 7, 8, 9]
    assert (output["credits"], output["balance"], output["is_affordable"], output["unsettled"]) == (34, 40, True, 1)
    assert dump_keys(redis, prefix) == before


def test_a_dry_run_writes_all_rejected_rows_to_a_file_of_its_own(command: Command, working_folder: Path) -> None:
    """The rejected rows of a real run, which a user may have corrected, stay as they are."""
    file = write(working_folder / "voices.csv", HEADER, *MIXED)
    corrected = write(
        working_folder / "voices.csv.rejected.csv", "line,reason,audio_url", f"5,,{EXISTING['audio_url']}"
    )
    content = corrected.read_bytes()

    of_file = command("ingest", file, "--batch", "spring", "--dry-run", "--json").json()
    of_corrected = command("ingest", corrected, "--batch", "spring", "--dry-run", "--json").json()

    own = working_folder / "voices.csv.dry-run.rejected.csv"
    assert (of_file["rejected_file"], of_corrected["rejected_file"]) == (str(own), None)
    assert corrected.read_bytes() == content
    assert sorted(working_folder.iterdir()) == [file, corrected]  # the last dry run rejected no row

    command("ingest", file, "--batch", "spring", "--dry-run")
    assert [int(row["line"]) for row in rejected(own)] == [*range(5, 12)]


def test_a_dry_run_says_whether_credits_suffice_and_how_long_it_takes(
    command: Command, queue: VoiceQueue, store: JobStore, working_folder: Path
) -> None:
    """By the balance above the minimum and the measured throughput; or that these are not known."""
    file = write(working_folder / "voices.csv", HEADER, *MIXED)
    output_before = command("ingest", file, "--batch", "spring", "--dry-run").out
    assert "the balance is not known yet" in output_before
    assert "unknown until jobs finish" in output_before

    queue.set_limits(min_balance=10)
    for spec in numbered_voices(5):
        job_in_state(store, State.SUCCEEDED, spec, time.time())
    set_balance(store, 20)
    output = command("ingest", file, "--batch", "spring", "--dry-run").out

    assert "the new jobs will cost 38; 20 were left" in output
    assert "; 10 are the minimum balance: 28 too few" in output
    assert "unknown until jobs finish: an idle queue has no pace" in output
    assert re.search("(row|line) 5: audio_url: must be an http", output)

    queue.enqueue(voice(key="existing"))
    output = command("ingest", file, "--batch", "spring", "--dry-run").out
    assert "about 4 min at the current 1.0 jobs/min, after 1 existing job" in output


def test_a_dry_run_of_standard_input_cannot_resume(command: Command, working_folder: Path) -> None:
    """Exit code 2."""
    assert command("ingest", "-", "--batch", "spring", "--dry-run", "--resume").code == 2


@pytest.mark.parametrize("bad", [19, 600])
def test_a_dry_run_says_where_max_rejected_would_stop(command: Command, working_folder: Path, bad: int) -> None:
    """As the real run does: exit code 2."""
    file = write(working_folder / "voices.csv", "audio_url", *["bad"] * bad)

    ended = command("ingest", file, "--batch", "spring", "--dry-run", "--max-rejected", "10%", "--json")

    assert (ended.code, ended.json()["stopped"]) == (2, "max_rejected")
    assert f"{min(bad, 500)} of the first {min(bad, 500)} rows were rejected" in ended.err


def test_every_field_of_the_output_is_documented(command: Command, working_folder: Path) -> None:
    """In docs/reference/command-line.md, of a dry run and of a real one."""
    reference = Path(__file__).parents[3] / "docs" / "reference" / "command-line.md"
    lines = reference.read_text(encoding="utf-8").splitlines()
    file = write(working_folder / "voices.csv", HEADER, *MIXED)

    for options in ([], ["--dry-run"]):
        name = " ".join(["voicequeue ingest", *options])
        [documented] = [line for line in lines if line.startswith(f"| `{name}` |")]
        output = command("ingest", file, "--batch", "spring", *options, "--json").json()
        assert [field for field in output if not re.search(rf"`{field}\b", documented)] == []
