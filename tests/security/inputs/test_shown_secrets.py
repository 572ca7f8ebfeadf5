"""No secret appears in output, files, command arguments or error messages."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis

from config.flower import FlowerSettings
from config.settings import Settings, load
from tests.conftest import eventually
from tests.store.conftest import Command, command, working_folder
from voicequeue import StoreUnavailableError
from voicequeue.storage.connection.redis_url import masked, validate_redis_url
from workers.local import demo, stack, up
from workers.local.environment_file import SHARED_VARIABLES
from workers.local.home import lock_home
from workers.local.stack import ROOT, Addresses, Stack
from workers.local.supervisor import Program, Supervisor
from workers.private_files import UnsafeFileError

pytestmark = pytest.mark.shared_gateway

__all__ = ["command", "working_folder"]

CANARY = "canary-0123456789"

#: Every setting that may contain a secret, with a value that must not appear.
SECRETS = {
    "REDIS_URL": f"redis://user:{CANARY}@127.0.0.1:1/0",
    "MUSICAPI_KEY": CANARY,
    "MUSICAPI_BASE_URL": f"https://user:{CANARY}@upstream.example",
    "VOICEQUEUE_PUBLIC_URL": f"https://{CANARY}@voices.example",
    "VOICEQUEUE_SECRET": f"{CANARY}-abcdefghijklmnop",
    "VOICEQUEUE_API_KEYS": f"name:read:{CANARY}",
    "VOICEQUEUE_CALLBACK_SECRET": f"whsec_{'Y2FuYXJ5' * 4}",
    "VOICEQUEUE_ARCHIVE_URL": f"sftp://user:{CANARY}@archive.example/songs",
    "FLOWER_BASIC_AUTH": f"operator:{CANARY}",
    "AWS_SECRET_ACCESS_KEY": CANARY,
}
HIDDEN = (CANARY, "Y2FuYXJ5")


@pytest.fixture(params=["in the environment", "in .env"])
def where(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set all secrets, in the environment or in .env."""
    monkeypatch.chdir(tmp_path)
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    if request.param == "in .env":
        Path(".env").write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
    else:
        for name, value in SECRETS.items():
            monkeypatch.setenv(name, value)
    return str(request.param)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[Program]:
    """Return the list of programs that a stack starts; none is really started."""
    monkeypatch.setattr(stack, "wait_until", lambda *_: None)
    return []


def start_stack(home: Path, programs: list[Program]) -> tuple[Stack, Addresses]:
    """Build a stack as `make up` does, with the settings of this environment."""
    supervisor: Any = SimpleNamespace(add=programs.append, pid=lambda _: 1, restart=None, repeat=lambda *_: None)
    home.mkdir(exist_ok=True)
    built = Stack(supervisor, load(), home=home)
    return built, built.start_all(workers=1)


def test_this_list_contains_every_secret_setting() -> None:
    """A new secret must be added here, so that the tests below search for it."""
    fields = {**Settings.model_fields, **FlowerSettings.model_fields}
    secret = {name for name, field in fields.items() if field.annotation is SecretStr}
    listed = {name.removeprefix("VOICEQUEUE_").removeprefix("FLOWER_").lower() for name in SECRETS}

    assert secret <= listed


