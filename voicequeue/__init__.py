"""Enqueue voice-creation jobs in Redis, and read their results.

>>> from voicequeue import VoiceQueue, VoiceJob, Song
>>> queue = VoiceQueue()  # REDIS_URL, otherwise redis://localhost:6379/0
>>> job = queue.enqueue(VoiceJob(audio_url="https://example.com/ana.wav", song=Song(prompt="[Verse] ...")))
>>> queue.wait(job.id).persona_id

Importing the package imports nothing else; a name imports its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str

    from voicequeue.client.api_keys import NewApiKey
    from voicequeue.client.async_queue import AsyncVoiceQueue
    from voicequeue.client.bulk_operations import BulkAction, BulkPlan, BulkResult
    from voicequeue.client.queue import VoiceQueue
    from voicequeue.client.results import EnqueuedJob, EnqueueItemResult, EnqueueSummary, Rejection
    from voicequeue.client.search import Filter, Page
    from voicequeue.client.sorted_search import Sort
    from voicequeue.domain.api_keys import ApiKey, KeyLimits, Scope
    from voicequeue.domain.balance import Balance, BalanceWindow, UncountedSpending
    from voicequeue.domain.budgets import Budget
    from voicequeue.domain.charge_review import ChargeReview
    from voicequeue.domain.clip import ArchivedFile, Clip
    from voicequeue.domain.gate import Account, Gate, Hold, Limits
    from voicequeue.domain.job import Charge, Event, Failure, Job, TimelineEntry, charges
    from voicequeue.domain.job_holds import BacklogHold, JobHold, JobHoldReason
    from voicequeue.domain.song import Song
    from voicequeue.domain.spec import Priority, VoiceJob
    from voicequeue.domain.spending import Spending, SpendingGroup
    from voicequeue.domain.stage import Stage
    from voicequeue.domain.states import ArchiveState, FailureCode, State
    from voicequeue.domain.status import ArchiveCounts, BacklogLane, Batch, CallbackCounts, RefusedJob, Status
    from voicequeue.domain.stop_loss import BatchStop
    from voicequeue.errors import (
        ApiKeyNotFoundError,
        BatchNotFoundError,
        BudgetExceededError,
        ErasedError,
        InvalidAudioError,
        InvalidCursorError,
        InvalidJobError,
        InvalidStateError,
        JobNotFoundError,
        KeyConflictError,
        NotOperatorError,
        PlanNotFoundError,
        Problem,
        StoreFormatError,
        StoreUnavailableError,
        UnknownModelWarning,
        VoiceQueueError,
        WaitTimeoutError,
    )
    from voicequeue.storage.archive import ArchiveEntry
    from voicequeue.storage.audit.findings import Finding
    from voicequeue.storage.callbacks import Callback
    from voicequeue.storage.monitoring.audit_log import AuditEntry
    from voicequeue.storage.monitoring.throughput import TimeBucket
    from voicequeue.storage.personas import Persona
    from voicequeue.storage.preview import EnqueuePreview
    from voicequeue.storage.rejected_messages import RejectedMessage

#: The public names of each module.
_EXPORTS: dict[str, tuple[str, ...]] = {
    "client.api_keys": ("NewApiKey",),
    "client.async_queue": ("AsyncVoiceQueue",),
    "client.bulk_operations": ("BulkAction", "BulkPlan", "BulkResult"),
    "client.queue": ("VoiceQueue",),
    "client.results": ("EnqueueItemResult", "EnqueueSummary", "EnqueuedJob", "Rejection"),
    "client.search": ("Filter", "Page"),
    "client.sorted_search": ("Sort",),
    "domain.api_keys": ("ApiKey", "KeyLimits", "Scope"),
    "domain.balance": ("Balance", "BalanceWindow", "UncountedSpending"),
    "domain.budgets": ("Budget",),
    "domain.charge_review": ("ChargeReview",),
    "domain.clip": ("ArchivedFile", "Clip"),
    "domain.gate": ("Account", "Gate", "Hold", "Limits"),
    "domain.job": ("Charge", "Event", "Failure", "Job", "TimelineEntry", "charges"),
    "domain.job_holds": ("BacklogHold", "JobHold", "JobHoldReason"),
    "domain.song": ("Song",),
    "domain.spec": ("Priority", "VoiceJob"),
    "domain.spending": ("Spending", "SpendingGroup"),
    "domain.stage": ("Stage",),
    "domain.states": ("ArchiveState", "FailureCode", "State"),
    "domain.status": ("ArchiveCounts", "BacklogLane", "Batch", "CallbackCounts", "RefusedJob", "Status"),
    "domain.stop_loss": ("BatchStop",),
    "errors": (
        "ApiKeyNotFoundError",
        "BatchNotFoundError",
        "BudgetExceededError",
        "InvalidAudioError",
        "InvalidCursorError",
        "InvalidJobError",
        "InvalidStateError",
        "NotOperatorError",
        "NotOperatorError",
        "JobNotFoundError",
        "ErasedError",
        "ErasedError",
        "KeyConflictError",
        "PlanNotFoundError",
        "Problem",
        "StoreFormatError",
        "StoreUnavailableError",
        "UnknownModelWarning",
        "VoiceQueueError",
        "WaitTimeoutError",
    ),
    "storage.archive": ("ArchiveEntry",),
    "storage.audit.findings": ("Finding",),
    "storage.callbacks": ("Callback",),
    "storage.monitoring.audit_log": ("AuditEntry",),
    "storage.monitoring.throughput": ("TimeBucket",),
    "storage.personas": ("Persona",),
    "storage.preview": ("EnqueuePreview",),
    "storage.rejected_messages": ("RejectedMessage",),
}
_MODULES = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [
    "Account",
    "ApiKey",
    "ApiKeyNotFoundError",
    "ArchiveCounts",
    "ArchiveEntry",
    "ArchiveState",
    "ArchivedFile",
    "AsyncVoiceQueue",
    "AuditEntry",
    "BacklogHold",
    "BacklogLane",
    "Balance",
    "BalanceWindow",
    "Batch",
    "BatchNotFoundError",
    "BatchStop",
    "Budget",
    "BudgetExceededError",
    "BulkAction",
    "BulkPlan",
    "BulkResult",
    "Callback",
    "CallbackCounts",
    "Charge",
    "ChargeReview",
    "Clip",
    "EnqueueItemResult",
    "EnqueuePreview",
    "EnqueueSummary",
    "EnqueuedJob",
    "ErasedError",
    "Event",
    "Failure",
    "FailureCode",
    "Filter",
    "Finding",
    "Gate",
    "Hold",
    "InvalidAudioError",
    "InvalidCursorError",
    "InvalidJobError",
    "InvalidStateError",
    "Job",
    "JobHold",
    "JobHoldReason",
    "JobNotFoundError",
    "KeyConflictError",
    "KeyLimits",
    "Limits",
    "NewApiKey",
    "NotOperatorError",
    "Page",
    "Persona",
    "PlanNotFoundError",
    "Priority",
    "Problem",
    "RefusedJob",
    "RejectedMessage",
    "Rejection",
    "Scope",
    "Song",
    "Sort",
    "Spending",
    "SpendingGroup",
    "Stage",
    "State",
    "Status",
    "StoreFormatError",
    "StoreUnavailableError",
    "TimeBucket",
    "TimelineEntry",
    "UncountedSpending",
    "UnknownModelWarning",
    "VoiceJob",
    "VoiceQueue",
    "VoiceQueueError",
    "WaitTimeoutError",
    "charges",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name == "__version__":  # a checkout asks git for it
        return import_module(f"{__name__}.version").VERSION
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
