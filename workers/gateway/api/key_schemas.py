"""The shapes of requests and responses about API keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from voicequeue.auth.api_keys import Scope
from voicequeue.client.api_keys import OVERLAP_MAX_S, OVERLAP_S
from voicequeue.domain import operator_schemas
from voicequeue.domain.api_keys import PATTERN_MAX, REQUESTS_MAX, REQUESTS_MIN, KeyLimits
from voicequeue.domain.namespaces import ALL
from voicequeue.domain.schemas import Schema
from voicequeue.domain.spec import Priority

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class KeyPage(Schema):
    """The API keys in Redis."""

    keys: list[operator_schemas.ApiKey]
    """All keys by name, also expired and revoked ones."""


class NewKey(Schema):
    """An API key and its secret."""

    key: operator_schemas.ApiKey
    """The key."""
    secret: str
    """What callers send as `Authorization: Bearer …`. It is shown only now."""


class _Limits(BaseModel):
    model_config = ConfigDict(extra="forbid")

    requests_per_s: Annotated[float | None, Field(ge=REQUESTS_MIN, le=REQUESTS_MAX)] = None
    """Requests a second, over all gateways; null is no limit."""
    max_priority: Priority | None = None
    """Highest priority of its jobs; null is no limit."""
    batch_pattern: Annotated[str | None, Field(min_length=1, max_length=PATTERN_MAX)] = None
    """Pattern that the batches of its jobs match, such as `shop-*`; null allows all."""
    expires_at: AwareDatetime | None = None
    """When it expires; null is never."""

    def limits(self, current: KeyLimits | None = None) -> KeyLimits:
        """Return the limits: fields that are not set stay as they are."""
        limits = current or KeyLimits()
        expiry: datetime | None = self.expires_at
        values = {
            "requests_per_s": self.requests_per_s,
            "max_priority": self.max_priority,
            "batch_pattern": self.batch_pattern,
            "expires_at": None if expiry is None else expiry.astimezone(UTC).timestamp(),
        }
        merged = {name: values[name] if name in self.model_fields_set else getattr(limits, name) for name in values}
        return KeyLimits(**merged)  # type: ignore[arg-type]


class NewKeyRequest(_Limits):
    """An API key to create."""

    name: Annotated[str, Field(pattern=NAME)]
    """Name of its holder; never given to another key."""
    scopes: Annotated[list[Scope], Field(min_length=1)]
    """What it may do."""
    namespace: str = ALL
    """Namespace that it acts in; `*` for an operator."""


class KeyChanges(_Limits):
    """Changes of an API key; fields that are not sent stay as they are."""

    scopes: Annotated[list[Scope] | None, Field(min_length=1)] = None
    """What it may do."""


class Rotation(BaseModel):
    """The rotation of an API key."""

    model_config = ConfigDict(extra="forbid")

    overlap_s: Annotated[float, Field(ge=0, le=OVERLAP_MAX_S)] = OVERLAP_S
    """Seconds for which the secret before is accepted, too."""
