"""The HTTP calls: create a voice, create a song, ask for a task, ask for the credits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from urllib.parse import quote

import requests
from urllib3 import BaseHTTPResponse, Timeout
from urllib3.exceptions import HTTPError, ReadTimeoutError

from tasks.musicapi import readings
from tasks.musicapi.connections import OneHost, why_not_opened
from tasks.musicapi.errors import NoAnswer, Unavailable, UpstreamError, from_answer
from tasks.musicapi.readings import Reading
from voicequeue.song import Song

T = TypeVar("T")

#: Told of each call: the operation, what came of it ("ok", or the kind of the error), and the seconds it took.
Heard = Callable[[str, str, float], None]

#: An answer larger than this is not the contract's.
BODY_MAX = 2_000_000

#: A key shorter than this is a test's: it hides nothing, and may be part of any word.
SECRET_MIN = 8


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where upstream shall say that an order has settled, and what it signs that with."""

    url: str
    secret: str = field(repr=False)


class MusicApi:
    """One account at MusicAPI. Safe to share between threads; one per process.

    A POST is sent at most once: nothing here ever repeats a request. Times are in seconds:
    `connect_s` to open a connection, `answer_s` for any silence of upstream's and for the whole of a
    body, so that an answer which drips does not hold a thread for ever.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        connect_s: float = 5.0,
        answer_s: float = 30.0,
        connections: int = 16,
        heard: Heard | None = None,
    ) -> None:
        # Found here, for later it would cost a charge each time; and unnamed, for the key is a secret.
        if not (key.isascii() and key.isprintable()):
            raise ValueError("the key has a line break, or other characters that no header may carry")
        self._base = base_url.rstrip("/")
        self._key = key.encode()
        self._answer_s = answer_s
        self._heard = heard or _nobody
        self._timeout = Timeout(connect=connect_s, read=answer_s)
        session = requests.Session()
        # A session looks up proxies, netrc and cookies anew for each call, and its adapter wraps what urllib3 gives:
        # both cost as much as the call. So the session says once how upstream is reached, and calls go to that pool.
        adapter = OneHost(pool_connections=1, pool_maxsize=connections, max_retries=0)
        session.mount(self._base, adapter)
        self._session = session
        probe = session.prepare_request(requests.Request("GET", self._base))
        settings = session.merge_environment_settings(self._base, {}, True, None, None)
        self._pool = adapter.look_up(probe, **{name: settings[name] for name in ("verify", "cert", "proxies")})
        self._root = adapter.request_url(probe, settings["proxies"]).rstrip("/")
        self._headers = dict(probe.headers) | {
            "Authorization": f"Bearer {key}",
            "Accept": "application/json",
        }
        self._headers_of_body = self._headers | {"Content-Type": "application/json"}

    def close(self) -> None:
        """Close the pooled connections."""
        self._session.close()

    def create_voice(self, audio_url: str, webhook: Webhook | None = None) -> str:
        """Order a voice (4 credits); gives upstream's task id. Raises UpstreamError."""
        body = {"audio_url": audio_url, **_webhook_fields(webhook)}
        return self._call("create_voice", "POST", "/api/v1/sonic/create-voice", readings.accepted, body)

    def create_music(self, persona_id: str, song: Song, webhook: Webhook | None = None) -> str:
        """Order a song (15 credits, two clips); gives upstream's task id. Raises UpstreamError."""
        body = {**persona_music(persona_id, song), **_webhook_fields(webhook)}
        return self._call("persona_music", "POST", "/api/v1/sonic/create", readings.accepted, body)

    def task(self, task_id: str) -> Reading:
        """What became of an order (free). Raises UpstreamError."""
        path = f"/api/v1/sonic/task/{quote(task_id, safe='')}"
        return cast(Reading, self._call("task", "GET", path, readings.reading))

    def credits(self) -> int:
        """Credits left on the account (free). Raises UpstreamError."""
        return self._call("get_credits", "GET", "/api/v1/get-credits", readings.credits_left)

    def _call(
        self,
        operation: str,
        method: str,
        path: str,
        read: Callable[[Any], T | None],
        body: dict[str, Any] | None = None,
    ) -> T:
        """What `read` finds in the answer; it gives None for what it cannot read."""
        began, outcome = time.monotonic(), "ok"
        try:
            return self._answer(method, path, read, body)
        except UpstreamError as error:
            outcome = error.kind
            raise
        finally:
            self._heard(operation, outcome, time.monotonic() - began)

    def _answer(self, method: str, path: str, read: Callable[[Any], T | None], body: dict[str, Any] | None) -> T:
        status, headers, raw = self._send(method, path, body)
        if 200 <= status < 300 and (found := read(_parsed(raw))) is not None:
            return found
        raise from_answer(status, _parsed(self._without_key(raw)), headers, time.time())

    def _without_key(self, raw: bytes) -> bytes:
        """What upstream says beside the contract may be shown anywhere, and may quote the key."""
        return raw.replace(self._key, b"(key)") if len(self._key) >= SECRET_MIN else raw

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Any, bytes]:
        """Send one request and read its whole answer: status, headers, body."""
        give_up = time.monotonic() + self._answer_s
        try:
            answer = self._pool.urlopen(
                method,
                self._root + path,
                body=None if body is None else json.dumps(body, ensure_ascii=False).encode(),
                headers=self._headers if body is None else self._headers_of_body,
                redirect=False,
                assert_same_host=False,
                retries=False,
                timeout=self._timeout,
                preload_content=False,
                decode_content=False,
            )
            return answer.status, answer.headers, _read(answer, give_up)
        except (HTTPError, OSError) as error:
            raise _transport_error(error) from None


def _nobody(operation: str, outcome: str, seconds: float) -> None:
    """Where nobody wants to hear of calls."""


def _webhook_fields(webhook: Webhook | None) -> dict[str, str]:
    return {} if webhook is None else {"webhook_url": webhook.url, "webhook_secret": webhook.secret}


def persona_music(persona_id: str, song: Song) -> dict[str, Any]:
    """The body that orders a song."""
    fields = song.model_dump(exclude_none=True, exclude={"description"})
    if song.description is not None:
        fields["gpt_description_prompt"] = song.description
    return {"task_type": "persona_music", "persona_id": persona_id, **fields}


def _parsed(raw: bytes) -> Any:
    """The JSON of an answer; None where there is none."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _read(raw: BaseHTTPResponse, give_up: float) -> bytes:
    """The body, within the time and size allowed. A body cut short is an error, not an answer."""
    body = bytearray()
    try:
        while piece := raw.read1(65_536, decode_content=True):
            body += piece
            if len(body) > BODY_MAX:
                raise NoAnswer("the answer is too large")
            if time.monotonic() > give_up and raw.length_remaining != 0:
                raise NoAnswer("the answer took too long")
    except BaseException:
        raw.close()
        raise
    raw.release_conn()
    return bytes(body)


def _transport_error(error: Exception) -> UpstreamError:
    """Unavailable only where the request cannot have left: everything else may have been charged."""
    if why := why_not_opened(error):
        return Unavailable(why)
    if isinstance(error, ReadTimeoutError | TimeoutError):
        return NoAnswer("no answer in time")
    return NoAnswer("the connection was lost")
