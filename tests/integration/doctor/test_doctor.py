"""`voicequeue doctor` reports each problem and what to do about it."""

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
from tests.integration.rewriting import RewritingProxy
from tests.store.life import accept_order, claim_admitted, enqueue_jobs, get_job, refuse_order
from tests.support.jobs import voice
from voicequeue.auth import signatures
from voicequeue.auth.callback_secrets import new_secret
from voicequeue.cli.examine import run_checks
from voicequeue.domain.callback_secrets import StoredSecret
from voicequeue.domain.states import State
from voicequeue.storage.celery_queues import QUEUE_NAMES
from voicequeue.storage.heartbeats import STORAGE_ERROR, STORAGE_FAILING_SINCE
from workers.local.ports import free_port
from workers.process_info import process_facts


def test_nothing_is_reported_for_a_deployment_without_problems(setup: Setup) -> None:
    """The exit code is 0, also with --strict."""
    assert setup.results(strict=True) == (0, [])


def without_persistence(setup: Setup) -> None:
    """Turn the append-only file off."""
    setup.redis.config_set("appendonly", "no")


def with_eviction(setup: Setup) -> None:
    """Let Redis evict keys."""
    setup.redis.config_set("maxmemory-policy", "allkeys-lru")


def with_too_few_replicas(setup: Setup) -> None:
    """Let Redis require a replica that does not exist."""
    setup.redis.config_set("min-replicas-to-write", 1)


def with_a_wrong_key(setup: Setup) -> None:
    """Give all processes a key that upstream rejects."""
    setup.env("MUSICAPI_KEY", "another-key")
    setup.send_heartbeat()


def with_a_clock_that_is_off(setup: Setup) -> None:
    """Set the gateway's clock off by more than the tolerance of webhooks."""
    setup.send_heartbeat("gateway", "g1", seconds_ahead=-301)


def without_a_worker(setup: Setup) -> None:
    """Remove all heartbeats."""
    setup.redis.flushall()


def with_an_unreachable_public_url(setup: Setup) -> None:
    """Set a public URL on which no server listens."""
    setup.env("VOICEQUEUE_PUBLIC_URL", f"http://127.0.0.1:{free_port()}")
    setup.send_heartbeat()


def with_a_full_disk_of_the_archive(setup: Setup) -> None:
    """Let a process on another host report that it cannot store songs."""
    since = setup.store.clock() - 5 * 60
    facts: dict[str, Any] = {
        STORAGE_ERROR: "the archive cannot be written: OSError (No space left on device)",
        STORAGE_FAILING_SINCE: since,
    }
    setup.send_heartbeat("archive", "r1", **facts)


def without_a_secret(setup: Setup) -> None:
    """Set a public URL without a secret."""
    setup.env("VOICEQUEUE_SECRET", "")


def with_flower_open(setup: Setup) -> None:
    """Let Flower listen on all interfaces without a login."""
    setup.env("FLOWER_ADDRESS", "0.0.0.0")


def with_another_secret(setup: Setup) -> None:
    """Report a worker with another secret than the gateway's."""
    settings = Settings(_env_file=None, secret="quite another secret of the same length or so")
    setup.store.heartbeats["worker"].record("w2", time.time(), process_facts(settings, "worker"))


def with_a_stalled_consumer(setup: Setup) -> None:
    """Report the only worker as one that has consumed no poll for 100 seconds."""
    setup.send_heartbeat(consumed={"poll": time.time() - 100})


def with_a_cancelled_consumer(setup: Setup) -> None:
    """Report the only worker as one whose consumer of polls was cancelled."""
    setup.send_heartbeat(consumed={"poll": time.time()}, cancelled=["poll"])


