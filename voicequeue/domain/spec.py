"""Specification of a job: one voice, and the song to create with it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from hashlib import blake2b, sha1
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from voicequeue.domain.invalid_input import ValidatedInput
from voicequeue.domain.namespaces import DEFAULT, namespace_name, qualify, split
from voicequeue.domain.newer_records import stored
from voicequeue.domain.song import STORED_CONTEXT, NumberOrText, Song
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.domain.url_faults import INVISIBLE, describe_fault
from voicequeue.errors import InvalidJobError, Problem
from voicequeue.texts import require_encodable

METADATA_MAX_KEYS = 50
METADATA_MAX_CHARS = 8_000
SONGS_MAX = 100
CREDITS_MAX = 10**12
#: More than thirty years, in seconds.
START_WITHIN_MAX_S = 1e9
SOURCE_ROW_MAX = 2**53 - 1

#: More than the fields of a job or a song: a larger object is rejected as a whole, not field by field.
FIELDS_MAX = 50

#: The jobs of further songs have the key with the suffix "#2", "#3", …
_KEY_MAX_OF_SONGS = 190

_URL_MAX = 2_048
#: Matches most URLs; the others are parsed, which takes ten times as long.
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*(/[!-~]*)?")
#: A bucket as S3 names it, and a key without line breaks and empty or relative parts at its beginning and end.
_OBJECT_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/(?!/)[^\x00-\x1f\x7f-\x9f]*[^/\s\x00-\x1f\x7f-\x9f]")
_NOT_IN_URLS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")
BATCH_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

_BATCH = re.compile(BATCH_PATTERN)

#: Fields that do not make another job.
_NOT_CONTENT = {"audio_sha256", "source_row"}


class Priority(StrEnum):
    """Priority of a job when slots are scarce."""

    HIGH = "high"
    NORMAL = "normal"
    BULK = "bulk"

    @property
    def rank(self) -> int:
        """The rank; 0 is admitted first."""
        return _RANKS.get(self, _RANKS[Priority.NORMAL])


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


def http_url(text: str) -> str:
    """Return `text` if it is an HTTP URL. Raises ValueError."""
    if not _PLAIN_URL.fullmatch(text):
        require_encodable(text)
        if not _is_url(text) or INVISIBLE.search(text):
            raise ValueError(describe_fault(text))
    if len(text) > _URL_MAX:
        raise ValueError(f"has {len(text):,} characters; at most {_URL_MAX:,} are allowed")
    return text


def recording_url(text: str) -> str:
    """Return `text` if it is the URL of a recording: an HTTP URL, or `s3://bucket/key`. Raises ValueError."""
    if not is_object_url(text):
        return http_url(text)
    require_encodable(text)
    if not _OBJECT_URL.fullmatch(text):
        raise ValueError("must be s3://bucket/key, with the name of a bucket and of a file in it")
    if len(text) > _URL_MAX:
        raise ValueError(f"has {len(text):,} characters; at most {_URL_MAX:,} are allowed")
    return text


def is_object_url(text: str) -> bool:
    """Return whether this is the URL of an object, which has to be signed before it can be fetched."""
    return text.startswith("s3://")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that are no IPv6 address, a port out of range, and the like
        return False
    return fits and not _NOT_IN_URLS.search(text)


def _stored_or_http_url(text: str, info: ValidationInfo) -> str:
    """Return a URL; stored jobs keep those that earlier releases accepted. Raises ValueError."""
    if info.context == STORED_CONTEXT and not _PLAIN_URL.fullmatch(text) and _is_url(text):
        return text
    return http_url(text)


def _stored_or_recording_url(text: str, info: ValidationInfo) -> str:
    return recording_url(text) if is_object_url(text) else _stored_or_http_url(text, info)


def batch_name(text: str) -> str:
    """Return `text` if it is a valid batch name: names are part of URLs and Redis keys. Raises ValueError."""
    if not _BATCH.fullmatch(text):
        raise ValueError(
            "must be 1 to 100 characters (A-Z, a-z, digits, '.', '_', '-') that begin with a letter or digit"
        )
    return text


def qualified_batch_name(text: str) -> str:
    """Return `text` if it is a valid batch name, perhaps after a namespace: `NAMESPACE/BATCH`. Raises ValueError."""
    namespace, batch = split(text)
    return qualify(namespace_name(namespace), batch_name(batch))


RecordingUrl = Annotated[str, AfterValidator(_stored_or_recording_url)]
HttpUrl = Annotated[str, AfterValidator(_stored_or_http_url)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class VoiceJob(ValidatedInput):
    """One voice, created from `audio_url` or given as `persona_id` (exactly one), and the song to create with it.

    `audio_url` must be a public MP3 or WAV of one clear speaker, longer than 10 s. With a `persona_id` the voice stage
    is skipped. `key` makes enqueueing idempotent: the same key with the same content is the same job. `metadata` is
    returned unchanged. `callback_url` receives a callback when the job has succeeded, failed or become unsure. A job
    that was not submitted within `start_within_s` seconds after it was enqueued fails with the code `expired`.

    Jobs can share a voice. A job with several `songs` expands to one job per song (see `expand`). Jobs of one batch
    with the same `voice` share it, and jobs with `reuse` share the voice of the same recording (by `audio_sha256` if
    set, otherwise by `audio_url`), also one created earlier.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    audio_url: RecordingUrl | None = None
    """URL (http or https, at most 2,048 characters) of a public MP3 or WAV of one clear speaker, longer than 10 s; or
    `s3://bucket/key`, for which workers sign a URL. A job has exactly one of `audio_url` and `persona_id`."""
    persona_id: Name | None = None
    """Id of an existing voice, instead of `audio_url`: the voice stage is skipped, and a song is required."""
    song: Song | None = None
    """Song to create with the voice. By default only the voice is created."""
    songs: Annotated[tuple[Song, ...], Field(max_length=SONGS_MAX)] = ()
    """Several songs with the same voice, at most 100, instead of `song`. The job expands to one job per song; further
    jobs have the key with the suffix `#2`, `#3` and so on."""
    voice: Name | None = None
    """Name of a shared voice: jobs of the same batch with the same `voice` share it; it is created and paid once. Not
    allowed with `persona_id`."""
    reuse: bool | None = None
    """Whether to use an existing voice of the same recording (by `audio_sha256` if set, otherwise by `audio_url`). By
    default the queue's setting applies. Not allowed with `persona_id`."""
    audio_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the recording, 64 hexadecimal digits in lower case, if known: the same content at another URL is the
    same recording. Not allowed with `persona_id`."""
    name: Name | None = None
    """Name for the voice."""
    batch: Annotated[str, AfterValidator(batch_name)] | None = None
    """Batch of the job: 1 to 100 characters (A-Z, a-z, digits, `.`, `_`, `-`) that begin with a letter or digit. By
    default the job belongs to no batch."""
    priority: Priority = Priority.NORMAL
    """Priority when slots are scarce. `high` is admitted first, then `normal`, then `bulk`."""
    key: Name | None = None
    """Idempotency key: the same key with the same content is the same job. At most 190 characters with several `songs`.
    By default each request creates a new job."""
    callback_url: HttpUrl | None = None
    """URL (http or https, at most 2,048 characters) that receives a callback when the job has succeeded, failed or
    become unsure."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """Your own data, returned unchanged: at most 50 entries of text, 8,000 characters in all."""
    max_credits: Annotated[int, NumberOrText, Field(ge=0, le=CREDITS_MAX)] | None = None
    """Credits; the job is rejected if it costs more, for all its songs. By default no limit."""
    start_within_s: Annotated[float, NumberOrText, Field(gt=0, le=START_WITHIN_MAX_S, allow_inf_nan=False)] | None = (
        None
    )
    """Seconds after enqueueing; a job that was not submitted by then fails with the code `expired`. By default no
    limit."""
    source_row: Annotated[int, NumberOrText, Field(ge=1, le=SOURCE_ROW_MAX)] | None = None
    """Row of the job in the caller's file, from 1, to join the results to it. Not part of the content: a job that
    exists keeps the row it had first. A file sets it by itself."""

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
            raise ValueError("song is required with a persona_id: the voice exists already")
        if self.persona_id is not None:
            for name in ("voice", "reuse", "audio_sha256"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: is not allowed with a persona_id, which is a voice already")
        if len(self.songs) > 1 and self.key is not None and len(self.key) > _KEY_MAX_OF_SONGS:
            raise ValueError(f"key: at most {_KEY_MAX_OF_SONGS} characters are allowed with songs")
        if self.max_credits is not None and self.max_credits < self.credits:
            raise ValueError(f"max_credits: {self.max_credits} is less than the {self.credits} credits this costs")
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of this job, in order."""
        voice = (Stage.VOICE,) if self.persona_id is None else ()
        return (*voice, Stage.MUSIC) if self.song is not None else voice

    @property
    def credits(self) -> int:
        """The credits that upstream charges if each stage is paid once, for all songs."""
        songs = len(self.songs) + (self.song is not None)
        return (PRICES[Stage.VOICE] if self.persona_id is None else 0) + songs * PRICES[Stage.MUSIC]

    def expand(self) -> tuple[VoiceJob, ...]:
        """Return the jobs that this one expands to, one per song. The first creates the voice that all share."""
        if not self.songs:
            return (self,)
        voice = self.voice
        if voice is None and self.persona_id is None and len(self.songs) > 1:
            voice = f"of {self.key or _base32(secrets.token_bytes(10))}"
        return tuple(
            self.copy_unchecked(song=song, songs=(), voice=voice, key=self._key_of(number), max_credits=None)
            for number, song in enumerate(self.songs, start=1)
        )

    def _key_of(self, number: int) -> str | None:
        return self.key if self.key is None or number == 1 else f"{self.key}#{number}"

    def shared_voice(self, *, reuse: bool = False, namespace: str = DEFAULT) -> str:
        """Return the id of the voice that this job shares with others of its namespace; '' if it creates its own.

        `reuse` is the default for a job without one.
        """
        if self.audio_url is None:
            return ""
        if reuse if self.reuse is None else self.reuse:
            sha256 = self.audio_sha256
            return qualify(namespace, f"sha256-{sha256}") if sha256 else self.recording_voice(namespace)
        if self.voice is None:
            return ""
        return qualify(namespace, f"named-{_hex(self.batch or '', self.voice)}")

    def recording_voice(self, namespace: str = DEFAULT) -> str:
        """Return the id of the voice of this URL, as scripts/lib/shared_voices.lua does; '' without a URL."""
        return qualify(namespace, f"url-{_hex(self.audio_url)}") if self.audio_url is not None else ""

    def canonical_content(self) -> str:
        """Return canonical JSON: equal content gives equal text, in any process and release.

        The hash of the recording and the row in a file are left out: a preflight may add the one later, and rows may
        change places, without making another job.
        """
        # What `model_dump_json` calls, without its many options: a call of `enqueue` waits for it.
        return self.__pydantic_serializer__.to_json(self, exclude_defaults=True, exclude=_NOT_CONTENT).decode()

    def stored_content(self) -> VoiceJob:
        """Return the job with its content only, as a record keeps it."""
        if self.audio_sha256 is None and self.source_row is None:
            return self
        return self.copy_unchecked(audio_sha256=None, source_row=None)

    def job_id(self, secret: bytes = b"", namespace: str = "") -> str:
        """Return the job's id: 16 letters and digits, derived from the key if there is one, otherwise random.

        A key thus identifies a job of a namespace without an index of keys. Without the secret of the queue, no key can
        be found from an id.
        """
        if self.key is None:
            return _base32(secrets.token_bytes(10))
        person = blake2b(namespace.encode(), digest_size=16).digest() if namespace else b""
        return _base32(blake2b(self.key.encode(), digest_size=10, key=secret, person=person).digest())

    def with_row_key(self) -> VoiceJob:
        """Return the job with a key derived from its batch and content, unless it has a key: for rows of a file."""
        if self.key is not None:
            return self
        digest = blake2b(self.canonical_content().encode(), digest_size=10).digest()
        return self.copy_unchecked(key=f"row-{_base32(digest)}")


