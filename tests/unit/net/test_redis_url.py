"""Which Redis URLs are taken: those that redis-py and Celery's transport read alike."""

from __future__ import annotations

from ssl import CERT_NONE
from typing import Any

import pytest
from kombu import Connection
from redis.connection import parse_url

from config.celeryconfig import configuration
from config.settings import BadSettings, Settings, load
from voicequeue import VoiceQueue
from voicequeue.storage.job_store import connect
from voicequeue.storage.redis_url import validate_redis_url

TAKEN = [
    "redis://localhost:6379/0",
    "redis://redis.internal",
    "redis://redis.internal/",
    "redis://10.0.0.1:7000/15",
    "redis://[2001:db8::1]:6379/2",
    "redis://:p%40ss%2Fw%23rd%3B@host:6379/0",
    "redis://user:p@ss@host:6379/1",
    "rediss://user:pass@host:6380/1",
    "rediss://host/0?ssl_cert_reqs=none&ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=false",
]

#: What is refused, and a part of what is said of it.
REFUSED = {
    "": "redis:// and rediss:// are supported",
    "localhost:6379": "redis:// and rediss:// are supported",
    "http://s3cr3t@host": "redis:// and rediss:// are supported",
    "REDIS://host": "redis:// and rediss:// are supported",
    "redis+sentinel://:s3cr3t@host:26379/mymaster/0": "Sentinel and Cluster are not supported",
    "sentinel://host:26379": "Sentinel and Cluster are not supported",
    "redis+cluster://host": "Sentinel and Cluster are not supported",
    "unix:///var/run/redis.sock": "a Unix socket is not supported",
    "redis://": "it names no host",
    "redis://:s3cr3t@:6379/0": "it names no host",
    "redis://host:0/0": "the port is 1 to 65535",
    "redis://host:70000/0": "the host or port cannot be read",
    "redis://host:port/0": "the host or port cannot be read",
    "redis://one:6379,two:6379/0": "the host or port cannot be read",
    "redis://:s3cr3t/x@host:6379/0": "the host or port cannot be read",
    "redis://:s3cr3t[@host:6379/0": "the host or port cannot be read",
    "redis://:s3cr3t#x@host:6379/0": "percent-encoded",
    "redis://one:6379/0;redis://:s3cr3t@two:6379/0": "percent-encoded",
    "redis://host:6379/0\n": "percent-encoded",
    "redis://host:6379/name": "the database is a whole number",
    "redis://host:6379/-1": "the database is a whole number",
    "redis://host:6379/0/1": "the database is a whole number",
    "redis://host:6379/0/": "the database is a whole number",
    "redis://host:6379/0?socket_timeout=5": "no options are supported after a '?'",
    "redis://host:6379?db=3": "no options are supported after a '?'",
    "redis://host:6379/0?ssl_cert_reqs=none": "no options are supported after a '?'",
    "rediss://host:6379/0?ssl_cert_reqs=maybe": "ssl_cert_reqs is none or optional or required",
    "rediss://host:6379/0?ssl_ca_certs=": "ssl_ca_certs is the path of a file",
}


@pytest.mark.parametrize("url", TAKEN)
def test_what_is_taken_means_the_same_to_both_clients(url: str) -> None:
    """Host, port, database, user, password and certificates: messages and jobs lie in one Redis."""
    jobs: dict[str, Any] = parse_url(validate_redis_url(url))  # type: ignore[no-untyped-call]
    conf = configuration(Settings(_env_file=None, REDIS_URL=url))
    messages = Connection(conf["broker_url"], ssl=conf["broker_use_ssl"])

    assert messages.hostname == jobs["host"]
    assert (messages.port or 6379) == jobs.get("port", 6379)
    assert int(messages.virtual_host.strip("/") or 0) == jobs.get("db", 0)
    assert (messages.userid, messages.password) == (jobs.get("username"), jobs.get("password"))
    if url.startswith("rediss:"):
        assert isinstance(messages.ssl, dict)
        assert messages.ssl["ssl_cert_reqs"] == (CERT_NONE if "none" in url else "required")
    else:
        assert not messages.ssl


@pytest.mark.parametrize(("url", "said"), REFUSED.items())
def test_what_one_of_them_would_misread_is_refused_by_all(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library, the client and the settings say the same: what is wrong, what is allowed. No password is quoted."""
    monkeypatch.setenv("REDIS_URL", url or "?")
    for refused in (lambda: VoiceQueue(url), lambda: connect(url), load):
        with pytest.raises((ValueError, BadSettings), match="the Redis URL must look like redis://") as caught:
            refused()
        assert said in str(caught.value)
        assert "s3cr3t" not in str(caught.value)
    assert str(caught.value).startswith("REDIS_URL: ")