@pytest.mark.usefixtures("where")
def test_make_up_neither_prints_nor_writes_a_secret(
    tmp_path: Path, programs: list[Program], capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither in its output, nor in the file for other shells, nor in the output of `make demo`, nor in the processes'
    arguments."""
    built, at = start_stack(tmp_path / "home", programs)
    written = built.write_environment()
    with pytest.raises(StoreUnavailableError) as error:
        demo._run(at, load(), "batch", [])

    shown = [up.welcome(at, written), capsys.readouterr().out, str(error.value)]
    shown += [str(program.command) for program in programs]
    files = [file for file in (tmp_path / "home").rglob("*") if file.is_file() and file.name != "redis_url"]
    texts = [*shown, *(file.read_text() for file in files)]
    assert "redis://user:***@127.0.0.1:1/0" in shown[0]
    assert programs
    assert [text for text in texts if any(hidden in text for hidden in HIDDEN)] == []


@pytest.mark.usefixtures("where")
def test_another_shell_always_uses_the_redis_of_make_up(tmp_path: Path, programs: list[Program]) -> None:
    """The URL with its password is in a file of its own, readable only by its user. Another Redis (the default, or one
    of an earlier stack) is never used instead."""
    home = tmp_path / "home"
    written = start_stack(home, programs)[0].write_environment()
    (tmp_path / "elsewhere").mkdir()

    for env in ({}, {"REDIS_URL": "redis://of-a-stack-before"}):
        completed = in_a_shell(written, "REDIS_URL", folder=tmp_path / "elsewhere", **env)
        assert (completed.stdout, completed.stderr.count("REDIS_URL")) == (SECRETS["REDIS_URL"], 0)
    assert (home / "redis_url").stat().st_mode & 0o777 == 0o600
    (home / "redis_url").unlink()
    with pytest.raises(ValueError, match="must look like"):
        validate_redis_url(in_a_shell(written, "REDIS_URL").stdout)


def test_another_shell_keeps_no_setting_of_an_earlier_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: list[Program]
) -> None:
    """Neither its simulator with its key, nor its secret, nor its queue; also if .env sets the present ones."""
    monkeypatch.chdir(tmp_path)
    for name in (*SECRETS, "VOICEQUEUE_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    before = dict.fromkeys((*SHARED_VARIABLES, "VOICEQUEUE_PREFIX"), "before")
    Path(".env").write_text(f"MUSICAPI_KEY={CANARY}\nVOICEQUEUE_SECRET={CANARY * 2}\nVOICEQUEUE_PREFIX=mine\n")
    written = start_stack(tmp_path / "home", programs)[0].write_environment()

    values = {name: in_a_shell(written, name, None, **before).stdout for name in before}

    assert "before" not in values.values()
    assert values["VOICEQUEUE_PREFIX"] == "mine"


def test_another_shell_gets_the_files_of_secrets_that_make_up_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: list[Program]
) -> None:
    """By their absolute paths. A file of the shell's own does not contradict a value that the stack sets."""
    monkeypatch.chdir(tmp_path)
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    for name in ("REDIS_URL", "MUSICAPI_KEY", "VOICEQUEUE_SECRET"):
        Path(name).write_text(SECRETS[name])
        monkeypatch.setenv(f"{name}_FILE", name)
    written = start_stack(tmp_path / "home", programs)[0].write_environment()
    files = {f"{name}_FILE": "of-the-shell" for name in SECRETS}

    values = {name: in_a_shell(written, name, None, **files).stdout for name in files}

    assert (values["MUSICAPI_KEY_FILE"], values["REDIS_URL_FILE"]) == (str(tmp_path / "MUSICAPI_KEY"), "")
    assert in_a_shell(written, "REDIS_URL", None, **files).stdout == SECRETS["REDIS_URL"]
    assert CANARY not in written.read_text()
    for program in programs:
        assert (program.env["REDIS_URL"], program.env["REDIS_URL_FILE"]) == (SECRETS["REDIS_URL"], "")


def test_the_file_for_other_shells_says_which_secrets_to_export(
    where: str, tmp_path: Path, programs: list[Program]
) -> None:
    """A secret exported for `make up` must be exported in the other shell too; one in .env is read from there."""
    written = start_stack(tmp_path / "home", programs)[0].write_environment()

    bare = in_a_shell(written, "MUSICAPI_KEY")
    exported = in_a_shell(written, "MUSICAPI_KEY", MUSICAPI_KEY="mine")

    assert bare.stdout == ""
    assert ("MUSICAPI_KEY is a secret" in bare.stderr) == (where == "in the environment")
    assert exported.stdout == ("mine" if where == "in the environment" else "")
    assert "MUSICAPI_KEY" not in exported.stderr


def test_a_secret_generated_by_make_up_is_in_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: list[Program]
) -> None:
    """Only its user can read it; other shells read it from there."""
    monkeypatch.chdir(tmp_path)
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    written = start_stack(tmp_path / "home", programs)[0].write_environment()
    secret_file = tmp_path / "home" / "secret"

    assert secret_file.stat().st_mode & 0o777 == written.stat().st_mode & 0o777 == 0o600
    assert secret_file.read_text() not in written.read_text()
    assert in_a_shell(written, "VOICEQUEUE_SECRET").stdout == secret_file.read_text()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_secret_that_other_users_can_read_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: list[Program], mode: int
) -> None:
    """It signs webhooks and callbacks, or opens Redis; the error names the file and the fix."""
    monkeypatch.chdir(tmp_path)
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    start_stack(tmp_path / "home", programs)
    for name in ("secret", "redis_password"):
        file = tmp_path / "home" / name
        file.chmod(mode)
        with pytest.raises(UnsafeFileError, match=f"{name} must belong .* chmod 600"):
            start_stack(tmp_path / "home", programs)
        file.chmod(0o600)
    (tmp_path / "home" / "secret").unlink()
    (tmp_path / "home" / "secret").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeFileError):
        start_stack(tmp_path / "home", programs)


