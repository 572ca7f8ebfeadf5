"""Client of MusicAPI, the paid upstream API.

Each response becomes a task result (`results`) or an error (`errors`). An error states whether the request may have
been charged, and its type says how to handle it.
"""

from tasks.musicapi.client import MusicApi, preload
from tasks.musicapi.errors import (
    AmbiguousFailure,
    ConnectionFailed,
    Forbidden,
    InvalidRequest,
    Moderated,
    PaymentRequired,
    RateLimited,
    Unauthorized,
    Unavailable,
    UpstreamError,
)
from tasks.musicapi.request_pool import Completed, RequestPool
from tasks.musicapi.requests import Webhook
from tasks.musicapi.results import MusicReady, NotReady, TaskFailed, TaskResult, VoiceReady

__all__ = [
    "AmbiguousFailure",
    "Completed",
    "ConnectionFailed",
    "Forbidden",
    "InvalidRequest",
    "Moderated",
    "MusicApi",
    "MusicReady",
    "NotReady",
    "PaymentRequired",
    "RateLimited",
    "RequestPool",
    "TaskFailed",
    "TaskResult",
    "Unauthorized",
    "Unavailable",
    "UpstreamError",
    "VoiceReady",
    "Webhook",
    "preload",
]
