"""The checks of `voicequeue doctor` beside Redis: settings, upstream, the public URL, Flower, the archive.

The command runs them where this module can be imported: in a checkout's environment and in the image.
"""

from __future__ import annotations

import difflib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from ipaddress import ip_address
from urllib.parse import urlsplit

import requests

from config import flower, reference
from config.flower import FlowerSettings
from config.secret_source import file_settings
from config.settings import Settings, SettingsError, load
from tasks.archive.storage import ArchiveStorage, ArchiveStorageError
from tasks.musicapi import MusicApi, Unauthorized, UpstreamError
from voicequeue.auth import signatures, web_origins
from voicequeue.diagnostics.check_result import CheckResult, Level, passed
from voicequeue.storage.heartbeats import ProcessHeartbeat
from voicequeue.texts import pluralize
from workers.dependencies import callback_secrets
from workers.process_info import process_facts

#: The time limit of each request (seconds).
TIMEOUT_S = 5.0

#: The id of a job that does not exist: a gateway that accepts the signature answers that it has no such job.
NO_JOB = "doctor"


def results() -> Iterator[CheckResult]:
    """Check the environment of this process. Invalid settings end the checks."""
    yield from _unknown_names(os.environ)
    try:
        settings = load()
    except SettingsError as error:
        for line in str(error).splitlines():
            yield CheckResult("settings", Level.ERROR, line, "correct it in the environment or in .env")
        return
    yield from _secrets(settings)
    yield _upstream(settings)
    yield _public_url(settings)
    yield _flower()
    if settings.archive_url.get_secret_value():
        yield _archive(settings)


def this_process() -> ProcessHeartbeat:
    """Return this process with its facts, for the comparison with the others."""
    return ProcessHeartbeat("doctor", "this shell", time.time(), process_facts(load(), "doctor"))


def known_settings() -> frozenset[str]:
    """Return the names of all settings that a process of the queue reads."""
    return frozenset(row.name for row in reference.rows()) | file_settings(Settings) | file_settings(FlowerSettings)


def _unknown_names(environment: Mapping[str, str]) -> Iterator[CheckResult]:
    """Report names that are not settings: a misspelled one leaves its default in place."""
    names = known_settings()
    for name in sorted(environment):
        if name.startswith("VOICEQUEUE_") and name not in names:
            close = difflib.get_close_matches(name, sorted(names), n=1)
            todo = f"did you mean {close[0]}?" if close else "see docs/reference/configuration.md"
            yield CheckResult("settings", Level.WARNING, f"{name} is not a setting", todo)


def _secrets(settings: Settings) -> Iterator[CheckResult]:
    if not callback_secrets(settings):
        yield CheckResult(
            "secret",
            Level.WARNING,
            "neither VOICEQUEUE_SECRET nor VOICEQUEUE_CALLBACK_SECRET is set: no webhook is accepted, no callback sent",
            "VOICEQUEUE_SECRET=$(openssl rand -hex 32), the same for every process",
        )
    else:
        yield passed("secret", "webhooks and callbacks are signed")


def _upstream(settings: Settings) -> CheckResult:
    key, base = settings.musicapi_key.get_secret_value(), settings.musicapi_base_url
    if not key:
        return CheckResult(
            "upstream", Level.ERROR, "MUSICAPI_KEY is not set", "MUSICAPI_KEY=… in the environment or in .env"
        )
    if urlsplit(base).scheme == "http" and not _is_local(urlsplit(base).hostname or ""):
        what = "MUSICAPI_BASE_URL begins with http:// : the key is sent unencrypted"
        return CheckResult("upstream", Level.ERROR, what, "use https://")
    try:
        with closing(MusicApi(base, key, connect_s=TIMEOUT_S, answer_s=TIMEOUT_S)) as api:
            balance = api.get_credits()
    except Unauthorized:
        todo = "correct MUSICAPI_KEY, restart the workers, then: voicequeue resume"
        return CheckResult("upstream", Level.ERROR, "MusicAPI does not accept MUSICAPI_KEY", todo)
    except (UpstreamError, ValueError) as error:
        todo = "check MUSICAPI_BASE_URL, and that this machine can reach it"
        return CheckResult("upstream", Level.UNREACHABLE, f"MusicAPI cannot be reached: {error}", todo)
    if balance <= settings.min_balance:
        what = f"the balance is {pluralize(balance, 'credit')}, and {settings.min_balance:,} must remain"
        return CheckResult("upstream", Level.WARNING, what, "add credits; submission then continues by itself")
    return passed("upstream", f"MusicAPI accepts the key; the balance is {pluralize(balance, 'credit')}")


