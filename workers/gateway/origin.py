"""Whose request it is: the origin of the jobs that it brings."""

from __future__ import annotations

from fastapi import Request

from voicequeue.domain.origin import Origin


def origin(request: Request) -> str:
    """Return `http:` and the name of the request's key; `http` where no key was needed."""
    return Origin.HTTP.of(getattr(request.state, "who", None) or "")
