"""The command `erase`: it shows the plan, asks, erases, and prints a certificate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.store.conftest import Command
from tests.store.life import NOW, job_in_state, job_with_song
from tests.support.jobs import URL, voice, voice_with_song
from voicequeue import State, VoiceQueue
from voicequeue.storage.job_store import JobStore

PERSON = ("--metadata", "subject=42-ana")
METADATA = {"subject": "42-ana"}


def test_a_dry_run_erases_nothing_and_its_token_erases(command: Command, store: JobStore, queue: VoiceQueue) -> None:
    """The token returns the certificate again, in case the process that erased was killed before it wrote it."""
    job_with_song(store, key="own", metadata=METADATA)
    planned = command("erase", *PERSON, "--dry-run", "--json").json()

    assert (planned["count"], planned["jobs_by_state"]) == (1, {"succeeded": 1})
    assert len(list(queue.jobs())) == 1
    first = command("erase", "--token", planned["token"], "--yes", "--json").json()
    assert (first["count"], list(queue.jobs())) == (1, [])
    assert command("erase", "--token", planned["token"], "--yes", "--json").json() == first


@pytest.mark.parametrize("name", ["certificate.json", "certificate.txt"])
def test_the_certificate_and_the_ids_at_upstream_are_written(
    command: Command, store: JobStore, working_folder: Path, name: str
) -> None:
    """As JSON or as text. It says what was erased, when, by whom, and what remains, without a text of the person."""
    job = job_with_song(store, key="own", metadata=METADATA, callback_url="https://hooks.example/ana")
    ended = command("erase", *PERSON, "--yes", "--certificate", name, "--upstream", "upstream.txt")

    assert ended.code == 0, ended.err
    text = (working_folder / name).read_text(encoding="utf-8")
    for part in ("cli:", "MusicAPI: 3 ids", "Backups", "BGREWRITEAOF", "hooks.example", "Messages", "T"):
        assert part in text
    assert (json.loads(text)["count"] if name.endswith("json") else text.count("Certificate of erasure, 20")) == 1
    assert "ana" not in text.replace("manager", "")
    ids = (working_folder / "upstream.txt").read_text(encoding="utf-8").split()
    assert set(ids) == {"p-1", *job.charged_task_ids.values()}


def test_jobs_whose_order_may_be_charged_are_named(command: Command, store: JobStore) -> None:
    """The plan says what they cost; the certificate says that they are erased later."""
    job_in_state(store, State.UNSURE, voice_with_song(metadata=METADATA))
    ended = command("erase", *PERSON, "--yes")

    assert "4 credits of orders in flight" in ended.out
    assert "1 job charging or unsure" in ended.out
    assert "1 job whose order may be charged" in ended.out


def test_an_erasure_asks_before_it_begins(command: Command, queue: VoiceQueue) -> None:
    """Without an answer nothing is erased."""
    queue.enqueue(voice(metadata=METADATA))

    assert command("erase", *PERSON).code == 2
    assert len(list(queue.jobs())) == 1


@pytest.mark.parametrize("arguments", [PERSON, ("--dry-run",)])
def test_a_token_is_given_alone(command: Command, arguments: tuple[str, ...]) -> None:
    """Its plan has the jobs already."""
    assert command("erase", "--token", "x" * 22, *arguments).code == 2


@pytest.mark.parametrize("arguments", [(), ("--metadata", "42"), ("--metadata", "subject=")])
def test_an_erasure_without_a_name_and_value_is_wrong_usage(command: Command, arguments: tuple[str, ...]) -> None:
    """It would concern every job."""
    assert command("erase", *arguments, "--yes").code == 2


def test_the_command_line_refuses_an_erased_recording_until_it_is_allowed(
    command: Command, store: JobStore, working_folder: Path
) -> None:
    """As one job and as a row of a file, which is counted as `erased`; the error names the cure."""
    store.enqueue([("own", voice(metadata=METADATA))], NOW)
    assert command("erase", *PERSON, "--yes").code == 0
    (working_folder / "voices.csv").write_text(f"audio_url\n{URL}\n", encoding="utf-8")

    ended = command("enqueue", "--audio-url", URL)
    assert (ended.code, "--allow-recording" in ended.err) == (2, True)
    ended = command("ingest", "voices.csv", "--batch", "spring", "--json")
    assert ended.json()["reasons"] == {"erased": 1}
    ended = command("erase", "--allow-recording", URL, "--namespace", "shop")
    assert (ended.code, "nothing of this was erased in namespace shop; --namespace" in ended.err) == (1, True)
    assert command("erase", "--allow-recording", URL, "--json").json() == {"allowed": 1}
    assert command("enqueue", "--audio-url", URL).code == 0


def test_the_command_line_refuses_a_job_without_consent(
    command: Command, store: JobStore, working_folder: Path
) -> None:
    """The error names the field."""
    store.erasure.require_consent(is_required=True)
    (working_folder / "voices.csv").write_text(f"audio_url\n{URL}\n", encoding="utf-8")

    assert "metadata.consent_ref" in command("enqueue", "--audio-url", URL).err
    report = command("ingest", "voices.csv", "--batch", "spring", "--json").json()
    assert report["reasons"] == {"invalid_row": 1}
    assert "metadata.consent_ref" in Path(report["rejected_file"]).read_text(encoding="utf-8")
    assert command("enqueue", "--audio-url", URL, "--metadata", "consent_ref=form-17").code == 0
