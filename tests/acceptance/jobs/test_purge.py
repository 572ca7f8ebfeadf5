"""A worker purges jobs after the retention time, and nothing that is still of use."""

from __future__ import annotations

from tests.acceptance.conftest import Build, jobs
from tests.acceptance.jobs.test_pipeline import recording, song
from tests.conftest import eventually
from voicequeue import State, VoiceJob
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.connection.client import connect

#: In days.
A_SECOND = str(1 / 86_400)


def test_settled_jobs_are_purged_and_their_voices_and_credits_are_kept(build: Build) -> None:
    """Their voices can be used again without payment, the spent credits stay counted, and a paused job stays."""
    system = build(workers=1, VOICEQUEUE_RETENTION_DAYS=A_SECOND)
    with system.queue() as queue, connect(system.redis_url) as redis:
        queue.set_batch_limits("paused", paused=True)
        kept = queue.enqueue(VoiceJob(audio_url=recording("paused"), batch="paused"))
        queue.enqueue_many(jobs(20, "spring"))
        eventually(lambda: "spring" not in [batch.name for batch in queue.batches()], within_s=30)

        assert [job.id for job in queue.jobs()] == [kept.id]
        assert queue.status().credits == system.ledger()["credits_spent"] == 20 * 19
        [bought] = [persona for persona in queue.personas() if persona.audio_url == jobs(1, "spring")[0].audio_url]

        again = queue.enqueue(VoiceJob(audio_url=bought.audio_url, song=song(1), reuse=True))
        sung = queue.wait(again.id, timeout=20)

        assert (sung.state, sung.persona_id, sung.credits) == (State.SUCCEEDED, bought.persona_id, 15)
        eventually(lambda: [job.id for job in queue.jobs()] == [kept.id])
        assert audit(redis, "voicequeue") == []
    assert system.ledger()["credits_spent"] == 20 * 19 + 15
