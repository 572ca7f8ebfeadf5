"""What `voicequeue doctor` checks beside Redis: the settings, upstream, the public URL, Flower, the archive."""

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

from config import flower
from config.settings import BadSettings, Settings, load, setting_names
from tasks.archive.storage import Shelf, Unusable
from tasks.musicapi import MusicApi, Unauthorized, UpstreamError
from voicequeue.auth import signatures, web_origins
from voicequeue.diagnostics.checkup import Level, Remark, fine
from voicequeue.storage.heartbeats import Heard
from workers.dependencies import callback_secrets
from workers.process_info import facts

#: How long (seconds) anything is waited for.
PATIENCE_S = 5.0

#: A job that is nobody's: a gateway of ours that believes the signature says that it does not know it.
NOBODY = "doctor"

#: What only the command line and the stack on one machine read.
_BESIDE = {"VOICEQUEUE_WAIT_FOR_REDIS_S", "VOICEQUEUE_HOME", "VOICEQUEUE_DEMO_S", "VOICEQUEUE_URL", "VOICEQUEUE_KEY"}
_AUDIO = (
    *("ALLOW", "MAX_MB", "MAX_S", "CONNECT_S", "ANSWER_S", "WHOLE_S"),
    *("LEAST_KB_S", "SLOW_S", "AGAIN_S", "AT_ONCE", "PER_HOST"),
)


def remarks() -> Iterator[Remark]:
    """What is to be said of this process's environment; settings that cannot be read end it."""
    yield from _unknown(os.environ)
    try:
        chosen = load()
    except BadSettings as error:
        for line in str(error).splitlines():
            yield Remark("settings", Level.ERROR, line, "mend it in the environment or in .env")
        return
    yield from _secrets(chosen)
    yield _upstream(chosen)
    yield _public_url(chosen)
    yield _flower()
    if chosen.archive.get_secret_value():
        yield _archive(chosen)


def here() -> Heard:
    """This process, with its facts, to be compared with the others."""
    return Heard("doctor", "this shell", time.time(), facts(load(), "doctor"))


def known_settings() -> frozenset[str]:
    """Every name that some process of ours reads; a test compares it with the docs."""
    audio = {f"VOICEQUEUE_AUDIO_{name}" for name in _AUDIO}
    return setting_names() | _BESIDE | audio


def _unknown(environment: Mapping[str, str]) -> Iterator[Remark]:
    """Names that look like settings and are none: a typing error keeps a default in place."""
    known = known_settings()
    for name in sorted(environment):
        if name.startswith("VOICEQUEUE_") and name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            todo = f"did you mean {close[0]}?" if close else "docs/configuration.md has them all"
            yield Remark("settings", Level.WARNING, f"{name} is no setting", todo)


def _secrets(chosen: Settings) -> Iterator[Remark]:
    if not callback_secrets(chosen):
        yield Remark(
            "secret",
            Level.WARNING,
            "neither VOICEQUEUE_SECRET nor VOICEQUEUE_CALLBACK_SECRET is set: no webhook is taken, no callback sent",
            "VOICEQUEUE_SECRET=$(openssl rand -hex 32), the same for every process",
        )
    else:
        yield fine("secret", "webhooks and callbacks are signed")


def _upstream(chosen: Settings) -> Remark:
    key, base = chosen.musicapi_key.get_secret_value(), chosen.musicapi_base_url
    if not key:
        return Remark(
            "upstream", Level.ERROR, "MUSICAPI_KEY is not set", "MUSICAPI_KEY=… in the environment or in .env"
        )
    if urlsplit(base).scheme == "http" and not _is_here(urlsplit(base).hostname or ""):
        what = "MUSICAPI_BASE_URL begins with http:// : the key goes over the network for everybody to read"
        return Remark("upstream", Level.ERROR, what, "https://")
    try:
        with closing(MusicApi(base, key, connect_s=PATIENCE_S, answer_s=PATIENCE_S)) as api:
            left = api.credits()
    except Unauthorized:
        todo = "mend MUSICAPI_KEY, restart the workers, then: voicequeue resume"
        return Remark("upstream", Level.ERROR, "MusicAPI does not accept MUSICAPI_KEY", todo)
    except (UpstreamError, ValueError) as error:
        todo = "is MUSICAPI_BASE_URL right, and may this machine go there?"
        return Remark("upstream", Level.UNREACHABLE, f"MusicAPI cannot be asked: {error}", todo)
    if left <= chosen.credit_floor:
        what = f"{left:,} credits are left, and {chosen.credit_floor:,} are not to be touched"
        return Remark("upstream", Level.WARNING, what, "add credits; it goes on by itself")
    return fine("upstream", f"MusicAPI takes the key; {left:,} credits are left")


