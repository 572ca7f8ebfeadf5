"""Checks of whether a program that was started listens on its ports and answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import requests
from redis import Redis
from redis.exceptions import RedisError

from workers.local.ports import PortOwner, port_owner

#: How long a program may take to become ready, in seconds.
START_TIMEOUT_S = 40.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a program (by its name in the supervisor, with a label for people), its ports, and a check of
    whether it answers there."""

    program: str
    label: str
    url: str
    ports: tuple[int, ...]
    answers: Callable[[], bool]


class PortTakenError(Exception):
    """Another process listens on a port of the program."""


def is_ready(endpoint: Endpoint, pid: int | None) -> bool:
    """Return whether the program that runs as process `pid`, which leads a session, listens and answers. Raises
    PortTakenError."""
    owners = {port_owner(port, pid or 0) for port in endpoint.ports}
    if PortOwner.OTHER in owners:
        raise PortTakenError
    return pid is not None and PortOwner.NONE not in owners and endpoint.answers()


def answers_http(url: str) -> bool:
    """Return whether a server answers at this URL without a server error."""
    try:
        return requests.get(url, timeout=1).status_code < 500
    except requests.RequestException:
        return False


def answers_redis(url: str, pid: int | None) -> bool:
    """Return whether the process `pid` serves Redis at this URL, with its file loaded."""
    try:
        with Redis.from_url(url, socket_timeout=1) as client:
            info: dict[str, int] = client.info()
    except RedisError:
        return False
    return info["process_id"] == pid and not info["loading"]


def wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait until the condition holds. Raises TimeoutError with the text `otherwise` after START_TIMEOUT_S."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.05)
