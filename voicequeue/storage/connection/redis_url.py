"""Redis URLs: what they may say, the same for the library, Celery's transport, Flower and the settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote

SHAPE: Final = "redis://[user:password@]host:port/database"

SENTINEL_SHAPE: Final = "sentinel://[user:password@]host:port,host:port/primary/database"

#: The scheme of a URL: whether it names sentinels, and whether connections use TLS.
_SCHEMES: Final[Mapping[str, tuple[bool, bool]]] = {
    "redis": (False, False),
    "rediss": (False, True),
    "sentinel": (True, False),
    "redis+sentinel": (True, False),
    "rediss+sentinel": (True, True),
}

#: Options of a URL with TLS, as redis-py names them; the values, where they are not paths.
TLS_OPTIONS: Final[Mapping[str, frozenset[str]]] = {
    "ssl_ca_certs": frozenset(),
    "ssl_ca_path": frozenset(),
    "ssl_cert_reqs": frozenset({"none", "optional", "required"}),
    "ssl_certfile": frozenset(),
    "ssl_check_hostname": frozenset({"false", "true"}),
    "ssl_keyfile": frozenset(),
}

#: Options of a URL that names sentinels: their own login, where they have one.
SENTINEL_OPTIONS: Final = ("sentinel_username", "sentinel_password")

#: Default ports of Redis and of sentinels, and the highest one.
_PORT, _SENTINEL_PORT, _PORT_MAX = 6379, 26379, 65_535

_INVALID_HOST: Final = "the host or port is invalid; percent-encode special characters in the password"

_DATABASE: Final = re.compile(r"[0-9]*")

#: The name of a primary, as sentinels accept it.
_PRIMARY: Final = re.compile(r"[A-Za-z0-9._-]+")

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:@\s]*)(?::([^:]*))?")

#: The login in any URL: up to the last '@' before the path.
_LOGIN: Final = re.compile(r"(?<=://)(?:([^/?#:]*):)?[^/?#]*@")

#: The password of sentinels in the options of any URL.
_SENTINEL_PASSWORD: Final = re.compile(r"(?<=[?&]sentinel_password=)[^&#\s]*")

#: Characters that end the part before the host, and change the meaning of the rest.
_UNQUOTED: Final = re.compile(r"[\s\x00-\x1f\x7f;#\\]")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The address of a queue's Redis, and the logins.

    Attributes:
        hosts: Hosts and ports: of Redis, or of the sentinels that know it.
        primary: Name by which the sentinels know it; '' without sentinels.
        database: Number of the database.
        username: User of Redis; None for its default user.
        password: Password of the user.
        sentinel_username: User of the sentinels; None for their default user.
        sentinel_password: Password of that user; None where they need none.
        tls: Options of redis-py for TLS; None without TLS.
    """

    hosts: tuple[tuple[str, int], ...]
    primary: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: Mapping[str, str | bool] | None = None


