"""The voices that were made: what a job that shares its voice need not pay for again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, cast

from voicequeue.domain.job import iso
from voicequeue.storage.keyspace import Keyspace

if TYPE_CHECKING:
    from voicequeue.domain import schemas

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Persona:
    """A voice that upstream keeps: made `at` (Unix seconds) by the job `job_id`, of that recording."""

    persona_id: str
    name: str | None
    audio_url: str
    job_id: str
    at: float

    def as_dict(self) -> schemas.Persona:
        """Return the JSON representation."""
        return {
            "persona_id": self.persona_id,
            "voice_name": self.name,
            "audio_url": self.audio_url,
            "job": self.job_id,
            "made_at": iso(self.at),
        }


class Voices:
    """The voices of one queue, in Redis. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis

    def made(self) -> Iterator[Persona]:
        """Every voice that is there, the latest first; read a page at a time."""
        return (persona for _, persona in self._made())

    def forget(self, persona_id: str) -> int:
        """No job takes this persona any more, but those that have it already; gives by how many voices (a URL, a
        content, a name) it was known.

        It may stand where no list leads: by its content or name when the URL has had a newer one since.
        """
        root, known = self._space.key("voice:"), 0
        keys = cast(Iterator[str], self._redis.scan_iter(match=f"{root}*", count=_PAGE))
        while page := list(islice(keys, _PAGE)):
            with self._redis.pipeline(transaction=False) as pipe:
                for key in page:
                    pipe.hget(key, "persona_id")
                found = [
                    key.removeprefix(root) for key, has in zip(page, pipe.execute(), strict=True) if has == persona_id
                ]
            known += sum(self._space.run("forget", voice, persona_id) for voice in found)
        return known

    def maker(self, voice: str) -> str | None:
        """The id of the job that makes the voice which others share; None where none does."""
        return cast(str | None, self._redis.hget(self._space.key(f"voice:{voice}"), "maker"))

    def _made(self) -> Iterator[tuple[str, Persona]]:
        ids = self._space.pages(self._space.key("voices"), latest_first=True)
        while page := list(islice(ids, _PAGE)):
            with self._redis.pipeline(transaction=False) as pipe:
                for voice in page:
                    pipe.hgetall(self._space.key(f"voice:{voice}"))
                found = pipe.execute()
            yield from ((voice, _persona(record)) for voice, record in zip(page, found, strict=True) if record)


def _persona(record: Mapping[str, str]) -> Persona:
    return Persona(record["persona_id"], record.get("name"), record["audio_url"], record["job"], float(record["at"]))
