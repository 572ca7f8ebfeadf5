"""What a POST asks for, read from its body."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Literal, NamedTuple

#: The two things that cost credits.
Kind = Literal["voice", "music"]
#: A request's JSON object.
Body = Mapping[str, object]

#: The fields whose text can be matched by a dial.
TEXTS = ("audio_url", "prompt", "gpt_description_prompt", "title", "tags")
#: Where the result is sent makes no difference to what is asked.
_DELIVERY = ("webhook_url", "webhook_secret")


class Song(NamedTuple):
    """What a song's clips repeat of its request."""

    title: str
    tags: str
    lyrics: str
    mv: str


class Hook(NamedTuple):
    """Where the webhooks of a task go, and the secret that signs them."""

    url: str
    secret: str | None


@dataclass(frozen=True)
class Order:
    """One request for a voice or a song. `base` is the API's URL as the client knows it; links start with it."""

    kind: Kind
    body: Body
    base: str

    @cached_property
    def fingerprint(self) -> str:
        """What is asked for, as 16 hex digits: equal for two orders that would make the same thing."""
        asked = {key: value for key, value in self.body.items() if key not in _DELIVERY}
        canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"))
        return sha256(canonical.encode()).hexdigest()[:16]

    @property
    def subject(self) -> str:
        """The audio_url that becomes a voice, or the persona_id that sings."""
        return str(self.body["audio_url" if self.kind == "voice" else "persona_id"])

    @property
    def song(self) -> Song:
        """The words and the style; all but the title empty for a voice."""
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
        """Where to send webhooks, if anywhere."""
        url, secret = self.body.get("webhook_url"), self.body.get("webhook_secret")
        return Hook(str(url), str(secret) if secret else None) if url else None

    def mentions(self, match: str | None) -> str | None:
        """The field that has the match in its text, if there is one."""
        if match is None:
            return None
        return next((name for name in TEXTS if match in str(self.body.get(name, ""))), None)
