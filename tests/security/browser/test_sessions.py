"""Forged, stolen, old and guessed logins to the job page."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any
from unittest.mock import Mock

import pytest
import requests
from redis import Redis

from tests.store.life import enqueue_jobs
from tests.support.jobs import voice, voice_with_song
from tests.web.conftest import KEYS, SETTING, Build, Gateway
from tests.web.seen import PageUser, get_page, log_in
from voicequeue import StoreUnavailableError, VoiceQueue
from voicequeue.auth import api_keys, signatures
from voicequeue.auth.api_keys import ApiKey, Scope
from voicequeue.storage.job_store import JobStore
from workers.gateway.page import views
from workers.gateway.security import admission
from workers.gateway.security.sessions import SessionManager

SECRET = "what signs webhooks of 32 characters and more"


def is_logged_in(gateway: Gateway, prefix: str, token: str) -> bool:
    """Return whether this cookie opens the page."""
    answer = gateway("GET", "/", key=None, cookies={prefix: token}, allow_redirects=False)
    assert answer.status_code in (200, 303)
    return answer.status_code == 200


def token_of(answer: requests.Response, prefix: str) -> str:
    """Return the session token in the cookie of a login."""
    return str(answer.cookies[prefix])


# ── forged ────────────────────────────────────────────────────────────────────────────────────────


def _signed(key: ApiKey, secret: str) -> str:
    """Return a cookie as earlier releases signed it."""
    until = str(int(time.time()) + 3_600)
    return f"{key.name}.{until}.{signatures.derive(secret, 'session', key.as_setting(), until)}"


FORGERIES: dict[str, Callable[[ApiKey], str]] = {
    "signed with the stored hash": lambda key: _signed(key, key.digest),
    "signed with the server's secret": lambda key: _signed(key, SECRET),
    "the stored hash": lambda key: key.digest,
    "the key's line": ApiKey.as_setting,
    "a hash of the line": lambda key: sha256(key.as_setting().encode()).hexdigest(),
    "as long as a token, of the secret": lambda key: signatures.derive(SECRET, "session", key.as_setting())[:43],
}


def test_the_environment_of_the_gateway_is_not_enough_to_log_in(build_gateway: Build, prefix: str) -> None:
    """It contains only the hashes of the keys and the server's secret."""
    gateway = build_gateway(secret=SECRET, public_url="https://voices.example")

    for number, (name, forge) in enumerate(FORGERIES.items()):
        gateway.stage.client = (f"192.0.2.{number}", 5)
        assert not is_logged_in(gateway, prefix, forge(KEYS["all"][1])), name
        assert log_in(gateway, forge(KEYS["all"][1])).status_code == 401, name


def test_the_session_data_in_redis_is_not_enough_to_log_in(gateway: Gateway, redis: Redis, prefix: str) -> None:
    """A copy of Redis contains no cookie."""
    token = token_of(log_in(gateway, KEYS["all"][0]), prefix)
    session_keys = [str(key) for key in redis.scan_iter(f"{{{prefix}}}:session*")]
    texts = {text for key in session_keys for text in re.findall(r"[\w-]+", key)}
    texts |= {text for key in session_keys if redis.type(key) == "hash" for text in redis.hvals(key)}

    assert token not in str(texts)
    assert [text for text in texts if any(is_logged_in(gateway, prefix, part) for part in (text, text[:43]))] == []


@pytest.mark.parametrize("secret", [SECRET, ""])
def test_a_writer_to_redis_cannot_make_or_prolong_a_login(
    build_gateway: Build, redis: Redis, prefix: str, secret: str
) -> None:
    """With a copy of Redis and of the keys' hashes: what proves a session is keyed with VOICEQUEUE_SECRET, and bound to
    one cookie and one time. Without that secret a writer can make one, as docs/explanation/security.md says."""
    gateway = build_gateway(secret=secret)
    genuine = token_of(log_in(gateway, KEYS["all"][0]), prefix)
    record: dict[Any, Any] = redis.hgetall(session_key(prefix, genuine))
    key = KEYS["all"][1].as_setting()
    forgeries: dict[str, dict[Any, Any]] = {
        "copied proof": dict(record),
        "proof of an earlier release": {**record, "proof": sha256(key.encode()).hexdigest()},
        "proof of the key's hash": _proven(KEYS["all"][1].digest, record, key),
        "proof without a secret": _proven("", record, key),
    }

    for name, forged in forgeries.items():
        redis.hset(session_key(prefix, "A" * 43), mapping=forged)
        expected = name == "proof without a secret" and not secret
        assert is_logged_in(gateway, prefix, "A" * 43) == expected, name
    redis.hset(session_key(prefix, genuine), "since", str(float(record["since"]) + 3_600))
    assert not is_logged_in(gateway, prefix, genuine)
    for since in ("never", "nan", "1e9", "-1", "9" * 400):
        redis.hset(session_key(prefix, genuine), "since", since)
        assert not is_logged_in(gateway, prefix, genuine), since


