"""The client of MusicAPI, the paid upstream.

Every answer becomes a reading (`readings`) or an error (`errors`) that says two things for
certain: whether it was charged, and what to do.
"""

from tasks.musicapi.client import MusicApi, load
from tasks.musicapi.errors import (
    CannotPay,
    Cost,
    Forbidden,
    Moderated,
    NoAnswer,
    NoConnection,
    Refused,
    SlowDown,
    Unauthorized,
    Unavailable,
    UpstreamError,
)
from tasks.musicapi.request_pool import Exchange, Told
from tasks.musicapi.requests import Webhook
from tasks.musicapi.responses import MusicReady, NotReady, Reading, TaskFailed, VoiceReady

__all__ = [
    "CannotPay",
    "Cost",
    "Exchange",
    "Forbidden",
    "Moderated",
    "MusicApi",
    "MusicReady",
    "NoAnswer",
    "NoConnection",
    "NotReady",
    "Reading",
    "Refused",
    "SlowDown",
    "TaskFailed",
    "Told",
    "Unauthorized",
    "Unavailable",
    "UpstreamError",
    "VoiceReady",
    "Webhook",
    "load",
]
