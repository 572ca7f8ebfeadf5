"""The calls: create a voice, create a song, ask for a task, ask for the credits. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from tasks.musicapi import responses
from tasks.musicapi.responses import Reading
from voicequeue.domain.song import Song
from voicequeue.domain.stage import Stage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and how its answer is read: `read` gives None for what it cannot read. `secrets` are those that
    its body carries: what the answer quotes of them is shown to no one."""

    operation: str
    method: str
    path: str
    read: Callable[[Any], T | None]
    body: dict[str, Any] | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where upstream shall say that an order has settled, and what it signs that with."""

    url: str
    secret: str = field(repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The signing secret, and those that the URL carries."""
        return self.secret, *re.findall(r"[?&]token=([^&#]+)", self.url)


def create_voice(audio_url: str, webhook: Webhook | None = None) -> Call[str]:
    """Order a voice (4 credits); gives upstream's task id."""
    body = {"audio_url": audio_url, **_webhook_fields(webhook)}
    return Call("create_voice", "POST", "/api/v1/sonic/create-voice", responses.accepted, body, _secrets(webhook))


def create_music(persona_id: str, song: Song, webhook: Webhook | None = None) -> Call[str]:
    """Order a song (15 credits, two clips); gives upstream's task id."""
    body = {**persona_music(persona_id, song), **_webhook_fields(webhook)}
    return Call("persona_music", "POST", "/api/v1/sonic/create", responses.accepted, body, _secrets(webhook))


def task(task_id: str, stage: Stage | None = None) -> Call[Reading]:
    """What became of an order of that stage (free)."""
    read = partial(responses.reading, stage=stage)
    return Call("task", "GET", f"/api/v1/sonic/task/{quote(task_id, safe='')}", read)


def credits_left() -> Call[int]:
    """Credits left on the account (free)."""
    return Call("get_credits", "GET", "/api/v1/get-credits", responses.credits_left)


def _webhook_fields(webhook: Webhook | None) -> dict[str, str]:
    return {} if webhook is None else {"webhook_url": webhook.url, "webhook_secret": webhook.secret}


def _secrets(webhook: Webhook | None) -> tuple[str, ...]:
    return () if webhook is None else webhook.secrets


def persona_music(persona_id: str, song: Song) -> dict[str, Any]:
    """The body that orders a song."""
    fields = song.model_dump(exclude_none=True, exclude={"description"})
    if song.description is not None:
        fields["gpt_description_prompt"] = song.description
    return {"task_type": "persona_music", "persona_id": persona_id, **fields}
