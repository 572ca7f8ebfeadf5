"""Tokens and signatures of webhooks and callbacks. Pure: secrets and times are arguments.

All of them are derived from one secret (`VOICEQUEUE_SECRET`) with HMAC-SHA256. So neither the token in the URL that
upstream calls nor the secret that it signs with is stored. While the secret is rotated the setting has two values: the
first one signs, and what either of them signed is accepted.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterable
from hashlib import sha256

from voicequeue.texts import parse_int
from voicequeue.version import USER_AGENT

#: The largest difference between the timestamp of a webhook and our clock (seconds).
TOLERANCE_S = 300.0

#: The largest timestamp that is accepted.
_TIMESTAMP_MAX = 10**12 - 1

#: The minimum number of characters of a secret, and of different ones. Upstream, receivers of callbacks and users of
#: the Redis see values derived from it, and could find a weaker one by brute force.
SECRET_MIN, SECRET_DISTINCT_MIN = 32, 8


#: The most values of a secret: the new one, and the old one while it is rotated.
SECRETS_MAX = 2


def parse_secrets(setting: str) -> tuple[str, ...]:
    """Return the values of the setting, separated by a comma: the one that signs, then the old one while it is rotated.

    Raises ValueError if one can be guessed, or if the number of values is not clear; the text contains none of them.
    """
    secrets = tuple(part.strip() for part in setting.split(",") if part.strip())
    for secret, which in zip(secrets, _names_of(secrets), strict=True):
        if not _is_strong(secret):
            raise ValueError(
                f"{which}can be guessed: it needs at least {SECRET_MIN} characters, {SECRET_DISTINCT_MIN} of them "
                "different; make one with: openssl rand -hex 32"
            )
        if len(secret.split()) > 1 and any(_is_strong(word) for word in secret.split()):
            raise ValueError("has spaces between its values: separate the new one and the old one by a comma")
    if len(secrets) > SECRETS_MAX:
        raise ValueError(f"has {len(secrets)} values; only the new one and the old one are allowed, in this order")
    if len(set(secrets)) < len(secrets):
        raise ValueError("has the same value twice; put a new one first: openssl rand -hex 32")
    return secrets


def _names_of(secrets: tuple[str, ...]) -> tuple[str, ...]:
    if len(secrets) < SECRETS_MAX:
        return ("",) * len(secrets)
    return tuple(f"value {number} of {len(secrets)} " for number in range(1, len(secrets) + 1))


def _is_strong(secret: str) -> bool:
    return len(secret) >= SECRET_MIN and len(set(secret)) >= SECRET_DISTINCT_MIN


def derive(secret: str, *parts: str) -> str:
    """Return 64 hex digits that only the holder of `secret` can compute for these parts.

    The length of each part is included, so that no two lists of parts give the same digits.
    """
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hmac.new(secret.encode(), text.encode(errors="surrogatepass"), sha256).hexdigest()


def mark(key: str, name: str, value: str) -> str:
    """Return a mark of a value that shows only whether two values are equal.

    A reader of Redis could guess secrets by trial, so only long random ones are used as `key`.
    """
    return derive(key, "mark", name, value)[:12]


def webhook_token(secret: str, job_id: str, stage: str, attempt: int) -> str:
    """Return the token in the webhook URL of one order."""
    return derive(secret, "webhook token", job_id, stage, str(attempt))[:40]


def find_webhook_secret(secrets: Iterable[str], token: str, *, job_id: str, stage: str, attempt: int) -> str | None:
    """Return the secret that the token of a webhook URL was derived from, None if it was derived from none of them."""
    for secret in secrets:
        if equals_constant_time(webhook_token(secret, job_id, stage, attempt), token):
            return secret
    return None


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


def callback_headers(secrets: Iterable[str], callback_id: str, body: bytes, now: float) -> dict[str, str]:
    """Return the headers of a callback that its receiver verifies, with a signature by each secret (`whsec_…`).

    Source: the Standard Webhooks specification.
    """
    timestamp = str(int(now))
    content = f"{callback_id}.{timestamp}.".encode() + body
    keys = (b64decode(secret.removeprefix("whsec_")) for secret in secrets)
    signatures = (b64encode(hmac.new(key, content, sha256).digest()).decode() for key in keys)
    return {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "webhook-id": callback_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def equals_constant_time(expected: str, presented: str) -> bool:
    """Compare two values in constant time; `presented` may be any text."""
    return hmac.compare_digest(expected.encode(), presented.encode("utf-8", "surrogateescape"))


def session_proof(secret: str, session_id: str, since: str, key: str) -> str:
    """Return the proof that the gateway began this session at that time for this API key, as it is configured."""
    return derive(secret, "session proof", session_id, since, key)


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
