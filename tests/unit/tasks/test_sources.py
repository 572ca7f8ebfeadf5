"""Links to recordings: signed for allowed buckets only, over https, and never part of an error."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tasks import sources
from tasks.musicapi import AmbiguousFailure, InvalidRequest
from tasks.sources import RecordingSources, SourceError, hide_signature
from voicequeue.net.address_policy import AddressPolicy

HERE = AddressPolicy.parse("127.0.0.1 minio", setting="VOICEQUEUE_AUDIO_ALLOWED_HOSTS")
QUERY = "X-Amz-Credential=AKIA&X-Amz-Signature=secret"


@dataclass
class Storage:
    """A storage whose links begin with this base; or that fails."""

    base: str = "https://s3.example"
    error: Exception | None = None
    delay_s: float = 0.0

    def sign(self, path: str, expiration: int) -> str:
        """Return a link, as fsspec does."""
        time.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        return f"{self.base}/{path}?X-Amz-Expires={expiration}&{QUERY}"


def signing(*buckets: str, **fields: Any) -> RecordingSources:
    """Return sources that sign with a storage."""
    storage = Storage(**fields)
    return RecordingSources(buckets, 600, HERE, lambda: storage)


def test_an_http_url_is_its_own_link() -> None:
    """Also where nothing is configured."""
    assert RecordingSources().link("https://recordings.example/a.mp3?x=1") == "https://recordings.example/a.mp3?x=1"


@pytest.mark.parametrize("bucket", ["voices", "s3://voices/", "voices/2026", "voices/2026/"])
def test_an_object_of_an_allowed_bucket_is_signed(bucket: str) -> None:
    """For the configured time."""
    link = signing(bucket).link("s3://voices/2026/a b.mp3")
    assert link == f"https://s3.example/voices/2026/a b.mp3?X-Amz-Expires=600&{QUERY}"


@pytest.mark.parametrize("bucket", ["voice", "voices-of-others", "voices/2025", "voices/202"])
def test_no_object_of_another_bucket_is_signed(bucket: str) -> None:
    """Callers must not read what only the operator may read; the error names the cure."""
    with pytest.raises(SourceError, match="add voices to VOICEQUEUE_SIGNED_BUCKETS") as raised:
        signing(bucket).link("s3://voices/2026/a.mp3")
    assert not raised.value.is_temporary
    with pytest.raises(SourceError):
        signing("voices/2026").link("s3://voices/2026/../a.mp3")


@pytest.mark.parametrize("base", ["http://127.0.0.1:9000", "http://minio:9000"])
def test_a_plain_http_link_needs_an_allowed_host(base: str) -> None:
    """MusicAPI fetches links over the internet."""
    assert signing("voices", base=base).link("s3://voices/a.mp3").startswith(base)
    with pytest.raises(SourceError, match="set AWS_ENDPOINT_URL to its https:// address"):
        signing("voices", base="http://s3.example").link("s3://voices/a.mp3")


class NoCredentialsError(Exception):
    """An error of the name that botocore gives it."""


@pytest.mark.parametrize(
    ("error", "text", "is_temporary"),
    [
        (NoCredentialsError("secret"), "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", False),
        (OSError("secret"), "the link could not be signed: OSError", True),
        (ValueError("secret"), "the link could not be signed: ValueError", True),
    ],
)
def test_an_error_of_the_storage_is_named_without_its_text(error: Exception, text: str, is_temporary: bool) -> None:
    """Its text may quote credentials."""
    with pytest.raises(SourceError, match=text) as raised:
        signing("voices", error=error).link("s3://voices/a.mp3")
    assert raised.value.is_temporary is is_temporary
    assert "secret" not in str(raised.value)


def test_a_package_that_is_missing_is_named() -> None:
    """With the command that installs it."""

    def missing() -> None:
        raise SourceError("install 'voicequeue[worker,s3]'")

    with pytest.raises(SourceError, match="install"):
        RecordingSources(("voices",), 600, HERE, missing).link("s3://voices/a.mp3")


def test_credentials_that_hang_delay_one_job_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one fails at once, and is queued for a while like the first."""
    monkeypatch.setattr(sources, "SIGN_TIMEOUT_S", 0.05)
    slow = signing("voices", delay_s=1)
    started = time.monotonic()
    for _ in range(20):
        with pytest.raises(SourceError, match="did not arrive in time") as raised:
            slow.link("s3://voices/a.mp3")
        assert raised.value.is_temporary
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize("quote", [str, lambda link: f'{{"audio_url":"{link}"}}', lambda link: link[20:]])
def test_an_error_that_quotes_a_signed_link_is_cleaned(quote: Callable[[str], str]) -> None:
    """Errors are stored, shown and logged."""
    quoted = quote(f"https://s3.example/voices/a.mp3?{QUERY}")
    refused, lost = InvalidRequest(f"cannot fetch {quoted} today"), AmbiguousFailure("unreadable", f"got {quoted}")
    for error in (refused, lost):
        hide_signature(error)
    text = f"{refused} {refused.message} {refused.args} {lost.answer}"
    assert "secret" not in text
    assert "AKIA" not in text
    assert refused.message.startswith("cannot fetch ")
    assert refused.message.endswith(" today")