class _NewerSong(Song):
    """A song with fields that this release does not know."""

    model_config = ConfigDict(extra="allow")


class NewerJob(VoiceJob):
    """A job with content that this release does not know: it is shown and kept, but not ordered."""

    model_config = ConfigDict(extra="allow")

    song: _NewerSong | None = None
    songs: tuple[_NewerSong, ...] = ()
    priority: Annotated[Priority, PlainValidator(partial(stored, Priority)), PlainSerializer(str)] = Priority.NORMAL


def parse_spec(data: VoiceJob | Any) -> VoiceJob:
    """Return the job of a mapping (JSON or a row). Raises InvalidJobError, which names each invalid field."""
    if isinstance(data, VoiceJob):
        return data
    if isinstance(data, Mapping):
        _check_counts(data)
    return VoiceJob.model_validate(data)


def _check_counts(data: Mapping[str, Any]) -> None:
    """Reject a job with far too many parts before each of them is validated. Raises InvalidJobError."""
    songs = data.get("songs")
    parts = [("", data, "fields", FIELDS_MAX), ("song", data.get("song"), "fields", FIELDS_MAX)]
    parts += [("metadata", data.get("metadata"), "entries", METADATA_MAX_KEYS), ("songs", songs, "songs", SONGS_MAX)]
    if isinstance(songs, list | tuple):
        parts += [(f"songs.{place}", song, "fields", FIELDS_MAX) for place, song in enumerate(songs[:SONGS_MAX])]
    if problems := [
        Problem(field, f"has {len(part):,} {unit}; at most {limit} are allowed")
        for field, part, unit, limit in parts
        if isinstance(part, dict | list | tuple) and len(part) > limit
    ]:
        raise InvalidJobError(problems)


