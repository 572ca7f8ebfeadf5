"""The users of config/valkey/users.acl in a real Valkey: what each may read and write, key by key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.security.broker.deployment import admin_url, make_secrets, run_valkey
from tests.support.composed import ROOT
from tests.support.jobs import voice
from tests.support.messages import INTAKE_KEY, NAME, plain_client
from tests.support.rights import add_rules, rules
from voicequeue import JobNotFoundError, Scope, StoreUnavailableError, VoiceQueue
from voicequeue.cli.examine import run_checks
from voicequeue.diagnostics import shared_database
from voicequeue.diagnostics.check_result import CheckResult
from voicequeue.diagnostics.checkup import inspect, results
from voicequeue.storage.celery_queues import QUEUE_NAMES
from voicequeue.storage.job_store import JobStore

PASSWORD = "x" * 40
USERS = ("app", "worker", "gateway", "flower", "producer", "monitor")
ROOT_KEY = "{voicequeue}:"

#: What belongs to the gateway, and what only grows. Their keys need not exist yet.
KEYS = {"api_keys", "api_keys:version", "api_keys:last_used", "api_keys:rate"}
OF_THE_GATEWAY = {"session", "sessions", "failed_logins", "failed_logins:attempts", *KEYS}
TRAIL = "audit_log"


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """Start a Valkey with these users as the compose file does; return an administrator's client."""
    home = tmp_path_factory.mktemp("valkey")
    make_secrets(home, **{f"VALKEY_{user.upper()}_PASSWORD": PASSWORD for user in USERS})
    with run_valkey(home, {}) as port, Redis.from_url(admin_url(home, port), decode_responses=True) as client:
        yield client


@pytest.fixture
def url(admin: Redis) -> Iterator[Callable[[str], str]]:
    """Return a function that gives the Redis URL of a user; delete all keys afterwards."""
    port = admin.connection_pool.connection_kwargs["port"]
    yield lambda user: f"redis://{user}:{PASSWORD}@127.0.0.1:{port}/0"
    admin.flushall()


def may(admin: Redis, user: str, *command: str) -> bool:
    """Return whether Valkey permits this command to the user."""
    return bool(admin.acl_dryrun(user, *command) == "OK")


def names_of_keys() -> set[str]:
    """Return the names of the queue's keys, as the scripts document them."""
    text = (ROOT / "voicequeue" / "storage" / "scripts" / "lib" / "keys.lua").read_text(encoding="utf-8")
    names = re.findall(r"^--   ([a-z_]+(?::[a-z_]+)*)[ :]", text, re.MULTILINE)
    return {*names, *(f"celery:{queue}" for queue in QUEUE_NAMES)} - {"celery"}


# ── processes ─────────────────────────────────────────────────────────────────────────────────────


def test_each_process_may_write_every_key_but_those_of_others(admin: Redis) -> None:
    """A new key of the queue is writable for workers and gateway, unless its name makes it the other's. They read
    all of them, but workers no API key."""
    names = (names_of_keys() | OF_THE_GATEWAY) - {TRAIL}
    denied = {
        user: {name for name in names if not may(admin, user, "SET", f"{ROOT_KEY}{name}", "x")}
        for user in ("app", "worker", "gateway")
    }

    assert len(names) > 50
    assert denied == {
        "app": set(),
        "worker": OF_THE_GATEWAY,
        "gateway": {f"celery:{queue}" for queue in QUEUE_NAMES},
    }
    for user in denied:
        unread = {name for name in names if not may(admin, user, "GET", f"{ROOT_KEY}{name}:x")}
        assert unread == (KEYS if user == "worker" else set()), user
        assert may(admin, user, "EVALSHA", "0" * 40, "1", ROOT_KEY), user


@pytest.mark.parametrize(
    ("user", "command"),
    [
        *product(("worker", "gateway"), ("DEL KEY", "XSETID KEY 9-9", "RENAME KEY {voicequeue}:x", "SET KEY x")),
        ("gateway", "XDEL KEY 1-1"),
    ],
)
def test_no_process_can_change_an_entry_of_the_audit_trail(url: Callable[[str], str], user: str, command: str) -> None:
    """It appends entries, in scripts as well, and none before the last one. Maintenance trims the oldest, and deletes
    those that an erasure replaces; the gateway, which is exposed to the network, does neither."""
    key = f"{ROOT_KEY}{TRAIL}"
    words = command.replace("KEY", key).split()
    with Redis.from_url(url(user)) as redis:
        assert redis.xadd(key, {"a": "b"}, id="5-5")
        assert redis.eval("return redis.call('XADD', KEYS[2], '*', 'a', 'b')", 2, ROOT_KEY, key)
        with pytest.raises(ResponseError, match="permission"):
            redis.execute_command(*words)
        with pytest.raises(ResponseError, match=r"permission|can't access"):
            redis.eval("return redis.call(unpack(ARGV))", 2, ROOT_KEY, key, *words)
        with pytest.raises(ResponseError, match="equal or smaller"):
            redis.xadd(key, {"a": "forged"}, id="4-4")
        assert redis.xlen(key) == 2
        if user == "worker":
            assert redis.xtrim(key, maxlen=1, approximate=False) == 1


