"""A request with several songs is several jobs: the first creates the voice, the others use it."""

from __future__ import annotations

import pytest

from tests.store.conftest import Command
from tests.support.jobs import LYRICS, URL, problems
from voicequeue import InvalidJobError, KeyConflictError, Song, Stage, State, VoiceJob, VoiceQueue

SONGS = [Song(prompt=LYRICS, title=title) for title in ("One", "Two", "Three")]


def order(**fields: object) -> VoiceJob:
    """Return a request for three songs on one recording."""
    return VoiceJob.model_validate({"audio_url": URL, "songs": SONGS, "key": "ana", **fields})


def test_each_song_is_a_job_with_a_key_of_its_own(queue: VoiceQueue) -> None:
    """The creator of the voice is returned; the others wait for it."""
    first = queue.enqueue(order(batch="b"))

    jobs = list(queue.jobs(batch="b"))
    assert first.id == jobs[0].id
    assert [job.spec.key for job in jobs] == ["ana", "ana#2", "ana#3"]
    assert [job.spec.song and job.spec.song.title for job in jobs] == ["One", "Two", "Three"]
    assert [job.state for job in jobs] == [State.QUEUED, State.WAITING, State.WAITING]


def test_the_summary_counts_jobs_and_their_cost(queue: VoiceQueue) -> None:
    """One voice and three songs; enqueued again, three known jobs."""
    summary = queue.enqueue_many([order(batch="b"), order(batch="b"), {"audio_url": URL}])

    assert (summary.new, summary.existing, summary.rejected) == (4, 3, 0)
    assert summary.credits == 4 + 3 * 15 + 4


def test_the_result_contains_the_cost_and_the_further_jobs(queue: VoiceQueue) -> None:
    """Also if the job is known."""
    result = queue.enqueue(order())
    again = queue.enqueue(order())

    assert (result.is_new, queue.position(result), result.price) == (True, 1, 49)
    assert [queue.get(job_id).spec.key for job_id in result.further_job_ids] == ["ana#2", "ana#3"]
    assert (again.is_new, again.price, again.further_job_ids) == (False, 49, result.further_job_ids)


def test_another_song_can_be_added(queue: VoiceQueue) -> None:
    """The same request with one more song is one more job."""
    queue.enqueue(order(songs=SONGS[:2]))

    summary = queue.enqueue_many([order()])

    assert (summary.new, summary.existing, summary.credits) == (1, 2, 15)


def test_the_same_key_with_other_songs_is_a_conflict(queue: VoiceQueue) -> None:
    """The error names the key of the changed song."""
    queue.enqueue(order())

    with pytest.raises(KeyConflictError, match="ana#2"):
        queue.enqueue(order(songs=[SONGS[0], SONGS[2]]))


def test_songs_without_a_key_share_a_voice_of_their_own(queue: VoiceQueue) -> None:
    """Two such requests are two voices."""
    summary = queue.enqueue_many([order(key=None), order(key=None)])

    assert summary.credits == 2 * (4 + 3 * 15)


def test_songs_on_a_persona_do_not_wait(queue: VoiceQueue) -> None:
    """The voice exists already."""
    result = queue.enqueue({"persona_id": "p", "songs": [song.model_dump() for song in SONGS]})

    jobs = [queue.get(job_id) for job_id in (result.id, *result.further_job_ids)]
    assert {(job.state, job.stage) for job in jobs} == {(State.QUEUED, Stage.MUSIC)}
    assert result.price == 3 * 15


def test_a_single_entry_of_songs_is_an_ordinary_job(queue: VoiceQueue) -> None:
    """It has its own voice."""
    result = queue.enqueue(order(songs=SONGS[:1]))

    assert (result.price, result.further_job_ids, result.shared_voice) == (19, (), None)


def test_another_recording_under_a_voice_name_is_rejected(queue: VoiceQueue) -> None:
    """The error names the field; nothing is enqueued."""
    queue.enqueue({"audio_url": URL, "voice": "ana", "batch": "b"})

    with pytest.raises(InvalidJobError) as caught:
        queue.enqueue({"audio_url": f"{URL}?2", "voice": "ana", "batch": "b"})

    [problem] = caught.value.problems
    assert (problem.field, problem.message) == ("voice", "is already used for another recording in this batch")
    assert queue.batch("b").total == 1


def test_invalid_combinations_are_rejected_by_field() -> None:
    """For example songs beside a song, too many of them, or sharing a persona."""
    song = SONGS[0].model_dump()
    assert "not both" in problems(song=song, songs=[song])["songs"]
    assert problems(songs=[song] * 101).keys() == {"songs"}
    assert "190" in problems(songs=[song] * 2, key="k" * 191)["key"]
    for field, value in {"voice": "ana", "reuse": True, "audio_sha256": "a" * 64}.items():
        assert problems(audio_url=None, persona_id="p", song=song, **{field: value}).keys() == {field}
    assert problems(audio_sha256="A" * 64).keys() == {"audio_sha256"}


def test_max_credits_applies_to_the_whole_request() -> None:
    """Three songs and a voice cost 49 credits."""
    song = SONGS[0].model_dump()
    assert "49" in problems(songs=[song] * 3, max_credits=48)["max_credits"]
    assert order(max_credits=49).expand()[0].credits == 19


def test_a_json_line_may_contain_several_songs(command: Command) -> None:
    """The row is then several jobs."""
    row = b'{"audio_url": "https://a.example/a.wav", "songs": [{"prompt": "la"}, {"prompt": "lo"}]}\n'

    first = command("ingest", "-", "--batch", "b", "--json", stdin=row).json()
    second = command("ingest", "-", "--batch", "b", "--json", stdin=row).json()

    assert (first["new"], first["credits"]) == (2, 34)
    assert (second["new"], second["existing"]) == (0, 2)


def test_rows_of_a_file_reuse_voices_with_the_option(command: Command) -> None:
    """The option applies to rows that do not say; it is not part of their keys."""
    rows = b"audio_url,title,prompt,reuse\n" + b"".join(
        b"https://a.example/a.wav,Song %d,la la,%s\n" % (number, reuse)
        for number, reuse in enumerate((b"", b"", b"no"))
    )

    foreseen = command("ingest", "-", "--batch", "b", "--reuse", "--dry-run", "--json", stdin=rows).json()
    first = command("ingest", "-", "--batch", "b", "--reuse", "--json", stdin=rows).json()
    again = command("ingest", "-", "--batch", "b", "--json", stdin=rows).json()

    assert foreseen["credits"] == first["credits"] == 2 * 4 + 3 * 15
    assert (again["new"], again["existing"]) == (0, 3)
