"""The command `ingest`: it stops before bad files and empty accounts cost money."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from redis import Redis

from tests.store.cli.test_cli_ingest import rejected, write
from tests.store.cli.test_cli_ingest_dry_run import set_balance
from tests.store.conftest import Command
from tests.store.life import dump_keys, job_in_state
from tests.support.jobs import voice
from voicequeue import State, VoiceQueue
from voicequeue.domain.portions import PORTION_JOBS_MAX
from voicequeue.storage.job_store import JobStore

CHUNK = PORTION_JOBS_MAX


def rows(count: int, *, bad: range = range(0)) -> list[str]:
    """Return the lines of a file with so many rows, of which those in `bad` are invalid."""
    return ["audio_url", *("bad" if n in bad else f"https://a.example/{n}.wav" for n in range(count))]


# ── --max-rejected ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("count", "bad", "limit", "jobs"),
    [
        (CHUNK * 3, range(CHUNK, CHUNK + 101), "100", CHUNK),  # the chunk that crosses the limit is not enqueued
        (CHUNK * 3, range(CHUNK, CHUNK + 101), "10%", CHUNK),
        (CHUNK * 3, range(10), "9", 0),
        (19, range(2), "10%", 0),  # a short file counts as a whole
        (CHUNK, range(51), "10 %", 0),
        (CHUNK, range(51), "10,1%", 0),
    ],
)
def test_nothing_more_is_enqueued_once_too_many_rows_are_rejected(
    command: Command, queue: VoiceQueue, working_folder: Path, count: int, bad: range, limit: str, jobs: int
) -> None:
    """Exit code 2; the rejected rows that stopped it can be read, and --resume continues with a higher limit."""
    file = write(working_folder / "voices.csv", *rows(count, bad=bad))

    ended = command("ingest", file, "--batch", "spring", "--max-rejected", limit, "--json")

    output = ended.json()
    assert (ended.code, output["stopped"], output["new"]) == (2, "max_rejected", jobs)
    assert len(list(queue.jobs())) == jobs
    assert f"{len(bad)} of the first" in ended.err
    assert [int(row["line"]) for row in rejected(Path(output["rejected_file"]))] == [number + 2 for number in bad]

    ended = command("ingest", file, "--batch", "spring", "--max-rejected", "200", "--resume", "--json")

    assert (ended.code, ended.json()["file"]["new"]) == (1, count - len(bad))
    assert [int(row["line"]) for row in rejected(Path(ended.json()["rejected_file"]))] == [n + 2 for n in bad]
    assert len(list(working_folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("count", "bad", "limit"), [(CHUNK, range(50), "10%"), (CHUNK * 2, range(100), "100"), (3, range(0), "0")]
)
def test_a_file_within_the_limit_is_enqueued(
    command: Command, working_folder: Path, count: int, bad: range, limit: str
) -> None:
    """Exactly as many rejected rows as the limit names are allowed."""
    file = write(working_folder / "voices.csv", *rows(count, bad=bad))

    output = command("ingest", file, "--batch", "spring", "--max-rejected", limit, "--json").json()

    assert (output["new"], output["stopped"]) == (count - len(bad), None)


def test_keys_that_belong_to_other_jobs_count_as_rejected(
    command: Command, queue: VoiceQueue, working_folder: Path
) -> None:
    """Before the rows beside them are enqueued."""
    first = write(working_folder / "a.csv", "audio_url,key", "https://a.example/1.wav,k")
    second = write(working_folder / "b.csv", "audio_url,key", "https://a.example/2.wav,k", "https://a.example/3.wav,l")
    command("ingest", first, "--batch", "spring")

    ended = command("ingest", second, "--batch", "spring", "--max-rejected", "0")

    assert (ended.code, queue.batch("spring").total) == (2, 1)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1,5", "1,000", "1,5.0%", "101%", "10%%", "ten", "nan"])
def test_an_invalid_limit_is_an_error(command: Command, working_folder: Path, text: str) -> None:
    """Exit code 2; the error names both forms."""
    file = write(working_folder / "voices.csv", *rows(1))

    ended = command("ingest", file, "--batch", "spring", f"--max-rejected={text}")

    assert (ended.code, "100" in ended.err, "10%" in ended.err) == (2, True, True)


# ── credits ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def voices(working_folder: Path, store: JobStore) -> Path:
    """Return a file of ten voices, 40 credits, and set a balance of 30."""
    set_balance(store, 30)
    return write(working_folder / "voices.csv", *rows(10))


def test_rows_that_the_account_cannot_pay_for_are_not_enqueued_unasked(
    command: Command, redis: Redis, prefix: str, voices: Path
) -> None:
    """Exit code 2 before the first row; the limits of the batch are not set either."""
    before = dump_keys(redis, prefix)

    ended = command("ingest", voices, "--batch", "spring", "--max-in-flight", "3", "--json")

    assert (ended.code, ended.json()["stopped"], ended.json()["new"]) == (2, "not_affordable", 0)
    assert "The new jobs cost up to 40 credits; 30 were left" in ended.err
    assert "10 too few" in ended.err
    assert "--yes" in ended.err
    assert dump_keys(redis, prefix) == before


@pytest.mark.parametrize(
    "options", [["--yes"], ["--max-credits", "30"], ["--dry-run"]], ids=["confirmed", "limited", "dry run"]
)
def test_the_question_is_omitted_where_it_is_answered(command: Command, voices: Path, options: list[str]) -> None:
    """By --yes, or a limit of the batch that the account can pay; a dry run does not ask."""
    ended = command("ingest", voices, "--batch", "spring", *options, "--json")

    assert (ended.code, ended.json()["new"]) == (0, 10)


def test_jobs_that_exist_cost_nothing(command: Command, store: JobStore, voices: Path) -> None:
    """The exact cost decides, not the number of rows."""
    set_balance(store, 1_000)
    command("ingest", voices, "--batch", "spring")
    set_balance(store, 0)

    assert command("ingest", voices, "--batch", "spring", "--json").json()["existing"] == 10


@pytest.mark.parametrize(("answer", "code", "jobs"), [("y\n", 0, 10), ("n\n", 2, 0), ("", 2, 0)])
def test_on_a_terminal_it_asks(
    command: Command,
    queue: VoiceQueue,
    voices: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: int,
    jobs: int,
) -> None:
    """With the cost and the balance; no is the default."""
    monkeypatch.setattr("voicequeue.cli.ingest.funds._is_interactive", lambda: True)

    ended = command("ingest", voices, "--batch", "spring", stdin=answer.encode())

    assert (ended.code, len(list(queue.jobs()))) == (code, jobs)
    assert "cost up to 40 credits" in ended.err
    assert ("no row was enqueued" in ended.err) == (not jobs)
    assert ("new" in ended.out) == bool(jobs)


@pytest.mark.parametrize("option", [["--max-credits", "130"], []], ids=["given", "stored"])
def test_the_limit_of_the_batch_counts_what_it_has_spent(
    command: Command, queue: VoiceQueue, store: JobStore, voices: Path, option: list[str]
) -> None:
    """New jobs cannot cost more than is left of it, also if it was set earlier."""
    spec = voice(key="old", batch="spring")
    job_in_state(store, State.QUEUED, spec, time.time())
    queue.set_batch_limits("spring", max_credits=12)
    set_balance(store, 11)

    ended = command("ingest", voices, "--batch", "spring", *option, "--json")

    if option:
        assert (ended.code, "33 too few" in ended.err) == (2, True), ended.err
    else:
        assert (ended.code, "1 too few for the 8 that the limit of the batch allows" in ended.err) == (2, True)
        set_balance(store, 12)
        assert command("ingest", voices, "--batch", "spring", "--json").json()["new"] == 10


def test_queued_jobs_count_what_the_limits_of_their_batches_allow(
    command: Command, queue: VoiceQueue, store: JobStore, voices: Path
) -> None:
    """A batch that reached its limit, or stopped itself, does not block the ingestion into others."""
    job_in_state(store, State.FAILED, voice(key="failed", batch="failing"), time.time())
    queue.enqueue_many(voice(key=f"l{n}", batch="limited") for n in range(100))
    queue.enqueue_many(voice(key=f"s{n}", batch="failing") for n in range(100))
    queue.set_batch_limits("limited", max_credits=50)
    queue.set_batch_limits("failing", stop_after=0.5, stop_min=1)
    set_balance(store, 89)

    ended = command("ingest", voices, "--batch", "spring", "--json")

    assert ended.code == 2
    assert "50 are already needed by queued jobs (stopped batches need 400 more once they are resumed)" in ended.err
    assert "1 too few" in ended.err
    output = command("ingest", voices, "--batch", "spring", "--dry-run", "--json").json()
    assert (output["is_affordable"], output["credits_needed"], output["credits_stopped"]) == (False, 50, 400)
    set_balance(store, 90)
    assert command("ingest", voices, "--batch", "spring").code == 0


@pytest.mark.parametrize("how", ["stopped", "paused"])
def test_a_batch_that_is_stopped_or_paused_says_so(
    command: Command, queue: VoiceQueue, store: JobStore, working_folder: Path, how: str
) -> None:
    """With its reason and the command that resumes it, also in a dry run."""
    job_in_state(store, State.FAILED, voice(key="failed", batch="spring"), time.time())
    queue.enqueue(voice(key="queued", batch="spring"))
    if how == "stopped":
        queue.set_batch_limits("spring", stop_after=0.5, stop_min=1)
    else:
        queue.pause(batch="spring")
    file = write(working_folder / "voices.csv", *rows(3))

    for options in (["--dry-run"], []):
        text = command("ingest", file, "--batch", "spring", *options).out
        output = command("ingest", file, "--batch", "spring", *options, "--json").json()

        assert f"batch spring is {how}" in text
        assert "nothing of it is submitted until voicequeue resume --batch spring" in text
        assert ("1 of 1 settled jobs failed" in text) == (how == "stopped")
        assert output["batch_hold"] in text


def test_too_few_counts_what_the_backlog_lacks_already(
    command: Command, queue: VoiceQueue, store: JobStore, voices: Path
) -> None:
    """So that adding as many credits as are too few suffices."""
    queue.enqueue_many(voice(key=f"l{n}", batch="other") for n in range(100))

    ended = command("ingest", voices, "--batch", "spring")

    assert "; 400 are already needed by queued jobs: 410 too few" in ended.err
    set_balance(store, 440)
    assert command("ingest", voices, "--batch", "spring").code == 0


def test_standard_input_stops_before_the_rows_that_cannot_be_paid_for(
    command: Command, queue: VoiceQueue, store: JobStore, working_folder: Path
) -> None:
    """It cannot be read twice, so the rows before them are jobs."""
    set_balance(store, 4 * CHUNK + 10)
    content = "".join(f"{line}\n" for line in rows(CHUNK + 10))

    ended = command("ingest", "-", "--batch", "spring", "--json", stdin=content.encode())

    assert (ended.code, ended.json()["stopped"], ended.json()["new"]) == (2, "not_affordable", CHUNK)
    assert len(list(queue.jobs())) == CHUNK
    assert command("ingest", "-", "--batch", "spring", "--yes", stdin=content.encode()).code == 0
    assert queue.batch("spring").total == CHUNK + 10


def test_an_unknown_balance_is_no_reason_to_ask(command: Command, working_folder: Path) -> None:
    """A new installation has not asked upstream yet. One line says so."""
    file = write(working_folder / "voices.csv", *rows(10))

    ended = command("ingest", file, "--batch", "spring")
    assert (ended.code, ended.err.count("the balance of the account is not known yet")) == (0, 1)