def test_a_worker_can_make_neither_a_login_nor_an_api_key(url: Callable[[str], str]) -> None:
    """So a worker that was taken over acts as a worker, and under no person's name."""
    with VoiceQueue(url("worker")) as queue:
        sessions = JobStore(Redis.from_url(url("worker"), decode_responses=True)).sessions
        with pytest.raises(ResponseError, match="permission"):
            sessions.create("ana", lambda *_: "proof", 1.0)
        assert queue.enqueue(voice()).id


@pytest.mark.parametrize("user", ["worker", "producer", "flower", "monitor"])
def test_only_the_gateway_and_operators_reach_api_keys(admin: Redis, url: Callable[[str], str], user: str) -> None:
    """Others can neither read nor write them, also not in a script or under another name."""
    with VoiceQueue(url("app"), namespace="*") as queue, VoiceQueue(url(user), namespace="*") as other:
        key = queue.create_api_key("shop", [Scope.READ], namespace="shop").key
        for refused in (
            other.api_keys,
            lambda: other.create_api_key("own", [Scope.ADMIN], namespace="*"),
            lambda: other.edit_api_key("shop", scopes=[Scope.READ, Scope.ENQUEUE]),
            lambda: other.rotate_api_key("shop"),
            lambda: other.revoke_api_key("shop"),
        ):
            with pytest.raises(StoreUnavailableError, match=r"permission|can't access"):
                refused()
        assert queue.api_keys() == [key]
    for name in KEYS:
        for command in ("GET", "HGETALL", "TYPE", "DUMP", "DEL", "SET _ x", "HSET _ shop x", "COPY _ {voicequeue}:x"):
            verb, *rest = command.replace("_ ", "").split()
            assert not may(admin, user, verb, f"{ROOT_KEY}{name}", *rest), command
    with VoiceQueue(url("gateway"), namespace="*") as queue:
        assert queue.revoke_api_key("shop").revoked_at


def test_the_gateway_can_take_no_message_of_a_worker(admin: Redis) -> None:
    """It sends polls only; orders and jobs are in the hands of the scripts."""
    for queue in QUEUE_NAMES:
        key = f"{ROOT_KEY}celery:{queue}"
        assert may(admin, "gateway", "LLEN", key)
        assert may(admin, "gateway", "LPUSH", key, "x") == (queue == "poll")
        assert not any(
            may(admin, "gateway", *command) for command in (("RPOP", key), ("BRPOP", key, "1"), ("DEL", key))
        )


# ── producers ─────────────────────────────────────────────────────────────────────────────────────


def test_a_producer_can_send_jobs_and_nothing_else(admin: Redis, url: Callable[[str], str]) -> None:
    """With Celery's client in any priority, or with LPUSH. It reads no message and no job, and lists no key."""
    with plain_client(url("producer")) as client:
        for priority in (None, 0, 3, 6, 9):
            client.send_task(NAME, kwargs={"job": {}}, queue="intake", priority=priority, retry=False)
    with Redis.from_url(url("producer")) as redis:
        redis.lpush(INTAKE_KEY, "{}")
        assert redis.llen(INTAKE_KEY) == 3
    keys = [f"{ROOT_KEY}{name}" for name in (*names_of_keys(), "celery:unacked", "celery:_kombu.binding.poll")]
    allowed = {(name, key) for name in COMMANDS for key in keys if may(admin, "producer", name, key, *COMMANDS[name])}

    assert len(admin.keys(f"{INTAKE_KEY}*")) == 4  # one for each priority
    assert allowed == {("LPUSH", INTAKE_KEY), ("LLEN", INTAKE_KEY)}
    assert [command for command in SEARCHES if may(admin, "producer", *command.split())] == []


#: Commands with one key, and their other arguments.
COMMANDS = {
    **dict.fromkeys(("GET", "HGETALL", "RPOP", "SMEMBERS", "LLEN", "DEL", "TYPE", "INCR"), ()),
    **{"LRANGE": ("0", "-1"), "LPUSH": ("x",), "SADD": ("x",), "XADD": ("*", "a", "b"), "EXPIRE": ("1",)},
}
SEARCHES = ("SCAN 0", "KEYS *", "RANDOMKEY", "DBSIZE", "INFO", "EVAL x 0", "PUBLISH x y", "PSUBSCRIBE *", "FLUSHALL")


