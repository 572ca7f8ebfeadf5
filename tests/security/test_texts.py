"""Attacks with texts: halves of characters at every entry, and what terminals and logs would obey."""

from __future__ import annotations

import inspect
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from config.logs import formatter
from config.settings import Settings
from tasks.archive.downloader import Bounds, Fetcher
from tasks.archive.storage import Shelf
from tasks.archive.task import ArchiveServices, keep
from tasks.enqueue import take
from tasks.musicapi import responses
from tests.integration.conftest import Build, voice
from tests.store.conftest import Command
from tests.store.life import NOW, brought_to, dump, make, song_of
from tests.support.jobs import sung
from tests.support.scripted import Request, Scripted, answer
from tests.web.conftest import Gateway, app_of, problem
from voicequeue import Code, Failure, Filter, InvalidJob, Job, RejectedMessage, Stage, State, VoiceQueue
from voicequeue.domain import serialization
from voicequeue.domain.timeouts import ArchivePatience
from voicequeue.errors import VoiceQueueError
from voicequeue.net.address_policy import Allowed
from voicequeue.storage.job_store import Store
from voicequeue.texts import halves, json_text, mended, shown

HALF = "cut \ud83d"
MENDED = "cut \ufffd"
SAID = "contains half a character (U+D83D)"
URL = "https://recordings.example/a.wav"

#: The bytes of half a character, as a query or a path would write them.
IN_A_URL = "%ED%A0%BD"

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