def session_key(prefix: str, token: str) -> str:
    """Return the Redis key of the session with this token."""
    return f"{{{prefix}}}:session:{sha256(token.encode()).hexdigest()}"


def _proven(secret: str, record: dict[Any, Any], key: str) -> dict[Any, Any]:
    proof = signatures.session_proof(secret, sha256(b"A" * 43).hexdigest(), record["since"], key)
    return {**record, "proof": proof}


def test_no_other_site_can_put_text_on_the_page(gateway: Gateway, prefix: str) -> None:
    """A cookie of an earlier release, which another port of this host can set, shows no text."""
    answer = log_in(gateway, KEYS["all"][0])
    cookies = {prefix: token_of(answer, prefix), f"{prefix}_told": "Pay%20here", f"{prefix}_notice": "Pay%20here"}

    assert "Pay here" not in get_page(gateway, "/", cookies=cookies).text


# ── stolen, old ───────────────────────────────────────────────────────────────────────────────────


def test_a_login_replaces_the_cookie_that_the_browser_had(gateway: Gateway, prefix: str) -> None:
    """A cookie planted by an attacker is invalid afterwards, also if it is the attacker's own session."""
    planted = token_of(log_in(gateway, KEYS["read"][0]), prefix)
    for before in ("A" * 43, planted):
        answer = requests.post(
            f"{gateway.url}/login",
            data={"key": KEYS["all"][0]},
            cookies={prefix: before},
            allow_redirects=False,
            timeout=10,
        )
        assert token_of(answer, prefix) not in ("A" * 43, planted)
        assert not is_logged_in(gateway, prefix, before)


def test_a_copied_cookie_is_invalid_after_the_logout(build_gateway: Build, prefix: str) -> None:
    """At this gateway and at every other one of the queue."""
    person = PageUser(build_gateway(), "read")
    copied = person.session.cookies[prefix]
    person.submit(person.page("/"), "Log out read")

    assert not is_logged_in(build_gateway(), prefix, copied)


def test_all_logins_of_a_key_can_be_ended_at_once(gateway: Gateway, prefix: str) -> None:
    """From any of them; logins of other keys stay valid."""
    thief, other = (token_of(log_in(gateway, KEYS[key][0]), prefix) for key in ("read", "all"))
    person = PageUser(gateway, "read")

    person.submit(person.page("/controls"), "Log out everywhere")

    assert not is_logged_in(gateway, prefix, thief)
    assert is_logged_in(gateway, prefix, other)


@pytest.mark.parametrize("button", ["Log out read", "Log out everywhere"])
@pytest.mark.parametrize("heartbeat_s", [0.05, 60.0])
def test_the_event_stream_of_a_page_ends_with_its_login(
    gateway: Gateway, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch, button: str, heartbeat_s: float
) -> None:
    """With the next event or heartbeat: a copied cookie receives nothing any longer."""
    monkeypatch.setattr(views, "HEARTBEAT_S", heartbeat_s)
    monkeypatch.setattr(views, "COALESCE_S", 0.05)
    person = PageUser(gateway, "read")
    copied = person.session.cookies.get_dict()
    with requests.get(f"{gateway.url}/live", cookies=copied, stream=True, timeout=10) as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line.startswith(b"data"))
        person.submit(person.page("/controls" if "every" in button else "/"), button)
        queue.enqueue(voice())

        assert "event: changed" not in [line.decode() for line in lines]


