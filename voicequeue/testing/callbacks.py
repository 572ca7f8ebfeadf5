"""Callbacks as the receiver would get them: same body, same headers, same signature."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SentCallback:
    """One callback request, as workers send it.

    Attributes:
        url: URL of the receiver.
        headers: Headers of the request: `webhook-id`, `webhook-timestamp`, `webhook-signature` and others.
        body: Body of the request, JSON.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """Id of the callback, by which receivers recognize a repeated one."""
        return self.headers["webhook-id"]

    @property
    def type(self) -> str:
        """Event type, such as `job.succeeded`."""
        return str(self.json()["type"])

    def json(self) -> dict[str, Any]:
        """Return the parsed body."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


#: Receives a callback and returns the HTTP status of the answer.
Receiver = Callable[[SentCallback], int]


def accept(_: SentCallback) -> int:
    """Answer as a receiver that accepts everything."""
    return 200
