"""The errors that callers can catch, and the warning.

    VoiceQueueError
     ├── InvalidJobError        (also a ValueError)   fields of the job are missing or invalid; lists each of them
     ├── InvalidAudioError      (also a ValueError)   the recording cannot be used
     ├── KeyConflictError       (also a ValueError)   the idempotency key belongs to a job with other content
     ├── ErasedError            (also a ValueError)   the key or the recording belongs to an erased person
     ├── BudgetExceededError                          a hard budget does not allow the price of the job
     ├── JobNotFoundError       (also a LookupError)  no job has this id
     ├── BatchNotFoundError     (also a LookupError)  no job is in this batch
     ├── ApiKeyNotFoundError    (also a LookupError)  no API key has this name, or it is revoked
     ├── PlanNotFoundError      (also a LookupError)  the token of the bulk plan is unknown or expired
     ├── InvalidCursorError     (also a ValueError)   the cursor is not one of this list
     ├── WaitTimeoutError       (also a TimeoutError) the job or the batch did not settle in time
     ├── InvalidStateError                            the state of the job does not allow the action
     ├── NotOperatorError                             the action concerns the whole queue, the client has one namespace
     └── StoreUnavailableError                        Redis does not answer, or refuses the command
         └── StoreFormatError                         the queue has a format that this release must not use

No message contains a URL, lyrics or a secret. Messages may contain names that the caller chose, such as those of
unknown fields; `redacted` omits them too, and is what logs and Celery events contain. All errors can be pickled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, TypeVar

from voicequeue.texts import find_unencodable, owner_text, pluralize, replace_unencodable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")
Raised = TypeVar("Raised", bound=BaseException)

#: Problems of one job that are listed; the others are counted.
PROBLEMS_MAX = 100
#: Characters of a field name in a message.
FIELD_MAX = 60
#: Names of our fields. All other names are the caller's, and untrusted.
SONG_FIELDS = frozenset(
    (
        *("mv", "custom_mode", "title", "prompt", "description", "tags", "negative_tags", "make_instrumental"),
        *("auto_lyrics", "vocal_gender", "style_weight", "weirdness_constraint", "audio_weight"),
    )
)
JOB_FIELDS = frozenset(
    (
        *("audio_url", "persona_id", "song", "songs", "voice", "reuse", "audio_sha256", "name", "batch"),
        *("priority", "key", "callback_url", "metadata", "max_credits", "start_within_s", "source_row"),
    )
)
FIELDS = frozenset({"job", "id"}) | JOB_FIELDS | SONG_FIELDS
_IS_INDEX = re.compile("[0-9]{1,3}")
#: Characters of an error in logs.
REDACTED_MAX = 500
#: Texts with half a character that are listed in one error.
_HALVES_LISTED = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """A field of a job that is wrong.

    Attributes:
        field: Dotted path, such as `song.title`; empty if the problem concerns the job as a whole.
        message: What is wrong, or what is allowed.
    """

    field: str
    message: str

    def __post_init__(self) -> None:
        # The name of an unknown field is untrusted, and the error must be representable in UTF-8.
        object.__setattr__(self, "field", _cut(replace_unencodable(self.field), FIELD_MAX))

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message

    def redacted(self) -> str:
        """Return the problem as text, without names that the caller chose."""
        parts = self.field.split(".") if self.field else []
        own = list(takewhile(_is_ours, parts))
        if own == parts:
            return str(self)
        of = f" of {'.'.join(own)}" if own else ""
        return f"an unknown field{of}: {self.message}"


def _is_ours(name: str) -> bool:
    return name in FIELDS or _IS_INDEX.fullmatch(name) is not None


class VoiceQueueError(Exception):
    """Base class of all errors of this package.

    Attributes:
        code: The kind of the error as one word, for programs; the same on the command line and in HTTP.
    """

    code = "error"

    def __repr__(self) -> str:
        """Return a text that Celery may log and Flower may show."""
        return f"{type(self).__name__}({self.redacted()!r})"

    def redacted(self) -> str:
        """Return the message for logs: of limited length, and without names and values that the caller chose."""
        return _cut(self._discreet_message(), REDACTED_MAX)

    def _discreet_message(self) -> str:
        return str(self)


class InvalidJobError(VoiceQueueError, ValueError):
    """A job cannot be enqueued, because fields are missing or wrong.

    Attributes:
        problems: Every field that is wrong; the first 100.
    """

    code = "invalid"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "; ".join(map(str, self.problems))

    def _discreet_message(self) -> str:
        # Unknown fields are not named, so that many of them give the same text.
        return "; ".join(dict.fromkeys(problem.redacted() for problem in self.problems))


def without_traceback(error: Raised) -> Raised:
    """Return a caught error without its traceback, cause and context, which keep the input in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def unencodable_fields(value: Any) -> list[Problem]:
    """Return the texts of a JSON value that contain half a character, as problems; the first 20."""
    return [Problem(path, message) for path, message in islice(find_unencodable(value), _HALVES_LISTED)]


def check_field(field: str, check: Callable[[T], R], value: T) -> R:
    """Return `check(value)`. Raises InvalidJobError, which names the field, if that raises ValueError."""
    try:
        return check(value)
    except ValueError as error:
        raise InvalidJobError([Problem(field, str(error))]) from None


class InvalidAudioError(VoiceQueueError, ValueError):
    """A recording that cannot be fetched, or that upstream would not accept.

    Attributes:
        kind: The reason as one word, for counting.
        reason: The reason as a sentence.
    """

    code = "invalid_audio"

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind, self.reason = kind, reason

    def __str__(self) -> str:
        return f"audio_url: {self.reason}"