def _public_url(chosen: Settings) -> Remark:
    if chosen.public_url is None:
        what = "VOICEQUEUE_PUBLIC_URL is not set: no webhooks, orders whose answer is lost wait for a person"
        return Remark("public url", Level.NOTE, what, "VOICEQUEUE_PUBLIC_URL=https://…, where upstream reaches `web`")
    host = urlsplit(chosen.public_url).hostname or ""
    status = _asked(chosen.public_url, chosen.secret.get_secret_value())
    if status == 404 and _is_private(host) and not _is_here(urlsplit(chosen.musicapi_base_url).hostname or ""):
        what = f"VOICEQUEUE_PUBLIC_URL names {host}, which MusicAPI cannot reach"
        return Remark("public url", Level.ERROR, what, "an address that the internet reaches, with TLS")
    if status == 404:
        return fine("public url", f"{host} is a gateway of this queue, as seen from here")
    if status == 401:
        todo = "give the gateway and this shell the same VOICEQUEUE_SECRET"
        return Remark("public url", Level.ERROR, f"the gateway at {host} has another VOICEQUEUE_SECRET", todo)
    if status is None:
        what = f"VOICEQUEUE_PUBLIC_URL: nobody answers at {host}, as seen from here"
    else:
        what = f"VOICEQUEUE_PUBLIC_URL: what answers at {host} is no gateway of ours ({status})"
    return Remark("public url", Level.ERROR, what, "does `web` run, and does the proxy pass /hooks/ on to it?")


def _asked(public_url: str, secret: str) -> int | None:
    """What is answered to a webhook about a job that is not there, signed as upstream would; None: nothing is."""
    body, now = json.dumps({"task_id": NOBODY}).encode(), str(int(time.time()))
    token = signatures.webhook_token(secret, NOBODY, "voice", 0)
    signature = signatures.upstream_signature(signatures.webhook_secret(secret, NOBODY), now, body)
    try:
        answer = requests.post(
            f"{public_url.rstrip('/')}/hooks/musicapi/{NOBODY}/voice",
            params={"attempt": "0", "token": token},
            data=body,
            headers={"X-Webhook-Timestamp": now, "X-Webhook-Signature": signature},
            timeout=PATIENCE_S,
            allow_redirects=False,
        )
    except requests.RequestException:
        return None
    # An unknown path is 404 as well, but with another code.
    is_ours = answer.status_code != 404 or "unknown_job" in answer.text
    return answer.status_code if is_ours else 0


def _is_here(host: str) -> bool:
    return web_origins.is_loopback_name(host)


def _is_private(host: str) -> bool:
    try:
        return host == "localhost" or not ip_address(host).is_global
    except ValueError:
        return False


def _flower() -> Remark:
    try:
        chosen = flower.load()
    except BadSettings as error:
        todo = "FLOWER_BASIC_AUTH=user:something-long, or FLOWER_ADDRESS=127.0.0.1"
        return Remark("flower", Level.ERROR, str(error), todo)
    if weak := chosen.weak():
        return Remark("flower", Level.WARNING, f"FLOWER_BASIC_AUTH: {weak}", "a longer one: openssl rand -hex 32")
    does = "wants a login" if chosen.logins() else "answers its own machine alone"
    return fine("flower", f"with the settings of this shell it {does}")


def _archive(chosen: Settings) -> Remark:
    try:
        Shelf.at(chosen.archive.get_secret_value())
    except Unusable as error:
        return Remark("archive", Level.ERROR, str(error), "docs/archive.md")
    return fine("archive", "finished songs are kept")