@pytest.mark.parametrize(
    ("broken", "check", "message", "action"),
    [
        (without_persistence, "persistence", "a restart loses", "appendonly yes"),
        (with_eviction, "eviction", "allkeys-lru", "maxmemory-policy noeviction"),
        (with_too_few_replicas, "redis", "refuses writes: NOREPLICAS", "connect them"),
        (with_a_wrong_key, "upstream", "does not accept MUSICAPI_KEY", "voicequeue resume"),
        (with_a_clock_that_is_off, "clock", "the clock of g1 is 301 s behind", "chrony"),
        (without_a_worker, "workers", "no worker has sent a heartbeat", "python -m workers worker"),
        (with_an_unreachable_public_url, "public url", "no response from", "check that `web` is running"),
        (
            with_a_full_disk_of_the_archive,
            "archive",
            "r1 cannot store songs, for 5 min now: the",
            "docs/guides/archive.md",
        ),
        (without_a_secret, "settings", "VOICEQUEUE_SECRET: is required", "in the environment or in .env"),
        (with_flower_open, "flower", "FLOWER_BASIC_AUTH: is required", "FLOWER_BASIC_AUTH=user:"),
        (with_a_stalled_consumer, "consumers", "has not consumed the queue poll for 100 s", "restart that process"),
        (with_a_cancelled_consumer, "consumers", "its consumer was cancelled", "restart that process"),
        (with_another_secret, "settings", "VOICEQUEUE_SECRET is not the same for", "the same environment"),
    ],
)
def test_each_problem_is_reported_with_what_to_do(
    setup: Setup, broken: Callable[[Setup], None], check: str, message: str, action: str
) -> None:
    """Only that problem is reported, and the exit code is 1."""
    broken(setup)

    code, results = setup.results()

    if broken is without_persistence:
        setup.redis.config_set("appendonly", "yes")
    assert code == 1
    [result] = results
    assert (result["check"], result["level"]) == (check, "error")
    assert message in result["message"]
    assert action in result["action"]
    assert all(hidden not in str(result) for hidden in (SECRET, KEY, "another-key"))


def test_another_version_of_a_process_is_a_warning(setup: Setup) -> None:
    """Releases run side by side during an upgrade, which may have been forgotten half done."""
    setup.send_heartbeat(name="w2", version="0.0.9")

    code, [result] = setup.results()

    assert (code, result["check"], result["level"]) == (0, "versions", "warning")
    assert "0.0.9 by w2" in result["message"]
    assert "finish the upgrade" in result["action"]


def test_no_worker_is_to_be_started_while_redis_accepts_no_heartbeats(setup: Setup) -> None:
    """Its workers may run."""
    without_a_worker(setup)
    setup.redis.config_set("min-replicas-to-write", 1)

    actions = {result["check"]: result["action"] for result in setup.results()[1]}

    assert actions["workers"] == "let Redis accept writes first: until then no heartbeat can arrive"


def test_a_job_whose_order_is_not_sent_is_reported_while_the_gate_is_open(setup: Setup) -> None:
    """Workers do not receive its message, or are too few. A closed gate is a cause of its own."""
    enqueue_jobs(setup.store, voice())
    setup.store.admit(setup.store.clock() - 15 * 60)

    [stuck] = setup.results()[1]
    setup.store.flow_control.pause(setup.store.clock())
    [gate] = setup.results()[1]

    assert (stuck["check"], stuck["level"]) == ("jobs", "warning")
    assert stuck["message"] == "a job has had a slot for 15 min, and its order is not sent"
    assert gate["check"] == "gate"


def test_a_short_password_of_flower_is_reported_by_its_user_alone(setup: Setup) -> None:
    """The password itself is not shown; a long one is accepted."""
    setup.env("FLOWER_BASIC_AUTH", "me:short-one,you:long-and-random-one")

    code, [result] = setup.results()

    assert (code, result["check"], result["level"]) == (0, "flower", "warning")
    assert "the password of me has" in result["message"]
    assert "short-one" not in str(result)


def marks_of_a_bare(kind: str, *, signs: str = "one") -> Any:
    """Return the marks of a process that has only the secret for callbacks."""
    secret = SecretStr(signatures.callback_secret(signs))
    settings = Settings(_env_file=None, MUSICAPI_KEY="", secret=SecretStr(""), public_url=None, callback_secret=secret)
    return process_facts(settings, kind)["marks"]


def test_processes_with_fewer_secrets_are_not_reported_as_different(setup: Setup) -> None:
    """The processes for callbacks and the archive lack the API key and the queue's secret.

    Two different callback secrets are reported.
    """
    setup.send_heartbeat("archive", "archive-1", marks=marks_of_a_bare("archive"))
    setup.send_heartbeat("callbacks", "callbacks-1", marks=marks_of_a_bare("callbacks"))
    assert setup.results(strict=True) == (0, [])

    setup.send_heartbeat("callbacks", "callbacks-2", marks=marks_of_a_bare("callbacks", signs="another"))
    code, [result] = setup.results()

    assert code == 1
    assert result["message"] == "VOICEQUEUE_CALLBACK_SECRET is not the same for callbacks-1 and callbacks-2"


