"""Tokens and signatures of webhooks and callbacks. Pure: secrets and times are arguments.

All of them are derived from one secret (`VOICEQUEUE_SECRET`) with HMAC-SHA256. So neither the token in the URL that
upstream calls nor the secret that it signs with is stored.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from hashlib import sha256

from voicequeue.texts import parse_int

#: The largest difference between the timestamp of a webhook and our clock (seconds).
TOLERANCE_S = 300.0

#: The largest timestamp that is accepted.
_TIMESTAMP_MAX = 10**12 - 1

#: The minimum number of characters of a secret, and of different ones. Upstream, receivers of callbacks and users of
#: the Redis see values derived from it, and could find a weaker one by brute force.
SECRET_MIN, SECRET_DISTINCT_MIN = 32, 8


def validate_secret(secret: str) -> str:
    """Return the secret, or '' if none is set. Raises ValueError if it can be guessed; the text does not contain it."""
    if secret and (len(secret) < SECRET_MIN or len(set(secret)) < SECRET_DISTINCT_MIN):
        raise ValueError(
            f"can be guessed: it needs at least {SECRET_MIN} characters, {SECRET_DISTINCT_MIN} of them different; "
            "make one with: openssl rand -hex 32"
        )
    return secret


def derive(secret: str, *parts: str) -> str:
    """Return 64 hex digits that only the holder of `secret` can compute for these parts.

    The length of each part is included, so that no two lists of parts give the same digits.
    """
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hmac.new(secret.encode(), text.encode(errors="surrogatepass"), sha256).hexdigest()


def webhook_token(secret: str, job_id: str, stage: str, attempt: int) -> str:
    """Return the token in the webhook URL of one order."""
    return derive(secret, "webhook token", job_id, stage, str(attempt))[:40]


def webhook_secret(secret: str, job_id: str) -> str:
    """Return the secret with which upstream signs the webhooks of one job."""
    return derive(secret, "webhook secret", job_id)


def callback_secret(secret: str) -> str:
    """Return the root of receivers' secrets, for deployments that set none for callbacks."""
    return _whsec(derive(secret, "callback secret"))


def receiver_secret(root: str, origin: str) -> str:
    """Return the secret that signs one receiver's callbacks, in the form that the receiver configures.

    `root` is a callback secret, `origin` the receiver's scheme, host and port. Each receiver has its own secret, and
    cannot compute another's.
    """
    return _whsec(derive(root, "receiver secret", origin))


def _whsec(digits: str) -> str:
    return "whsec_" + b64encode(bytes.fromhex(digits)).decode()


def equals_constant_time(expected: str, presented: str) -> bool:
    """Compare two values in constant time; `presented` may be any text."""
    return hmac.compare_digest(expected.encode(), presented.encode("utf-8", "surrogateescape"))


def sign_as_upstream(secret: str, timestamp: str, body: bytes) -> str:
    """Return the value of `X-Webhook-Signature`. Source: upstream's webhook guide."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, sha256).hexdigest()


def verify_upstream_signature(secret: str, *, timestamp: str, signature: str, body: bytes, now: float) -> bool:
    """Return whether upstream signed this body recently. `timestamp`: the header, in Unix seconds."""
    signed_at = parse_int(timestamp, at_most=_TIMESTAMP_MAX)
    if signed_at is None:
        return False
    is_recent = abs(now - signed_at) <= TOLERANCE_S
    return equals_constant_time(sign_as_upstream(secret, timestamp, body), signature) and is_recent
