"""Links from a job to its tasks in Flower. Pure."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from voicequeue.auth.web_origins import host_name, is_loopback_name

#: The names of this machine. Browsers treat them as two hosts, so a cookie of one is not sent to the other.
_LOCAL = ("localhost", "127.0.0.1")


def tasks_url(flower_url: str, page_host: str, job_id: str) -> str:
    """Return the address of a job's tasks in Flower.

    A Flower on this machine is called by the other of its two names than the page is, whose cookie then stays with the
    page.
    """
    parts, page = urlsplit(flower_url), host_name(page_host) or ""
    if parts.hostname and is_loopback_name(parts.hostname) and is_loopback_name(page):
        name = next(name for name in _LOCAL if name != page)
        parts = parts._replace(netloc=name if parts.port is None else f"{name}:{parts.port}")
    return f"{parts.geturl().rstrip('/')}/tasks?{urlencode({'job': job_id})}"
