"""Created voices, which jobs that share them need not pay for again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import TYPE_CHECKING, cast

from voicequeue.domain.job import to_iso8601
from voicequeue.domain.namespaces import index_of, namespace_of
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.connection.recorded_change import begin_part

if TYPE_CHECKING:
    from voicequeue.domain import operator_schemas

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Persona:
    """A voice stored by upstream.

    Attributes:
        persona_id: Upstream's id of the voice.
        name: Name of the voice; None if it is not known.
        audio_url: URL of the recording that it was created from.
        job_id: Id of the job that created it.
        created_at: Time when it was created (Unix seconds).
        namespace: Namespace that paid for it; empty for the default one.
    """

    persona_id: str
    name: str | None
    audio_url: str
    job_id: str
    created_at: float
    namespace: str = ""

    def as_dict(self) -> operator_schemas.Persona:
        """Return the JSON representation."""
        return {
            "persona_id": self.persona_id,
            "namespace": self.namespace,
            "voice_name": self.name,
            "audio_url": self.audio_url,
            "job_id": self.job_id,
            "created_at": to_iso8601(self.created_at),
        }


class Personas:
    """The voices of one queue. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis

    def list_all(self) -> Iterator[Persona]:
        """Yield every created voice, newest first within its namespace, reading page by page."""
        voices = chain.from_iterable(
            self._space.pages(index, latest_first=True) for index in self._space.indexes("voices")
        )
        while page := list(islice(voices, _PAGE)):
            yield from (_persona(voice, it) for voice, it in zip(page, self._read(page), strict=True) if it)

    def listed(self, namespace: str, after: tuple[str, float] | None) -> Iterator[tuple[tuple[str, float], Persona]]:
        """Yield the voices of a namespace with their positions, newest first; those that follow the one `after`."""
        index = self._space.key(index_of("voices", namespace))
        positions = self._space.scored_pages(index, latest_first=True, after=after)
        while page := list(islice(positions, _PAGE)):
            records = self._read([voice for voice, _ in page])
            yield from (
                (position, _persona(position[0], record))
                for position, record in zip(page, records, strict=True)
                if record
            )

    def _read(self, voices: Sequence[str]) -> list[Mapping[str, str]]:
        with self._redis.pipeline(transaction=False) as pipe:
            for voice in voices:
                pipe.hgetall(self._space.key(f"voice:{voice}"))
            return cast(list[Mapping[str, str]], pipe.execute())

    def forget(self, persona_id: str) -> int:
        """Stop using a persona for jobs that do not have it yet; return the number of voices (by URL, content or name)
        that had it.

        All voices are scanned: by content or name a voice may have an older persona than by the listed URL.
        """
        count = 0
        for namespace, voices in groupby(sorted(self._having(persona_id), key=namespace_of), key=namespace_of):
            begin_part((), namespace=namespace)
            count += sum(self._space.run_change("forget_persona", voice, persona_id) for voice in voices)
        return count

    def _having(self, persona_id: str) -> Iterator[str]:
        """Yield the voices in scope that have this persona."""
        root = self._space.key("voice:")
        keys = cast(Iterator[str], self._redis.scan_iter(match=f"{root}*", count=_PAGE))
        while page := list(islice(keys, _PAGE)):
            with self._redis.pipeline(transaction=False) as pipe:
                for key in page:
                    pipe.hget(key, "persona_id")
                persona_ids = pipe.execute()
            having = (key for key, current in zip(page, persona_ids, strict=True) if current == persona_id)
            yield from filter(self._space.scope.contains, (key.removeprefix(root) for key in having))

    def creator_of(self, voice: str) -> str | None:
        """Return the id of the job that creates a shared voice; None if no job in scope does."""
        if not self._space.scope.contains(voice):
            return None
        return cast(str | None, self._redis.hget(self._space.key(f"voice:{voice}"), "creator"))


def _persona(voice: str, record: Mapping[str, str]) -> Persona:
    job, at = record["job"], float(record["at"])
    return Persona(record["persona_id"], record.get("name"), record["audio_url"], job, at, namespace_of(voice))
