"""Budgets: the credits that the account or a namespace may spend in a day and in a month (UTC)."""

from __future__ import annotations

from voicequeue.domain.namespaces import namespace_name

#: The owner of all jobs.
ACCOUNT = "account"


def budget_owner(text: str) -> str:
    """Return `text` if it is an owner of budgets: `account` or `namespace/NAME`. Raises ValueError."""
    kind, _, name = text.partition("/")
    if text != ACCOUNT and (kind != "namespace" or not name):
        raise ValueError(f"{text[:60]!r} has no budget: use 'account', or 'namespace/NAME' for a namespace")
    namespace_name(name)
    return text


def budget_text(period: str, credits: float | None) -> str:
    """Return the stored text of a budget; '' is unlimited. Raises ValueError."""
    if credits is None:
        return ""
    if not (0 <= credits < 2**53 and credits == int(credits)):
        raise ValueError(f"{period}: {credits} must be a whole number of credits of at least 0")
    return str(int(credits))
