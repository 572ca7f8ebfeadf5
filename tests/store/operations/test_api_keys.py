"""API keys in Redis: records, names, rotation, and what gateways know of them."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from unittest.mock import Mock

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from voicequeue import (
    ApiKey,
    ApiKeyNotFoundError,
    InvalidJobError,
    KeyLimits,
    NotOperatorError,
    Priority,
    Scope,
    VoiceQueue,
)
from voicequeue.auth.api_keys import hash_key
from voicequeue.client.queue import in_namespace
from voicequeue.domain.api_keys import KeyLimitChanges
from voicequeue.errors import StoreUnavailableError
from voicequeue.storage.api_keys import ApiKeys
from voicequeue.storage.connection.keyspace import Keyspace
from workers.gateway.security import key_registry
from workers.gateway.security.key_registry import KeyRegistry


class Time:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def keys(redis: Redis, prefix: str) -> ApiKeys:
    return ApiKeys(Keyspace(redis, prefix))


@pytest.fixture
def operator(valkey_url: str, prefix: str) -> VoiceQueue:
    return VoiceQueue(valkey_url, prefix=prefix, namespace="*")


def test_a_name_is_given_once_also_after_it_was_revoked(operator: VoiceQueue) -> None:
    """Jobs name the key that enqueued them."""
    operator.create_api_key("shop", [Scope.READ], namespace="shop")
    operator.revoke_api_key("shop")

    with pytest.raises(InvalidJobError, match="given before"):
        operator.create_api_key("shop", [Scope.READ], namespace="other")
    with pytest.raises(ApiKeyNotFoundError):
        operator.rotate_api_key("shop")


def test_no_secret_is_stored(operator: VoiceQueue, redis: Redis) -> None:
    """Neither in records nor in the audit log."""
    secrets = [
        operator.create_api_key("shop", [Scope.READ], namespace="").secret,
        operator.rotate_api_key("shop").secret,
    ]

    stored = str([redis.dump(name) for name in redis.scan_iter()]) + str(operator.audit_log().items)
    assert not [secret for secret in secrets if secret in stored or secret.removeprefix("vq_") in stored]
    assert [entry.action for entry in operator.audit_log().items] == ["rotate_api_key", "create_api_key"]


def test_keys_are_for_operators(valkey_url: str, prefix: str) -> None:
    """A client of one namespace creates none."""
    with pytest.raises(NotOperatorError):
        VoiceQueue(valkey_url, prefix=prefix).create_api_key("shop", [Scope.READ], namespace="*")


def test_an_edit_that_names_nothing_changes_nothing(operator: VoiceQueue, keys: ApiKeys) -> None:
    """Gateways do not read the keys again, and the audit log has no entry of it."""
    key = operator.create_api_key("shop", [Scope.READ], namespace="shop").key
    version = keys.version()

    assert operator.edit_api_key("shop", limits={}) == key

    assert keys.version() == version
    assert [entry.action for entry in operator.audit_log().items] == ["create_api_key"]


def test_a_new_key_does_not_remove_the_budget_of_its_name(operator: VoiceQueue) -> None:
    """A key of the environment may have had it; the new key sets each of its limits, or is refused."""
    operator.set_budget("key/shop", day=5)

    with pytest.raises(InvalidJobError, match="key/shop has a budget already: set day, or remove that budget first"):
        operator.create_api_key("shop", [Scope.READ], namespace="shop")
    operator.create_api_key("shop", [Scope.READ], namespace="shop", limits=KeyLimits(budget_day=7))

    assert [(budget.owner, budget.limit) for budget in operator.budgets()] == [("key/shop", 7)]


def test_a_gateway_refuses_a_revoked_key_within_ten_seconds(operator: VoiceQueue, keys: ApiKeys) -> None:
    """Another one made the change."""
    monotonic = Time()
    registry = KeyRegistry(keys, Time(), monotonic=monotonic)
    secret = operator.create_api_key("shop", [Scope.READ], namespace="shop").secret
    assert registry.find_by_secret(secret)

    operator.revoke_api_key("shop")
    monotonic.now += key_registry.REFRESH_S

    assert registry.find_by_secret(secret) is None
    assert registry.find_by_name("shop") is None


def test_a_gateway_notices_changes_after_redis_has_lost_others(
    operator: VoiceQueue, keys: ApiKeys, redis: Redis, prefix: str
) -> None:
    """As many changes were made since as were lost, for example with a backup or a replica."""
    monotonic = Time()
    registry = KeyRegistry(keys, Time(), monotonic=monotonic)
    secret = operator.create_api_key("shop", [Scope.READ], namespace="shop").secret
    names = [f"{{{prefix}}}:api_keys", f"{{{prefix}}}:api_keys:version"]
    backup = [redis.dump(name) or b"" for name in names]
    operator.create_api_key("lost", [Scope.READ], namespace="shop")
    assert registry.find_by_secret(secret)

    for name, value in zip(names, backup, strict=True):
        redis.restore(name, 0, value, replace=True)
    operator.revoke_api_key("shop")
    monotonic.now += key_registry.REFRESH_S

    assert registry.find_by_secret(secret) is None


def test_keys_that_cannot_be_confirmed_are_refused(
    operator: VoiceQueue, keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Redis a key may have been revoked; the caller is asked to retry."""
    secret = operator.create_api_key("shop", [Scope.READ], namespace="shop").secret
    monkeypatch.setattr(ApiKeys, "version", Mock(side_effect=RedisConnectionError))

    with pytest.raises(StoreUnavailableError):
        KeyRegistry(keys, Time(), monotonic=Time()).find_by_secret(secret)


