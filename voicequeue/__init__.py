"""Enqueue voice-creation jobs in Redis, and read their results.

>>> from voicequeue import VoiceQueue, VoiceJob, Song
>>> queue = VoiceQueue("redis://localhost:6379/0")
>>> job = queue.enqueue(VoiceJob(audio_url="https://example.com/ana.wav", song=Song(prompt="[Verse] ...")))
>>> queue.wait(job.id).persona_id
"""

from voicequeue.client.async_queue import AsyncVoiceQueue
from voicequeue.client.bulk_operations import BulkAction, BulkPlan, BulkResult
from voicequeue.client.queue import VoiceQueue
from voicequeue.client.results import EnqueueItemResult, EnqueueResult, EnqueueSummary, Rejection
from voicequeue.client.search import Filter, Page
from voicequeue.domain.balance import Balance, BalanceWindow, UncountedSpending
from voicequeue.domain.charge_review import ChargeReview
from voicequeue.domain.clip import ArchivedFile, Clip
from voicequeue.domain.gate import Account, Gate, Hold, Limits
from voicequeue.domain.job import Charge, Event, Failure, Job, TimelineEntry, charges
from voicequeue.domain.song import Song, UnknownModelWarning
from voicequeue.domain.spec import Priority, VoiceJob
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import ArchiveState, FailureCode, State
from voicequeue.domain.status import ArchiveCounts, BacklogLane, Batch, CallbackCounts, RefusedJob, Status
from voicequeue.domain.stop_loss import BatchStop
from voicequeue.errors import (
    BatchNotFoundError,
    InvalidAudioError,
    InvalidCursorError,
    InvalidJobError,
    InvalidStateError,
    JobNotFoundError,
    KeyConflictError,
    PlanNotFoundError,
    Problem,
    StoreUnavailableError,
    VoiceQueueError,
)
from voicequeue.storage.archive import ArchiveEntry
from voicequeue.storage.audit.findings import Finding
from voicequeue.storage.callbacks import Callback
from voicequeue.storage.monitoring.throughput import TimeBucket
from voicequeue.storage.personas import Persona
from voicequeue.storage.preview import EnqueuePreview
from voicequeue.storage.rejected_messages import RejectedMessage

__all__ = [
    "Account",
    "ArchiveCounts",
    "ArchiveEntry",
    "ArchiveState",
    "ArchivedFile",
    "AsyncVoiceQueue",
    "BacklogLane",
    "Balance",
    "BalanceWindow",
    "Batch",
    "BatchNotFoundError",
    "BatchStop",
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
    "EnqueueResult",
    "EnqueueSummary",
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
    "JobNotFoundError",
    "KeyConflictError",
    "Limits",
    "Page",
    "Persona",
    "PlanNotFoundError",
    "Priority",
    "Problem",
    "RefusedJob",
    "RejectedMessage",
    "Rejection",
    "Song",
    "Stage",
    "State",
    "Status",
    "StoreUnavailableError",
    "TimeBucket",
    "TimelineEntry",
    "UncountedSpending",
    "UnknownModelWarning",
    "VoiceJob",
    "VoiceQueue",
    "VoiceQueueError",
    "charges",
]
