"""Configuration of `make torture`: settings, the simulator's dials, and checks against the ledger."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from simulator.contract.chance import derived_uuid
from voicequeue import Job, State
from voicequeue.domain.stage import PRICES

ENV = {
    "VOICEQUEUE_POLL_MIN_INTERVAL_S": "0.3",
    "VOICEQUEUE_POLL_MAX_INTERVAL_S": "0.6",
    "VOICEQUEUE_DISPATCH_INTERVAL_S": "0.1",
    "VOICEQUEUE_MAINTENANCE_INTERVAL_S": "0.3",
    "VOICEQUEUE_OVERDUE_AFTER_S": "1",
    "VOICEQUEUE_SUBMIT_LEASE_S": "6",
    "VOICEQUEUE_UPSTREAM_RESPONSE_TIMEOUT_S": "2",
    "VOICEQUEUE_MUSIC_DEADLINE_S": "20",
    "VOICEQUEUE_COOLDOWN_S": "0.3",
    "VOICEQUEUE_BALANCE_INTERVAL_S": "2",
    "VOICEQUEUE_TASK_CHUNK_SIZE": "10",
    "VOICEQUEUE_SECRET": "a long secret of the torture's stack",
    "VOICEQUEUE_CALLBACK_ALLOWED_HOSTS": "127.0.0.1",
    "VOICEQUEUE_CALLBACK_BACKOFF_INITIAL_S": "0.2",
    "VOICEQUEUE_CALLBACK_BACKOFF_MAX_S": "1",
    "VOICEQUEUE_CALLBACK_HOST_COOLDOWN_S": "0.3",
    "VOICEQUEUE_CALLBACK_TIMEOUT_S": "0.7",
}

CHARGED = ("reset_after", "hang_after", "error_after", "html_after", "garbage_after", "no_task_id_after", "cut_after")
FREE = (
    *("reset_before", "hang_before", "error_before", "html_before", "garbage_before"),
    *("rate_limited", "rate_in_body", "rate_403"),
)
POLL_FAULTS = (
    *("reset", "hang", "error", "html", "garbage", "cut", "rate_limited"),
    *("key_401", "style_403", "subscription_403", "busy", "false_failure"),
)

#: Jobs with this in their title are rejected, with one of these responses.
REFUSED = "poison"
REFUSALS = (
    *("persona_not_found", "firewall_403", "firewall_413", "model_403", "payment_402", "busy_429", "busy_for_ever"),
    *("credits_400", "rate_403", "queue_403", "rate_400", "style_403", "review_403"),
    *("rate_in_body", "forbidden_in_body", "bad_request_in_body", "false_in_body"),
)

#: A batch with a credit limit, and the limit.
LIMITED, LIMIT = "limited", 400

#: A namespace with a budget, which all of its batches share, and the budget: of the month, too, because a run may end
#: on the next day.
BUDGETED, BUDGET = "budgeted", 300

#: One job in this many shares its voice, with as many others.
SHARING = 4


def recording_number(number: int) -> int:
    """Return the number of the recording for a job."""
    return number if number % SHARING else number - number % (SHARING * SHARING)


def dials(seed: int, *, webhooks: bool) -> dict[str, object]:
    """Return the simulator's dials: every response shape, and each fault now and then."""
    return {
        "seed": seed,
        "webhook": "twice" if webhooks else "never",
        "webhook_delay_s": 3,
        "voice_s": 0.7,
        "music_s": 0.7,
        "jitter": 0.5,
        "latency_s": 0.02,
        "credits": 10_000_000,
        "concurrency": 150,
        "task_id_number": seed % 3 == 0,
        "early_persona": True,
        "link_late": 0.2,
        "link_delay_s": 1,
        "clip_failure": 0.1,
        "clip_stall": 0.02,
        "post_faults": dict.fromkeys((*CHARGED, *FREE), 0.006),
        "get_faults": dict.fromkeys(POLL_FAULTS, 0.01),
        **dict.fromkeys(("pending_shape", "code_shape", "task_id_place", "clips_shape", "voice_shape"), "mixed"),
        **dict.fromkeys(("clip_word", "limit_with"), "mixed"),
    }


def without_faults() -> dict[str, object]:
    """Return the dials of a healthy upstream."""
    return {"post_faults": {}, "get_faults": {}, "clip_stall": 0, "refuse_match": None}


def differences(jobs: Iterable[Job], ledger: dict[str, Any]) -> Iterator[str]:
    """Yield the differences between the records and the simulator's ledger, by recording: its voice, charged once, and
    all songs with it.

    An unsure job may have been charged for its stage.
    """
    paid: Counter[str] = Counter()
    for charge in ledger["charges"]:
        paid[charge["subject"]] += charge["credits"]
    by_recording: defaultdict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        by_recording[job.spec.audio_url or ""].append(job)
    for recording, sharing in by_recording.items():
        spent = paid[recording] + sum(paid[persona] for persona in {job.persona_id or "" for job in sharing})
        booked = sum(job.credits for job in sharing)
        unsure = sum(PRICES[job.stage] for job in sharing if job.state is State.UNSURE)
        if not booked <= spent <= booked + unsure:
            ids = ", ".join(f"{job.id} ({job.state})" for job in sharing)
            yield f"jobs {ids}: {booked} credits in their records, {spent} in the ledger"


def songs_of(owner: str, *, batches: int = 1) -> Iterator[dict[str, Any]]:
    """Yield the jobs of an owner whose credits are limited."""
    for number in range(60):
        yield {
            "audio_url": f"https://recordings.example/{owner}-{number}.wav",
            "batch": owner if batches == 1 else f"{owner}-{number % batches}",
            "song": {"prompt": "la la", "title": f"{owner} {number}"},
            "key": f"{owner}-{number}",
        }


def spent_by(owner: str, ledger: dict[str, Any]) -> int:
    """Return the credits charged for the jobs of an owner: its recordings, and the songs of their voices."""
    voices = [charge for charge in ledger["charges"] if f"/{owner}-" in charge["subject"]]
    personas = {derived_uuid(charge["task_id"], "persona") for charge in voices}
    songs = [charge for charge in ledger["charges"] if charge["subject"] in personas]
    return sum(charge["credits"] for charge in (*voices, *songs))
