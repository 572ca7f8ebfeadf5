"""Texts with half a character at every HTTP entry, and text that terminals interpret."""

from __future__ import annotations

import json
from typing import Any

import pytest
from redis import Redis

from tests.security.inputs.halves import HALF, HALF_ERROR, IN_A_URL, MENDED, URL, Described
from tests.store.life import dump_keys
from tests.web.conftest import Gateway, problem
from voicequeue import VoiceQueue
from voicequeue.texts import escape_controls, find_unencodable, replace_unencodable, terminal_safe_json

pytestmark = pytest.mark.shared_gateway

# ── the check ──────────────────────────────────────────────────────────────────────────────────────

#: Parameters of paths, which name nothing that exists.
PATH = {"name": "spring", "job_id": "nosuchjob", "owner": "account", "callback_id": "none", "persona_id": "none"}


def test_half_a_character_is_found_anywhere_in_a_value() -> None:
    """In names and values, at any depth; the reported path can itself be shown."""
    value = {"a": [HALF, {"b": HALF}], HALF: {"c": "whole 🎵"}, "d": None}

    located = dict(find_unencodable(value))

    assert set(located) == {"a.0", "a.1.b", MENDED}
    assert all(message.startswith(HALF_ERROR) for message in located.values())
    assert "".join(located).encode()


def test_a_deeply_nested_value_is_searched_without_recursion() -> None:
    """Deeper than Python's recursion limit."""
    value: Any = HALF
    for _ in range(20_000):
        value = [value]

    assert len(list(find_unencodable(value))) == 1


def test_only_text_that_a_terminal_interprets_or_hides_is_escaped() -> None:
    """Letters of all scripts, wide spaces and joined emoji are shown unchanged."""
    controls = "\x1b[31m\x07\x7f\x9b\u202e\u2066\u200f\u061c\u2028\ufeff\U000e0041\ud800\r\n\t"
    plain = "Zoë, 山本\u3000花子, שלום, नमस्ते, 👩\u200d🎤 ❤️ \\x1b"

    assert escape_controls(controls) == (
        r"\x1b[31m\x07\x7f\x9b\u202e\u2066\u200f\u061c\u2028\ufeff\U000e0041\ud800\r\n\t"
    )
    assert escape_controls("a\nb\tc\x1b", keep="\n\t") == "a\nb\tc\\x1b"
    assert escape_controls(plain) == plain
    assert json.loads(terminal_safe_json({controls: plain})) == {controls: plain}
    assert escape_controls(terminal_safe_json(controls)) == terminal_safe_json(controls)


# ── every entry over HTTP ──────────────────────────────────────────────────────────────────────────


def _holding(path: tuple[str | int, ...]) -> Any:
    """Return a value with half a character in this place."""
    value: Any = f"https://a.example/{HALF}"
    for part in reversed(path):
        value = [value] if isinstance(part, int) else {part: value}
    return value


def _field(path: tuple[str | int, ...]) -> str:
    return replace_unencodable(".".join(map(str, path)))


def test_every_text_of_every_body_is_rejected_by_its_field(gateway: Gateway, redis: Redis, prefix: str) -> None:
    """All fields in the API's description; nothing is stored."""
    api, tried = Described(gateway), 0
    for method, path, operation in api.operations():
        for kind, body in operation.get("requestBody", {}).get("content", {}).items():
            for place in api.texts(body["schema"]) if kind == "application/json" else ():
                sent = gateway(
                    method,
                    path.format(**PATH),
                    json=_holding(place),
                )
                assert problem(sent, 422, "invalid")[_field(place)].startswith(HALF_ERROR), (path, place)
                tried += 1

    assert tried > 40
    assert dump_keys(redis, prefix) == {}


def test_every_text_of_every_row_is_rejected_by_its_field(gateway: Gateway) -> None:
    """The rows around it are accepted."""
    api = Described(gateway)
    # The batch of a row is rejected in any case.
    places = [place for place in api.texts({"$ref": "NewJob"}) if place != ("batch",)]
    rows = [{"audio_url": URL}, *map(_holding, places), {"audio_url": URL, "name": "last"}]

    sent = gateway(
        "POST",
        "/v1/batches/spring/jobs",
        data="\n".join(map(json.dumps, rows)),
        headers={"Content-Type": "application/x-ndjson"},
    )

    first, *rejected, last, summary = map(json.loads, sent.text.splitlines())
    assert (first["outcome"], last["outcome"], summary["summary"]["complete"]) == ("new", "new", True)
    for place, row in zip(places, rejected, strict=True):
        messages = {error["field"]: error["message"] for error in row["errors"]}
        assert messages[_field(place).removeprefix("song.")].startswith(HALF_ERROR), place


def test_every_text_parameter_is_rejected_by_its_name(gateway: Gateway, redis: Redis, prefix: str) -> None:
    """In a query by its name; in a path it matches nothing, and a header cannot contain such bytes."""
    api, tried = Described(gateway), 0
    for method, path, operation in api.operations():
        at = path.format(**PATH)
        for name in (*api.parameters(operation, "query"), *operation.get("x-free-query", ())):
            sent = gateway(method, f"{at}?{name}{'x' * name.endswith('.')}={IN_A_URL}")
            messages = problem(sent, 422, "invalid")
            assert next(iter(messages)).startswith(name), (path, name)
            assert "half a character" in next(iter(messages.values()))
            tried += 1
        for name in api.parameters(operation, "path"):
            sent = gateway(method, path.replace(f"{{{name}}}", IN_A_URL), json={"max_credits": 1})
            assert sent.status_code in (404, 415, 422), (path, sent.text)
        for name in api.parameters(operation, "header"):
            sent = gateway(method, at, headers={name: b"\xed\xa0\xbd"}, json={"audio_url": URL}, stream=True)
            assert sent.status_code < 500, (path, name)
            sent.close()

    assert tried > 8
    assert "\\ud8" not in str(dump_keys(redis, prefix)).lower()


@pytest.mark.parametrize("body", [b'"\xed\xa0\xbd"', b'{"name": "\xed\xa0\xbd"}', b'{"\\ud83d": {"\\ude00": 1}}'])
def test_half_a_character_in_bytes_is_rejected_as_well(gateway: Gateway, body: bytes) -> None:
    """Python's JSON reader accepts it."""
    sent = gateway("POST", "/v1/jobs", data=body, headers={"Content-Type": "application/json"})

    assert all("half a character" in message for message in problem(sent, 422, "invalid").values())


def test_a_form_with_half_a_character_does_nothing(local: Gateway, queue: VoiceQueue) -> None:
    """Browsers send none."""
    page = local("GET", "/controls", key=None).text
    token = page.partition('name="token" value="')[2].partition('"')[0]
    kind = {"Content-Type": "application/x-www-form-urlencoded"}

    sent = local("POST", "/do/pause", key=None, data=f"token={token}&reason={IN_A_URL}", headers=kind)

    assert (sent.status_code, "reason: contains half a character" in sent.text) == (422, True)
    assert queue.status().gate.is_open
