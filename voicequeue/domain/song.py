"""Song to create with a voice, and the limits of each model version.

Source of the limits: MusicAPI's sonic instructions for `persona_music`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from voicequeue.domain.invalid_input import ValidatedInput
from voicequeue.errors import UnknownModelWarning
from voicequeue.texts import parse_float

#: Versions with at most 3,000 characters of lyrics and 200 of style tags.
SHORT_MODELS = frozenset({"sonic-v3-5", "sonic-v4"})

#: Versions that upstream documents or accepts.
KNOWN_MODELS = SHORT_MODELS | {"sonic-v4-5", "sonic-v4-5-plus", "sonic-v5", "sonic-v5-5"}

#: Model of a song that does not name one.
DEFAULT_MODEL = "sonic-v5"

#: Validation context of a stored job: its warnings were given when it was enqueued.
STORED_CONTEXT = "stored"

#: Maximum number of unknown models to warn about, so that a caller cannot fill memory or logs.
WARNED_MAX = 20

#: Models that this process has warned about.
_warned: set[str] = set()


def _written(value: Any) -> Any:
    """Return a number, or a text that is one in plain digits: the values of a row are texts."""
    if isinstance(value, str) and parse_float(value) is None:
        raise ValueError("must be a number in plain digits, such as 20 or 0.5")
    return value


#: A number that may be written as text.
NumberOrText = BeforeValidator(_written)

Weight = Annotated[float, NumberOrText, Field(ge=0, le=1)]


def _warn_about(mv: str) -> None:
    """Warn about a model once: Python's registry of warnings grows with each new text."""
    if mv in _warned or len(_warned) >= WARNED_MAX:
        return
    _warned.add(mv)
    warnings.warn(f"mv: {mv!r} is not a model this release knows", UnknownModelWarning, stacklevel=3)


class Song(ValidatedInput):
    """Input of a song: lyrics (custom mode) or a description.

    Without `custom_mode`, a `description` alone means False, anything else True.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    # Both are set before validation. So they always differ from these defaults, are always stored, and a job keeps its
    # model when a later release has another default.
    mv: Annotated[str, StringConstraints(max_length=40)] = ""
    """Model version, by default `sonic-v5`: `sonic-v3-5`, `sonic-v4`, `sonic-v4-5`, `sonic-v4-5-plus`, `sonic-v5` or
    `sonic-v5-5`. Other versions that begin with `sonic-` are passed on."""
    custom_mode: bool | None = None
    """Whether the song is made of lyrics (`prompt`) and style rather than of a `description`. By default false if there
    is a `description` and no `prompt`, otherwise true."""
    title: Annotated[str, StringConstraints(max_length=80)] | None = None
    """Title of the song, at most 80 characters."""
    prompt: str | None = None
    """Lyrics, with section tags: at most 5,000 characters (3,000 with `sonic-v3-5` and `sonic-v4`). Custom mode
    requires it, unless `make_instrumental` or `auto_lyrics` is true."""
    description: Annotated[str, StringConstraints(max_length=400)] | None = None
    """Description of the song, instead of lyrics, at most 400 characters. `custom_mode` false requires it."""
    tags: str | None = None
    """Style tags: at most 1,000 characters (200 with `sonic-v3-5` and `sonic-v4`)."""
    negative_tags: Annotated[str, StringConstraints(max_length=1000)] | None = None
    """Style tags to avoid, at most 1,000 characters."""
    make_instrumental: bool | None = None
    """Whether to create the song without vocals. By default not sent."""
    auto_lyrics: bool | None = None
    """Whether upstream writes the lyrics. By default not sent."""
    vocal_gender: Literal["f", "m"] | None = None
    """Gender of the vocals: `f` or `m`. Requires `sonic-v4-5` or later."""
    style_weight: Weight | None = None
    """Weight of the style, 0 to 1. By default not sent: upstream decides."""
    weirdness_constraint: Weight | None = None
    """How unusual the song may be, 0 to 1. By default not sent: upstream decides."""
    audio_weight: Weight | None = None
    """Weight of the voice's audio, 0 to 1. By default not sent: upstream decides."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        filled = dict(data)
        if filled.get("mv") in (None, ""):
            filled["mv"] = DEFAULT_MODEL
        if filled.get("custom_mode") is None:
            filled["custom_mode"] = not _has_description_only(filled)
        return filled

    @field_validator("mv")
    @classmethod
    def _is_a_sonic_model(cls, mv: str, info: ValidationInfo) -> str:
        if not mv.startswith("sonic-"):
            raise ValueError(f"must be a sonic model: {', '.join(sorted(KNOWN_MODELS))}")
        if mv not in KNOWN_MODELS and info.context != STORED_CONTEXT:
            _warn_about(mv)
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


def _has_description_only(data: Mapping[str, Any]) -> bool:
    return _has_text(data.get("description")) and not _has_text(data.get("prompt"))


def _has_text(text: Any) -> bool:
    return bool(text.strip() if isinstance(text, str) else text)


def _within(text: str | None, info: ValidationInfo, *, short: int, long: int) -> str | None:
    """Return the text if it is within the limit of the model, which was validated before. Raises ValueError."""
    mv = info.data.get("mv", "")
    limit = short if mv in SHORT_MODELS else long
    if text is not None and len(text) > limit:
        raise ValueError(f"has {len(text):,} characters; {mv or 'a sonic model'} takes at most {limit:,}")
    return text
