"""The TypeScript client: its types are those of the API, it compiles, and it works against a real gateway."""

from __future__ import annotations

import json
import os
import subprocess
import time
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from tests.node import CLIENT, CLIENT_MODULES, MISSING, NODE, environment
from tests.tools import clients
from tests.web.conftest import KEYS, Gateway
from voicequeue.auth import signatures


@pytest.fixture(scope="module")
def packages() -> None:
    """Require the npm packages of the client: skip without them, except in CI."""
    if not (CLIENT_MODULES / "typescript").is_dir():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)


def run(*command: str, **variables: str) -> None:
    """Run Node in the folder of the client; it must succeed."""
    done = subprocess.run(
        [str(NODE), *command],
        cwd=CLIENT,
        env=environment() | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_types_are_generated_from_the_present_schema() -> None:
    """A change of the API without `make clients` fails, also where npm is not reachable."""
    assert clients.generated_from() == clients.digest(clients.document()), "run `make clients`"


@pytest.mark.endurance
@pytest.mark.usefixtures("packages")
def test_generating_the_types_again_changes_nothing() -> None:
    """The committed file was not edited."""
    assert clients.generate() == clients.TYPES.read_text(encoding="utf-8")


@pytest.mark.endurance
@pytest.mark.usefixtures("packages")
def test_the_client_compiles_and_wrong_calls_of_it_do_not() -> None:
    """test/types.ts has both; the compiler is strict."""
    run("node_modules/typescript/bin/tsc", "--noEmit")


def test_the_client_enqueues_and_follows_jobs(gateway: Gateway) -> None:
    """Node runs the sources as they are, against a gateway with a real Valkey."""
    variables = {"VOICEQUEUE_GATEWAY_URL": gateway.url, "VOICEQUEUE_API_KEY": KEYS["all"][0]}
    run("--test", "test/live.test.ts", **variables)


def test_the_client_sends_again_only_what_is_safe() -> None:
    """Its server loses responses, and asks it to come again later."""
    run("--test", "test/retries.test.ts")


def test_the_client_verifies_callbacks() -> None:
    """Genuine ones are accepted, forged ones are not."""
    secret = signatures.receiver_secret(signatures.callback_secret("root"), "https://shop.example")
    body, sent_at = json.dumps({"type": "job.succeeded", "data": {}}), int(time.time())
    signature = Webhook(secret).sign("evt_1", datetime.fromtimestamp(sent_at, UTC), body)
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(sent_at), "webhook-signature": signature}
    run("--test", "test/callbacks.test.ts", SIGNED=json.dumps({"body": body, "headers": headers, "secret": secret}))