def test_callback_secrets_that_cannot_be_decrypted_are_reported(setup: Setup) -> None:
    """Each with its API key and what to do; a shell with another root secret than `callbacks` checks none."""
    lost, damaged = new_secret(["whsec_lost"], "lost")[1], "{"
    kept = new_secret([signatures.callback_secret(SECRET)], "kept")[1]
    records = {name: StoredSecret(token, 0.0).as_text() for name, token in (("lost", lost), ("kept", kept))}
    for name, record in {**records, "damaged": damaged}.items():
        setup.redis.hset("{voicequeue}:callback_secrets", name, record)

    code, results = setup.results()

    assert code == 1
    assert [result["level"] for result in results] == ["error"] * 2
    [of_damaged, of_lost] = results
    assert "the API key damaged cannot be decrypted" in of_damaged["message"]
    assert "keys callback-secret damaged --remove" in of_damaged["action"]
    assert "the API key lost cannot be decrypted" in of_lost["message"]
    assert "keys callback-secret lost --rotate --overlap 0s" in of_lost["action"]

    setup.send_heartbeat("callbacks", "callbacks-1", callback_roots=["another"])
    code, [result] = setup.results(strict=True)

    assert (code, result["level"]) == (1, "warning")
    assert "is not that of the process `callbacks`" in result["message"]


def test_an_old_secret_that_is_still_accepted_is_reported(setup: Setup) -> None:
    """It is a note during a rotation, and a warning after a week, also if the process was restarted meanwhile."""
    old = "the secret before this one, which was just as long".replace(",", "")
    setup.env("VOICEQUEUE_SECRET", f"{SECRET},{old}")
    setup.send_heartbeat()
    code, [result] = setup.results(strict=True)
    assert (code, result["check"], result["level"]) == (0, "secret", "note")
    assert result["message"] == "this shell, w1 still accepts the old value of VOICEQUEUE_SECRET, for 0 days now"

    [mark] = setup.redis.hkeys("{voicequeue}:old_secrets")
    setup.redis.hincrbyfloat("{voicequeue}:old_secrets", mark, -8 * 86_400)
    setup.send_heartbeat()
    code, [result] = setup.results(strict=True)

    assert (code, result["level"]) == (1, "warning")
    assert "for 8 days now" in result["message"]
    assert "remove the second value from VOICEQUEUE_SECRET" in result["action"]
    assert old not in f"{result}{setup.redis.hgetall('{voicequeue}:heartbeats:facts')}"
    setup.env("VOICEQUEUE_SECRET", SECRET)
    setup.send_heartbeat()
    assert setup.results(strict=True) == (0, [])


@pytest.mark.parametrize(("seconds", "deviation"), [(61, "61 s ahead of"), (-61, "61 s behind")])
def test_a_process_with_a_deviating_clock_is_reported(setup: Setup, seconds: float, deviation: str) -> None:
    """It is a warning: jobs use Redis's clock, but logs use the host's."""
    setup.redis.delete("{voicequeue}:heartbeats")
    setup.send_heartbeat(name="w2", seconds_ahead=seconds)

    code, results = setup.results()

    assert code == 0
    [result] = results
    assert (result["check"], result["level"]) == ("clock", "warning")
    assert result["message"] == f"the clock of w2 is {deviation} Redis's"


