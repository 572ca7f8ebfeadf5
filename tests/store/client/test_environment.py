"""`VoiceQueue()` uses what the environment names."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.jobs import voice
from voicequeue import AsyncVoiceQueue, VoiceQueue
from voicequeue.auth.secret_files import SecretFileError


def test_the_environment_names_redis_prefix_and_namespace(
    monkeypatch: pytest.MonkeyPatch, valkey_url: str, prefix: str
) -> None:
    """For both clients, as for the command line."""
    for name, value in (("REDIS_URL", valkey_url), ("VOICEQUEUE_PREFIX", prefix), ("VOICEQUEUE_NAMESPACE", "shop")):
        monkeypatch.setenv(name, value)

    async def namespace_of(job_id: str) -> str:
        async with AsyncVoiceQueue() as queue:
            return (await queue.get(job_id)).namespace

    with VoiceQueue() as queue, VoiceQueue(valkey_url, prefix=prefix, namespace="*") as operator:
        job = queue.enqueue(voice())
        assert operator.get(job.id).namespace == asyncio.run(namespace_of(job.id)) == "shop"


def test_arguments_take_precedence_over_the_environment(
    monkeypatch: pytest.MonkeyPatch, valkey_url: str, prefix: str
) -> None:
    """The default namespace is named ''."""
    for name, value in (("REDIS_URL", "nonsense"), ("VOICEQUEUE_PREFIX", "{}"), ("VOICEQUEUE_NAMESPACE", "a b")):
        monkeypatch.setenv(name, value)

    with VoiceQueue(valkey_url, prefix=prefix, namespace="") as queue:
        assert queue.enqueue(voice()).namespace == queue.namespace == ""


def test_redis_may_be_named_by_a_secret_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, valkey_url: str, prefix: str
) -> None:
    """As for the processes; a file that cannot be used is an error."""
    file = tmp_path / "redis_url"
    monkeypatch.setenv("REDIS_URL_FILE", str(file))
    with pytest.raises(SecretFileError, match="REDIS_URL_FILE"):
        VoiceQueue()

    file.write_text(valkey_url)
    with VoiceQueue(prefix=prefix) as queue:
        assert queue.enqueue(voice()).is_new
