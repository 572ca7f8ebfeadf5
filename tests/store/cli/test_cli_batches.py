"""The command `batches`, and lists that are cut."""

from __future__ import annotations

import pytest

from tests.store.conftest import Command
from tests.store.life import NOW, enqueue_jobs, fail_job, job_in_state
from tests.support.jobs import numbered_voices, voice
from voicequeue import FailureCode, Stage, State, VoiceQueue
from voicequeue.domain.job import to_iso8601
from voicequeue.storage.job_store import JobStore


def rows(output: str) -> list[list[str]]:
    """Return the words of each line of a table, without its heading."""
    return [line.split() for line in output.splitlines()[1:]]


def test_batches_are_listed_with_their_progress(command: Command, store: JobStore) -> None:
    """The newest first: whether they are running, and how many jobs are done, failed and unsure."""
    for number, state in enumerate((State.SUCCEEDED, State.UNSURE)):
        job_in_state(store, state, voice(batch="old"), now=NOW + number)
    fail_job(store, job_in_state(store, State.PENDING, voice(batch="old")), FailureCode.UPSTREAM_FAILED)
    enqueue_jobs(store, voice(batch="new", key="n"), now=NOW + 60)
    store.set_batch_limits("new", max_credits=50, max_in_flight=2, stop_after=0.2)

    output = command("batches").out

    assert [row[:6] for row in rows(output)] == [
        ["new", "running", "1", "0", "0", "0"],
        ["old", "settled", "3", "1", "1", "1"],
    ]
    assert "50 credits, 2 in flight, stops at 20 %" in output


def test_a_paused_and_a_stopped_batch_say_so(command: Command, store: JobStore, queue: VoiceQueue) -> None:
    """A stopped one is paused as well; its state is the reason."""
    store.set_batch_limits("stopped", stop_after=1.0, stop_min=1)
    job_in_state(store, State.FAILED, voice(batch="stopped"))
    enqueue_jobs(store, voice(key="next", batch="stopped"), voice(key="other", batch="paused"))
    queue.pause(batch="paused")

    assert {row[0]: row[1] for row in rows(command("batches").out)} == {"stopped": "stopped", "paused": "paused"}


def test_the_json_of_batches_has_progress_limits_and_time(command: Command, queue: VoiceQueue) -> None:
    """As HTTP returns a batch."""
    queue.enqueue(voice(batch="b"))
    batch = queue.batch("b")

    [listed] = command("batches", "--json").json()

    assert listed == {**batch.as_dict(), **batch.limits_dict(), "created_at": to_iso8601(batch.created_at)}


def test_batches_are_searched_by_a_part_of_the_name(command: Command, queue: VoiceQueue) -> None:
    """In upper or lower case."""
    for name in ("spring-2026", "summer-2026", "Spring"):
        queue.enqueue(voice(batch=name, key=name))

    names = {row[0] for row in rows(command("batches", "--search", "SPRING").out)}

    assert names == {"spring-2026", "Spring"}
    assert command("batches", "--search", "winter").out == "no batch has this text in its name\n"


def test_a_queue_without_batches_says_so(command: Command) -> None:
    """As text; as JSON it is an empty list."""
    assert command("batches").out == "no batches\n"
    assert command("batches", "--json").json() == []


@pytest.mark.parametrize(
    ("arguments", "note"),
    [
        (["batches", "--limit", 2], "2 of 3 batches (--limit N, --all)\n"),
        (["batches", "--limit", 1, "--search", "b"], "1 of 3 batches (--limit N, --all)\n"),
        (["jobs", "--limit", 5], "5 of 63 jobs (--limit N, --all)\n"),
        (["jobs", "--batch", "b0"], "50 of 61 jobs (--limit N, --all)\n"),
        (["jobs", "--state", "queued"], "50 of 63 jobs (--limit N, --all)\n"),
        (["jobs", "--stage", "voice"], "the first 50 jobs, and there are more (--limit N, --all)\n"),
        (["batches", "--limit", 3], ""),
        (["jobs", "--all"], ""),
        (["jobs", "--limit", 63], ""),
    ],
)
def test_a_list_that_is_cut_says_of_how_many(
    command: Command, queue: VoiceQueue, arguments: list[object], note: str
) -> None:
    """On standard error, as text and as JSON; standard output has entries only."""
    queue.enqueue_many(numbered_voices(61, batch="b0"))
    for batch in ("b1", "b2"):
        queue.enqueue(voice(batch=batch, key=batch))

    listed, as_json = command(*arguments), command(*arguments, "--json")

    assert (listed.code, listed.err) == (0, note)
    assert as_json.err == (f'{{"note": {{"message": "{note.strip()}"}}}}\n' if note else "")
    assert len(as_json.json()) == len(rows(listed.out))


