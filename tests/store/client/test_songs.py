"""One order with several songs is several jobs: the first makes the voice, the others sing with it."""

from __future__ import annotations

import pytest

from tests.store.conftest import Command
from tests.support.jobs import LYRICS, URL, problems
from voicequeue import InvalidJob, KeyConflict, Song, Stage, State, VoiceJob, VoiceQueue

SONGS = [Song(prompt=LYRICS, title=title) for title in ("One", "Two", "Three")]


def order(**fields: object) -> VoiceJob:
    """Three songs on one recording."""
    return VoiceJob.model_validate({"audio_url": URL, "songs": SONGS, "key": "ana", **fields})


def test_each_song_is_a_job_with_a_key_of_its_own(queue: VoiceQueue) -> None:
    """The one that makes the voice is given back; the others wait for it."""
    first = queue.enqueue(order(batch="b"))

    jobs = list(queue.jobs(batch="b"))
    assert first.id == jobs[0].id
    assert [job.spec.key for job in jobs] == ["ana", "ana#2", "ana#3"]
    assert [job.spec.song and job.spec.song.title for job in jobs] == ["One", "Two", "Three"]
    assert [job.state for job in jobs] == [State.QUEUED, State.WAITING, State.WAITING]


def test_the_receipt_counts_jobs_and_what_they_cost(queue: VoiceQueue) -> None:
    """One voice, three songs; given again, three that are known."""
    receipt = queue.enqueue_many([order(batch="b"), order(batch="b"), {"audio_url": URL}])

    assert (receipt.new, receipt.known, receipt.rejected) == (4, 3, 0)
    assert receipt.credits == 4 + 3 * 15 + 4


def test_a_place_tells_the_cost_of_the_order_and_its_further_jobs(queue: VoiceQueue) -> None:
    """Also where it is known already."""
    placed = queue.place(order())
    again = queue.place(order())

    assert (placed.new, placed.position, placed.credits) == (True, 1, 49)
    assert [queue.get(job_id).spec.key for job_id in placed.further] == ["ana#2", "ana#3"]
    assert (again.new, again.credits, again.further) == (False, 49, placed.further)


def test_a_further_song_is_added_to_an_order(queue: VoiceQueue) -> None:
    """The same order with one more song is one more job."""
    queue.enqueue(order(songs=SONGS[:2]))

    receipt = queue.enqueue_many([order()])

    assert (receipt.new, receipt.known, receipt.credits) == (1, 2, 15)


def test_the_same_key_with_other_songs_is_a_conflict(queue: VoiceQueue) -> None:
    """Which names the key of the song that differs."""
    queue.enqueue(order())

    with pytest.raises(KeyConflict, match="ana#2"):
        queue.enqueue(order(songs=[SONGS[0], SONGS[2]]))


def test_songs_without_a_key_share_a_voice_of_their_own(queue: VoiceQueue) -> None:
    """Two such orders are two voices."""
    receipt = queue.enqueue_many([order(key=None), order(key=None)])

    assert receipt.credits == 2 * (4 + 3 * 15)


def test_songs_on_a_persona_are_jobs_that_wait_for_nothing(queue: VoiceQueue) -> None:
    """The voice is there already."""
    placed = queue.place({"persona_id": "p", "songs": [song.model_dump() for song in SONGS]})

    jobs = [queue.get(job_id) for job_id in (placed.job.id, *placed.further)]
    assert {(job.state, job.stage) for job in jobs} == {(State.QUEUED, Stage.MUSIC)}
    assert placed.credits == 3 * 15


def test_one_of_several_songs_alone_is_a_job_like_any_other(queue: VoiceQueue) -> None:
    """With its own voice."""
    placed = queue.place(order(songs=SONGS[:1]))

    assert (placed.credits, placed.further, placed.job.shares) == (19, (), None)


def test_another_recording_under_a_voices_name_is_told(queue: VoiceQueue) -> None:
    """By its field; nothing is enqueued."""
    queue.enqueue({"audio_url": URL, "voice": "ana", "batch": "b"})

    with pytest.raises(InvalidJob) as caught:
        queue.enqueue({"audio_url": f"{URL}?2", "voice": "ana", "batch": "b"})

    [problem] = caught.value.problems
    assert (problem.field, problem.message) == ("voice", "stands for another recording in this batch")
    assert queue.batch("b").total == 1


def test_what_cannot_be_is_refused_by_its_field() -> None:
    """Songs beside a song, too many of them, sharing a persona."""
    song = SONGS[0].model_dump()
    assert "not both" in problems(song=song, songs=[song])["songs"]
    assert problems(songs=[song] * 101).keys() == {"songs"}
    assert "190" in problems(songs=[song] * 2, key="k" * 191)["key"]
    for field, value in {"voice": "ana", "reuse": True, "audio_sha256": "a" * 64}.items():
        assert problems(audio_url=None, persona_id="p", song=song, **{field: value}).keys() == {field}
    assert problems(audio_sha256="A" * 64).keys() == {"audio_sha256"}


def test_max_credits_holds_for_the_whole_order() -> None:
    """Three songs and a voice cost 49."""
    song = SONGS[0].model_dump()
    assert "49" in problems(songs=[song] * 3, max_credits=48)["max_credits"]
    assert order(max_credits=49).each()[0].credits == 19


def test_json_lines_may_hold_several_songs(command: Command) -> None:
    """A row is then several jobs."""
    row = b'{"audio_url": "https://a.example/a.wav", "songs": [{"prompt": "la"}, {"prompt": "lo"}]}\n'

    first = command("ingest", "-", "--batch", "b", "--json", stdin=row).json()
    second = command("ingest", "-", "--batch", "b", "--json", stdin=row).json()

    assert (first["new"], first["credits"]) == (2, 34)
    assert (second["new"], second["known"]) == (0, 2)


def test_rows_of_a_file_reuse_what_was_made_before_when_they_are_told_to(command: Command) -> None:
    """The option holds for rows that do not say; it is no part of their keys."""
    rows = b"audio_url,title,prompt,reuse\n" + b"".join(
        b"https://a.example/a.wav,Song %d,la la,%s\n" % (number, reuse)
        for number, reuse in enumerate((b"", b"", b"no"))
    )

    foreseen = command("ingest", "-", "--batch", "b", "--reuse", "--dry-run", "--json", stdin=rows).json()
    first = command("ingest", "-", "--batch", "b", "--reuse", "--json", stdin=rows).json()
    again = command("ingest", "-", "--batch", "b", "--json", stdin=rows).json()

    assert foreseen["credits"] == first["credits"] == 2 * 4 + 3 * 15
    assert (again["new"], again["known"]) == (0, 3)
