"""TLS with Redis and sentinels: the clients of jobs, of messages and of Flower verify alike, and say what is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from kombu import Queue

from config import flowerbroker
from config.celeryconfig import configuration
from config.settings import Settings, settings
from tests.support.jobs import voice
from tests.support.scripted_sentinel import scripted_sentinel
from tests.support.tls import Authority, TlsProxy
from voicequeue import StoreUnavailableError, VoiceQueue
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.problems import TlsError
from workers.messaging import redis_transport
from workers.startup import require_usable_redis


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority that this system does not trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure(authority: Authority, valkey_url: str) -> Iterator[TlsProxy]:
    """Start a Redis with TLS, whose certificate is for localhost."""
    with TlsProxy(urlsplit(valkey_url).port or 0, authority.certificate("localhost")) as proxy:
        yield proxy


def read_jobs(url: str) -> object:
    """Use the client of jobs."""
    with connect(url) as redis:
        return redis.ping()


def read_messages(url: str) -> object:
    """Use Celery's connection."""
    redis_transport.install(time.time, url)
    conf: dict[str, Any] = configuration(Settings(_env_file=None, REDIS_URL=url))
    options = conf["broker_transport_options"]
    with redis_transport.Connection(
        conf["broker_url"], ssl=conf["broker_use_ssl"], transport_options=options
    ) as client:
        return Queue("work", channel=client.channel()).declare()


def read_queue_lengths(url: str) -> object:
    """Use Flower's reader."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDIS_URL", url)
        settings.cache_clear()
        try:
            return flowerbroker._read_queues(["intake"])
        finally:
            settings.cache_clear()


CLIENTS = [read_jobs, read_messages, read_queue_lengths]


@pytest.mark.parametrize("read", CLIENTS)
def test_a_certificate_must_be_signed_by_a_known_authority(
    read: Callable[[str], object], secure: TlsProxy, authority: Authority
) -> None:
    """Otherwise no client sends its password, and each names the problem and the cure."""
    url = f"rediss://:s3cr3t@localhost:{secure.port}/0"

    with pytest.raises(TlsError, match=r"CERTIFICATE_VERIFY_FAILED.*\?ssl_ca_certs=") as raised:
        read(url)

    assert "s3cr3t" not in str(raised.value)
    assert secure.accepted == 0
    read(url.replace(":s3cr3t@", "") + f"?ssl_ca_certs={authority.file}")
    assert secure.accepted >= 1


@pytest.mark.parametrize("read", CLIENTS)
def test_a_certificate_must_be_for_the_host_of_the_url(
    read: Callable[[str], object], secure: TlsProxy, authority: Authority
) -> None:
    """A certificate for another host of the same authority is that of a stranger."""
    url = f"rediss://127.0.0.1:{secure.port}/0?ssl_ca_certs={authority.file}"

    with pytest.raises(TlsError, match=r"CERTIFICATE_VERIFY_FAILED.*IP address mismatch"):
        read(url)

    read(f"{url}&ssl_check_hostname=false")


@pytest.mark.parametrize("read", CLIENTS)
def test_a_client_shows_its_certificate(read: Callable[[str], object], authority: Authority, valkey_url: str) -> None:
    """A server may require one."""
    server, own = authority.certificate("localhost"), authority.certificate("worker")
    with TlsProxy(urlsplit(valkey_url).port or 0, server, clients=authority) as proxy:
        url = f"rediss://localhost:{proxy.port}/0?ssl_ca_certs={authority.file}"

        read(f"{url}&ssl_certfile={own.certificate}&ssl_keyfile={own.key}")

        assert proxy.accepted >= 1


@pytest.mark.parametrize("read", CLIENTS)
def test_sentinels_and_the_primary_that_they_name_are_verified(
    read: Callable[[str], object], secure: TlsProxy, authority: Authority
) -> None:
    """Sentinels announce host names, and both certificates are for these names."""
    with (
        scripted_sentinel("voices", "localhost", secure.port) as port,
        TlsProxy(port, authority.certificate("localhost")) as sentinel,
    ):
        url = f"rediss+sentinel://localhost:{sentinel.port}/voices/0"
        with pytest.raises(TlsError, match=rf"localhost:{sentinel.port} failed: CERTIFICATE_VERIFY_FAILED"):
            read(url)

        read(f"{url}?ssl_ca_certs={authority.file}")

        assert secure.accepted >= 1
    with (
        scripted_sentinel("voices", "127.0.0.1", secure.port) as port,
        TlsProxy(port, authority.certificate("localhost")) as sentinel,
        pytest.raises(TlsError, match="mismatch"),
    ):
        read(f"rediss+sentinel://localhost:{sentinel.port}/voices/0?ssl_ca_certs={authority.file}")


@pytest.mark.parametrize("file", ["/nowhere/ca.pem", __file__])
def test_a_file_of_certificates_that_cannot_be_read_is_named(file: str, secure: TlsProxy) -> None:
    """It is missing, or contains something else."""
    with pytest.raises(TlsError, match="check ssl_ca_certs, ssl_certfile and ssl_keyfile in the Redis URL"):
        read_jobs(f"rediss://localhost:{secure.port}/0?ssl_ca_certs={file}")


def test_processes_and_callers_name_why_tls_failed(secure: TlsProxy) -> None:
    """A process does not start, and a call of the library raises the usual error; both with the cure."""
    url = f"rediss://:s3cr3t@localhost:{secure.port}/0"

    with pytest.raises(SystemExit, match=r"^REDIS_URL: TLS with localhost:.*CERTIFICATE_VERIFY_FAILED.*ssl_ca_certs"):
        require_usable_redis(url)
    with VoiceQueue(url) as queue, pytest.raises(StoreUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        queue.enqueue(voice())
