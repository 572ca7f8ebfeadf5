"""What a caller asks for: one voice, and the song to sing with it."""

from __future__ import annotations

import re
import secrets
from base64 import b32encode
from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b, sha1
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from voicequeue.domain.song import STORED, Song, Written
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.errors import InvalidJob, Problem
from voicequeue.texts import whole

METADATA_MAX_KEYS = 50
METADATA_MAX_CHARS = 8_000
SONGS_MAX = 100
CREDITS_MAX = 10**12
#: Thirty years and more, in seconds.
START_WITHIN_MAX_S = 1e9

#: More than a job, or a song, has fields: what has more is refused as a whole, not field by field.
FIELDS_MAX = 50

#: Each further song's job has the key with "#2", "#3", … behind it.
_KEY_MAX_OF_SONGS = 190

_URL_MAX = 2_048
#: Most URLs there are; the others are looked at part by part, which takes ten times as long.
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*(/[!-~]*)?")
_NOT_IN_URLS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")
BATCH_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

_BATCH = re.compile(BATCH_PATTERN)


class Priority(StrEnum):
    """Who goes first when slots are scarce."""

    HIGH = "high"
    NORMAL = "normal"
    BULK = "bulk"

    @property
    def rank(self) -> int:
        """0 for what goes first."""
        return _RANKS[self]


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


def http_url(text: str) -> str:
    """`text`, or ValueError."""
    whole(text)
    if not (_PLAIN_URL.fullmatch(text) or _is_url(text)):
        raise ValueError("must be an http:// or https:// URL")
    if len(text) > _URL_MAX:
        raise ValueError(f"has {len(text):,} characters; at most {_URL_MAX:,} are allowed")
    return text


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that are no IPv6 address, a port out of range, and the like
        return False
    return fits and not _NOT_IN_URLS.search(text)


