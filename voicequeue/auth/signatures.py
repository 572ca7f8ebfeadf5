"""Tokens and signatures of webhooks. Pure: secrets and times are arguments.

Everything is derived from one secret (`VOICEQUEUE_SECRET`) with HMAC-SHA256, so nothing has to be
stored: neither the token in the URL that upstream calls, nor the secret that it signs with.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from hashlib import sha256

from voicequeue.texts import whole_number

#: How far upstream's clock and ours may differ, and how long a webhook is taken (seconds).
TOLERANCE_S = 300.0

#: The latest timestamp; more digits are no date.
_TIMESTAMP_MAX = 10**12 - 1

#: A secret has at least so many characters, and so many different ones. What is derived of a weaker one is seen by
#: others (upstream, receivers of callbacks, users of the Redis), who could find it by trying.
SECRET_MIN, SECRET_DIFFERENT_MIN = 32, 8


def validate_secret(secret: str) -> str:
    """Return the secret, or '' where none is set. Raises ValueError where it can be guessed, without quoting it."""
    if secret and (len(secret) < SECRET_MIN or len(set(secret)) < SECRET_DIFFERENT_MIN):
        raise ValueError(
            f"can be guessed: it needs at least {SECRET_MIN} characters, {SECRET_DIFFERENT_MIN} of them different; "
            "make one with: openssl rand -hex 32"
        )
    return secret


def derive(secret: str, *parts: str) -> str:
    """64 hex digits that only the holder of `secret` can make for these parts.

    Each part is led by its length: no two lists of parts give the same text.
    """
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hmac.new(secret.encode(), text.encode(errors="surrogatepass"), sha256).hexdigest()


def webhook_token(secret: str, job_id: str, stage: str, attempt: int) -> str:
    """What stands in the URL that upstream calls about one order."""
    return derive(secret, "webhook token", job_id, stage, str(attempt))[:40]


def webhook_secret(secret: str, job_id: str) -> str:
    """What upstream signs its webhooks about one job with."""
    return derive(secret, "webhook secret", job_id)


def callback_secret(secret: str) -> str:
    """Return what receivers' secrets follow from where no other secret is set for callbacks."""
    return _whsec(derive(secret, "callback secret"))


def receiver_secret(root: str, site: str) -> str:
    """Return what one receiver's callbacks are signed with, in the form in which it is given it.

    `root` is a callback secret, `site` the receiver's scheme, host and port. No other receiver has the same secret, and
    none can be found from another.
    """
    return _whsec(derive(root, "receiver secret", site))


def _whsec(digits: str) -> str:
    return "whsec_" + b64encode(bytes.fromhex(digits)).decode()


def holds(expected: str, given: str) -> bool:
    """Whether they are the same, in constant time, whatever was given."""
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogateescape"))


def upstream_signature(secret: str, timestamp: str, body: bytes) -> str:
    """What upstream writes into `X-Webhook-Signature`. Source: its webhook guide."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, sha256).hexdigest()


def upstream_signed(secret: str, *, timestamp: str, signature: str, body: bytes, now: float) -> bool:
    """Whether upstream sent this very body, lately. `timestamp` is Unix seconds, as the header has it."""
    at = whole_number(timestamp, at_most=_TIMESTAMP_MAX)
    if at is None:
        return False
    fresh = abs(now - at) <= TOLERANCE_S
    return holds(upstream_signature(secret, timestamp, body), signature) and fresh
