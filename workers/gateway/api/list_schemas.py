"""The shapes of lists: each is a page with its items in `data`, and the cursor of the next page."""

from __future__ import annotations

from voicequeue.domain import operator_schemas, schemas
from voicequeue.domain.schemas import Schema


class ListPage(Schema):
    """A page of a list."""

    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""
    has_more: bool
    """True if there is a next page. A page may have fewer items than `limit`, even none, and still have a next one."""


def page_end(cursor: str | None = None) -> ListPage:
    """Return what follows the items of a page. Without a cursor, it is the last one."""
    return {"next_cursor": cursor, "has_more": cursor is not None}


class JobList(ListPage):
    """A page of jobs."""

    data: list[schemas.Job]
    """The jobs."""


class BatchList(ListPage):
    """A page of batches."""

    data: list[schemas.Batch]
    """The batches, newest first."""


class ChargeReviewList(ListPage):
    """A page of unsure jobs."""

    data: list[schemas.ChargeReview]
    """The jobs with their evidence, the latest first."""


class AuditEntryList(ListPage):
    """A page of the audit log."""

    data: list[operator_schemas.AuditEntry]
    """The entries, the latest first."""


class ApiKeyList(ListPage):
    """The API keys in Redis."""

    data: list[operator_schemas.ApiKey]
    """All keys by name, also expired and revoked ones."""


class BudgetList(ListPage):
    """Budgets of owners."""

    data: list[operator_schemas.Budget]
    """The budgets by owner and period: the account's, those of namespaces, those of API keys."""


class CallbackList(ListPage):
    """A page of callbacks."""

    data: list[operator_schemas.Callback]
    """The callbacks: undelivered ones the oldest failure first, pending ones by the time they are due."""


class PersonaList(ListPage):
    """A page of voices."""

    data: list[operator_schemas.Persona]
    """The voices, newest first in each namespace."""


class RejectedMessageList(ListPage):
    """A page of rejected messages."""

    data: list[operator_schemas.RejectedMessage]
    """The messages, newest first."""


class SpendingReport(ListPage):
    """A report of what was spent."""

    data: list[operator_schemas.Spending]
    """The rows by their columns; rows without credits are left out."""
    credits: int
    """Their sum."""