def parse_stored_spec(content: str) -> VoiceJob:
    """Return the job of a record; a NewerJob if it has fields or a priority that this release does not know.

    Raises ValueError for a record that this release cannot read.
    """
    try:
        return _parse_stored(VoiceJob, content)
    except ValidationError as error:
        if not all(problem["type"] in ("extra_forbidden", "enum") for problem in error.errors(include_url=False)):
            raise
    return _parse_stored(NewerJob, content)


def _parse_stored(model: type[VoiceJob], content: str) -> VoiceJob:
    """Return the job of a record. Raises ValidationError, unlike `model_validate_json`."""
    job: VoiceJob = model.__pydantic_validator__.validate_json(content, context=STORED_CONTEXT)
    return job


def is_named_voice(voice: str) -> bool:
    """Return whether jobs share this voice by its name, not by their recording."""
    return split(voice)[1].startswith("named-")


def _hex(*parts: str) -> str:
    return sha1("\0".join(parts).encode(), usedforsecurity=False).hexdigest()


_DIGITS = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]


def _base32(digest: bytes) -> str:
    """Return 10 bytes in Base32 (RFC 4648), in lower case; faster than the standard library, for each row of a file."""
    bits = int.from_bytes(digest)
    return "".join([_PAIRS[bits >> shift & 1023] for shift in range(70, -1, -10)])
