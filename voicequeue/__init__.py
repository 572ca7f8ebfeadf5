"""Put voice-creation jobs into Redis, and ask what became of them.

>>> from voicequeue import VoiceQueue, VoiceJob, Song
>>> queue = VoiceQueue("redis://localhost:6379/0")
>>> job = queue.enqueue(VoiceJob(audio_url="https://example.com/ana.wav", song=Song(prompt="[Verse] ...")))
>>> queue.wait(job.id).persona_id
"""

from voicequeue.aio import AsyncVoiceQueue
from voicequeue.archive import ToArchive
from voicequeue.callbacks import Callback
from voicequeue.clip import ArchivedFile, Clip
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
from voicequeue.gate import Account, Gate, Hold, Limits
from voicequeue.job import Charge, Code, Event, Failure, InArchive, Job, State, Step, charges
from voicequeue.listing import Filter, Page
from voicequeue.overview import Batch, CallbackCounts, Line, Status
from voicequeue.plans import Action, Done, Plan
from voicequeue.preview import Foreseen
from voicequeue.queue import VoiceQueue
from voicequeue.receipts import Entry, Placed, Receipt, Rejection
from voicequeue.rejects import RejectedMessage
from voicequeue.review import Unsure
from voicequeue.song import Song, UnknownModelWarning
from voicequeue.spec import Priority, VoiceJob
from voicequeue.stage import Stage
from voicequeue.trend import Stretch
from voicequeue.voices import Persona

__all__ = [
    "Account",
    "Action",
    "ArchivedFile",
    "AsyncVoiceQueue",
    "BadCursor",
    "Batch",
    "Callback",
    "CallbackCounts",
    "Charge",
    "Clip",
    "Code",
    "Done",
    "Entry",
    "Event",
    "Failure",
    "Filter",
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