def test_other_users_cannot_read_the_folder_of_a_stack(tmp_path: Path) -> None:
    """Its logs and Valkey's file contain recordings: the folder and each file are private, also if the folder was open
    before."""
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    umask = os.umask(0o022)
    try:
        with lock_home(home) as lock, Supervisor(inherited_fds=[lock.descriptor]) as supervisor:
            supervisor.add(Program("writer", f"cd {home} && mkdir a && date > a/b", home / "log" / "writer.log"))
            eventually((home / "a" / "b").exists)
    finally:
        os.umask(umask)

    assert home.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in home.rglob("*") if path.stat().st_mode & 0o077} <= {"lock"}


def test_a_shared_folder_is_rejected_as_home(tmp_path: Path) -> None:
    """/tmp, for example: it stays as it is."""
    tmp_path.chmod(0o1777)
    with pytest.raises(UnsafeFileError, match="set VOICEQUEUE_HOME"), lock_home(tmp_path):
        pass
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777
    tmp_path.chmod(0o700)


def test_the_docs_pass_no_key_in_command_arguments() -> None:
    """Every user of the machine can read them."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs" / "examples").glob("*.*")]
    key_in_arguments = re.compile(
        r"""(curl|call|-H|--header)\b.*["']Authorization: *Bearer|AUTH=["']?Authorization|redis-cli.* -(a|u) """
    )
    lines = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if key_in_arguments.search(line) and "printf" not in line] == []


def in_a_shell(written: Path, name: str, folder: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Return the variable's value in a shell that has sourced the file."""
    command = ["sh", "-c", f'set -u; . "$0"; printf %s "${{{name}:-}}"', str(written)]
    env = {"PATH": os.environ["PATH"], **env}
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=True)


# ── errors ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def protected(redis: Redis, prefix: str) -> Iterator[str]:
    """Yield host and port of a Redis whose user has another password than the configured one."""
    redis.acl_setuser(f"{prefix}-user", enabled=True, passwords=["+another"], categories=["+@all"])
    place = redis.connection_pool.connection_kwargs
    yield f"{place['host']}:{place['port']}"
    redis.acl_deluser(f"{prefix}-user")


@pytest.mark.parametrize("arguments", [("status",), ("doctor",), ("doctor", "--json")])
def test_no_error_shows_the_password_of_redis(
    command: Command, monkeypatch: pytest.MonkeyPatch, protected: str, prefix: str, arguments: tuple[str, ...]
) -> None:
    """With a wrong password, an unreachable host, or an invalid URL."""
    monkeypatch.setenv("VOICEQUEUE_HOME", "missing")
    for url in (
        f"redis://{prefix}-user:{CANARY}@{protected}/0",
        f"redis://user:{CANARY}@127.0.0.1:1/0",
        f"redis://user:{CANARY}@host.invalid/0",
        f"redis://user:{CANARY}@{protected}/999999",
        f"redis://user:{CANARY}#@{protected}/0",
        f"rediss://user:{CANARY}@{protected}/0?ssl_cert_reqs=maybe",
        f"http://user:{CANARY}@{protected}",
    ):
        monkeypatch.setenv("REDIS_URL", url)
        ended = command(*arguments)
        assert ended.code in (2, 3)
        assert CANARY not in ended.out + ended.err


@pytest.mark.parametrize("option", ["--strict", "--json"])
def test_the_doctor_shows_no_secret(command: Command, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    """For any error in the settings; and it checks all of them."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)

    ended = command("doctor", option)

    assert ended.code == 3
    assert "VOICEQUEUE_PUBLIC_URL" in ended.out
    assert [hidden for hidden in HIDDEN if hidden in ended.out + ended.err] == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:pass@host:1/0", "redis://user:***@host:1/0"),
        ("redis://:pass@host:1/0", "redis://:***@host:1/0"),
        ("redis://:p@ss:w@host", "redis://:***@host"),
        ("https://token@host/a@b?c=d@e", "https://***@host/a@b?c=d@e"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("https://host/a:b@c", "https://host/a:b@c"),
        ("/srv/songs", "/srv/songs"),
    ],
)
def test_the_login_in_any_url_is_masked(url: str, shown: str) -> None:
    """A password, and a user without one, which may be a token."""
    assert masked(url) == shown
