"""An API key creates and replaces its own callback secret over HTTP."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from tests.web.conftest import Build, Gateway, problem
from voicequeue import VoiceQueue
from voicequeue.auth import signatures
from voicequeue.auth.api_keys import Scope, generate_key
from voicequeue.auth.callback_secrets import SecretCipher, root_marks
from voicequeue.storage.heartbeats import CALLBACK_ROOTS
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway

COMMON = "the common secret of all these processes"


def test_a_key_creates_and_replaces_its_own_callback_secret(
    build_gateway: Build, store: JobStore, queue: VoiceQueue
) -> None:
    """The response has it once and is not cached; the process `callbacks` can decrypt both during the overlap."""
    gateway = build_gateway(secret=SecretStr(COMMON))

    first, second = (gateway("POST", "/v1/callback-secret", key="enqueue") for _ in range(2))

    assert (first.status_code, first.headers["cache-control"]) == (201, "no-store")
    assert first.json()["name"] == "enqueue"
    stored = store.callback_secrets.get("enqueue")
    assert stored is not None
    cipher = SecretCipher([signatures.callback_secret(COMMON)])
    decrypted = [cipher.decrypt("enqueue", token) for token in stored.valid_tokens(stored.since)]
    assert decrypted == [second.json()["secret"], first.json()["secret"]]
    assert list(store.callback_secrets.all()) == ["enqueue"]
    entries = queue.audit_log().items
    assert [(entry.actor, entry.action) for entry in entries] == [("key:enqueue", "set_callback_secret")] * 2
    assert first.json()["secret"] not in str(entries)


def test_a_key_of_the_environment_replaces_no_secret_of_another_namespace(
    build_gateway: Build, store: JobStore, queue: VoiceQueue
) -> None:
    """A key in Redis may have its name, and signs its callbacks with the secret of this name."""
    gateway = build_gateway(secret=SecretStr(COMMON))
    queue.create_api_key("enqueue", [Scope.ENQUEUE], namespace="shop")

    problem(gateway("POST", "/v1/callback-secret", key="enqueue"), 409, "conflict")

    assert store.callback_secrets.get("enqueue") is None


def test_the_change_is_in_the_audit_log_of_the_keys_namespace(build_gateway: Build, queue: VoiceQueue) -> None:
    """An operator of the namespace sees it, whether the key is in Redis or in the environment, and no other does."""
    key, configured = generate_key("configured", [Scope.ENQUEUE], "shop")
    stored = queue.create_api_key("stored", [Scope.ENQUEUE], namespace="shop")
    wide, operator = generate_key("operator", [Scope.ENQUEUE])
    setting = f"{configured.as_setting()},{operator.as_setting()}"
    gateway = build_gateway(api_keys=setting, secret=SecretStr(COMMON))

    for path, secret in (("", key), ("", stored.secret), ("?namespace=shop", wide)):
        headers = {"Authorization": f"Bearer {secret}"}
        assert gateway("POST", f"/v1/callback-secret{path}", key=None, headers=headers).status_code == 201

    actors = [(entry.actor, entry.namespace) for entry in queue.audit_log(action="set_callback_secret").items]
    assert actors == [("key:operator", "*"), ("key:stored", "shop"), ("key:configured", "shop")]


def test_a_callback_secret_needs_the_scope_and_a_root_secret(gateway: Gateway, store: JobStore) -> None:
    """The error names the settings. Nothing is stored."""
    problem(gateway("POST", "/v1/callback-secret", key="read"), 403, "forbidden")
    answer = gateway("POST", "/v1/callback-secret", key="enqueue")

    assert answer.status_code == 409
    assert "VOICEQUEUE_CALLBACK_SECRET" in answer.json()["detail"]
    assert store.callback_secrets.all() == {}


def test_a_secret_that_the_process_callbacks_cannot_decrypt_is_refused(build_gateway: Build, store: JobStore) -> None:
    """Otherwise the key's callbacks would wait until an operator notices."""
    gateway = build_gateway(secret=SecretStr(COMMON))
    store.heartbeats["callbacks"].record("callbacks-1", store.clock(), {CALLBACK_ROOTS: root_marks(["another"])})

    answer = gateway("POST", "/v1/callback-secret", key="enqueue")

    problem(answer, 409, "invalid_state")
    assert "callbacks-1" in answer.json()["detail"]
    assert store.callback_secrets.all() == {}


def test_too_many_valid_secrets_are_refused(build_gateway: Build) -> None:
    """Each adds a signature to every callback. An overlap of zero ends all older ones."""
    gateway = build_gateway(secret=SecretStr(COMMON))
    statuses = [gateway("POST", "/v1/callback-secret", key="enqueue").status_code for _ in range(6)]

    assert statuses == [201] * 5 + [409]
    assert gateway("POST", "/v1/callback-secret?overlap_s=0", key="enqueue").status_code == 201
