"""Validation of Redis URLs, the same for the library, Celery's transport and the settings.

Celery's transport parses URLs differently, and replaces what it does not know by localhost: it gets only valid URLs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

SHAPE: Final = "redis://[user:password@]host:port/database"

#: Options of a rediss:// URL that redis-py and Celery's transport read alike; the values, where they are not paths.
OPTIONS: Mapping[str, frozenset[str]] = {
    "ssl_ca_certs": frozenset(),
    "ssl_ca_path": frozenset(),
    "ssl_cert_reqs": frozenset({"none", "optional", "required"}),
    "ssl_certfile": frozenset(),
    "ssl_check_hostname": frozenset({"false", "true"}),
    "ssl_keyfile": frozenset(),
}

_DATABASE: Final = re.compile(r"(/([0-9]+)?)?")

#: The login in any URL: up to the last '@' before the path.
_LOGIN: Final = re.compile(r"(?<=://)(?:([^/?#:]*):)?[^/?#]*@")

#: Characters that end the part before the host, and change the meaning of the rest.
_UNQUOTED: Final = re.compile(r"[\s\x00-\x1f\x7f;#\\]")


def validate_redis_url(url: str) -> str:
    """Return the URL. Raises ValueError if a process cannot use it; the message does not quote the URL, which may
    contain a password."""
    for problem in _problems(url):
        raise ValueError(f"the Redis URL must look like {SHAPE}: {problem}") from None
    return url


def masked(url: str) -> str:
    """Return a URL without secrets: `***` replaces a password, or a user without one, which may be a token."""
    return _LOGIN.sub(lambda login: "***@" if login[1] is None else f"{login[1]}:***@", url)


def _problems(url: str) -> Iterator[str]:
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in ("redis", "rediss"):
        yield _scheme_problem(scheme if separator else "")
        return
    if _UNQUOTED.search(url):
        yield "percent-encode special characters in the user or password"
        return
    try:
        parts, port = urlsplit(url), urlsplit(url).port
    except ValueError:
        yield "the host or port is invalid; percent-encode special characters in the password"
        return
    if not parts.hostname:
        yield "the host is missing"
    if port == 0:
        yield "the port must be 1 to 65535"
    if not _DATABASE.fullmatch(parts.path):
        yield "the database must be a whole number of at least 0"
    yield from _option_problems(parts)


def _scheme_problem(scheme: str) -> str:
    if scheme == "unix":
        return "Unix sockets are not supported, because Celery's transport has no such URLs"
    if "sentinel" in scheme or "cluster" in scheme:
        return "Sentinel and Cluster are not supported; name the primary"
    return "use redis:// or rediss://"


def _option_problems(parts: SplitResult) -> Iterator[str]:
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if parts.scheme != "rediss" or name not in OPTIONS:
            yield f"options after '?' are not supported, except, for rediss://, {', '.join(OPTIONS)}"
        elif not value or (OPTIONS[name] and value not in OPTIONS[name]):
            yield f"{name} must be {' or '.join(sorted(OPTIONS[name])) or 'the path of a file or folder'}"