def test_a_rotated_key_accepts_both_secrets_until_the_overlap_ends(operator: VoiceQueue, keys: ApiKeys) -> None:
    """Then only the new one."""
    old = operator.create_api_key("shop", [Scope.READ], namespace="shop").secret
    new = operator.rotate_api_key("shop", overlap=60)
    now = new.key.previous_until

    for at, accepted in ((now - 1, [True, True]), (now + 1, [False, True])):
        registry = KeyRegistry(keys, lambda at=at: at, monotonic=Time())  # type: ignore[misc]
        assert [registry.find_by_secret(secret) is not None for secret in (old, new.secret)] == accepted


def test_requests_beyond_the_rate_wait(keys: ApiKeys) -> None:
    """A second's requests may come at once, then each in its turn; over all gateways."""
    counts = [keys.count_requests("shop", 2.0, 1000.0) for _ in range(3)]

    assert counts == [(1, 0), (1, 0), (0, pytest.approx(0.5))]
    assert keys.count_requests("shop", 2.0, 1000.6) == (1, 0)
    assert keys.count_requests("other", 2.0, 1000.0, at_most=9) == (2, 0)


def test_a_second_rotation_keeps_the_secret_in_use_for_its_overlap(operator: VoiceQueue) -> None:
    """The caller may not have received the secret of the first; a shorter overlap ends all of them earlier."""
    secrets = [operator.create_api_key("shop", [Scope.READ], namespace="shop").secret]
    for overlap in (60, 3600, 600):
        rotated = operator.rotate_api_key("shop", overlap=overlap)
        secrets.append(rotated.secret)

    [key] = operator.api_keys()
    now = key.previous_until - 600
    for seconds, accepted in (
        (30, [True, True, True, True]),
        (300, [False, True, True, True]),
        (900, [False, False, False, True]),
    ):
        assert [key.accepts(hash_key(secret), now + seconds) for secret in secrets] == accepted


@pytest.mark.parametrize(("requests_per_s", "now"), [(50.0, 1000.0), (0.001, 100.0)], ids=["edited", "clock set back"])
def test_no_request_waits_longer_than_the_rate_demands(keys: ApiKeys, requests_per_s: float, now: float) -> None:
    """After an edit that makes a slow key faster, and after Redis's clock was set back."""
    assert keys.count_requests("shop", 0.001, 1000.0) == (1, 0)

    counted, wait_s = keys.count_requests("shop", requests_per_s, now)

    assert counted == 0
    assert wait_s == pytest.approx(1 / requests_per_s)


def test_a_gateway_counts_some_requests_in_advance(operator: VoiceQueue, keys: ApiKeys) -> None:
    """So that fast keys need few commands of Redis; all gateways together admit what the key may send, no more."""
    limits = KeyLimits(requests_per_s=50)
    key = operator.create_api_key("shop", [Scope.READ], namespace="shop", limits=limits).key
    registries = [KeyRegistry(keys, lambda: 1000.0, monotonic=Time()) for _ in range(2)]
    admitted = commands = 0
    for registry in registries:
        registry.refresh()
    for number in range(120):
        registry = registries[number % 2]
        if registry.counts_without_redis(key):
            admitted += 1
        else:
            commands += 1
            admitted += registry.count(key) == 0

    assert admitted == 50
    assert commands - (120 - admitted) == 10


def test_limits_of_jobs_name_the_field() -> None:
    """Its value, and what the key allows."""
    limits = KeyLimits(max_priority=Priority.NORMAL, batch_pattern="shop-*")

    assert [problem.field for problem in limits.problems_of(Priority.HIGH, None)] == ["priority", "batch"]
    assert limits.problems_of(Priority.BULK, "shop-1") == []
    assert replace(limits, batch_pattern=None).problems_of(Priority.NORMAL, None) == []


