"""Enqueue voice-creation jobs in Redis, and read their results.

>>> from voicequeue import VoiceQueue, VoiceJob, Song
>>> queue = VoiceQueue("redis://localhost:6379/0")
>>> job = queue.enqueue(VoiceJob(audio_url="https://example.com/ana.wav", song=Song(prompt="[Verse] ...")))
>>> queue.wait(job.id).persona_id
"""

from voicequeue.client.async_queue import AsyncVoiceQueue
from voicequeue.client.bulk_operations import Action, Done, Plan
from voicequeue.client.queue import VoiceQueue
from voicequeue.client.results import Entry, Placed, Receipt, Rejection
from voicequeue.client.search import Filter, Page
from voicequeue.domain.balance import Around, Balance, Drift
from voicequeue.domain.charge_review import Unsure
from voicequeue.domain.clip import ArchivedFile, Clip
from voicequeue.domain.gate import Account, Gate, Hold, Limits
from voicequeue.domain.job import Charge, Code, Event, Failure, InArchive, Job, State, Step, charges
from voicequeue.domain.song import Song, UnknownModelWarning
from voicequeue.domain.spec import Priority, VoiceJob
from voicequeue.domain.stage import Stage
from voicequeue.domain.status import ArchiveCounts, Batch, CallbackCounts, Line, RefusedJob, Status
from voicequeue.errors import (
    BadCursor,
    InvalidJob,
    KeyConflict,
    NotAllowed,
    Problem,
    StoreUnreachable,
    UnfitAudio,
    UnknownBatch,
    UnknownJob,
    UnknownPlan,
    VoiceQueueError,
)
from voicequeue.storage.archive import ToArchive
from voicequeue.storage.audit.findings import Finding
from voicequeue.storage.callbacks import Callback
from voicequeue.storage.monitoring.throughput import Stretch
from voicequeue.storage.personas import Persona
from voicequeue.storage.preview import Foreseen
from voicequeue.storage.rejected_messages import RejectedMessage

__all__ = [
    "Account",
    "Action",
    "ArchiveCounts",
    "ArchivedFile",
    "Around",
    "AsyncVoiceQueue",
    "BadCursor",
    "Balance",
    "Batch",
    "Callback",
    "CallbackCounts",
    "Charge",
    "Clip",
    "Code",
    "Done",
    "Drift",
    "Entry",
    "Event",
    "Failure",
    "Filter",
    "Finding",
    "Foreseen",
    "Gate",
    "Hold",
    "InArchive",
    "InvalidJob",
    "Job",
    "KeyConflict",
    "Limits",
    "Line",
    "NotAllowed",
    "Page",
    "Persona",
    "Placed",
    "Plan",
    "Priority",
    "Problem",
    "Receipt",
    "RefusedJob",
    "RejectedMessage",
    "Rejection",
    "Song",
    "Stage",
    "State",
    "Status",
    "Step",
    "StoreUnreachable",
    "Stretch",
    "ToArchive",
    "UnfitAudio",
    "UnknownBatch",
    "UnknownJob",
    "UnknownModelWarning",
    "UnknownPlan",
    "Unsure",
    "VoiceJob",
    "VoiceQueue",
    "VoiceQueueError",
    "charges",
]
