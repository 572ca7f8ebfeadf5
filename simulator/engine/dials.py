"""The dials: the settings of the simulator, at the start and at run time."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from simulator.contract.refusals import LIMITS, REFUSALS
from simulator.engine.faults import GET_FAULTS, MEDIA_FAULTS, POST_FAULTS
from simulator.engine.validators import Check, choice, flag, number, odds, or_null, text, whole

T = TypeVar("T")

PENDING_SHAPES = ("not_ready_200", "not_ready_202", "clips_pending")
CODE_SHAPES = ("number", "string", "absent")
TASK_ID_PLACES = ("top", "data", "camel", "data_id", "data_text", "data_list", "list")
ERROR_PLACES = ("error", "message")
VOICE_SHAPES = ("data", "top", "list", "state")
CLIPS_SHAPES = ("list", "object", "top", "songs", "result", "id")
FAILURE_SHAPES = (
    "clips",
    "object",
    "answer",
    "success_false",
    "code_500",
    "cancelled",
    "timeout",
    "expired",
    "rejected",
)
CLIP_WORDS = ("failed", "cancelled", "moderated")
RETRY_AFTER_FORMS = ("seconds", "date")
WEBHOOKS = ("once", "twice", "late", "out_of_order", "never")


class InvalidDial(ValueError):
    """A dial that does not exist, or a value that is not allowed. The text names the dial and the allowed values."""


def dial(default: T, check: Check, meaning: str) -> T:
    """Return the field of a dial: its default, its allowed values, and its meaning with units."""
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"check": check, "meaning": meaning})  # type: ignore[return-value]
    return field(default=default, metadata={"check": check, "meaning": meaning})


@dataclass(frozen=True)
class Dials:
    """The values of all dials. Immutable: `changed` returns a copy."""

    voice_s: float = dial(2.0, number(), "seconds until a voice is ready (the median)")
    music_s: float = dial(4.0, number(), "seconds until a song is ready (the median)")
    jitter: float = dial(0.0, number(0, 5), "how far those spread: sigma of a log-normal, 0 is exact")
    seed: int | None = dial(None, or_null(whole()), "same seed, same calls: same ids, durations, faults; null: random")
    latency_s: float = dial(0.0, number(), "seconds that every answer of the API takes, after any charge")

    credits: int = dial(10_000, whole(), "credits left at the start and after a reset; setting it sets what is left")
    extra_credits: int = dial(0, whole(), "of what is left, up to this many are shown as extra_credits")
    voice_credits: int = dial(4, whole(), "credits that a voice costs")
    music_credits: int = dial(15, whole(), "credits that a song costs")
    subscription: bool = dial(True, flag(), "false: every charge is refused with 403, no active subscription")
    api_key: str | None = dial(None, or_null(text()), "the one right bearer token; null: any is right")

    concurrency: int | None = dial(None, or_null(whole()), "tasks in progress at once, beyond it 429; null: no limit")
    rate_per_minute: float | None = dial(None, or_null(number(0.001)), "POSTs a minute, beyond it 429; null: no limit")
    rate_burst: int | None = dial(None, or_null(whole(1)), "POSTs of that rate at once; null: a minute's worth")
    retry_after: float | None = dial(
        None, or_null(number()), "seconds in Retry-After of a 429; null: no header, or the real wait for the rate"
    )
    retry_after_form: str = dial("seconds", choice(*RETRY_AFTER_FORMS), "how Retry-After is written")
    limit_with: str = dial("429", choice(*LIMITS, "mixed"), "how a limit of the rate or of the tasks is put into words")

    refuse_match: str | None = dial(None, or_null(text()), "a POST with this in it is refused as refuse_with says")
    refuse_with: str = dial("persona_not_found", choice(*REFUSALS), "the refusal of such a POST")
    refuse_polls_match: str | None = dial(
        None, or_null(text()), "polls of such a task are always answered as refuse_polls_with says"
    )
    refuse_polls_with: str = dial("key_401", choice(*REFUSALS), "the answer to such a poll")
    credits_with: str | None = dial(None, or_null(choice(*REFUSALS)), "the answer to every get-credits, if any")

    pending_shape: str = dial("not_ready_200", choice(*PENDING_SHAPES, "mixed"), "how a poll says: still working")
    code_shape: str = dial("number", choice(*CODE_SHAPES, "mixed"), "`code` in the answer to a POST")
    task_id_place: str = dial("top", choice(*TASK_ID_PLACES, "mixed"), "where the answer to a POST has its task_id")
    task_id_number: bool = dial(False, flag(), "true: task ids are numbers, not UUIDs")
    error_place: str = dial("error", choice(*ERROR_PLACES, "mixed"), "which key holds the text of a refusal")
    voice_shape: str = dial("data", choice(*VOICE_SHAPES, "mixed"), "where a finished voice has its persona_id")
    early_persona: bool = dial(False, flag(), "true: a voice in progress, or failed, shows its persona_id as well")
    clips_shape: str = dial("list", choice(*CLIPS_SHAPES, "mixed"), "where a finished song has its clips")

    voice_failure: float = dial(0.0, number(0, 1), "probability that a voice fails (it stays charged)")
    music_failure: float = dial(0.0, number(0, 1), "probability that a song fails (it stays charged)")
    clip_failure: float = dial(0.0, number(0, 1), "probability that one of a song's two clips fails")
    clip_word: str = dial("failed", choice(*CLIP_WORDS, "mixed"), "the state of such a clip")
    clip_stall: float = dial(0.0, number(0, 1), "probability that one of a song's two clips never ends")
    link_late: float = dial(0.0, number(0, 1), "probability that the links of a song come later than its success")
    link_delay_s: float = dial(2.0, number(), "seconds by which they come later")
    failure_shape: str = dial("object", choice(*FAILURE_SHAPES, "mixed"), "how a poll says: failed")
    fail_match: str | None = dial(None, or_null(text()), "a task whose audio_url, title or text has this in it fails")
    stall_match: str | None = dial(None, or_null(text()), "such a task never gets ready by itself")
    moderate_match: str | None = dial(None, or_null(text()), "such a request is refused with 403 by moderation")

    webhook: str = dial("once", choice(*WEBHOOKS), "how the webhooks of a task arrive")
    webhook_delay_s: float = dial(
        5.0, number(), "seconds by which the late, the second or the outdated webhook comes after"
    )

    post_faults: Mapping[str, float] = dial({}, odds(POST_FAULTS), "fault: probability, for each POST")
    get_faults: Mapping[str, float] = dial({}, odds(GET_FAULTS), "fault: probability, for each poll and get-credits")
    drip_s: float = dial(1.0, number(), "seconds between two bytes of a dripping answer")

    media_bytes: int = dial(16_000, whole(1), "about how many bytes the audio behind a link has")
    media_s: float = dial(0.0, number(), "seconds that a file takes to arrive")
    media_ranges: bool = dial(True, flag(), "false: always the whole file, also for a Range")
    media_redirect: str | None = dial(None, or_null(text()), "where every link leads instead")
    media_faults: Mapping[str, float] = dial({}, odds(MEDIA_FAULTS), "fault: probability, for each file")

    def changed(self, values: Mapping[str, object]) -> "Dials":
        """Return a copy with some values changed, as JSON gives them. Raises InvalidDial."""
        for name, value in values.items():
            _require(name, value)
        changes: dict[str, Any] = dict(values)
        return replace(self, **changes)

    def as_json(self) -> dict[str, object]:
        """Return all dials by name."""
        return {name: getattr(self, name) for name in CHECKS}


CHECKS: dict[str, Check] = {dial.name: dial.metadata["check"] for dial in fields(Dials)}
MEANINGS: dict[str, str] = {dial.name: dial.metadata["meaning"] for dial in fields(Dials)}


def _require(name: str, value: object) -> None:
    if name not in CHECKS:
        raise InvalidDial(f"{name}: there is no such dial; there are {', '.join(CHECKS)}")
    if not CHECKS[name].accepts(value):
        raise InvalidDial(f"{name}: it must be {CHECKS[name].allowed}, not {json.dumps(value)}")
