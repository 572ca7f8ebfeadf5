"""Attacks with texts: halves of characters at every entry, and what terminals and logs would obey."""

from __future__ import annotations

import json
from typing import Any

import pytest
from redis import Redis

from tests.security.inputs.halves import HALF, IN_A_URL, MENDED, SAID, URL, Described
from tests.store.life import dump
from tests.web.conftest import Gateway, problem
from voicequeue import VoiceQueue
from voicequeue.texts import halves, json_text, mended, shown

# ── the one check ──────────────────────────────────────────────────────────────────────────────────


def test_half_a_character_is_found_wherever_it_is_in_a_value() -> None:
    """In names and values, at any depth; the path names it and can itself be shown."""
    value = {"a": [HALF, {"b": HALF}], HALF: {"c": "whole 🎵"}, "d": None}

    found = dict(halves(value))

    assert set(found) == {"a.0", "a.1.b", MENDED}
    assert all(message.startswith(SAID) for message in found.values())
    assert "".join(found).encode()


def test_a_value_that_is_nested_deeper_than_python_calls_is_looked_through() -> None:
    """It costs no stack."""
    value: Any = HALF
    for _ in range(20_000):
        value = [value]

    assert len(list(halves(value))) == 1


def test_what_a_terminal_obeys_or_hides_is_escaped_and_the_rest_is_not() -> None:
    """Letters of all scripts, wide spaces and joined emoji are shown as they are."""
    obeyed = "\x1b[31m\x07\x7f\x9b\u202e\u2066\u200f\u061c\u2028\ufeff\U000e0041\ud800\r\n\t"
    plain = "Zoë, 山本\u3000花子, שלום, नमस्ते, 👩\u200d🎤 ❤️ \\x1b"

    assert shown(obeyed) == (r"\x1b[31m\x07\x7f\x9b\u202e\u2066\u200f\u061c\u2028\ufeff\U000e0041\ud800\r\n\t")
    assert shown("a\nb\tc\x1b", keep="\n\t") == "a\nb\tc\\x1b"
    assert shown(plain) == plain
    assert json.loads(json_text({obeyed: plain})) == {obeyed: plain}
    assert shown(json_text(obeyed)) == json_text(obeyed)


# ── every entry over HTTP ──────────────────────────────────────────────────────────────────────────


def _holding(path: tuple[str | int, ...]) -> Any:
    """A value with half a character at that place."""
    found: Any = f"https://a.example/{HALF}"
    for part in reversed(path):
        found = [found] if isinstance(part, int) else {part: found}
    return found


def _field(path: tuple[str | int, ...]) -> str:
    return mended(".".join(map(str, path)))


def test_every_text_of_every_body_is_refused_by_its_field(gateway: Gateway, redis: Redis, prefix: str) -> None:
    """By what the API says of itself, so that no field is forgotten; nothing of it is stored."""
    api, tried = Described(gateway), 0
    for method, path, operation in api.operations():
        for kind, body in operation.get("requestBody", {}).get("content", {}).items():
            for place in api.texts(body["schema"]) if kind == "application/json" else ():
                sent = gateway(method, path.format(name="spring"), json=_holding(place))
                assert problem(sent, 422, "invalid")[_field(place)].startswith(SAID), (path, place)
                tried += 1

    assert tried > 40
    assert dump(redis, prefix) == {}


def test_every_text_of_every_row_is_refused_by_its_field(gateway: Gateway) -> None:
    """The rows around it are taken."""
    api = Described(gateway)
    # What a row says of its batch is refused whatever it is.
    places = [place for place in api.texts({"$ref": "VoiceJob"}) if place != ("batch",)]
    rows = [{"audio_url": URL}, *map(_holding, places), {"audio_url": URL, "name": "last"}]

    sent = gateway(
        "POST",
        "/v1/batches/spring/jobs",
        data="\n".join(map(json.dumps, rows)),
        headers={"Content-Type": "application/x-ndjson"},
    )

    first, *told, last, summary = map(json.loads, sent.text.splitlines())
    assert (first["outcome"], last["outcome"], summary["summary"]["complete"]) == ("new", "new", True)
    for place, row in zip(places, told, strict=True):
        named = {each["field"]: each["message"] for each in row["errors"]}
        assert named[_field(place).removeprefix("song.")].startswith(SAID), place


def test_every_text_parameter_is_refused_by_its_name(gateway: Gateway, redis: Redis, prefix: str) -> None:
    """In a query; in a path it names nothing, and a header has no such bytes for us."""
    api, tried = Described(gateway), 0
    for method, path, operation in api.operations():
        at = path.format(name="spring", job_id="nosuchjob")
        for name in (*api.parameters(operation, "query"), *operation.get("x-free-query", ())):
            sent = gateway(method, f"{at}?{name}{'x' * name.endswith('.')}={IN_A_URL}")
            named = problem(sent, 422, "invalid")
            assert next(iter(named)).startswith(name), (path, name)
            assert "half a character" in next(iter(named.values()))
            tried += 1
        for name in api.parameters(operation, "path"):
            sent = gateway(method, path.replace(f"{{{name}}}", IN_A_URL), json={"max_credits": 1})
            assert sent.status_code in (404, 415, 422), (path, sent.text)
        for name in api.parameters(operation, "header"):
            sent = gateway(method, at, headers={name: b"\xed\xa0\xbd"}, json={"audio_url": URL}, stream=True)
            assert sent.status_code < 500, (path, name)
            sent.close()

    assert tried > 8
    assert "\\ud8" not in str(dump(redis, prefix)).lower()


@pytest.mark.parametrize("body", [b'"\xed\xa0\xbd"', b'{"name": "\xed\xa0\xbd"}', b'{"\\ud83d": {"\\ude00": 1}}'])
def test_half_a_character_in_bytes_is_refused_as_well(gateway: Gateway, body: bytes) -> None:
    """Python's reader of JSON lets it pass."""
    sent = gateway("POST", "/v1/jobs", data=body, headers={"Content-Type": "application/json"})

    assert all("half a character" in message for message in problem(sent, 422, "invalid").values())


def test_a_form_with_half_a_character_does_nothing(local: Gateway, queue: VoiceQueue) -> None:
    """Browsers send none."""
    page = local("GET", "/controls", key=None).text
    token = page.partition('name="token" value="')[2].partition('"')[0]
    kind = {"Content-Type": "application/x-www-form-urlencoded"}

    sent = local("POST", "/do/pause", key=None, data=f"token={token}&why={IN_A_URL}", headers=kind)

    assert (sent.status_code, "why: contains half a character" in sent.text) == (422, True)
    assert queue.status().gate.open
