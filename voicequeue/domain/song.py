"""The song to sing with a voice, and the limits of each model version.

Source of the limits: MusicAPI's sonic instructions for `persona_music`.
"""

from __future__ import annotations

import warnings
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from voicequeue.texts import real_number

#: Versions whose lyrics end at 3,000 characters and whose style ends at 200.
SHORT_MODELS = frozenset({"sonic-v3-5", "sonic-v4"})

#: Versions that upstream documents or that were seen in the wild.
KNOWN_MODELS = SHORT_MODELS | {"sonic-v4-5", "sonic-v4-5-plus", "sonic-v5", "sonic-v5-5"}

#: The model of a song that names none.
DEFAULT_MODEL = "sonic-v5"

#: The validation context of a job that was accepted before: nobody needs to be warned again.
STORED = "stored"

#: So many models that are not known are warned of; a caller that makes them up fills neither memory nor logs.
WARNED_MAX = 20

#: Those that this process has warned of.
_warned: set[str] = set()


def _written(given: Any) -> Any:
    """Return a number, or a text that writes one in plain digits: a row has nothing but texts."""
    if isinstance(given, str) and real_number(given) is None:
        raise ValueError("must be a number in plain digits, such as 20 or 0.5")
    return given


#: A number that may be given as a text.
Written = BeforeValidator(_written)

Weight = Annotated[float, Written, Field(ge=0, le=1)]


class UnknownModelWarning(UserWarning):
    """The model version is none that this release knows; upstream decides. Each process warns of the first 20 alone."""


def _warn_of(mv: str) -> None:
    """Warn of a model, once: what Python remembers of a warning grows with each text."""
    if mv in _warned or len(_warned) >= WARNED_MAX:
        return
    _warned.add(mv)
    warnings.warn(f"mv: {mv!r} is not a model this release knows", UnknownModelWarning, stacklevel=3)


class Song(BaseModel):
    """What upstream needs to sing: lyrics of your own (custom mode) or a description.

    `custom_mode` follows from the other fields when it is left out: a `description` alone means
    False, anything else True.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    # These two are filled in before anything is checked. So they always differ from their defaults here,
    # are always stored, and a job keeps its model when a release prefers another one.
    mv: Annotated[str, StringConstraints(max_length=40)] = ""
    custom_mode: bool | None = None
    title: Annotated[str, StringConstraints(max_length=80)] | None = None
    prompt: str | None = None  # the lyrics, with section tags
    description: Annotated[str, StringConstraints(max_length=400)] | None = None
    tags: str | None = None
    negative_tags: Annotated[str, StringConstraints(max_length=1000)] | None = None
    make_instrumental: bool | None = None
    auto_lyrics: bool | None = None
    vocal_gender: Literal["f", "m"] | None = None
    style_weight: Weight | None = None
    weirdness_constraint: Weight | None = None
    audio_weight: Weight | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        filled = {**given, "mv": given.get("mv") or DEFAULT_MODEL}
        if filled.get("custom_mode") is None:
            filled["custom_mode"] = not _is_only_described(given)
        return filled

    @field_validator("mv")
    @classmethod
    def _is_a_sonic_model(cls, mv: str, info: ValidationInfo) -> str:
        if not mv.startswith("sonic-"):
            raise ValueError(f"must be a sonic model: {', '.join(sorted(KNOWN_MODELS))}")
        if mv not in KNOWN_MODELS and info.context != STORED:
            _warn_of(mv)
        return mv

    @field_validator("prompt")
    @classmethod
    def _lyrics_fit_the_model(cls, prompt: str | None, info: ValidationInfo) -> str | None:
        return _within(prompt, info, short=3000, long=5000)

    @field_validator("tags")
    @classmethod
    def _style_fits_the_model(cls, tags: str | None, info: ValidationInfo) -> str | None:
        return _within(tags, info, short=200, long=1000)

    @field_validator("vocal_gender")
    @classmethod
    def _gender_needs_a_newer_model(cls, gender: str | None, info: ValidationInfo) -> str | None:
        if gender is not None and info.data.get("mv") in SHORT_MODELS:
            raise ValueError(f"needs sonic-v4-5 or later, not {info.data['mv']}")
        return gender

    @model_validator(mode="after")
    def _has_something_to_sing(self) -> Song:
        if not self.custom_mode and not self.description:
            raise ValueError("description is required when custom_mode is false")
        if self.custom_mode and not (self.prompt or self.make_instrumental or self.auto_lyrics):
            raise ValueError("prompt is required in custom mode, unless make_instrumental or auto_lyrics is true")
        return self


def _is_only_described(given: dict[str, Any]) -> bool:
    return _says_something(given.get("description")) and not _says_something(given.get("prompt"))


def _says_something(text: Any) -> bool:
    return bool(text.strip() if isinstance(text, str) else text)


def _within(text: str | None, info: ValidationInfo, *, short: int, long: int) -> str | None:
    """The limit of the model in question, which stands in the fields validated before this one."""
    mv = info.data.get("mv", "")
    limit = short if mv in SHORT_MODELS else long
    if text is not None and len(text) > limit:
        raise ValueError(f"has {len(text):,} characters; {mv or 'a sonic model'} takes at most {limit:,}")
    return text