def test_the_event_stream_of_a_page_survives_an_outage(
    gateway: Gateway, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the session cannot be checked nothing is sent; afterwards everything is."""
    monkeypatch.setattr(views, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(views, "COALESCE_S", 0.05)
    monkeypatch.setattr(admission, "RETRY_S", 0.05)
    person = PageUser(gateway, "read")
    with requests.get(f"{gateway.url}/live", cookies=person.session.cookies, stream=True, timeout=10) as stream:
        lines = stream.iter_lines()
        with monkeypatch.context() as outage:
            outage.setattr(SessionManager, "user_of", Mock(side_effect=StoreUnavailableError("Redis is away")))
            assert next(line for line in lines if b"Redis is unavailable" in line)
            queue.enqueue(voice())
            assert next(line for line in lines if line) == b": Redis is unavailable"

        assert next(line for line in lines if line.startswith(b"event")) == b"event: changed"


def test_a_login_ends_when_its_key_changes(build_gateway: Build, prefix: str) -> None:
    """When the key is removed, replaced under the same name, or gets other scopes."""
    key = KEYS["read"][1]
    token = token_of(log_in(build_gateway(), KEYS["read"][0]), prefix)
    others = {
        "removed": KEYS["all"][1].as_setting(),
        "replaced": api_keys.generate_key(key.name, key.scopes)[1].as_setting(),
        "wider": ApiKey(key.name, frozenset(Scope), key.digest).as_setting(),
    }

    for change, setting in others.items():
        assert not is_logged_in(build_gateway(api_keys=setting), prefix, token), change
    assert is_logged_in(build_gateway(api_keys=SETTING), prefix, token)


def test_a_login_survives_the_rotation_of_the_secret(build_gateway: Build, prefix: str) -> None:
    """While the old value is accepted; it ends when that is removed. New logins are proved with the new value."""
    new = "0123456789abcdef" * 4
    token = token_of(log_in(build_gateway(secret=SECRET), KEYS["read"][0]), prefix)
    rotating = build_gateway(secret=f"{new},{SECRET}")
    assert is_logged_in(rotating, prefix, token)
    later = token_of(log_in(rotating, KEYS["read"][0]), prefix)

    rotated = build_gateway(secret=new)

    assert is_logged_in(rotated, prefix, later)
    assert not is_logged_in(rotated, prefix, token)


@pytest.mark.endurance
def test_a_login_that_was_refused_never_works_again(
    build_gateway: Build, prefix: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if its key is configured again: a revoked session ends in Redis. A new login is only refused, because a
    gateway may not know its key yet."""
    token = token_of(log_in(build_gateway(), KEYS["read"][0]), prefix)
    without = build_gateway(api_keys=KEYS["all"][1].as_setting())
    assert not is_logged_in(without, prefix, token)
    assert is_logged_in(build_gateway(), prefix, token)
    monkeypatch.setattr("workers.gateway.security.sessions.NEW_SESSION_S", -1.0)

    assert not is_logged_in(build_gateway(api_keys=KEYS["all"][1].as_setting()), prefix, token)

    assert not is_logged_in(build_gateway(), prefix, token)
    assert not redis.exists(session_key(prefix, token))


def test_a_login_ends_after_its_time_whatever_redis_says(
    gateway: Gateway, prefix: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record may have lost its expiry, by a restored copy."""
    token = token_of(log_in(gateway, KEYS["read"][0]), prefix)
    redis.persist(session_key(prefix, token))
    assert is_logged_in(gateway, prefix, token)

    monkeypatch.setattr("workers.gateway.security.sessions.SESSION_S", -1.0)

    assert not is_logged_in(gateway, prefix, token)


def test_a_form_of_one_login_is_invalid_in_another(gateway: Gateway, store: JobStore) -> None:
    """Also in a later one with the same key."""
    enqueue_jobs(store, voice_with_song())
    person = PageUser(gateway, "operate")
    assert person.page("/", status=403)
    mine, later = PageUser(gateway, "all"), PageUser(gateway, "all")
    form = next(form for form in mine.page("/controls").forms if form["action"] == "/do/pause")

    assert later.post("/do/pause", form["fields"]).status_code == 403
    assert store.flow_control.gate(store.clock()).is_open
    assert mine.post("/do/pause", form["fields"]).status_code == 200


# ── guessed ───────────────────────────────────────────────────────────────────────────────────────


def test_keys_cannot_be_guessed_at_the_login(gateway: Gateway) -> None:
    """After five wrong keys no key is checked for a while, and the page states how long."""
    gateway.stage.client = ("203.0.113.9", 5)
    assert [log_in(gateway, f"vq_{guess}").status_code for guess in range(7)] == [401] * 5 + [429] * 2

    answer = log_in(gateway, KEYS["all"][0])

    assert answer.status_code == 429
    assert "Set-Cookie" not in answer.headers
    assert 1 <= int(answer.headers["Retry-After"]) <= 5
    assert f"Try again in {answer.headers['Retry-After']} seconds" in answer.text


def test_guesses_lock_out_no_other_address(gateway: Gateway) -> None:
    """Each address waits only for its own failures; keys keep working at the API."""
    for number in range(30):
        gateway.stage.client = (f"203.0.113.{number}", 5)
        log_in(gateway, "vq_guess")
    for _ in range(6):
        log_in(gateway, "vq_guess")

    assert log_in(gateway, KEYS["all"][0]).status_code == 429
    assert gateway("GET", "/v1/status").status_code == 200
    gateway.stage.client = ("192.0.2.7", 5)
    assert log_in(gateway, KEYS["all"][0]).status_code == 303


def test_a_page_of_another_site_cannot_log_a_browser_in(gateway: Gateway) -> None:
    """For example with an attacker's key; another port of this machine is another site."""

    def sent_by(origin: str) -> requests.Response:
        fields, headers = {"key": KEYS["all"][0]}, {"Origin": origin}
        return requests.post(f"{gateway.url}/login", fields, headers=headers, allow_redirects=False, timeout=10)

    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"):
        assert (sent_by(origin).status_code, "Set-Cookie" in sent_by(origin).headers) == (403, False), origin
    assert sent_by(gateway.url).status_code == 303
