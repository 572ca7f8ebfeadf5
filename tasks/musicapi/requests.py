"""Requests to MusicAPI: create a voice, create a song, get a task, get the credits. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from tasks.musicapi import responses
from tasks.musicapi.results import TaskResult
from voicequeue.domain.song import Song
from voicequeue.domain.stage import Stage

T = TypeVar("T")


#: The parsers of a task's result, by what it was ordered for.
_TASK_PARSERS = {stage: partial(responses.task_result, stage=stage) for stage in (None, *Stage)}


@dataclass(frozen=True, slots=True)
class ApiRequest(Generic[T]):
    """One request and the parser of its response body.

    `parse` returns None for a body it cannot read. `secrets` are parts of the request body that must be masked where
    the response quotes them.
    """

    operation: str
    method: str
    path: str
    parse: Callable[[Any], T | None]
    body: dict[str, Any] | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Webhook:
    """URL that upstream calls when a task has ended, and the secret it signs the call with."""

    url: str
    secret: str = field(repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The signing secret and the tokens in the URL."""
        return self.secret, *re.findall(r"[?&]token=([^&#]+)", self.url)


def create_voice(audio_url: str, webhook: Webhook | None = None) -> ApiRequest[str]:
    """Return the request that orders a voice (4 credits); its response is upstream's task id."""
    body = {"audio_url": audio_url, **_webhook_fields(webhook)}
    path = "/api/v1/sonic/create-voice"
    return ApiRequest("create_voice", "POST", path, responses.accepted_task_id, body, _secrets(webhook))


def create_music(persona_id: str, song: Song, webhook: Webhook | None = None) -> ApiRequest[str]:
    """Return the request that orders a song (15 credits, two clips); its response is upstream's task id."""
    body = {**persona_music(persona_id, song), **_webhook_fields(webhook)}
    path = "/api/v1/sonic/create"
    return ApiRequest("persona_music", "POST", path, responses.accepted_task_id, body, _secrets(webhook))


def get_task(task_id: str, stage: Stage | None = None) -> ApiRequest[TaskResult]:
    """Return the request for the result of a task (free); `stage` is what the task was ordered for."""
    return ApiRequest("poll", "GET", f"/api/v1/sonic/task/{quote(task_id, safe='')}", _TASK_PARSERS[stage])


def get_credits() -> ApiRequest[int]:
    """Return the request for the credits on the account (free)."""
    return ApiRequest("get_credits", "GET", "/api/v1/get-credits", responses.account_credits)


def _webhook_fields(webhook: Webhook | None) -> dict[str, str]:
    return {} if webhook is None else {"webhook_url": webhook.url, "webhook_secret": webhook.secret}


def _secrets(webhook: Webhook | None) -> tuple[str, ...]:
    return () if webhook is None else webhook.secrets


def persona_music(persona_id: str, song: Song) -> dict[str, Any]:
    """Return the request body that orders a song."""
    fields = song.model_dump(exclude_none=True, exclude={"description"})
    if song.description is not None:
        fields["gpt_description_prompt"] = song.description
    return {"task_type": "persona_music", "persona_id": persona_id, **fields}
