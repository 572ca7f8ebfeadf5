"""The orders: requests for a voice or a song."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Literal, NamedTuple

#: The kinds of orders, which cost credits.
Kind = Literal["voice", "music"]
#: A request's JSON object.
Body = Mapping[str, object]

#: The fields that the `…_match` dials search.
TEXTS = ("audio_url", "prompt", "gpt_description_prompt", "title", "tags")
#: Fields that do not change what is ordered.
_DELIVERY = ("webhook_url", "webhook_secret")


class Song(NamedTuple):
    """The fields of a request that the clips of its song repeat."""

    title: str
    tags: str
    lyrics: str
    mv: str


class Hook(NamedTuple):
    """The URL for the webhooks of a task, and the secret that signs them."""

    url: str
    secret: str | None


@dataclass(frozen=True)
class Order:
    """A request for a voice or a song. `base` is the API's URL as the client uses it; links start with it."""

    kind: Kind
    body: Body
    base: str

    @cached_property
    def fingerprint(self) -> str:
        """The identity of what is ordered, as 16 hex digits."""
        fields = {key: value for key, value in self.body.items() if key not in _DELIVERY}
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return sha256(canonical.encode()).hexdigest()[:16]

    @property
    def subject(self) -> str:
        """The audio_url of a voice, or the persona_id of a song."""
        return str(self.body["audio_url" if self.kind == "voice" else "persona_id"])

    @property
    def song(self) -> Song:
        """The lyrics and the style; empty except for the title in an order for a voice."""
        body = self.body
        description = body.get("gpt_description_prompt")
        lyrics = body.get("prompt") or (f"[Verse]\n{description}" if description else "")
        return Song(
            title=str(body.get("title") or "Untitled"),
            tags=str(body.get("tags") or ""),
            lyrics="" if body.get("make_instrumental") else str(lyrics),
            mv=str(body.get("mv") or ""),
        )

    @property
    def hook(self) -> Hook | None:
        """The destination of webhooks, None without one."""
        url, secret = self.body.get("webhook_url"), self.body.get("webhook_secret")
        return Hook(str(url), str(secret) if secret else None) if url else None

    def mentions(self, match: str | None) -> str | None:
        """Return the first field whose text contains the match, None without one."""
        if match is None:
            return None
        return next((name for name in TEXTS if match in str(self.body.get(name, ""))), None)
