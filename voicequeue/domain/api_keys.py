"""API keys of the HTTP gateway: their scopes, namespace and limits. Pure."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypedDict, cast

from voicequeue.domain.job import to_iso8601
from voicequeue.domain.namespaces import ALL
from voicequeue.domain.newer_records import with_unknown_fields
from voicequeue.domain.spec import Priority
from voicequeue.errors import InvalidJobError, InvalidStateError, Problem

if TYPE_CHECKING:
    from voicequeue.domain import operator_schemas

#: The most requests a second that a limit may allow, the fewest, and the longest pattern of batch names.
REQUESTS_MAX, REQUESTS_MIN, PATTERN_MAX = 10_000.0, 0.001, 200

#: The first number that is too large for credits or jobs.
AMOUNT_MAX = 2**53

#: Secrets of a key that are accepted at once: the current one, and replaced ones in their overlap.
SECRETS_MAX = 5

#: The first time that is too late: the end of the year 9999 (Unix seconds).
TIME_MAX = 253_402_300_800.0


class Scope(StrEnum):
    """A permission of a key; none includes another."""

    ENQUEUE = "enqueue"
    READ = "read"
    OPERATE = "operate"
    REVIEW = "review"
    ADMIN = "admin"


class KeyLimitChanges(TypedDict, total=False):
    """New limits of an API key, named as in `KeyLimits`: None removes one, and those that are not named stay."""

    requests_per_s: float | None
    max_priority: Priority | None
    batch_pattern: str | None
    expires_at: float | None
    max_in_flight: int | None
    budget_day: int | None
    budget_month: int | None


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """The limits of an API key; None is no limit.

    Attributes:
        requests_per_s: Requests a second, over all gateways.
        max_priority: Highest priority of its jobs.
        batch_pattern: Pattern that the batches of its jobs match, such as `shop-*`; a job then needs a batch.
        expires_at: Time from which it is refused (Unix seconds).
        max_in_flight: Number of its jobs that may be in flight.
        budget_day: Credits that its jobs may spend in a day (UTC).
        budget_month: Credits that its jobs may spend in a month (UTC).
    """

    requests_per_s: float | None = None
    max_priority: Priority | None = None
    batch_pattern: str | None = None
    expires_at: float | None = None
    max_in_flight: int | None = None
    budget_day: int | None = None
    budget_month: int | None = None

    def budget(self) -> dict[str, int | None]:
        """Return the fields of its budget."""
        return {"day": self.budget_day, "month": self.budget_month, "max_in_flight": self.max_in_flight}

    def check(self) -> None:
        """Raise InvalidJobError if a limit is invalid."""
        rate, pattern, expiry = self.requests_per_s, self.batch_pattern, self.expires_at
        require_that(
            "requests_per_s",
            rate is None or REQUESTS_MIN <= rate <= REQUESTS_MAX,
            f"must be {REQUESTS_MIN:g} to {REQUESTS_MAX:g} requests a second",
        )
        require_that(
            "batch_pattern",
            pattern is None or 1 <= len(pattern) <= PATTERN_MAX,
            f"must be 1 to {PATTERN_MAX} characters, such as shop-*",
        )
        require_that("expires_at", expiry is None or 0 < expiry < TIME_MAX, "must be a time before the year 10000")
        for name in ("max_in_flight", "budget_day", "budget_month"):
            value = getattr(self, name)
            require_that(name, value is None or 0 <= value < AMOUNT_MAX, "must be a whole number of at least 0")

    def as_changes(self) -> KeyLimitChanges:
        """Return the changes that set these limits, and leave others as they are."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return cast(KeyLimitChanges, {name: value for name, value in values.items() if value is not None})

    def problems_of(self, priority: Priority, batch: str | None) -> list[Problem]:
        """Return what a job with this priority and batch violates."""
        problems = []
        if self.max_priority is not None and priority.rank < self.max_priority.rank:
            problems.append(
                Problem("priority", f"{priority!s} is above the highest priority of this API key: {self.max_priority}")
            )
        if problem := self.problem_of_batch(batch):
            problems.append(problem)
        return problems

    def problem_of_batch(self, batch: str | None) -> Problem | None:
        """Return the violation of a batch with this name, if any."""
        if self.batch_pattern is None or (batch and fnmatchcase(batch, self.batch_pattern)):
            return None
        value = f"{batch!r} does not match" if batch else "missing, but needed to match"
        return Problem("batch", f"{value} the batch names of this API key: {self.batch_pattern}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret.

    Attributes:
        name: Name of its holder.
        scopes: What it may do.
        digest: Its hash.
        namespace: Namespace that it acts in; `*` for an operator's key.
        limits: Its limits.
        created_at: Time when it was created (Unix seconds); None for a key of the environment.
        previous_digest: Hash of the secret before the last rotation; accepted until `previous_until`.
        previous_until: Time from which the secret before is refused (Unix seconds).
        older: Hashes of the secrets before that one, and until when each is accepted: none longer than that one.
        revoked_at: Time when it was revoked (Unix seconds).
        last_used_at: Time of its last request, about a minute exact (Unix seconds).
    """

    name: str
    scopes: frozenset[Scope]
    digest: str
    namespace: str = ALL
    limits: KeyLimits = field(default=KeyLimits())
    created_at: float | None = None
    previous_digest: str = ""
    previous_until: float = 0.0
    revoked_at: float | None = None
    last_used_at: float | None = None
    older: tuple[tuple[str, float], ...] = ()

    def as_setting(self) -> str:
        """Return the key's entry for the setting."""
        holder = self.name if self.namespace == ALL else f"{self.name}@{self.namespace}"
        return f"{holder}:{'+'.join(scope for scope in Scope if scope in self.scopes)}:{self.digest}"

    def is_active(self, now: float) -> bool:
        """Return whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.limits.expires_at is None or now < self.limits.expires_at)

    def accepts(self, digest: str, now: float) -> bool:
        """Return whether it is active, and a secret with this hash is its own or, during a rotation, was."""
        if not self.is_active(now):
            return False
        valid = (self.digest, *(replaced for replaced, until in self.replaced() if now < until))
        return any(hmac.compare_digest(one, digest) for one in valid)

    def replaced(self) -> tuple[tuple[str, float], ...]:
        """Return the hashes of replaced secrets, the latest first, and until when each is accepted."""
        return ((self.previous_digest, self.previous_until), *self.older) if self.previous_digest else ()

    def has_same_rights(self, other: ApiKey) -> bool:
        """Return whether another key, such as an earlier version of this one, permits the same requests and jobs."""
        mine, others = (
            (key.name, key.scopes, key.namespace, key.limits.max_priority, key.limits.batch_pattern)
            for key in (self, other)
        )
        return mine == others

    def rotated(self, digest: str, *, now: float, until: float) -> ApiKey:
        """Return the key with another secret; those before are accepted until a time, if none of them ends earlier.

        The response with the last secret may have been lost, and the holder of the key then uses one before it.

        Raises:
            InvalidStateError: Too many secrets are valid.
        """
        if self.digest == digest:
            return self  # the reply of this change was lost
        capped = ((replaced, min(until, its_until)) for replaced, its_until in self.replaced())
        older = tuple((replaced, its_until) for replaced, its_until in capped if its_until > now)
        if len(older) + 2 > SECRETS_MAX:
            raise InvalidStateError(
                f"{SECRETS_MAX} secrets of the API key {self.name} are accepted: rotate it without overlap (`--now`) "
                f"to end them, or wait until {to_iso8601(min(its_until for _, its_until in older))}"
            )
        return replace(self, digest=digest, previous_digest=self.digest, previous_until=until, older=older)

    def as_dict(self) -> operator_schemas.ApiKey:
        """Return the JSON representation, which has no hash."""
        limits = self.limits
        return {
            "name": self.name,
            "namespace": self.namespace,
            "scopes": [scope.value for scope in Scope if scope in self.scopes],
            "requests_per_s": limits.requests_per_s,
            "max_priority": None if limits.max_priority is None else limits.max_priority.value,
            "batch_pattern": limits.batch_pattern,
            "expires_at": _time(limits.expires_at),
            "max_in_flight": limits.max_in_flight,
            "budget_day": limits.budget_day,
            "budget_month": limits.budget_month,
            "created_at": _time(self.created_at),
            "rotating_until": _time(self.previous_until or None),
            "revoked_at": _time(self.revoked_at),
            "last_used_at": _time(self.last_used_at),
        }

    def to_record(self, before: str = "") -> str:
        """Return the text that is stored in place of the record `before`.

        What a newer release has added to that record is kept; its scopes too, unless the scopes change.
        """
        limits, unknown = self.limits, _unknown_scopes(self, before)
        record = with_unknown_fields(
            {
                "scopes": [*(scope for scope in Scope if scope in self.scopes), *unknown],
                "digest": self.digest,
                "namespace": self.namespace,
                "requests_per_s": limits.requests_per_s,
                "max_priority": limits.max_priority,
                "batch_pattern": limits.batch_pattern,
                "expires_at": limits.expires_at,
                "max_in_flight": limits.max_in_flight,
                "budget_day": limits.budget_day,
                "budget_month": limits.budget_month,
                "created_at": self.created_at,
                "previous_digest": self.previous_digest,
                "previous_until": self.previous_until,
                "older": self.older,
                "revoked_at": self.revoked_at,
            },
            before,
        )
        return json.dumps(record)


def _unknown_scopes(key: ApiKey, before: str) -> list[str]:
    """Return the scopes of newer releases in the record that a key replaces; none if it changes the scopes."""
    scopes = json.loads(before)["scopes"] if before else []
    listed = {scope for scope in scopes if scope in set(Scope)}
    return [scope for scope in scopes if scope not in listed] if listed == key.scopes else []


def from_record(name: str, text: str, last_used_at: float | None = None) -> ApiKey | None:
    """Return the key that is stored under this name; None if the record cannot be read, as if there was none.

    A later release may have written it, or it is damaged. Scopes of later releases are left out.
    """
    try:
        key = _parse(name, text, last_used_at)
        key.limits.check()
        return key if _is_plausible(key) else None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _is_plausible(key: ApiKey) -> bool:
    """Return whether the fields of a record have their types, so that no use of the key fails later."""
    replaced = [(key.previous_digest, key.previous_until), *key.older]
    texts = (key.digest, key.namespace, key.limits.batch_pattern or "", *(digest for digest, _ in replaced))
    times = [*(until for _, until in replaced), *(at for at in (key.created_at, key.revoked_at) if at is not None)]
    return all(isinstance(text, str) for text in texts) and all(0 <= at < TIME_MAX for at in times)


def _parse(name: str, text: str, last_used_at: float | None) -> ApiKey:
    record: Mapping[str, Any] = json.loads(text)
    priority = record.get("max_priority")
    return ApiKey(
        name,
        frozenset(Scope(scope) for scope in record["scopes"] if scope in set(Scope)),
        record["digest"],
        record["namespace"],
        KeyLimits(
            record.get("requests_per_s"),
            None if priority is None else Priority(priority),
            record.get("batch_pattern"),
            record.get("expires_at"),
            record.get("max_in_flight"),
            record.get("budget_day"),
            record.get("budget_month"),
        ),
        record.get("created_at"),
        record.get("previous_digest", ""),
        record.get("previous_until", 0.0),
        record.get("revoked_at"),
        last_used_at,
        tuple((digest, until) for digest, until in record.get("older", ())),
    )


def require_that(field: str, is_valid: bool, message: str) -> None:
    """Raise InvalidJobError, which names the field, unless it is valid."""
    if not is_valid:
        raise InvalidJobError([Problem(field, message)])


def _time(at: float | None) -> str | None:
    return None if at is None else to_iso8601(at)
