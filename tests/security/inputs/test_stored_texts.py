"""Stored texts with half a character: every page, command and method shows or rejects them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from redis import Redis

from tasks.enqueue import enqueue_or_reject
from tests.security.inputs.halves import HALF, MENDED, URL, Described
from tests.store.conftest import Command
from tests.store.life import NOW, apply_transition, dump_keys, job_in_state, job_with_song
from tests.support.jobs import voice_with_song
from tests.web.conftest import Gateway
from voicequeue import Failure, FailureCode, Filter, InvalidJobError, Job, RejectedMessage, Stage, State, VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.domain import serialization
from voicequeue.errors import VoiceQueueError
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway


def _store_halves(store: JobStore, redis: Redis, prefix: str) -> tuple[Job, Job]:
    """Store half a character in every text that is stored unchecked; return a failed and an unsure job with them."""
    nested = {"name": HALF, HALF: [HALF, {"a": HALF}]}
    store.rejected_messages.add(RejectedMessage(NOW, HALF, HALF, HALF, nested))
    store.rejected_messages.add(RejectedMessage(NOW, HALF, HALF, HALF, HALF))
    older = {"rejected_at": NOW, "message_id": HALF, "task": HALF, "reason": HALF, "job": nested}
    redis.lpush(f"{{{prefix}}}:rejected_messages", json.dumps(older))
    with pytest.raises(InvalidJobError):
        enqueue_or_reject(store, [], {"job": {"audio_url": URL, HALF: HALF}}, message_id=HALF, now=NOW)
    with pytest.raises(InvalidJobError, match="id: contains half"):
        enqueue_or_reject(store, [], {"job": {"audio_url": URL}}, message_id=HALF, now=NOW)
    job_with_song(store, name="whole 🎵", batch="spring")
    job = job_in_state(store, State.PENDING, voice_with_song(callback_url="https://hooks.example/x"))
    failure = serialization.failure_text(Failure(FailureCode.UPSTREAM_FAILED, Stage.VOICE, HALF))
    fields = {"failure": failure, "persona_id": HALF, "voice_name": HALF, "upstream_response": HALF}
    failed = apply_transition(store, job, State.FAILED, reason=HALF, fields=fields)
    charging = job_in_state(store, State.CHARGING)
    unsure = apply_transition(store, charging, State.UNSURE, reason=HALF, fields={"upstream_response": HALF})
    store.flow_control.add_hold("cooldown", HALF, NOW)
    store.callbacks.claim(store.callbacks.lease(NOW, lease_s=60), NOW, lease_s=60)
    for callback in store.callbacks.pending():
        store.callbacks.mark_undelivered(callback.id, NOW, HALF, is_attempted=True)
    return failed, unsure


def test_every_get_answers_with_any_stored_text(gateway: Gateway, store: JobStore, redis: Redis, prefix: str) -> None:
    """All routes in the API's description; rejected messages of an older release included."""
    job, unsure = _store_halves(store, redis, prefix)
    for method, path, _ in Described(gateway).operations():
        if method == "GET" and path != "/readyz":  # 503 without a worker
            job_id = unsure.id if path.endswith("/review") else job.id
            url = path.format(name="spring", job_id=job_id, callback_id=job.callback_id)
            sent = gateway(method, url, stream=path == "/v1/events")
            assert sent.status_code == 200, (path, sent.text)
            sent.close()

    rejects = gateway.get("/v1/rejected-messages")["data"]
    assert [reject["message_id"] for reject in rejects] == [MENDED] * 5
    assert rejects[2]["job"] == rejects[4]["job"] == {"name": MENDED, MENDED: [MENDED, {"a": MENDED}]}
    assert gateway.get(f"/v1/jobs/{job.id}")["failure"]["message"] == MENDED


def test_every_page_and_command_shows_any_stored_text(
    local: Gateway, command: Command, store: JobStore, queue: VoiceQueue, redis: Redis, prefix: str
) -> None:
    """With a replacement character for half a character."""
    job, _ = _store_halves(store, redis, prefix)

    queue.on_behalf_of(HALF, address=HALF, reason=HALF).set_limits(in_flight=7)
    for path in ("/", "/?state=failed", f"/job/{job.id}", "/batches", "/controls", "/trends", "/audit-log"):
        assert local("GET", path, key=None).status_code == 200
    assert MENDED in local("GET", f"/job/{job.id}", key=None).text
    for arguments in (
        ["job", job.id],
        ["jobs"],
        ["status"],
        ["rejects"],
        ["callbacks"],
        ["export"],
        ["personas"],
        ["audit-log"],
    ):
        assert command(*arguments).code == command(*arguments, "--json").code == 0, arguments
    assert MENDED in command("rejects").out
    assert MENDED in command("job", job.id).out


