"""A worker lets go of what has been over for as long as the settings say, and of nothing that is still of use."""

from __future__ import annotations

from tests.acceptance.conftest import Build, jobs
from tests.acceptance.jobs.test_voices import recording, song
from tests.conftest import eventually
from voicequeue import State, VoiceJob
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.job_store import connect

#: So many days.
A_SECOND = str(1 / 86_400)


def test_jobs_go_when_they_have_been_over_for_long_and_what_was_bought_stays(build: Build) -> None:
    """Their voices sing again without being paid for, what was spent stays counted, and a paused job waits."""
    house = build(workers=1, VOICEQUEUE_KEEP_DAYS=A_SECOND)
    with house.queue() as queue, connect(house.redis_url) as redis:
        queue.limit_batch("paused", paused=True)
        kept = queue.enqueue(VoiceJob(audio_url=recording("paused"), batch="paused"))
        queue.enqueue_many(jobs(20, "spring"))
        eventually(lambda: "spring" not in [batch.name for batch in queue.batches()], within_s=30)

        assert [job.id for job in queue.jobs()] == [kept.id]
        assert queue.status().credits == house.ledger()["credits_spent"] == 20 * 19
        [bought] = [each for each in queue.personas() if each.audio_url == jobs(1, "spring")[0].audio_url]

        again = queue.enqueue(VoiceJob(audio_url=bought.audio_url, song=song(1), reuse=True))
        sung = queue.wait(again.id, timeout=20)

        assert (sung.state, sung.persona_id, sung.credits) == (State.SUCCEEDED, bought.persona_id, 15)
        eventually(lambda: [job.id for job in queue.jobs()] == [kept.id])
        assert audit(redis, "voicequeue") == []
    assert house.ledger()["credits_spent"] == 20 * 19 + 15
