"""`voicequeue doctor`: of what is sound it says nothing, of what is broken what to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from pydantic import SecretStr

from config.settings import Settings
from simulator.process import Simulator
from tests.integration.doctor.conftest import KEY, SECRET, Setup
from tests.integration.rewriting import Rewriting
from tests.store.life import accepted, charging, one, put, refused
from tests.support.jobs import voice
from voicequeue.auth import signatures
from voicequeue.cli.examine import examine
from voicequeue.diagnostics.checkup import QUEUES
from voicequeue.domain.job import State
from workers.local.stack import free_port
from workers.process_info import facts


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
        (without_persistence, "persistence", "a restart loses", "appendonly yes"),
        (with_eviction, "eviction", "allkeys-lru", "maxmemory-policy noeviction"),
        (with_too_few_replicas, "redis", "refuses writes: NOREPLICAS", "connect them"),
        (with_a_wrong_key, "upstream", "does not accept MUSICAPI_KEY", "voicequeue resume"),
        (with_a_clock_that_is_off, "clock", "the clock of g1 is 301 s behind", "chrony"),
        (without_a_worker, "workers", "no worker has sent a heartbeat", "celery -A workers.app worker"),
        (with_an_unreachable_public_url, "public url", "no response from", "check that `web` is running"),
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
        "VOICEQUEUE_MAX_INFLIGHT is not a setting",
        "did you mean VOICEQUEUE_MAX_IN_FLIGHT?",
    )


def test_another_server_at_the_public_url_is_no_gateway_of_ours(setup: Setup, simulator: Simulator) -> None:
    """It answers, in its own words."""
    setup.env("VOICEQUEUE_PUBLIC_URL", simulator.api_url)
    assert requests.get(simulator.api_url, timeout=5).status_code == 404

    [remark] = [each for each in setup.told()[1] if each["check"] == "public url"]

    assert "not a gateway of this queue" in remark["what"]


def test_work_that_lies_around_is_named(setup: Setup) -> None:
    """A closed gate, jobs that somebody must look at, messages that pile up."""
    setup.store.controls.close("unauthorized", "401", time.time())
    setup.redis.zadd("{voicequeue}:state:unsure", {"j1": time.time()})
    setup.redis.rpush(f"{{voicequeue}}:celery:{QUEUES[0]}", *["x"] * 1_001)

    told = {each["check"]: each["what"] for each in setup.told()[1]}

    assert told == {
        "gate": "the gate is closed: unauthorized (401)",
        "jobs": "1 jobs may have been charged",
        "messages": "1,001 messages are waiting in the queue submit",
    }
    assert setup.store.counts()[State.UNSURE] == 1


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

    assert named == f"upstream refuses job {poison} while it accepts others, 2 times so far (persona not found)"


def test_a_person_reads_what_to_do_below_each_finding(setup: Setup) -> None:
    """The worst comes last, where the eye is."""
    setup.redis.config_set("maxmemory-policy", "allkeys-lru")

    code = examine(strict=False, as_json=False)
    told = setup.capsys.readouterr().out

    assert code == 1
    assert told.index("✓ persistence") < told.index("✗ eviction") < told.index("→ maxmemory-policy noeviction")
    assert told.rstrip().endswith("1 errors, 0 warnings")