#: Arguments for the library's methods, by name.
_ARGUMENTS: dict[str, Any] = {
    **dict.fromkeys(
        (
            "job_id",
            "task_id",
            "persona_id",
            "callback_id",
            "batch",
            "after",
            "cursor",
            "reason",
            "name",
            "actor",
            "address",
            "key_name",
            "token",
        ),
        HALF,
    ),
    "job_ids": [HALF],
    "callback_ids": [HALF],
    "url": f"https://a.example/{HALF}",
    "job": {"audio_url": URL, "name": HALF},
    "jobs": [{"audio_url": URL, "metadata": {HALF: "x"}}],
    "action": "retry",
    "token": HALF,
    "stage": HALF,
    "state": HALF,
    "filter": Filter(),
    "findings": [],
    "scopes": [Scope.READ],
    "namespace": HALF,
    "owner": HALF,
    "metadata": {"subject": HALF},
}


def test_no_method_of_the_library_stores_half_a_character_or_fails_on_it(
    queue: VoiceQueue, redis: Redis, prefix: str
) -> None:
    """Each rejects it with an error of the library, or finds nothing under that name."""
    for name, method in inspect.getmembers(VoiceQueue, inspect.isfunction):
        # `watch` does not return; the others take jobs that were read.
        if name.startswith("_") or name in ("close", "watch", "voice_creator", "position"):
            continue
        parameters = list(inspect.signature(method).parameters.values())[1:]
        optional = [parameter.name for parameter in parameters if parameter.default is not parameter.empty]
        kwargs = {
            parameter.name: _ARGUMENTS[parameter.name]
            for parameter in parameters
            if parameter.name in _ARGUMENTS or _is_needed(parameter)
        }
        if name in ("set_batch_callback", "set_batch_limits"):
            kwargs["name"] = "spring"
        for left_out in [None, *optional]:
            call = {argument: value for argument, value in kwargs.items() if argument != left_out}
            outcome = _outcome(method, queue, call)
            assert "Unicode" not in outcome, (name, call)
            outcome.encode()

    assert "cut" not in str(dump_keys(redis, prefix))


def _outcome(method: Any, queue: VoiceQueue, kwargs: dict[str, Any]) -> str:
    """Return the text of a method's result or error; an encoding error is returned by its name."""
    try:
        result = method(queue, **kwargs)
        return repr(list(islice(result, 1)) if isinstance(result, Iterator) else result)
    except (VoiceQueueError, ValueError, LookupError, TypeError) as error:
        return type(error).__name__ if isinstance(error, UnicodeError) else str(error)


def _is_needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD


@pytest.mark.parametrize(
    "texts", [{"text": HALF}, {"metadata": {"a": HALF}}, {"metadata": {HALF: "a"}}, {"batch": HALF}]
)
def test_no_filter_accepts_half_a_character(texts: dict[str, Any]) -> None:
    """It could match nothing, or be confused with another text."""
    with pytest.raises(InvalidJobError, match="half a character"):
        Filter(**texts)


#: A byte that is not UTF-8 in an argument, as Python decodes it.
BYTE = "caf\udce9"
COMMANDS = [
    ["jobs", "--search", BYTE], ["pause", "--reason", BYTE], ["enqueue", "--audio-url", URL, "--name", BYTE],
    ["enqueue", "--audio-url", URL, "--metadata", f"a={BYTE}"], ["enqueue", "--audio-url", f"{URL}{BYTE}"],
    ["enqueue", "--audio-url", URL, "--song", f'{{"prompt": "{BYTE}"}}'],
    ["enqueue", "--audio-url", URL, "--song", '{"prompt": "\\ud83d"}'],
    ["ingest", "-", "--batch", "b", "--callback-url", f"{URL}{BYTE}"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda command: command[-2])
def test_an_argument_with_half_a_character_is_rejected_by_its_name(
    command: Command, queue: VoiceQueue, arguments: list[str]
) -> None:
    """Exit code 2, as for any invalid input; nothing is enqueued or paused."""
    ended = command(*arguments)

    assert (ended.code, "half a character" in ended.err.replace("\n", " ")) == (2, True), ended.err
    assert (list(queue.jobs()), queue.status().gate.is_open) == ([], True)


@pytest.mark.parametrize(
    "arguments", [["job", BYTE], ["cancel", BYTE], ["jobs", "--batch", BYTE], ["archive", "--retry", "--job", BYTE]]
)
def test_a_name_with_half_a_character_is_not_found(command: Command, arguments: list[str]) -> None:
    """The error says so, and can be printed."""
    ended = command(*arguments)

    assert ended.code in (1, 2)
    (ended.out + ended.err).encode()


def test_a_file_with_columns_that_are_not_utf8_is_rejected(command: Command) -> None:
    """Before any of its rows."""
    ended = command("ingest", "-", "--batch", "b", stdin=f"audio_url,metadata.caf\xe9\n{URL},1\n".encode("latin-1"))

    assert (ended.code, "line 1 is not UTF-8" in ended.err.replace("\n", " ")) == (2, True)
