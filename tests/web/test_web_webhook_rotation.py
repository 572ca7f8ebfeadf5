"""Webhooks while `VOICEQUEUE_SECRET` is rotated."""

from __future__ import annotations

import time

import pytest

from tests.web.conftest import Build, Gateway
from voicequeue.auth import signatures

pytestmark = pytest.mark.shared_gateway

NEW, OLD, FOREIGN = "0123456789abcdef" * 4, "fedcba9876543210" * 4, "0f1e2d3c4b5a6978" * 4
BODY = b'{"task_id": "t1"}'


def send(gateway: Gateway, token_secret: str, signing_secret: str) -> int:
    """Send a webhook about a job that does not exist; return the status, 404 if it was authenticated."""
    timestamp = str(int(time.time()))
    token = signatures.webhook_token(token_secret, "job1", "voice", 1)
    signature = signatures.sign_as_upstream(signatures.webhook_secret(signing_secret, "job1"), timestamp, BODY)
    headers = {"X-Webhook-Timestamp": timestamp, "X-Webhook-Signature": signature}
    path = f"/hooks/musicapi/job1/voice?attempt=1&token={token}"
    return gateway("POST", path, key=None, data=BODY, headers=headers).status_code


@pytest.mark.parametrize(
    ("setting", "accepted"),
    [(f"{NEW},{OLD}", {NEW, OLD}), (f"{OLD},{NEW}", {NEW, OLD}), (NEW, {NEW}), (OLD, {OLD}), ("", set())],
)
def test_webhooks_of_both_secrets_are_accepted_while_they_are_set(
    build_gateway: Build, setting: str, accepted: set[str]
) -> None:
    """The orders in flight were sent with the old one. A token of one with a signature of the other is refused."""
    gateway = build_gateway(secret=setting)

    for secret in (NEW, OLD, FOREIGN, ""):
        assert send(gateway, secret, secret) == (404 if secret in accepted else 401)
    assert send(gateway, NEW, OLD) == send(gateway, OLD, NEW) == 401
