"""Redis URLs: those that are accepted mean the same to the clients of jobs and of messages."""

from __future__ import annotations

from ssl import CERT_NONE
from typing import Any

import pytest
from kombu import Connection
from redis.connection import parse_url

from config.celeryconfig import configuration
from config.settings import Settings, SettingsError, load
from voicequeue import VoiceQueue
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.redis_url import (
    RedisAddress,
    masked,
    parse_redis_url,
    passwords_in,
    validate_redis_url,
)

ACCEPTED = [
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

#: The start of every error.
SHAPES = r"the Redis URL must look like (redis|sentinel)://"

#: Rejected URLs, with a part of the error.
REJECTED = {
    "": "use redis:// or rediss://",
    "localhost:6379": "use redis:// or rediss://",
    "http://s3cr3t@host": "use redis:// or rediss://",
    "REDIS://host": "use redis:// or rediss://",
    "sentinel://:s3cr3t@host:26379": "the name of the primary, as the sentinels know it, must follow the hosts",
    "sentinel://host:26379/0/0/0": "the database must be a whole number",
    "sentinel://host:26379,/voices": "the host is missing",
    "sentinel://host:26379,two:x/voices": "the host or port is invalid",
    "sentinel://host/voices?ssl_ca_certs=/ca.pem": "options of sentinel:// are sentinel_username, sentinel_password",
    "sentinel://host/voices?sentinel_password=": "sentinel_password is empty",
    "redis+cluster://host": "a Cluster is not supported",
    "unix:///var/run/redis.sock": "Unix sockets are not supported",
    "redis://": "the host is missing",
    "redis://:s3cr3t@:6379/0": "the host is missing",
    "redis://host:0/0": "the port must be 1 to 65535",
    "redis://host:70000/0": "the host or port is invalid",
    "redis://host:port/0": "the host or port is invalid",
    "redis://one:6379,two:6379/0": "the host or port is invalid",
    "redis://:s3cr3t/x@host:6379/0": "the host or port is invalid",
    "redis://:s3cr3t[@host:6379/0": "the host or port is invalid",
    "redis://:s3cr3t#x@host:6379/0": "percent-encode special characters",
    "redis://one:6379/0;redis://:s3cr3t@two:6379/0": "percent-encode special characters",
    "redis://host:6379/0\n": "percent-encode special characters",
    "redis://host:6379/name": "the database must be a whole number",
    "redis://host:6379/-1": "the database must be a whole number",
    "redis://host:6379/0/1": "the database must be a whole number",
    "redis://host:6379/0/": "the database must be a whole number",
    "redis://host:6379/0?socket_timeout=5": "options after '?' are not supported",
    "redis://host:6379?db=3": "options after '?' are not supported",
    "redis://host:6379/0?ssl_cert_reqs=none": "options after '?' are not supported",
    "rediss://host:6379/0?ssl_cert_reqs=maybe": "ssl_cert_reqs must be none or optional or required",
    "rediss://host:6379/0?ssl_ca_certs=": "ssl_ca_certs must be the path of a file",
}


@pytest.mark.parametrize("url", ACCEPTED)
def test_an_accepted_url_means_the_same_to_both_clients(url: str) -> None:
    """Host, port, database, user, password and certificates: messages and jobs are in one Redis."""
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


def test_a_url_of_sentinels_names_their_hosts_the_primary_and_both_logins() -> None:
    """A port may be omitted; the options of TLS are those of rediss://."""
    address = parse_redis_url(
        "rediss+sentinel://ana:p%40ss@one:26380,[2001:db8::1],three/voices/2"
        "?sentinel_username=watch&sentinel_password=s%26t&ssl_check_hostname=false&ssl_ca_certs=/ca.pem"
    )

    assert address == RedisAddress(
        hosts=(("one", 26380), ("2001:db8::1", 26379), ("three", 26379)),
        primary="voices",
        database=2,
        username="ana",
        password="p@ss",
        sentinel_username="watch",
        sentinel_password="s&t",
        tls={"ssl_check_hostname": False, "ssl_ca_certs": "/ca.pem"},
    )
    assert "p@ss" not in repr(address)
    assert "s&t" not in repr(address)


def test_no_password_of_a_url_is_shown() -> None:
    """Neither that of Redis nor that of the sentinels; and logs hide both, decoded and as they are quoted."""
    url = "sentinel://ana:p%40ss@one,two/voices?sentinel_username=w&sentinel_password=s%26t"

    assert masked(url) == "sentinel://ana:***@one,two/voices?sentinel_username=w&sentinel_password=***"
    assert set(passwords_in(url)) == {"p@ss", "p%40ss", "s&t", "s%26t"}
    assert passwords_in("redis://localhost") == []


@pytest.mark.parametrize(("url", "reason"), REJECTED.items())
def test_a_url_that_one_client_would_misread_is_rejected(
    url: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library, the client and the settings give the same error: the problem, and the allowed form. No password is
    shown."""
    monkeypatch.setenv("REDIS_URL", url or "?")
    for use in (lambda: VoiceQueue(url), lambda: connect(url), load):
        with pytest.raises((ValueError, SettingsError), match=SHAPES) as raised:
            use()
        assert reason in str(raised.value)
        assert "s3cr3t" not in str(raised.value)
    assert str(raised.value).startswith("REDIS_URL: ")
