"""Requests to upstream with requests: one session per thread, which keeps its connection."""

from __future__ import annotations

import threading
from typing import Any

import requests
from work import UPSTREAM, Job, result_in, song_body, voice_body

_own = threading.local()


def _session() -> requests.Session:
    if not hasattr(_own, "session"):
        _own.session = requests.Session()
        _own.session.headers["Authorization"] = "Bearer any"
        _own.session.trust_env = False  # otherwise it looks up proxies and netrc for each request
    return _own.session


def _post(path: str, body: dict[str, Any]) -> str:
    answer = _session().post(UPSTREAM + path, json=body, timeout=30)
    answer.raise_for_status()
    return answer.json()["task_id"]


def order_voice(job: Job) -> str:
    """Order a voice; gives the task's id."""
    return _post("/api/v1/sonic/create-voice", voice_body(job))


def order_song(job: Job, persona_id: str) -> str:
    """Order a song; gives the task's id."""
    return _post("/api/v1/sonic/create", song_body(job, persona_id))


def poll(task_id: str) -> Any:
    """Return the result of a task; None while it is not ready."""
    answer = _session().get(f"{UPSTREAM}/api/v1/sonic/task/{task_id}", timeout=30)
    answer.raise_for_status()
    return result_in(answer.json())
