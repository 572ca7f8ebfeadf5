"""Put voice-creation jobs into Redis, and ask what became of them.

>>> from voicequeue import VoiceQueue, VoiceJob, Song
>>> queue = VoiceQueue("redis://localhost:6379/0")
>>> job = queue.enqueue(VoiceJob(audio_url="https://example.com/ana.wav", song=Song(prompt="[Verse] ...")))
>>> queue.wait(job.id).persona_id
"""

from voicequeue.aio import AsyncVoiceQueue
from voicequeue.archive import ToArchive
from voicequeue.callbacks import Callback
from voicequeue.errors import (
    InvalidJob,
    KeyConflict,
    NotAllowed,
    Problem,
    StoreUnreachable,
    UnknownBatch,
    UnknownJob,
    VoiceQueueError,
)
from voicequeue.gate import Account, Gate, Hold, Limits
from voicequeue.job import ArchivedFile, Charge, Clip, Code, Event, Failure, InArchive, Job, State, Step, charges
from voicequeue.overview import Batch, Line, Status
from voicequeue.queue import Receipt, Rejection, VoiceQueue
from voicequeue.rejects import RejectedMessage
from voicequeue.song import Song, UnknownModelWarning
from voicequeue.spec import Priority, VoiceJob
from voicequeue.stage import Stage

__all__ = [
    "Account",
    "ArchivedFile",
    "AsyncVoiceQueue",
    "Batch",
    "Callback",
    "Charge",
    "Clip",
    "Code",
    "Event",
    "Failure",
    "Gate",
    "Hold",
    "InArchive",
    "InvalidJob",
    "Job",
    "KeyConflict",
    "Limits",
    "Line",
    "NotAllowed",
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
    "ToArchive",
    "UnknownBatch",
    "UnknownJob",
    "UnknownModelWarning",
    "VoiceJob",
    "VoiceQueue",
    "VoiceQueueError",
    "charges",
]
