"""What `make torture` runs with: settings, the simulator's dials, and what the ledger must say in the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from simulator.chance import derived_uuid
from voicequeue import Job, State
from voicequeue.domain.stage import PRICES

ENV = {
    "VOICEQUEUE_POLL_MIN_S": "0.3",
    "VOICEQUEUE_POLL_MAX_S": "0.6",
    "VOICEQUEUE_PULSE_S": "0.1",
    "VOICEQUEUE_RECONCILE_S": "0.3",
    "VOICEQUEUE_STALE_S": "1",
    "VOICEQUEUE_CHARGE_LEASE_S": "6",
    "VOICEQUEUE_ANSWER_TIMEOUT_S": "2",
    "VOICEQUEUE_MUSIC_DEADLINE_S": "20",
    "VOICEQUEUE_COOLDOWN_S": "0.3",
    "VOICEQUEUE_CREDITS_EVERY_S": "2",
    "VOICEQUEUE_CHUNK": "10",
    "VOICEQUEUE_SECRET": "a secret of this house, which is long",
    "VOICEQUEUE_CALLBACK_ALLOW": "127.0.0.1",
    "VOICEQUEUE_CALLBACK_FIRST_S": "0.2",
    "VOICEQUEUE_CALLBACK_MAX_S": "1",
    "VOICEQUEUE_CALLBACK_REST_S": "0.3",
    "VOICEQUEUE_CALLBACK_ANSWER_S": "0.7",
}

CHARGED = ("reset_after", "hang_after", "error_after", "html_after", "garbage_after", "no_task_id_after", "cut_after")
FREE = (
    *("reset_before", "hang_before", "error_before", "html_before", "garbage_before"),
    *("rate_limited", "rate_in_body", "rate_403"),
)
ASKED = (
    *("reset", "hang", "error", "html", "garbage", "cut", "rate_limited"),
    *("key_401", "style_403", "subscription_403", "busy", "false_failure"),
)

#: Jobs with this in their title are refused, in the words of one of these.
REFUSED = "poison"
REFUSALS = (
    *("persona_not_found", "firewall_403", "firewall_413", "model_403", "payment_402", "busy_429", "busy_for_ever"),
    *("credits_400", "rate_403", "queue_403", "rate_400", "style_403", "review_403"),
    *("rate_in_body", "forbidden_in_body", "bad_request_in_body", "false_in_body"),
)

#: The batch that may spend no more than this many credits, whatever happens.
LIMITED, LIMIT = "limited", 400


def dials(seed: int, *, webhooks: bool) -> dict[str, object]:
    """Return the simulator's dials: every shape, and every fault now and then."""
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
        "get_faults": dict.fromkeys(ASKED, 0.01),
        **dict.fromkeys(("pending_shape", "code_shape", "task_id_place", "clips_shape", "voice_shape"), "mixed"),
        **dict.fromkeys(("clip_word", "limit_with"), "mixed"),
    }


def without_faults() -> dict[str, object]:
    """Return the dials of an upstream that is well again."""
    return {"post_faults": {}, "get_faults": {}, "clip_stall": 0, "refuse_match": None}


def differences(jobs: Iterable[Job], ledger: dict[str, Any]) -> Iterator[str]:
    """Yield where the records and the simulator's ledger differ, by recording: its voice, made once, and all that was
    sung with it. An unsure job may have been charged for its stage."""
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


def spent_by_limited(ledger: dict[str, Any]) -> int:
    """Return the credits that upstream took for the limited batch: its recordings, and the songs of their voices."""
    voices = [charge for charge in ledger["charges"] if f"/{LIMITED}-" in charge["subject"]]
    personas = {derived_uuid(charge["task_id"], "persona") for charge in voices}
    songs = [charge for charge in ledger["charges"] if charge["subject"] in personas]
    return sum(charge["credits"] for charge in (*voices, *songs))
