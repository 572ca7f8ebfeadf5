"""Check that the process `callbacks` can decrypt the callback secrets of API keys, which Redis holds encrypted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from voicequeue.auth.callback_secrets import SecretCipher, common_roots
from voicequeue.diagnostics.check_result import CheckResult, Level, passed
from voicequeue.domain.callback_secrets import DamagedSecretError, StoredSecret, UnreadableSecretError
from voicequeue.storage.heartbeats import CALLBACK_ROOTS
from voicequeue.storage.job_store import JobStore

_CHECK = "callback secrets"


def check(store: JobStore, roots: Sequence[str]) -> Iterator[CheckResult]:
    """Report stored secrets that cannot be decrypted with the root secrets of this shell. Raises RedisError."""
    stored, now = store.callback_secrets.all(), store.clock()
    if not stored or not roots:
        return  # that there is no root secret is reported with the settings
    processes = store.heartbeats["callbacks"].alive(now)
    if not common_roots(roots, [process.facts.get(CALLBACK_ROOTS) for process in processes]):
        yield CheckResult(
            _CHECK,
            Level.WARNING,
            "the root secret of this shell is not that of the process `callbacks`: the secrets of API keys were not "
            "checked",
            "give this shell its VOICEQUEUE_CALLBACK_SECRET, or VOICEQUEUE_SECRET if it has none",
        )
        return
    problems = [
        problem for name in sorted(stored) if (problem := _problem(SecretCipher(roots), name, stored[name], now))
    ]
    yield from problems or [passed(_CHECK, f"{len(stored):,} can be decrypted")]


def _problem(cipher: SecretCipher, key_name: str, text: str, now: float) -> CheckResult | None:
    command = f"voicequeue keys callback-secret {key_name}"
    try:
        for token in StoredSecret.parse(text).valid_tokens(now):
            cipher.decrypt(key_name, token)
    except DamagedSecretError:
        todo = f"{command} --remove, then create another one: {command}"
    except UnreadableSecretError:
        todo = (
            f"add the root secret that it was encrypted with as the second value, and restart `callbacks`; or replace "
            f"it, and give receivers the new one: {command} --rotate --overlap 0s"
        )
    else:
        return None
    what = f"the callback secret of the API key {key_name} cannot be decrypted: its callbacks wait"
    return CheckResult(_CHECK, Level.ERROR, what, todo)
