"""Recordings on S3: each order gets a link of its own, which is in no record, log or message."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import fsspec
import pytest
from moto.server import ThreadedMotoServer
from redis import Redis
from s3fs import S3FileSystem

from tasks.sources import RecordingSources
from tests.integration.conftest import Bench, Build
from tests.integration.steps.recording_steps import HERE, checking
from tests.store.life import dump_keys
from tests.support.recordings import wav
from tests.support.scripted import Request, ScriptedServer, answer
from voicequeue import FailureCode, Stage, State, VoiceJob


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start an S3 server with a bucket; credentials and endpoint come from the environment, as in production."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "DEFAULT_REGION": "us-east-1"}
    for name, value in (variables | {"ENDPOINT_URL": f"http://{host}:{port}"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    files = fsspec.filesystem("s3")
    files.makedirs("voices", exist_ok=True)
    files.pipe_file("voices/anna 1.wav", wav(20))
    files.pipe_file("voices/short.wav", wav(3))
    yield "voices"
    S3FileSystem.close_session(files.loop, files.s3)
    S3FileSystem.clear_instance_cache()
    server.stop()


def signing(bench: Bench, *buckets: str) -> Bench:
    """Return the bench as a worker that signs links to objects of these buckets."""
    return replace(bench, services=replace(bench.services, sources=RecordingSources(buckets, 300, HERE)))


def recording(name: str) -> VoiceJob:
    """Return a job for an object."""
    return VoiceJob(audio_url=f"s3://voices/{name}", key=name)


def test_each_order_gets_a_signed_link_that_is_stored_nowhere(
    build: Build, bucket: str, redis: Redis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even when MusicAPI quotes it; a retry signs another one."""
    links: list[str] = []

    def refuse(request: Request) -> Iterator[bytes]:
        links.append(request.json()["audio_url"])
        yield answer({"error": f"cannot read {links[-1]}"}, status="400 Bad Request")

    with caplog.at_level(logging.DEBUG, "voicequeue"), ScriptedServer(refuse) as upstream:
        bench = checking(signing(build(upstream.url), bucket), hold_s=20)
        job_ids = bench.admitted(recording("anna 1.wav"))
        bench.submit(Stage.VOICE, job_ids)

    [link] = links
    parts = urlsplit(link)
    assert (parts.path, parse_qs(parts.query)["X-Amz-Expires"]) == ("/voices/anna%201.wav", ["300"])
    signature = parse_qs(parts.query)["X-Amz-Signature"][0]
    assert signature not in repr(dump_keys(redis, prefix))
    ours = [vars(record) for record in caplog.records if record.name.startswith("voicequeue")]
    assert ours
    assert signature not in repr(ours)
    failure = bench.job(job_ids[0]).failure
    assert failure is not None
    assert (failure.code, failure.message) == (FailureCode.REFUSED, "cannot read …")


def test_recordings_on_s3_are_checked_by_their_link(build: Build, bucket: str) -> None:
    """What is absent or too short is not ordered."""
    with ScriptedServer(lambda _: [answer({"task_id": "t"})]) as upstream:
        bench = checking(signing(build(upstream.url), bucket), hold_s=20)
        job_ids = bench.admitted(*map(recording, ("anna 1.wav", "short.wav", "absent.wav")))
        bench.submit(Stage.VOICE, job_ids)
        assert len(upstream.requests) == 1
    failures = [job.failure and job.failure.code for job in map(bench.job, job_ids)]
    assert failures == [None, FailureCode.RECORDING_UNFIT, FailureCode.RECORDING_UNREACHABLE]


@pytest.mark.parametrize("checks", [True, False])
def test_a_worker_that_may_not_sign_fails_the_job_with_the_cure(build: Build, checks: bool) -> None:
    """Nothing is sent; other jobs of the chunk are."""
    with ScriptedServer(lambda _: [answer({"task_id": "t"})]) as upstream:
        bench = build(upstream.url)
        bench = checking(bench) if checks else bench
        job_ids = bench.admitted(recording("anna 1.wav"))
        bench.submit(Stage.VOICE, job_ids)
        assert upstream.requests == []
    job = bench.job(job_ids[0])
    assert job.failure is not None
    assert (job.state, job.credits, job.failure.code) == (State.FAILED, 0, FailureCode.RECORDING_UNREACHABLE)
    assert "add voices to VOICEQUEUE_SIGNED_BUCKETS and restart the workers" in job.failure.message


def test_a_link_that_cannot_be_signed_now_is_signed_later(build: Build) -> None:
    """Credentials that do not arrive fail no job; it rests without a slot."""

    class Broken:
        def sign(self, path: str, expiration: int) -> str:
            raise OSError(path, expiration)

    with ScriptedServer(lambda _: [answer({"task_id": "t"})]) as upstream:
        bench = build(upstream.url)
        sources = RecordingSources(("voices",), 300, HERE, Broken)
        bench = replace(bench, services=replace(bench.services, sources=sources))
        job_ids = bench.admitted(recording("anna 1.wav"))
        bench.submit(Stage.VOICE, job_ids)
        assert (bench.states(job_ids), bench.admit()) == ([State.QUEUED], {})
        bench.clock.now += 31
        assert bench.admit() == {Stage.VOICE: job_ids}
        assert upstream.requests == []