class KeyConflictError(VoiceQueueError, ValueError):
    """The idempotency key belongs to a job with other content.

    Attributes:
        key: The key.
        job_id: The job that has the key.
    """

    code = "key_conflict"

    def __init__(self, key: str, job_id: str) -> None:
        super().__init__(key, job_id)
        self.key, self.job_id = key, job_id

    def __str__(self) -> str:
        return (
            f"key: {self.key!r} already belongs to job {self.job_id}, whose content is different; "
            "use another key, or the same content"
        )

    def _discreet_message(self) -> str:
        return f"key: belongs to job {self.job_id} already, whose content is different"


#: Why a job without `metadata.consent_ref` is rejected where the queue requires it.
CONSENT_REQUIRED = "is required here: the reference of the person's consent, such as the number of the signed form"


class ErasedError(VoiceQueueError, ValueError):
    """The key or the recording of a new job is one of a person who was erased. Nothing was ordered."""

    code = "erased"

    def __str__(self) -> str:
        return (
            "the key or the recording of this job was erased at the request of a person, and is not ordered again; "
            "if the person agrees again, an operator runs `voicequeue erase --allow-key`, `--allow-recording` or "
            "`--allow-hash` in its namespace"
        )


class BudgetExceededError(VoiceQueueError):
    """A hard budget does not allow the price of a new job. Nothing was enqueued.

    Attributes:
        owner: Owner of the budget: `account`, `namespace/NAME` or `key/NAME`.
        period: Period of the budget, `day` or `month` (UTC).
        price: Price of the job, in credits.
        limit: The budget, in credits; None for that of the account, unless an operator enqueues.
        remaining: Credits for new jobs, after what was spent, is reserved, and is queued; None as `limit`.
        resets_at: Time when the next period begins (Unix seconds).
    """

    code = "budget_exceeded"

    def __init__(
        self, owner: str, period: str, price: int, *, limit: int | None, remaining: int | None, resets_at: float
    ) -> None:
        super().__init__(owner, period, price)
        self.owner, self.period, self.price = owner, period, price
        self.limit, self.remaining, self.resets_at = limit, remaining, resets_at

    def __reduce__(self) -> tuple[Any, ...]:
        return _budget_error, (self.owner, self.period, self.price, self.limit, self.remaining, self.resets_at)

    def __str__(self) -> str:
        figures = (
            ""
            if self.remaining is None
            else f" ({self.remaining:,} of {pluralize(self.limit or 0, 'credit')} remaining)"
        )
        reset = datetime.fromtimestamp(self.resets_at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        is_too_small = self.limit is not None and self.price > self.limit
        end = "an operator has to raise it" if is_too_small else f"it resets at {reset}, or an operator raises it"
        return (
            f"the budget of {owner_text(self.owner)} for this {self.period} does not allow {self.price} more credits"
            f"{figures}: what was spent, is reserved, and is queued counts; {end}"
        )


def _budget_error(
    owner: str, period: str, price: int, limit: int | None, remaining: int | None, resets_at: float
) -> BudgetExceededError:
    return BudgetExceededError(owner, period, price, limit=limit, remaining=remaining, resets_at=resets_at)


class JobNotFoundError(VoiceQueueError, LookupError):
    """No job has this id: it was never enqueued in this queue, or was purged."""

    code = "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"no job {self.job_id!r}"


class BatchNotFoundError(VoiceQueueError, LookupError):
    """No job is in a batch of this name, or all of its jobs were purged."""

    code = "batch_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no batch {self.name!r}"


class ApiKeyNotFoundError(VoiceQueueError, LookupError):
    """No API key of this name is stored in Redis, or it is revoked."""

    code = "key_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no API key {self.name!r} in Redis that could be changed: `voicequeue keys list` lists them"


class PlanNotFoundError(VoiceQueueError, LookupError):
    """No bulk plan of this action has this token, or it has expired."""

    code = "plan_not_found"

    def __str__(self) -> str:
        return "no such plan: it has expired, or was made for another action or namespace; make a new one"


class InvalidCursorError(VoiceQueueError, ValueError):
    """The cursor is not one of this list and filter."""

    code = "invalid"

    def __str__(self) -> str:
        return "is not a cursor of this list"


class WaitTimeoutError(VoiceQueueError, TimeoutError):
    """The job or the batch did not settle in time. Nothing was changed; the wait can be repeated."""

    code = "timeout"


class InvalidStateError(VoiceQueueError):
    """The state of the job, or of the queue, does not allow the action."""

    code = "invalid_state"


class NotOperatorError(VoiceQueueError):
    """The action concerns all namespaces, and the client is limited to one."""

    code = "not_operator"

    def __init__(self, action: str) -> None:
        super().__init__(action)
        self.action = action

    def __str__(self) -> str:
        return f"{self.action} concerns the whole queue: it needs the namespace '*', which is for operators"


class StoreUnavailableError(VoiceQueueError):
    """Redis did not answer, or refused the command (out of memory, read-only).

    The command may or may not have been executed.
    """

    code = "store_unavailable"


class StoreFormatError(StoreUnavailableError):
    """The queue has a format that this release must not use; the text says what to do. Nothing was read or changed."""


class UnknownModelWarning(UserWarning):
    """The model version is unknown to this release; upstream decides.

    Each process warns about the first 20 only.
    """