class Described:
    """What the API says of itself: where texts enter."""

    def __init__(self, gateway: Gateway) -> None:
        self._api: dict[str, Any] = app_of(gateway).openapi()

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Each method with its path and description; following has no end."""
        for path, methods in self._api["paths"].items():
            yield from ((method.upper(), path, found) for method, found in methods.items())

    def texts(self, schema: dict[str, Any], path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
        """The places in a value of that schema where it takes a text, those in lists and free names included."""
        if "$ref" in schema:
            schema = self._api["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
            yield from self.texts(choice, path)
        if schema.get("type") == "string":
            yield path
        for name, inner in schema.get("properties", {}).items():
            yield from self.texts(inner, (*path, name))
        if isinstance(schema.get("additionalProperties"), dict):
            yield from self.texts(schema["additionalProperties"], (*path, "free"))
            yield (*path, HALF)
        if "items" in schema:
            yield from self.texts(schema["items"], (*path, 0))

    def parameters(self, operation: dict[str, Any], where: str) -> list[str]:
        """The parameters there that take a text."""
        found = (each for each in operation.get("parameters", ()) if each["in"] == where)
        return [each["name"] for each in found if list(self.texts(each["schema"]))]


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


# ── what is kept whatever it is can be shown by every door ─────────────────────────────────────────


def _kept(store: Store, redis: Redis, prefix: str) -> Job:
    """Everything that is kept whatever it is, with half a character in each of its texts; a job that has it all."""
    nested = {"name": HALF, HALF: [HALF, {"a": HALF}]}
    store.rejects.add(RejectedMessage(NOW, HALF, HALF, HALF, nested))
    store.rejects.add(RejectedMessage(NOW, HALF, HALF, HALF, HALF))
    older = {"at": NOW, "message_id": HALF, "task": HALF, "reason": HALF, "job": nested}
    redis.lpush(f"{{{prefix}}}:rejects", json.dumps(older))
    with pytest.raises(InvalidJob):
        take(store, [], {"job": {"audio_url": URL, HALF: HALF}}, message_id=HALF, now=NOW)
    with pytest.raises(InvalidJob, match="id: contains half"):
        take(store, [], {"job": {"audio_url": URL}}, message_id=HALF, now=NOW)
    song_of(store, name="whole 🎵", batch="spring")
    job = brought_to(store, State.PENDING, sung(callback_url="https://hooks.example/x"))
    failure = serialization.failure_text(Failure(Code.UPSTREAM_FAILED, Stage.VOICE, HALF))
    fields = {"failure": failure, "persona_id": HALF, "voice_name": HALF, "answer": HALF}
    failed = make(store, job, State.FAILED, reason=HALF, fields=fields)
    store.controls.close("cooldown", HALF, NOW)
    store.callbacks.claim(store.callbacks.hand_out(NOW, patience=60), NOW, lease=60)
    for callback in store.callbacks.pending():
        store.callbacks.give_up(callback.id, NOW, HALF, tried=True)
    return failed


def test_every_get_answers_whatever_was_kept(gateway: Gateway, store: Store, redis: Redis, prefix: str) -> None:
    """By what the API says of itself; rejected messages of an older release included."""
    job = _kept(store, redis, prefix)
    for method, path, _ in Described(gateway).operations():
        if method == "GET" and path != "/readyz":  # which says that no worker is there
            sent = gateway(method, path.format(name="spring", job_id=job.id), stream=path == "/v1/events")
            assert sent.status_code == 200, (path, sent.text)
            sent.close()

    told = gateway.get("/v1/rejects")["rejects"]
    assert [each["message_id"] for each in told] == [MENDED] * 5
    assert told[2]["job"] == told[4]["job"] == {"name": MENDED, MENDED: [MENDED, {"a": MENDED}]}
    assert gateway.get(f"/v1/jobs/{job.id}")["failure"]["message"] == MENDED


def test_every_page_and_command_shows_whatever_was_kept(
    local: Gateway, command: Command, store: Store, redis: Redis, prefix: str
) -> None:
    """With a sign in place of what cannot be shown."""
    job = _kept(store, redis, prefix)

    for path in ("/", "/?state=failed", f"/job/{job.id}", "/batches", "/controls", "/trend"):
        assert local("GET", path, key=None).status_code == 200
    assert MENDED in local("GET", f"/job/{job.id}", key=None).text
    for arguments in (["job", job.id], ["jobs"], ["status"], ["rejects"], ["callbacks"], ["export"], ["personas"]):
        assert command(*arguments).code == command(*arguments, "--json").code == 0, arguments
    assert MENDED in command("rejects").out
    assert MENDED in command("job", job.id).out


#: What the library is asked with, by the names of arguments.
_GIVEN: dict[str, Any] = {
    **dict.fromkeys(("job_id", "task_id", "persona_id", "callback_id", "batch", "after", "cursor", "by", "name"), HALF),
    "job_ids": [HALF],
    "callback_ids": [HALF],
    "url": f"https://a.example/{HALF}",
    "job": {"audio_url": URL, "name": HALF},
    "jobs": [{"audio_url": URL, "metadata": {HALF: "x"}}],
    "action": "retry",
    "token": HALF,
    "stage": HALF,
    "state": HALF,
    "wanted": Filter(),
    "findings": [],
}


def test_no_method_of_the_library_stores_half_a_character_or_chokes_on_it(
    queue: VoiceQueue, redis: Redis, prefix: str
) -> None:
    """Each refuses it in words of its own, or finds nothing of that name."""
    for name, method in inspect.getmembers(VoiceQueue, inspect.isfunction):
        # `watch` never ends; `waits_for` takes a job that was read.
        if name.startswith("_") or name in ("close", "watch", "waits_for"):
            continue
        parameters = list(inspect.signature(method).parameters.values())[1:]
        given = {each.name: _GIVEN[each.name] for each in parameters if each.name in _GIVEN or _is_needed(each)}
        if name in ("call_back_batch", "limit_batch"):
            given["name"] = "spring"
        for left_out in [None, *(each.name for each in parameters if each.default is not each.empty)]:
            asked = {argument: value for argument, value in given.items() if argument != left_out}
            said = _said(method, queue, asked)
            assert "Unicode" not in said, (name, asked)
            said.encode()

    assert "cut" not in str(dump(redis, prefix))


def _said(method: Any, queue: VoiceQueue, asked: dict[str, Any]) -> str:
    """What a method says to that: its answer, or its error, which is none of Python's encoders."""
    try:
        found = method(queue, **asked)
        return repr(list(islice(found, 1)) if isinstance(found, Iterator) else found)
    except (VoiceQueueError, ValueError, LookupError, TypeError) as error:
        return type(error).__name__ if isinstance(error, UnicodeError) else str(error)


def _is_needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD


@pytest.mark.parametrize(
    "texts", [{"called": HALF}, {"metadata": {"a": HALF}}, {"metadata": {HALF: "a"}}, {"batch": HALF}]
)
def test_no_filter_asks_for_half_a_character(texts: dict[str, Any]) -> None:
    """It could match nothing, and might be taken for another text."""
    with pytest.raises(InvalidJob, match="half a character"):
        Filter(**texts)