def test_an_edit_changes_the_limits_that_it_names(operator: VoiceQueue) -> None:
    """None removes one; `KeyLimits` replaces all of them; an invalid one changes nothing."""
    limits = KeyLimits(5, Priority.BULK, "shop-*")
    operator.create_api_key("shop", [Scope.READ], namespace="shop", limits=limits)
    assert KeyLimitChanges.__annotations__.keys() == {field.name for field in fields(KeyLimits)}

    edited = operator.edit_api_key("shop", limits={"requests_per_s": 7, "max_priority": None})
    with pytest.raises(InvalidJobError, match="requests_per_s"):
        operator.edit_api_key("shop", scopes=[Scope.ENQUEUE], limits={"requests_per_s": 0})

    assert operator.api_keys() == [edited]
    assert edited.limits == KeyLimits(7, None, "shop-*")
    assert edited.scopes == {Scope.READ}
    assert operator.edit_api_key("shop", limits=KeyLimits()).limits == KeyLimits()


def test_changes_of_one_key_at_once_are_all_made(operator: VoiceQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that came between the reading and the writing of another one is kept; also that of a secret."""
    old = operator.create_api_key("shop", [Scope.READ], namespace="shop").secret
    write, changes = ApiKeys.write, iter([{"batch_pattern": "a*"}, {"max_priority": Priority.BULK}])

    def edit_first(store: ApiKeys, key: ApiKey, *, before: str) -> bool:
        if (change := next(changes, None)) is not None:
            operator.edit_api_key("shop", limits=change)  # type: ignore[arg-type]
        return write(store, key, before=before)

    monkeypatch.setattr(ApiKeys, "write", edit_first)
    rotated = operator.rotate_api_key("shop")

    [key] = operator.api_keys()
    assert key.limits == KeyLimits(max_priority=Priority.BULK, batch_pattern="a*")
    assert key.accepts(hash_key(old), 0)
    assert key.accepts(hash_key(rotated.secret), 0)


def test_the_old_secret_remains_if_the_reply_of_its_rotation_is_lost(
    operator: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if another change was made before the rotation is sent again."""
    old = operator.create_api_key("shop", [Scope.READ], namespace="shop").secret
    write, sent = ApiKeys.write, []

    def lose_first_reply(store: ApiKeys, key: ApiKey, *, before: str) -> bool:
        sent.append(key)
        is_written = write(store, key, before=before)
        if len(sent) == 1:
            operator.edit_api_key("shop", limits={"batch_pattern": "a*"})
            return write(store, key, before=before)
        return is_written

    monkeypatch.setattr(ApiKeys, "write", lose_first_reply)
    rotated = operator.rotate_api_key("shop", overlap=60)

    [key] = operator.api_keys()
    assert [key.accepts(hash_key(secret), key.previous_until - 1) for secret in (old, rotated.secret)] == [True, True]


def damaged(**fields: object) -> str:
    """Return the record of a key that has other values in these fields."""
    key = ApiKey("newer", frozenset({Scope.READ}), "a" * 64, "shop")
    return json.dumps({**json.loads(key.to_record()), **fields})


@pytest.mark.parametrize(
    "record",
    [
        *("", "{", "[]", "{}", '{"scopes": ["read"], "digest": "", "max_priority": "later"}'),
        *(damaged(digest=None), damaged(previous_digest=[1]), damaged(previous_until=None), damaged(namespace=7)),
        *(damaged(created_at=1e300), damaged(revoked_at="never"), damaged(expires_at="2030"), damaged(expires_at=1e15)),
        *(
            damaged(requests_per_s="many"),
            damaged(batch_pattern=["a"]),
            damaged(budget_day="500"),
            damaged(older=[["a"]]),
        ),
    ],
)
def test_a_record_that_cannot_be_read_disables_its_own_key_only(
    operator: VoiceQueue,
    keys: ApiKeys,
    redis: Redis,
    prefix: str,
    record: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A later release may have written it, with a limit that this one cannot keep."""
    secret = operator.create_api_key("shop", [Scope.READ], namespace="shop").secret
    redis.hset(f"{{{prefix}}}:api_keys", "newer", record)
    redis.hset(f"{{{prefix}}}:api_keys:last_used", "shop", "yesterday")

    assert [key.as_dict()["last_used_at"] for key in operator.api_keys()] == [None]
    assert KeyRegistry(keys, Time(), monotonic=Time()).find_by_secret(secret)
    assert "cannot be read are refused: 'newer'" in caplog.text
    assert in_namespace(operator, "shop").budgets() == []
    with pytest.raises(ApiKeyNotFoundError):
        operator.revoke_api_key("newer")