def test_a_producer_cannot_use_the_library(url: Callable[[str], str]) -> None:
    """Its scripts write every structure of the queue: an app with the library is trusted as an operator."""
    with VoiceQueue(url("producer")) as queue, pytest.raises(StoreUnavailableError, match="no permission"):
        queue.enqueue(voice())


def test_a_producer_with_the_right_to_read_jobs_reads_those_whose_id_it_knows(
    admin: Redis, url: Callable[[str], str]
) -> None:
    """The selector in docs/guides/secure.md. A pattern cannot separate the jobs of one app from those of another:
    only their ids protect them. The producer cannot derive the id of a job whose key it knows, search for ids, change
    a job, or read more than the record."""
    [rule] = re.findall(r"`(\(%R.*?\))`", (ROOT / "docs" / "guides" / "secure.md").read_text(encoding="utf-8"))
    add_rules(admin, "reader", *rules("producer", "voicequeue"), rule)
    with VoiceQueue(url("app")) as queue:
        spec = voice(key="order-17")
        job = queue.enqueue(spec)
    with VoiceQueue(url("reader")) as queue:
        assert queue.get(job.id) == job
        for guessed in (spec.job_id(), spec.job_id(b"", "shop"), "aaaaaaaaaaaaaaaa"):
            with pytest.raises(JobNotFoundError):
                queue.get(guessed)
        for refused in (queue.status, lambda: queue.timeline(job.id), lambda: queue.cancel(job.id)):
            with pytest.raises(StoreUnavailableError, match="no permission"):
                refused()
    for command in (
        "SCAN 0",
        "GET {voicequeue}:id_secret",
        "HSET {voicequeue}:job:x a b",
        "TYPE {voicequeue}:job:x",
        "HGETALL {voicequeue}:batch:x",
    ):
        assert not may(admin, "reader", *command.split()), command


# ── monitoring, the doctor ────────────────────────────────────────────────────────────────────────


def test_monitoring_sees_numbers_and_no_key(admin: Redis, url: Callable[[str], str]) -> None:
    """Neither names of keys nor commands of others, whose arguments are content of jobs."""
    with Redis.from_url(url("monitor")) as redis:
        assert redis.info()["valkey_version"]
        assert redis.dbsize() == 0
    for command in ("SLOWLOG GET", "MONITOR", "CLIENT LIST", "SCAN 0", "GET x", "CONFIG GET *", "MEMORY STATS"):
        assert not may(admin, "monitor", *command.split()), command


def check(url: str) -> list[CheckResult]:
    """Return what the doctor reports of Redis."""
    with Redis.from_url(url, decode_responses=True) as redis:
        database = shared_database.inspect(redis, "voicequeue")
        reported = [*results(inspect(redis, JobStore(redis))), *shared_database.results(database)]
    return [result for result in reported if result.level != "ok"]


def test_the_doctor_names_the_right_that_it_misses(admin: Redis, url: Callable[[str], str]) -> None:
    """Without INFO it checks everything else."""
    add_rules(admin, "app", "-@dangerous")
    try:
        result, *others = check(url("app"))
    finally:
        add_rules(admin, "app", "+info", "+config|get")

    assert result.check == "redis rights"
    assert "does not permit INFO to the user app" in result.message
    assert "persistence" in result.message
    assert "ACL SETUSER app +info" in result.action
    assert {other.check for other in others} == {"workers"}


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("producer", "Redis refuses a command: User producer has no permissions to run the 'time' command"),
        ("flower", "Redis refuses a command: User flower has no permissions to run the 'time' command"),
        ("stranger", "Redis refuses the login: invalid username-password pair or user is disabled."),
    ],
)
def test_the_doctor_distinguishes_a_refused_user_from_a_silent_redis(
    url: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    user: str,
    message: str,
) -> None:
    """It names the user and the command, and not the password."""
    monkeypatch.setenv("REDIS_URL", url(user))
    monkeypatch.setattr("voicequeue.cli.examine._worker_checks", lambda: None)

    assert run_checks(strict=False, as_json=True) == 3

    output = capsys.readouterr().out
    [result] = [check for check in json.loads(output)["checks"] if check["check"] == "redis rights"]
    assert (result["level"], result["message"]) == ("unreachable", message)
    assert PASSWORD not in output


@pytest.fixture
def acl_file() -> Path:
    """Return the file of the users."""
    return ROOT / "config" / "valkey" / "users.acl"


def test_users_without_a_password_do_not_exist(tmp_path: Path, acl_file: Path) -> None:
    """Those of producers and of monitoring are optional."""
    make_secrets(tmp_path)
    with run_valkey(tmp_path, {}) as port, Redis.from_url(admin_url(tmp_path, port)) as client:
        assert set(client.acl_users()) == {*USERS[:4], "admin", "default", "health"}
    assert all(f"user {user} " in acl_file.read_text() for user in USERS)
