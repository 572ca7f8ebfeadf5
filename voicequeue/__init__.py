"""Put voice-creation jobs into Redis, and ask what became of them.

>>> from voicequeue import VoiceQueue, VoiceJob, Song
>>> queue = VoiceQueue("redis://localhost:6379/0")
>>> job = queue.enqueue(VoiceJob(audio_url="https://example.com/ana.wav", song=Song(prompt="[Verse] ...")))
>>> queue.wait(job.id).persona_id
"""

from voicequeue.aio import AsyncVoiceQueue
from voicequeue.callbacks import Callback
from voicequeue.errors import (
    InvalidJob,
    KeyConflict,
    NotAllowed,
    Problem,
    StoreUnreachable,
    UnfitAudio,
    UnknownBatch,
    UnknownJob,
    VoiceQueueError,
)
from voicequeue.gate import Account, Gate, Hold, Limits
from voicequeue.job import Charge, Clip, Code, Event, Failure, Job, State, Step, charges
from voicequeue.overview import Batch, Line, Status
from voicequeue.preview import Foreseen
from voicequeue.queue import Receipt, Rejection, VoiceQueue
from voicequeue.rejects import RejectedMessage
from voicequeue.song import Song, UnknownModelWarning
from voicequeue.spec import Priority, VoiceJob
from voicequeue.stage import Stage

__all__ = [
    "Account",
    "AsyncVoiceQueue",
    "Batch",
    "Callback",
    "Charge",
    "Clip",
    "Code",
    "Event",
    "Failure",
    "Foreseen",
    "Gate",
    "Hold",
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
    "UnfitAudio",
    "UnknownBatch",
    "UnknownJob",
    "UnknownModelWarning",
    "VoiceJob",
    "VoiceQueue",
    "VoiceQueueError",
    "charges",
]