def test_a_deviating_clock_of_the_shell_is_reported(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results for other processes do not depend on it."""
    monkeypatch.setattr("voicequeue.diagnostics.checkup.time", SimpleNamespace(time=lambda: time.time() - 90))

    code, [result] = setup.results()

    assert code == 0
    assert result["message"] == "the clock of this machine is 90 s behind Redis's"


def test_a_redis_that_is_too_old_is_reported(setup: Setup, durable: str) -> None:
    """The version in the response to INFO counts, which a proxy rewrites here."""
    replacements = {b"server_name:valkey": b"server_nome:valkey", b"valkey_version:": b"volkey_version:"}
    replacements[f"redis_version:{setup.redis.info()['redis_version']}".encode()] = b"redis_version:6.0.9"
    with RewritingProxy(durable, replacements) as old:
        setup.env("REDIS_URL", old)
        setup.send_heartbeat()
        code, results = setup.results()

    assert code == 1
    assert [(result["check"], result["message"], result["action"]) for result in results] == [
        ("redis", "Redis 6.0.9 is too old", "upgrade it to 6.2 or newer")
    ]


def test_unreachable_services_end_with_3_and_other_checks_run(setup: Setup) -> None:
    """Redis and upstream are reported as unreachable, and no password is shown."""
    nowhere = f"127.0.0.1:{free_port()}"
    setup.env("REDIS_URL", f"redis://:a-password@{nowhere}/0")
    setup.env("MUSICAPI_BASE_URL", f"http://{nowhere}")

    code, results = setup.results()

    assert code == 3
    assert [result["check"] for result in results if result["level"] == "unreachable"] == ["upstream", "redis"]
    assert "a-password" not in str(results)


def test_strict_counts_warnings(setup: Setup) -> None:
    """appendfsync everysec is a warning, which --strict turns into exit code 1."""
    setup.redis.config_set("appendfsync", "everysec")

    assert setup.results()[0] == 0
    code, [result] = setup.results(strict=True)

    assert (code, result["level"], result["action"]) == (1, "warning", "appendfsync always (config/valkey.conf)")


def test_an_unknown_setting_is_reported_with_a_suggestion(setup: Setup) -> None:
    """A misspelled name would otherwise silently keep the default."""
    setup.env("VOICEQUEUE_MAX_INFLIGHT", "5")

    [result] = setup.results()[1]

    assert (result["message"], result["action"]) == (
        "VOICEQUEUE_MAX_INFLIGHT is not a setting",
        "did you mean VOICEQUEUE_MAX_IN_FLIGHT?",
    )


def test_another_server_at_the_public_url_is_reported(setup: Setup, simulator: Simulator) -> None:
    """It responds with 404 as well, but with another text."""
    setup.env("VOICEQUEUE_PUBLIC_URL", simulator.api_url)
    assert requests.get(simulator.api_url, timeout=5).status_code == 404

    [result] = [result for result in setup.results()[1] if result["check"] == "public url"]

    assert "not a gateway of this queue" in result["message"]


def test_pending_work_is_reported(setup: Setup) -> None:
    """A closed gate, unsure jobs and many messages are reported."""
    setup.store.flow_control.add_hold("unauthorized", "401", time.time())
    setup.redis.zadd("{voicequeue}:state:unsure", {"j1": time.time()})
    setup.redis.rpush(f"{{voicequeue}}:celery:{QUEUE_NAMES[0]}", *["x"] * 1_001)

    messages = {result["check"]: result["message"] for result in setup.results()[1]}

    assert messages == {
        "gate": "the gate is closed: unauthorized (401)",
        "jobs": "1 job may have been charged",
        "messages": "1,001 messages in the queue submit",
    }
    assert setup.store.counts_by_state()[State.UNSURE] == 1


def test_a_job_that_upstream_refuses_is_reported(setup: Setup) -> None:
    """The result contains upstream's text, and the gate is open."""
    poison, other = enqueue_jobs(setup.store, voice(key="poison"), voice(key="other"), now=time.time())
    for now in (time.time(), time.time() + 60):
        setup.store.admit(now)
        claim_admitted(setup.store, poison, now)
        refuse_order(setup.store, poison, now=now, words="persona not found")
        if get_job(setup.store, other).state is not State.PENDING:
            setup.store.admit(now)
            claim_admitted(setup.store, other, now)
            accept_order(setup.store, other, now)

    [message] = [result["message"] for result in setup.results()[1] if result["check"] == "jobs"]

    assert message == f"upstream refuses job {poison} while it accepts others, 2 times so far (persona not found)"


def test_the_action_is_printed_below_each_problem(setup: Setup) -> None:
    """The most severe result is shown last."""
    setup.redis.config_set("maxmemory-policy", "allkeys-lru")

    code = run_checks(strict=False, as_json=False)
    output = setup.capsys.readouterr().out

    assert code == 1
    assert output.index("✓ persistence") < output.index("✗ eviction") < output.index("→ maxmemory-policy noeviction")
    assert output.rstrip().endswith("\n1 error, 0 warnings")