def parse_redis_url(url: str) -> RedisAddress:
    """Return the address in a URL.

    Raises ValueError if a process cannot use it; the message does not quote the URL, which may contain a password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise _error(SHAPE, _scheme_problem(scheme if separator else "")) from None
    names_sentinels, has_tls = _SCHEMES[scheme]
    shape = SENTINEL_SHAPE if names_sentinels else SHAPE
    if _UNQUOTED.search(url):
        raise _error(shape, "percent-encode special characters in the user or password") from None
    place, _, query = rest.partition("?")
    login_and_hosts, _, path = place.partition("/")
    login, _, hosts = login_and_hosts.rpartition("@")
    for problem in (
        *_login_problems(login, path),
        *_host_problems(hosts, names_sentinels=names_sentinels),
        *_path_problems(path, names_sentinels=names_sentinels),
        *_option_problems(query, scheme),
    ):
        raise _error(shape, problem) from None
    username, colon, password = login.partition(":")
    primary, _, database = path.partition("/") if names_sentinels else ("", "", path)
    options = dict(parse_qsl(query))
    return RedisAddress(
        hosts=tuple(_hosts(hosts, _SENTINEL_PORT if names_sentinels else _PORT)),
        primary=primary,
        database=int(database or 0),
        username=unquote(username) or None,
        password=unquote(password) if colon else None,
        sentinel_username=options.pop("sentinel_username", None),
        sentinel_password=options.pop("sentinel_password", None),
        tls={name: _tls_value(name, value) for name, value in options.items()} if has_tls else None,
    )


def validate_redis_url(url: str) -> str:
    """Return the URL. Raises ValueError as `parse_redis_url` does."""
    parse_redis_url(url)
    return url


def masked(url: str) -> str:
    """Return a URL without secrets: `***` replaces a password, or a user without one, which may be a token."""
    url = _SENTINEL_PASSWORD.sub("***", url)
    return _LOGIN.sub(lambda login: "***@" if login[1] is None else f"{login[1]}:***@", url)


def passwords_in(url: str) -> list[str]:
    """Return the passwords in a valid URL, decoded and as they are written."""
    address, login, sentinels = parse_redis_url(url), _LOGIN.search(url), _SENTINEL_PASSWORD.search(url)
    raw = [login[0].partition(":")[2].removesuffix("@") if login else "", sentinels[0] if sentinels else ""]
    return [text for text in (address.password, address.sentinel_password, *raw) if text]


def _error(shape: str, problem: str) -> ValueError:
    return ValueError(f"the Redis URL must look like {shape}: {problem}")


def _scheme_problem(scheme: str) -> str:
    if scheme == "unix":
        return "Unix sockets are not supported, because Celery's transport has no such URLs"
    if "cluster" in scheme:
        return "a Cluster is not supported, because the keys of a queue are one unit; use one primary, or sentinels"
    return "use redis:// or rediss://, or sentinel:// or rediss+sentinel://"


def _hosts(hosts: str, default_port: int) -> Iterator[tuple[str, int]]:
    for text in hosts.split(","):
        if match := _HOST.fullmatch(text):
            yield match[1].strip("[]"), int(match[2] or default_port)


def _login_problems(login: str, path: str) -> Iterator[str]:
    if "@" in path or not {"[", "]"}.isdisjoint(login):
        yield _INVALID_HOST


def _host_problems(hosts: str, *, names_sentinels: bool) -> Iterator[str]:
    if "," in hosts and not names_sentinels:
        yield "the host or port is invalid: several hosts are for sentinel://"
    for text in hosts.split(","):
        match = _HOST.fullmatch(text)
        if match is None:
            yield _INVALID_HOST
        elif not match[1]:
            yield "the host is missing"
        elif match[2] == "0":
            yield "the port must be 1 to 65535"
        elif match[2] and not (re.fullmatch("[0-9]{1,5}", match[2]) and int(match[2]) <= _PORT_MAX):
            yield _INVALID_HOST


def _path_problems(path: str, *, names_sentinels: bool) -> Iterator[str]:
    database = path
    if names_sentinels:
        primary, _, database = path.partition("/")
        if not _PRIMARY.fullmatch(primary):
            yield "the name of the primary, as the sentinels know it, must follow the hosts"
    if not _DATABASE.fullmatch(database):
        yield "the database must be a whole number of at least 0"


def _option_problems(query: str, scheme: str) -> Iterator[str]:
    names_sentinels, has_tls = _SCHEMES[scheme]
    names = [*(TLS_OPTIONS if has_tls else ()), *(SENTINEL_OPTIONS if names_sentinels else ())]
    for name, value in parse_qsl(query, keep_blank_values=True):
        values = TLS_OPTIONS.get(name, frozenset())
        if name not in names:
            allowed = f"options of {scheme}:// are {', '.join(names)}" if names else f"{scheme}:// has no options"
            yield f"options after '?' are not supported, except those listed: {allowed}"
        elif not value and name in SENTINEL_OPTIONS:
            yield f"{name} is empty"
        elif not value or (values and value not in values):
            yield f"{name} must be {' or '.join(sorted(values)) or 'the path of a file or folder'}"


def _tls_value(name: str, value: str) -> str | bool:
    return value == "true" if name == "ssl_check_hostname" else value
