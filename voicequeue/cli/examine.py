"""`doctor` without `--audit`: check the deployment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Protocol, cast

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from voicequeue.auth.callback_secrets import ROOT_SETTINGS, roots
from voicequeue.auth.secret_files import SecretFileError, read_secret
from voicequeue.cli.terminal import CommandSetupError, escape_untrusted, out, print_json, replicas_ack
from voicequeue.diagnostics import checkup, replication, shared_database, store_format, stored_secrets
from voicequeue.diagnostics.check_result import CheckResult, Level
from voicequeue.errors import StoreFormatError
from voicequeue.storage.connection.client import DEFAULT_URL, connect
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX, Keyspace
from voicequeue.storage.connection.problems import ConnectionProblem
from voicequeue.storage.connection.refusals import RedisRefusalError
from voicequeue.storage.format import FormatStamp
from voicequeue.storage.heartbeats import ProcessHeartbeat
from voicequeue.storage.job_store import JobStore
from voicequeue.texts import pluralize

MARKS = {
    Level.OK: "[green]✓[/]",
    Level.NOTE: "[blue]i[/]",
    Level.WARNING: "[yellow]![/]",
    Level.ERROR: "[red]✗[/]",
    Level.UNREACHABLE: "[red]?[/]",
}

#: The most severe results are shown last.
ORDER = (Level.OK, Level.NOTE, Level.WARNING, Level.ERROR, Level.UNREACHABLE)

LIBRARY_ONLY = CheckResult(
    "settings",
    Level.NOTE,
    "settings, upstream, the public URL and Flower were not checked: the workers' code is not installed here",
    "run it in their image, or in the environment of their checkout (or with PYTHONPATH set to it)",
)


#: The entry points of more checks: pyproject.toml names those of the workers' code.
ENTRY_POINTS = "voicequeue.doctor"


class WorkerChecks(Protocol):
    """Checks that need the workers' code, as an entry point provides them."""

    def results(self) -> Iterator[CheckResult]:
        """Check the settings, upstream, the public URL, Flower and the archive."""

    def this_process(self) -> ProcessHeartbeat:
        """Return this process with its facts. Raises SystemExit for invalid settings."""


def run_checks(*, strict: bool, as_json: bool) -> int:
    """Run all checks, print the results, and return the exit code."""
    results = sorted(_results(), key=lambda result: ORDER.index(result.level))
    exit_code = _exit_code(results, strict=strict)
    if as_json:
        print_json({"sound": exit_code == 0, "checks": [result.as_dict() for result in results]})
    else:
        _print(results)
    return exit_code


def _exit_code(results: list[CheckResult], *, strict: bool) -> int:
    levels = {result.level for result in results}
    if Level.UNREACHABLE in levels:
        return 3
    return int(Level.ERROR in levels or (strict and Level.WARNING in levels))


def _results() -> Iterator[CheckResult]:
    checks = _worker_checks()
    yield from (checks.results() if checks else [LIBRARY_ONLY])
    url = read_secret(os.environ, "REDIS_URL") or DEFAULT_URL
    prefix = os.environ.get("VOICEQUEUE_PREFIX") or DEFAULT_PREFIX
    try:
        with connect(url) as redis:
            yield from replication.sentinel_results(replication.read_sentinels(redis))
            store = JobStore(redis, prefix)
            facts = checkup.inspect(redis, store)
            replicas = replication.read_replicas(redis, facts.server, required=replicas_ack())
            database = shared_database.inspect(redis, prefix)
            store_formats = [store_format.check(FormatStamp(Keyspace(redis, prefix)).read())]
            secrets = list(stored_secrets.check(store, _callback_roots()))
    except (NoPermissionError, AuthenticationError) as error:
        yield _of_rights(error)
        return
    except StoreFormatError as error:
        yield CheckResult("format", Level.ERROR, str(error), "docs/guides/upgrading.md")
        return
    except ConnectionProblem as error:
        yield CheckResult("redis", Level.UNREACHABLE, f"Redis cannot be used: {error}", "check REDIS_URL")
        return
    except RedisError as error:
        is_answer = isinstance(error, ResponseError | RedisRefusalError)
        what = f"Redis refuses a command: {error}" if is_answer else f"Redis does not respond: {type(error).__name__}"
        yield CheckResult("redis", Level.UNREACHABLE, what, "check REDIS_URL, and that Redis is running")
        return
    except ValueError as error:
        raise CommandSetupError(f"{error}; see REDIS_URL and VOICEQUEUE_PREFIX") from None
    if checks and any(process.facts for process in facts.processes):
        facts = _with_shell(checks, facts)
    yield from checkup.results(facts)
    yield from replication.replica_results(replicas)
    yield from shared_database.results(database)
    yield from secrets
    yield from store_formats


def _callback_roots() -> tuple[str, ...]:
    """Return the root secrets of callbacks of this shell; none if a setting is invalid, which is reported."""
    try:
        return roots(*(read_secret(os.environ, name) for name in ROOT_SETTINGS))
    except (ValueError, SecretFileError):
        return ()


def _of_rights(error: RedisError) -> CheckResult:
    """Report a Redis that responds, and refuses the login or a command; its text names the user and the command."""
    message = str(error).partition(", with args")[0].rpartition("of pipeline caused error: ")[2]
    if isinstance(error, AuthenticationError):
        return CheckResult(
            "redis rights", Level.UNREACHABLE, f"Redis refuses the login: {message}", "correct REDIS_URL"
        )
    todo = "the doctor needs the rights of the user app or worker: docs/guides/secure.md#redis-users"
    return CheckResult("redis rights", Level.UNREACHABLE, f"Redis refuses a command: {message}", todo)


def _with_shell(checks: WorkerChecks, facts: checkup.Facts) -> checkup.Facts:
    """Add this shell to the processes, because processes that it starts get its settings."""
    try:
        return replace(facts, processes=[*facts.processes, checks.this_process()])
    except SystemExit:  # its settings are invalid, which is reported already
        return facts


def _worker_checks() -> WorkerChecks | None:
    """Return the checks of the workers' code, None if it is not installed.

    The working directory is not searched: it may belong to another user, whose modules would run.
    """
    for entry_point in entry_points(group=ENTRY_POINTS):
        try:
            return cast(WorkerChecks, entry_point.load())
        except ImportError:  # the library without the workers
            continue
    return None


def _print(results: list[CheckResult]) -> None:
    for result in results:
        out.print(f"{MARKS[result.level]} [bold]{result.check}[/]  {escape_untrusted(result.message)}")
        if result.action:
            out.print(f"    → {escape_untrusted(result.action)}")
    errors = sum(result.level in (Level.ERROR, Level.UNREACHABLE) for result in results)
    warnings = sum(result.level is Level.WARNING for result in results)
    if errors or warnings:
        out.print(f"\n[bold]{pluralize(errors, 'error')}, {pluralize(warnings, 'warning')}[/]")
    else:
        out.print("\n[bold green]sound[/]; voicequeue doctor --audit compares the indexes with the records")
