"""The shapes of requests and responses about API keys."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from voicequeue.auth.api_keys import Scope
from voicequeue.client.api_keys import OVERLAP_MAX_S, OVERLAP_S
from voicequeue.domain import operator_schemas
from voicequeue.domain.api_keys import (
    AMOUNT_MAX,
    PATTERN_MAX,
    REQUESTS_MAX,
    REQUESTS_MIN,
    KeyLimitChanges,
    KeyLimits,
)
from voicequeue.domain.namespaces import ALL
from voicequeue.domain.schemas import Schema
from voicequeue.domain.spec import Priority

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class ApiKeyWithSecret(Schema):
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
    max_in_flight: Annotated[int | None, Field(ge=0, lt=AMOUNT_MAX)] = None
    """Number of its jobs that may be in flight; null is no limit."""
    budget_day: Annotated[int | None, Field(ge=0, lt=AMOUNT_MAX)] = None
    """Credits that its jobs may spend in a day (UTC); null is no limit."""
    budget_month: Annotated[int | None, Field(ge=0, lt=AMOUNT_MAX)] = None
    """Credits that its jobs may spend in a month (UTC); null is no limit."""

    def limit_changes(self) -> KeyLimitChanges:
        """Return the limits that were sent."""
        names = {field.name for field in fields(KeyLimits)} & self.model_fields_set
        changes: dict[str, Any] = {name: getattr(self, name) for name in names}
        if self.expires_at is not None:
            changes["expires_at"] = self.expires_at.timestamp()
        return cast(KeyLimitChanges, changes)

    def limits(self) -> KeyLimits:
        """Return the limits: those that were not sent are none."""
        return KeyLimits(**self.limit_changes())


class NewApiKey(_Limits):
    """An API key to create."""

    name: Annotated[str, Field(pattern=NAME)]
    """Name of its holder; never given to another key."""
    scopes: Annotated[list[Scope], Field(min_length=1)]
    """What it may do."""
    namespace: str = ALL
    """Namespace that it acts in; `*` for an operator."""


class ApiKeyUpdate(_Limits):
    """Changes of an API key; fields that are not sent stay as they are."""

    scopes: Annotated[list[Scope] | None, Field(min_length=1)] = None
    """What it may do."""


class ApiKeyRotation(BaseModel):
    """The rotation of an API key."""

    model_config = ConfigDict(extra="forbid")

    overlap_s: Annotated[float, Field(ge=0, le=OVERLAP_MAX_S)] = OVERLAP_S
    """Seconds for which the secrets before are accepted, too, unless their own overlap ends earlier."""
