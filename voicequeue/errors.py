"""What can go wrong for a caller.

    VoiceQueueError
     ├── InvalidJob      (also a ValueError)   the job itself is wrong; names each field
     ├── UnfitAudio      (also a ValueError)   the recording is none that upstream takes
     ├── KeyConflict     (also a ValueError)   the idempotency key stands for another job
     ├── UnknownJob      (also a LookupError)  no job has this id
     ├── UnknownBatch    (also a LookupError)  no batch has this name
     ├── UnknownPlan     (also a LookupError)  no plan has this token (any more)
     ├── BadCursor       (also a ValueError)   the cursor is none that a page ended with
     ├── NotAllowed                            the job's state does not allow this
     └── StoreUnreachable                      Redis does not answer, or refuses

None of their texts quotes a URL, a lyric or a secret. They may quote names that the caller chose, of fields for
instance; `discreet` quotes none, and is what logs and Celery's events get. What they are made from are their
`args`, so that they can be pickled and sent between processes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, TypeVar

from voicequeue.texts import halves, mended

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import ValidationError


T = TypeVar("T")
Raised = TypeVar("Raised", bound=BaseException)

_NAMED = re.compile(r"([a-z][a-z0-9_]*): ")

#: Fields of one order that are named as wrong; further ones are counted.
PROBLEMS_MAX = 100
#: A field is named by so many characters.
FIELD_MAX = 60
#: Names that are ours: all others are the caller's, and may be anything.
FIELDS = frozenset(
    (
        *("job", "id", "audio_url", "persona_id", "song", "songs", "voice", "reuse", "audio_sha256", "name", "batch"),
        *("priority", "key", "callback_url", "metadata", "max_credits", "start_within_s"),
        *("mv", "custom_mode", "title", "prompt", "description", "tags", "negative_tags", "make_instrumental"),
        *("auto_lyrics", "vocal_gender", "style_weight", "weirdness_constraint", "audio_weight"),
    )
)
_IS_PLACE = re.compile("[0-9]{1,3}")
#: What is logged of an error has no more characters.
DISCREET_MAX = 500
#: No more texts that contain half a character are named in one error.
_HALVES_NAMED = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One field of a job that is wrong, and what is allowed there.

    `field` is a dotted path such as ``song.title``; empty where the job as a whole is wrong.
    """

    field: str
    message: str

    def __post_init__(self) -> None:
        # The name may be the caller's own, and an error must reach the caller whatever it says.
        object.__setattr__(self, "field", _cut(mended(self.field), FIELD_MAX))

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message

    def discreet(self) -> str:
        """Return the same, without any name that is the caller's own."""
        parts = self.field.split(".") if self.field else []
        known = list(takewhile(_is_ours, parts))
        if known == parts:
            return str(self)
        of = f" of {'.'.join(known)}" if known else ""
        return f"an unknown field{of}: {self.message}"


def _is_ours(name: str) -> bool:
    return name in FIELDS or _IS_PLACE.fullmatch(name) is not None


class VoiceQueueError(Exception):
    """Base of everything that this package raises."""

    def __repr__(self) -> str:
        """The text as well, as far as Celery may log it and Flower show it."""
        return f"{type(self).__name__}({self.discreet()!r})"

    def discreet(self) -> str:
        """Return the text for logs and events: bounded, and without names and values that are the caller's own."""
        return _cut(self._said_discreetly(), DISCREET_MAX)

    def _said_discreetly(self) -> str:
        return str(self)


class InvalidJob(VoiceQueueError, ValueError):
    """The job cannot be enqueued; `problems` names every field that is wrong."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "; ".join(map(str, self.problems))

    def _said_discreetly(self) -> str:
        # Many unknown fields are one text.
        return "; ".join(dict.fromkeys(problem.discreet() for problem in self.problems))

    @classmethod
    def from_validation(cls, error: ValidationError, given: Any = None) -> InvalidJob:
        """The same errors as pydantic's, without the values that were given; of very many the first ones.

        With what was `given`, texts with half a character are named as such, wherever they are.
        """
        broken = half_texts(given)
        details = error.errors(include_url=False, include_context=False, include_input=False)
        named = [each for each in details if not (broken and each["type"] == "string_unicode")]
        problems = [*broken, *(_problem(detail["loc"], _words(detail)) for detail in named[:PROBLEMS_MAX])]
        if (more := len(named) - PROBLEMS_MAX) > 0:
            problems.append(Problem("", f"{more:,} more fields are wrong"))
        return cls(problems)


def detached(error: Raised) -> Raised:
    """Return an error that was caught, fit to be kept: without the frames it came through, and the errors it was raised
    in, which hold all that was read there."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def half_texts(given: Any) -> list[Problem]:
    """Return what is wrong with a JSON value whose texts contain half a character; the first ones."""
    return [Problem(*named) for named in islice(halves(given), _HALVES_NAMED)]


def checked(field: str, check: Callable[[T], T], given: T) -> T:
    """Return `given` as `check` returns it. Raises InvalidJob, which names the field, for its ValueError."""
    try:
        return check(given)
    except ValueError as error:
        raise InvalidJob([Problem(field, str(error))]) from None


def _words(detail: Mapping[str, Any]) -> str:
    if detail["type"] == "extra_forbidden":
        return "is not known here"
    if detail["type"] == "tuple_type":
        return "must be a list"
    return str(detail["msg"]).removeprefix("Value error, ")


def _problem(location: tuple[int | str, ...], message: str) -> Problem:
    """What is wrong with the whole may begin with the field that it is about."""
    field = ".".join(map(str, location))
    if not field and (named := _NAMED.match(message)):
        field, message = named[1], message.removeprefix(named[0])
    return Problem(field, message)


class UnfitAudio(VoiceQueueError, ValueError):
    """A recording that upstream would not take, or that nobody can fetch; `kind` is one word, for counting."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind, self.reason = kind, reason

    def __str__(self) -> str:
        return f"audio_url: {self.reason}"


class KeyConflict(VoiceQueueError, ValueError):
    """The idempotency key belongs to a job with other content; `job_id` names that job."""

    def __init__(self, key: str, job_id: str) -> None:
        super().__init__(key, job_id)
        self.key, self.job_id = key, job_id

    def __str__(self) -> str:
        return (
            f"key: {self.key!r} already stands for job {self.job_id}, whose content is different; "
            "use another key, or the same content"
        )

    def _said_discreetly(self) -> str:
        return f"key: stands for job {self.job_id} already, whose content is different"


class UnknownJob(VoiceQueueError, LookupError):
    """No job has this id (never enqueued here, or past retention)."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"no job {self.job_id!r}"


class UnknownBatch(VoiceQueueError, LookupError):
    """No batch of this name has jobs (that are kept)."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no batch {self.name!r}"


class UnknownPlan(VoiceQueueError, LookupError):
    """No plan of this kind has this token, or its hour is over."""

    def __str__(self) -> str:
        return "no such plan: its hour is over, or it is another action's"


class BadCursor(VoiceQueueError, ValueError):
    """The cursor is none that a page of this list ended with."""

    def __str__(self) -> str:
        return "is no cursor that a page of this list ended with"


class NotAllowed(VoiceQueueError):
    """The job's state does not allow what was asked for."""


class StoreUnreachable(VoiceQueueError):
    """Redis did not answer, or refused (out of memory, read only); nothing can be said of what was asked for."""
