"""The end of a signed URL, as far as its query names it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import unquote

from voicequeue.ingest.links.finding import Finding, Link

#: A link that expires sooner (seconds) may expire before the order of its job is processed.
SOON_S = 3_600.0

#: The parameters that say when a URL expires, in lower case.
_PARAMETERS = ("x-amz-date", "x-amz-expires", "x-goog-date", "x-goog-expires", "se", "ex", "expires")
#: Parameters of signatures, one of which must be there: `expires` alone is also a common word.
_SIGNATURES = frozenset(
    (
        *("x-amz-signature", "x-goog-signature", "signature", "sig", "hm", "token", "hash", "key-pair-id"),
        *("awsaccesskeyid", "googleaccessid", "ossaccesskeyid"),
    )
)


def expiry_findings(link: Link, now: float) -> Iterator[Finding]:
    """Yield whether the URL has expired, or expires soon, at `now` (Unix seconds)."""
    values = {name: value for name, _, value in (part.partition("=") for part in link.query.lower().split("&"))}
    ends_at = None if _SIGNATURES.isdisjoint(values) else _ends_at(*map(values.get, _PARAMETERS))
    if ends_at is None:
        return
    if ends_at <= now:
        yield Finding("expired_link", f"expired on {_shown(ends_at)}: create a new link that is valid for longer")
    elif ends_at <= now + SOON_S:
        yield Finding(
            "expires_soon",
            f"expires on {_shown(ends_at)}, perhaps before its job starts: create a link that is valid for days",
            is_certain=False,
        )


def _shown(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d at %H:%M UTC")


@lru_cache(maxsize=1_000)  # the links of a file are usually signed at the same time
def _ends_at(*values: str | None) -> float | None:
    """Return when a URL with these values of _PARAMETERS expires (Unix seconds); None if unknown."""
    amazon_at, amazon_s, google_at, google_s, azure, discord, plain = (unquote(value or "") for value in values)
    try:
        for signed_at, valid_s in ((amazon_at, amazon_s), (google_at, google_s)):
            if signed_at:
                start = datetime.strptime(signed_at.upper(), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return (start + timedelta(seconds=int(valid_s))).timestamp()
        if azure:
            end = datetime.fromisoformat(azure.upper())
            return (end if end.tzinfo else end.replace(tzinfo=UTC)).timestamp()
        return _in_this_age(int(discord, 16)) if discord else _in_this_age(int(plain))
    except (ValueError, OverflowError):
        return None


def _in_this_age(seconds: float) -> float | None:
    """Return a time between 2001 and 2286 (Unix seconds), also if it is in milliseconds."""
    seconds = seconds / 1_000 if seconds >= 1e12 else seconds
    return seconds if 1e9 <= seconds < 1e10 else None