#: A byte that is not UTF-8 in an argument, as Python reads it.
BYTE = "caf\udce9"
COMMANDS = [
    ["jobs", "--search", BYTE], ["pause", "--reason", BYTE], ["enqueue", "--audio-url", URL, "--name", BYTE],
    ["enqueue", "--audio-url", URL, "--metadata", f"a={BYTE}"], ["enqueue", "--audio-url", f"{URL}{BYTE}"],
    ["enqueue", "--audio-url", URL, "--song", f'{{"prompt": "{BYTE}"}}'],
    ["enqueue", "--audio-url", URL, "--song", '{"prompt": "\\ud83d"}'],
    ["ingest", "-", "--batch", "b", "--callback-url", f"{URL}{BYTE}"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda each: each[-2])
def test_an_argument_with_half_a_character_is_refused_by_its_name(
    command: Command, queue: VoiceQueue, arguments: list[str]
) -> None:
    """Exit code 2, as for any wrong input; nothing is enqueued or held."""
    ended = command(*arguments)

    assert (ended.code, "half a character" in ended.err.replace("\n", " ")) == (2, True), ended.err
    assert (list(queue.jobs()), queue.status().gate.open) == ([], True)


@pytest.mark.parametrize(
    "arguments", [["job", BYTE], ["cancel", BYTE], ["jobs", "--batch", BYTE], ["archive", "--retry", "--job", BYTE]]
)
def test_a_name_with_half_a_character_is_one_that_nobody_has(command: Command, arguments: list[str]) -> None:
    """It is said so, and can be shown."""
    ended = command(*arguments)

    assert ended.code in (1, 2)
    (ended.out + ended.err).encode()


def test_a_file_whose_columns_are_no_utf8_is_refused_in_words(command: Command) -> None:
    """Each of its rows would be."""
    ended = command("ingest", "-", "--batch", "b", stdin=f"audio_url,metadata.caf\xe9\n{URL},1\n".encode("latin-1"))

    assert (ended.code, "half a character" in ended.err.replace("\n", " ")) == (2, True)


# ── upstream ───────────────────────────────────────────────────────────────────────────────────────


def _upstream(cdn: str) -> Any:
    """Takes each order, and gives a voice and songs with half a character in each of their texts, but for ids."""
    texts = ("title", "tags", "lyrics", "mv", "created_at", "gpt_description_prompt")
    song = {**dict.fromkeys(texts, HALF), "clip_id": "c1", "state": "succeeded", "audio_url": f"{cdn}/1.mp3"}
    voice_made = {"code": 200, "data": {"persona_id": "p1", "name": HALF}, "message": HALF}

    def script(request: Request) -> Iterable[bytes]:
        if request.method == "POST":
            return [answer({"task_id": request.path[-5:], "message": HALF})]
        return [answer({"code": 200, "data": [song]} if "eate" in request.path else voice_made)]

    return script


def test_what_was_paid_for_is_kept_though_half_a_character_is_in_each_of_its_texts(
    build_bench: Build, gateway: Gateway, command: Command, store: Store, tmp_path: Path
) -> None:
    """From MusicAPI to HTTP, the page, the command, the callback and the archive."""
    mp3 = answer("ID3\x04" + "x" * 4_000, headers=["Content-Type: audio/mpeg"])
    asked = voice().model_copy(update={"callback_url": "https://hooks.example/x"})
    with Scripted(lambda _: [mp3]) as cdn, Scripted(_upstream(cdn.url)) as upstream:
        bench = build_bench(upstream.url)
        [job_id] = bench.ordered(asked)
        assert bench.poll_when_due(Stage.VOICE, [job_id]).to_music == [job_id]
        bench.submit(Stage.MUSIC, [job_id])
        bench.poll_when_due(Stage.MUSIC, [job_id])
        _archive(store, job_id, bench.clock.now, tmp_path)

    job = bench.job(job_id)
    assert (job.state, job.persona_id, job.credits) == (State.SUCCEEDED, "p1", 19)
    assert [(clip.clip_id, clip.title, clip.lyrics) for clip in job.clips] == [("c1", MENDED, MENDED)]
    told = gateway.get(f"/v1/jobs/{job_id}")
    assert told["clips"][0]["title"] == MENDED
    assert [each["id"] for each in gateway.get("/v1/jobs", params={"called": MENDED})["jobs"]] == [job_id]
    assert MENDED in command("job", job_id).out
    assert MENDED in command("export").out
    assert command("export", "--json").json()["clips"][0]["title"] == MENDED
    [call] = store.callbacks.claim(store.callbacks.hand_out(bench.clock.now, patience=60), bench.clock.now, lease=60)
    assert json.loads(call.body())["data"]["clips"][0]["title"] == MENDED
    [described] = tmp_path.rglob("*.json")
    assert json.loads(described.read_text(encoding="utf-8"))["title"] == MENDED


BROKEN_IDS: list[Any] = [
    {"task_id": HALF},
    {"data": {"taskId": HALF}, "id": "of-the-request"},
    {"task_id": HALF, "job_id": "another"},
    {"task_ids": [HALF, "another"]},
    {"data": {"id": HALF}},
]


@pytest.mark.parametrize("body", BROKEN_IDS, ids=str)
def test_an_id_with_half_a_character_is_no_id_and_no_other_is_taken_for_it(body: Any) -> None:
    """Mended it would be one that upstream does not know, or another order's; so it is read nowhere."""
    assert responses.accepted(body) is None
    assert responses.task_id(body) is None


def test_a_voice_with_half_a_character_in_its_id_is_not_sung_with() -> None:
    """Another voice might be. A song is known by its place, with its link."""
    made = {"code": 200, "data": {"state": "complete", "id": "p2", "persona": {"persona_id": HALF, "id": "p3"}}}
    song = {"clip_id": HALF, "id": "another", "state": "succeeded", "audio_url": URL}

    assert responses.reading({"persona_id": HALF}, Stage.VOICE) is None
    assert not isinstance(responses.reading(made, Stage.VOICE), responses.VoiceReady)
    found = responses.reading({"data": [song]}, Stage.MUSIC)
    assert isinstance(found, responses.MusicReady)
    assert [(clip.clip_id, clip.audio_url) for clip in found.clips] == [("clip-1", URL)]


def test_an_order_whose_id_came_broken_is_kept_for_review(build_bench: Build) -> None:
    """It was charged: it is not asked about by another id, and not ordered again."""
    asked: list[Request] = []

    def script(request: Request) -> list[bytes]:
        asked.append(request)
        return [answer({"task_id": HALF})]

    with Scripted(script) as upstream:
        bench = build_bench(upstream.url)
        [job_id] = bench.admitted(voice())
        bench.submit(Stage.VOICE, [job_id])

    assert bench.job(job_id).state is State.UNSURE
    assert [request.method for request in asked] == ["POST"]


def _archive(store: Store, job_id: str, now: float, folder: Path) -> None:
    """Archive the songs of a job there."""
    assert store.archive.again([job_id], now) == [True]
    fetcher = Fetcher(allowed=Allowed.of("127.0.0.1", setting="VOICEQUEUE_AUDIO_ALLOW"), bounds=Bounds())
    patience = ArchivePatience(first_s=30, most_s=3_600, for_s=86_400, lease_s=60)
    shelf = Shelf.at(str(folder / "songs"))
    keep(ArchiveServices(store.archive, store.pulses["archive"], fetcher, shelf, patience, lambda: now), [job_id])


# ── logs ───────────────────────────────────────────────────────────────────────────────────────────

HOSTILE = "\x1b]0;owned\x07\x9b31m\u202e\u2066\u200f\u2028\r\n2026-01-01T00:00:00Z [info] paid \ud800"


def _line(*, in_json: bool, error: Any = None) -> str:
    written = formatter(Settings(_env_file=None), in_json=in_json)
    extra = {"job": HOSTILE, "reason": HOSTILE, "path": HOSTILE}
    record = logging.getLogger("voicequeue").makeRecord(
        "voicequeue", logging.INFO, __file__, 1, "said: %s", (HOSTILE,), error, extra=extra
    )
    return written.format(record)


@pytest.mark.parametrize("in_json", [True, False], ids=["json", "text"])
def test_no_line_of_a_log_speaks_to_the_terminal_or_begins_another(in_json: bool) -> None:
    """Whatever upstream or a caller wrote into it; JSON gives it back exactly."""
    line = _line(in_json=in_json)

    written = line.replace("\x1b[", "") if sys.stderr.isatty() else line  # our own colours
    assert [letter for letter in written if not letter.isprintable()] == []
    if in_json:
        assert json.loads(line)["reason"] == HOSTILE
    else:
        assert r"\x1b]0;owned\x07\x9b31m\u202e\u2066\u200f\u2028\r\n2026" in line


def test_no_traceback_in_a_log_begins_a_line_of_its_own() -> None:
    """Its lines are set in, those of the error's text among them."""
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        first, *rest = _line(in_json=False, error=sys.exc_info()).splitlines()

    assert "said: " in first
    assert all(line.startswith("  ") or "Traceback" in line for line in rest), rest
    assert not [letter for line in rest for letter in line if not letter.isprintable()]