def batch_name(text: str) -> str:
    """`text`, or ValueError: names are part of URLs and Redis keys."""
    if not _BATCH.fullmatch(text):
        raise ValueError(
            "must be 1 to 100 of the letters A-Z and a-z, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    return text


HttpUrl = Annotated[str, AfterValidator(http_url)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class VoiceJob(BaseModel):
    """One voice, made from `audio_url` or given as `persona_id` (exactly one), and the song to sing.

    `audio_url` must be a public MP3 or WAV of one clear speaker, longer than 10 s. With a
    `persona_id` the voice stage is skipped. `key` makes enqueueing idempotent: the same key with
    the same content is the same job. `metadata` is yours; it is kept and given back. `callback_url`
    is told when the job has succeeded, failed or become unsure. A job for which nothing was ordered
    `start_within_s` seconds after it was enqueued fails with the code `expired`.

    A voice may be made once and sung with often. With several `songs` this stands for as many jobs (see `each`).
    Jobs of one batch that name the same `voice` share it, and those with `reuse` that have the same recording
    (by `audio_sha256` where it is given, else by `audio_url`), also with what was made before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    audio_url: HttpUrl | None = None
    persona_id: Name | None = None
    song: Song | None = None
    songs: Annotated[tuple[Song, ...], Field(max_length=SONGS_MAX)] = ()
    voice: Name | None = None
    reuse: bool | None = None
    audio_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    name: Name | None = None
    batch: Annotated[str, AfterValidator(batch_name)] | None = None
    priority: Priority = Priority.NORMAL
    key: Name | None = None
    callback_url: HttpUrl | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    max_credits: Annotated[int, Written, Field(ge=0, le=CREDITS_MAX)] | None = None
    start_within_s: Annotated[float, Written, Field(gt=0, le=START_WITHIN_MAX_S, allow_inf_nan=False)] | None = None

    @field_validator("metadata")
    @classmethod
    def _bounded_and_sorted(cls, metadata: dict[str, str]) -> dict[str, str]:
        if len(metadata) > METADATA_MAX_KEYS:
            raise ValueError(f"has {len(metadata)} entries; at most {METADATA_MAX_KEYS} are allowed")
        size = sum(len(name) + len(value) for name, value in metadata.items())
        if size > METADATA_MAX_CHARS:
            raise ValueError(f"has {size:,} characters in all; at most {METADATA_MAX_CHARS:,} are allowed")
        return dict(sorted(metadata.items()))

    @model_validator(mode="after")
    def _is_one_job(self) -> VoiceJob:
        if (self.audio_url is None) == (self.persona_id is None):
            raise ValueError("exactly one of audio_url and persona_id is required")
        if self.song is not None and self.songs:
            raise ValueError("songs: give song or songs, not both")
        if self.persona_id is not None and not (self.song or self.songs):
            raise ValueError("song is required with a persona_id: the voice is there already")
        if self.persona_id is not None:
            for name in ("voice", "reuse", "audio_sha256"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: is not for a persona_id, which is a voice already")
        if len(self.songs) > 1 and self.key is not None and len(self.key) > _KEY_MAX_OF_SONGS:
            raise ValueError(f"key: at most {_KEY_MAX_OF_SONGS} characters are allowed with songs")
        if self.max_credits is not None and self.max_credits < self.credits:
            raise ValueError(f"max_credits: {self.max_credits} is less than the {self.credits} credits this costs")
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages this job goes through, in order."""
        made = (Stage.VOICE,) if self.persona_id is None else ()
        return (*made, Stage.MUSIC) if self.song is not None else made

    @property
    def credits(self) -> int:
        """What upstream charges when each stage is paid once, for all of its songs."""
        songs = len(self.songs) + (self.song is not None)
        return (PRICES[Stage.VOICE] if self.persona_id is None else 0) + songs * PRICES[Stage.MUSIC]

    def each(self) -> tuple[VoiceJob, ...]:
        """The jobs that this stands for: one for each song. The first makes the voice that all sing with."""
        if not self.songs:
            return (self,)
        voice = self.voice
        if voice is None and self.persona_id is None and len(self.songs) > 1:
            voice = f"of {self.key or _base32(secrets.token_bytes(10))}"
        return tuple(
            self.model_copy(
                update={"song": song, "songs": (), "voice": voice, "key": self._key_of(number), "max_credits": None}
            )
            for number, song in enumerate(self.songs, start=1)
        )

    def _key_of(self, number: int) -> str | None:
        return self.key if self.key is None or number == 1 else f"{self.key}#{number}"

    def shares(self, *, reuse: bool = False) -> str:
        """The id of the voice that this job shares with others; '' if it makes one of its own.

        `reuse` holds for a job that does not say.
        """
        if self.audio_url is None:
            return ""
        if reuse if self.reuse is None else self.reuse:
            return f"sha256-{self.audio_sha256}" if self.audio_sha256 else self.recording()
        return f"named-{_hex(self.batch or '', self.voice)}" if self.voice is not None else ""

    def recording(self) -> str:
        """The id of the voice created from this URL, '' without a URL; the same as in scripts/lib/shared_voices.lua."""
        return f"url-{_hex(self.audio_url)}" if self.audio_url is not None else ""

    def content(self) -> str:
        """Canonical JSON: equal content gives equal text, in any process and release.

        Without the recording's hash, which a preflight may find out later: it makes no other job.
        """
        return self.model_dump_json(exclude_defaults=True, exclude={"audio_sha256"})

    def id(self) -> str:
        """The job's id: 16 letters and digits, made from the key where there is one, else random.

        One key thus names one job without an index of keys, whoever enqueues it.
        """
        if self.key is None:
            return _base32(secrets.token_bytes(10))
        return _base32(blake2b(self.key.encode(), digest_size=10).digest())

    def with_row_key(self) -> VoiceJob:
        """The same job with a key of its batch and content, if it has none: a file's row."""
        if self.key is not None:
            return self
        digest = blake2b(self.content().encode(), digest_size=10).digest()
        return self.model_copy(update={"key": f"row-{_base32(digest)}"})


def parse(given: VoiceJob | Any) -> VoiceJob:
    """The job that a mapping describes (JSON, a row). Raises InvalidJob, which names each field."""
    if isinstance(given, VoiceJob):
        return given
    if isinstance(given, Mapping):
        _check_counts(given)
    try:
        return VoiceJob.model_validate(given)
    except ValidationError as error:
        raise InvalidJob.from_validation(error, given) from None


def _check_counts(given: Mapping[str, Any]) -> None:
    """Refuse what has far too many parts before each of them is looked at. Raises InvalidJob."""
    songs = given.get("songs")
    parts = [("", given, "fields", FIELDS_MAX), ("song", given.get("song"), "fields", FIELDS_MAX)]
    parts += [("metadata", given.get("metadata"), "entries", METADATA_MAX_KEYS), ("songs", songs, "songs", SONGS_MAX)]
    if isinstance(songs, list | tuple):
        parts += [(f"songs.{place}", song, "fields", FIELDS_MAX) for place, song in enumerate(songs[:SONGS_MAX])]
    if problems := [
        Problem(field, f"has {len(part):,} {what}; at most {most} are allowed")
        for field, part, what, most in parts
        if isinstance(part, dict | list | tuple) and len(part) > most
    ]:
        raise InvalidJob(problems)


def stored(content: str) -> VoiceJob:
    """The job whose `content()` this is."""
    return VoiceJob.model_validate_json(content, context=STORED)


def _hex(*parts: str) -> str:
    return sha1("\0".join(parts).encode(), usedforsecurity=False).hexdigest()


def _base32(digest: bytes) -> str:
    return b32encode(digest).decode().lower()