def test_jobs_are_listed_in_the_order_of_a_time(command: Command, queue: VoiceQueue) -> None:
    """Those of a batch by when they were enqueued, others by their last change; another order is an error."""
    ids = [queue.enqueue(voice(batch="b", key=str(number))).id for number in range(3)]
    queue.cancel(ids[0])

    def listed(*options: str) -> list[str]:
        return [job["id"] for job in command("jobs", *options, "--json").json()]

    assert listed("--batch", "b", "--sort", "-created") == ids[::-1]
    assert listed("--sort", "-changed", "--limit", "2") == [ids[0], ids[2]]
    assert listed("--sort", "changed") == [ids[1], ids[2], ids[0]]
    wrong = command("jobs", "--sort", "created")
    assert (wrong.code, "jobs of a batch can be sorted by created" in wrong.err.replace("\n", " ")) == (2, True)


def test_limit_and_all_are_wrong_usage_together(command: Command) -> None:
    """Neither may be ignored silently."""
    for name in ("jobs", "batches", "personas", "callbacks", "archive", "rejects", "audit-log", "review", "keys list"):
        ended = command(*name.split(), "--limit", 5, "--all")
        assert (ended.code, ended.out) == (2, ""), name
        assert "--limit and --all cannot be combined" in ended.err


# ── filters of jobs ───────────────────────────────────────────────────────────────────────────────


def test_jobs_are_filtered_by_stage_code_time_source_and_metadata(command: Command, store: JobStore) -> None:
    """All conditions hold together."""
    failed_job = fail_job(
        store, job_in_state(store, State.PENDING, voice(metadata={"order": "7"})), FailureCode.UPSTREAM_FAILED, NOW + 9
    )
    other = job_in_state(store, State.PENDING, voice(), now=NOW + 60)

    def ids(*options: object) -> set[str]:
        return {job["id"] for job in command("jobs", *options, "--json").json()}

    at = to_iso8601(NOW + 30)
    assert ids("--code", "upstream_failed") == {failed_job.id}
    assert ids("--until", at) == {failed_job.id}
    assert ids("--since", at) == {other.id}
    assert ids("--metadata", "order=7") == {failed_job.id}
    assert ids("--metadata", "order=7", "--since", at) == set()
    assert ids("--stage", Stage.MUSIC) == set()
    assert ids("--source", "library") == {failed_job.id, other.id}
    assert ids("--source", "http") == set()


@pytest.mark.parametrize("option", [("--since", "yesterday"), ("--until", "7 apples"), ("--metadata", "order")])
def test_an_invalid_filter_is_wrong_usage(command: Command, option: tuple[str, str]) -> None:
    """The message has the value, and what is allowed."""
    ended = command("jobs", *option)

    assert (ended.code, ended.out) == (2, "")
    assert repr(option[1]) in ended.err


def test_a_source_names_the_key_or_all_of_its_kind(command: Command, store: JobStore) -> None:
    """`http:shop` is one key, `http` all of them."""
    for source in ("http:shop", "http:shopping", "cli"):
        enqueue_jobs(store, voice(key=source), source=source)

    def sources(source: str) -> set[str]:
        return {job["source"] for job in command("jobs", "--source", source, "--json").json()}

    assert sources("http") == {"http:shop", "http:shopping"}
    assert sources("http:shop") == {"http:shop"}
