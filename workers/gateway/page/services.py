"""The services of the pages' routes."""

from __future__ import annotations

from dataclasses import dataclass

from voicequeue import VoiceQueue
from voicequeue.storage.job_store import JobStore
from workers.gateway.api.events import EventBroadcaster
from workers.gateway.page.base import PageRenderer
from workers.gateway.security.access import AccessControl
from workers.gateway.security.sessions import SessionManager


@dataclass(frozen=True, slots=True)
class PageServices:
    """The services of the pages' routes. `store` is of all namespaces: only pages for operators read it."""

    queue: VoiceQueue
    store: JobStore
    access: AccessControl
    sessions: SessionManager
    broadcaster: EventBroadcaster
    renderer: PageRenderer
    flower_url: str | None = None