def _public_url(settings: Settings) -> CheckResult:
    if settings.public_url is None:
        what = "VOICEQUEUE_PUBLIC_URL is not set: no webhooks, so orders whose response is lost wait for an operator"
        return CheckResult(
            "public url", Level.NOTE, what, "VOICEQUEUE_PUBLIC_URL=https://…, where upstream reaches `web`"
        )
    host = urlsplit(settings.public_url).hostname or ""
    status = _probe(settings.public_url, settings.signing_secret)
    if status == 404 and _is_private(host) and not _is_local(urlsplit(settings.musicapi_base_url).hostname or ""):
        what = f"VOICEQUEUE_PUBLIC_URL names {host}, which MusicAPI cannot reach"
        return CheckResult(
            "public url", Level.ERROR, what, "use an address that can be reached from the internet, with TLS"
        )
    if status == 404:
        return passed("public url", f"{host} is a gateway of this queue, as seen from here")
    if status == 401:
        todo = "give the gateway and this shell the same VOICEQUEUE_SECRET"
        return CheckResult("public url", Level.ERROR, f"the gateway at {host} has another VOICEQUEUE_SECRET", todo)
    if status is None:
        what = f"VOICEQUEUE_PUBLIC_URL: no response from {host}, as seen from here"
    else:
        what = f"VOICEQUEUE_PUBLIC_URL: the server at {host} is not a gateway of this queue ({status})"
    return CheckResult(
        "public url", Level.ERROR, what, "check that `web` is running, and that the proxy forwards /hooks/ to it"
    )


def _probe(public_url: str, secret: str) -> int | None:
    """Return the status for a webhook about a job that does not exist, signed as upstream's; None without a response.

    0 means a server that is not a gateway.
    """
    body, now = json.dumps({"task_id": NO_JOB}).encode(), str(int(time.time()))
    token = signatures.webhook_token(secret, NO_JOB, "voice", 0)
    signature = signatures.sign_as_upstream(signatures.webhook_secret(secret, NO_JOB), now, body)
    try:
        response = requests.post(
            f"{public_url.rstrip('/')}/hooks/musicapi/{NO_JOB}/voice",
            params={"attempt": "0", "token": token},
            data=body,
            headers={"X-Webhook-Timestamp": now, "X-Webhook-Signature": signature},
            timeout=TIMEOUT_S,
            allow_redirects=False,
        )
    except requests.RequestException:
        return None
    # An unknown path is 404 as well, but with another code.
    is_gateway = response.status_code != 404 or "job_not_found" in response.text
    return response.status_code if is_gateway else 0


def _is_local(host: str) -> bool:
    return web_origins.is_loopback_name(host)


def _is_private(host: str) -> bool:
    try:
        return host == "localhost" or not ip_address(host).is_global
    except ValueError:
        return False


def _flower() -> CheckResult:
    try:
        settings = flower.load()
    except SettingsError as error:
        todo = "FLOWER_BASIC_AUTH=user:something-long, or FLOWER_ADDRESS=127.0.0.1"
        return CheckResult("flower", Level.ERROR, str(error), todo)
    if weak := settings.weak_passwords():
        return CheckResult(
            "flower", Level.WARNING, f"FLOWER_BASIC_AUTH: {weak}", "use a longer one: openssl rand -hex 32"
        )
    access = "requires a login" if settings.logins() else "is reachable from its own machine alone"
    return passed("flower", f"with the settings of this shell it {access}")


def _archive(settings: Settings) -> CheckResult:
    try:
        ArchiveStorage.from_url(settings.archive_url.get_secret_value())
    except ArchiveStorageError as error:
        return CheckResult("archive", Level.ERROR, str(error), "docs/guides/archive.md")
    return passed("archive", "VOICEQUEUE_ARCHIVE_URL is valid; the process `archive` checks that it can write there")
