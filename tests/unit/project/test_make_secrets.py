"""`make secrets`: it generates the secrets of the compose file, and changes nothing that is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from config.settings import Settings
from tests.support import composed
from tests.support.composed import ROOT

#: Files that only an operator can write, and files of users that exist only with a password.
OF_THE_OPERATOR = {"MUSICAPI_KEY", "alert_webhook", "metrics_key"}
OPTIONAL = {"VALKEY_PRODUCER_PASSWORD", "VALKEY_MONITOR_PASSWORD"}

#: Files with random content, and those with a URL that contains the password of another file.
URLS = {"REDIS_URL_WORKER", "REDIS_URL_GATEWAY", "REDIS_URL_FLOWER"}
RANDOM = set(composed.document()["secrets"]) - OF_THE_OPERATOR - OPTIONAL - URLS


def make_secrets(folder: Path) -> str:
    """Run `make secrets` and return its output."""
    command = ["sh", str(ROOT / "config" / "secrets.sh")]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def read(folder: Path) -> dict[str, str]:
    """Return the secrets by the names of their files."""
    return {file.name: file.read_text() for file in (folder / ".secrets").iterdir()}


def write(folder: Path, **secrets: str) -> None:
    """Write files of secrets."""
    (folder / ".secrets").mkdir(exist_ok=True)
    for name, value in secrets.items():
        (folder / ".secrets" / name).write_text(value)


def test_make_secrets_generates_the_secrets_of_compose_readable_by_its_user_only(tmp_path: Path) -> None:
    """They are long, random, need no quoting and are valid settings. None is printed, and none is in `.env`."""
    output = make_secrets(tmp_path)
    secrets = read(tmp_path)

    assert set(secrets) == set(composed.document()["secrets"]) - OF_THE_OPERATOR
    assert all(re.fullmatch(r"(whsec_|operator:)?[0-9a-f]{64}", secrets[name]) for name in RANDOM)
    assert len({secrets[name] for name in RANDOM}) == len(RANDOM)
    assert {secrets[name] for name in OPTIONAL} == {""}
    assert not any(value in output for value in secrets.values() if value)
    assert "missing: .secrets/MUSICAPI_KEY" in output
    assert (tmp_path / ".env").read_text() == "COMPOSE_PROFILES=live\n"
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".secrets").stat().st_mode & 0o777 == 0o700
    Settings(_env_file=None, secret=secrets["VOICEQUEUE_SECRET"], callback_secret=secrets["VOICEQUEUE_CALLBACK_SECRET"])


@pytest.mark.endurance
@pytest.mark.parametrize("user", ["worker", "gateway", "flower"])
def test_each_process_gets_the_url_of_its_own_user(tmp_path: Path, user: str) -> None:
    """With the password that Valkey has for this user; a new password gives a new URL."""
    make_secrets(tmp_path)
    for _ in range(2):
        password = read(tmp_path)[f"VALKEY_{user.upper()}_PASSWORD"]
        assert read(tmp_path)[f"REDIS_URL_{user.upper()}"] == f"redis://{user}:{password}@valkey:6379/0"
        (tmp_path / ".secrets" / f"VALKEY_{user.upper()}_PASSWORD").unlink()
        make_secrets(tmp_path)
        assert read(tmp_path)[f"VALKEY_{user.upper()}_PASSWORD"] != password


def test_the_files_may_be_in_a_folder_that_is_named(tmp_path: Path) -> None:
    """As docs/guides/systemd.md does: without `.env`, which would keep the processes in this folder from starting."""
    (tmp_path / ".env").write_text("VOICEQUEUE_SECRET=of-another-deployment\n")
    command = ["sh", str(ROOT / "config" / "secrets.sh"), str(tmp_path / "secrets")]
    output = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert {file.name for file in (tmp_path / "secrets").iterdir()} == RANDOM | OPTIONAL | URLS
    assert re.fullmatch(r"[0-9a-f]{64}", (tmp_path / "secrets" / "VOICEQUEUE_SECRET").read_text())
    assert (tmp_path / ".env").read_text() == "VOICEQUEUE_SECRET=of-another-deployment\n"
    assert not (tmp_path / ".secrets").exists()
    assert f"missing: {tmp_path}/secrets/MUSICAPI_KEY" in output


def test_the_url_of_another_redis_is_kept(tmp_path: Path) -> None:
    """An operator may use a managed Redis, or sentinels."""
    write(tmp_path, REDIS_URL_WORKER="sentinel://worker:x@a:26379,b:26379/mymaster/0")
    make_secrets(tmp_path)

    assert read(tmp_path)["REDIS_URL_WORKER"] == "sentinel://worker:x@a:26379,b:26379/mymaster/0"


def test_make_secrets_changes_nothing_that_is_there(tmp_path: Path) -> None:
    """A second run prints and writes nothing."""
    write(tmp_path, FLOWER_BASIC_AUTH="me:mine-and-long", MUSICAPI_KEY="k", VALKEY_APP_PASSWORD="")
    (tmp_path / ".env").write_text("COMPOSE_PROFILES=monitoring,live")
    make_secrets(tmp_path)
    secrets = read(tmp_path)

    assert make_secrets(tmp_path) == ""
    assert read(tmp_path) == secrets
    assert (secrets["FLOWER_BASIC_AUTH"], secrets["MUSICAPI_KEY"]) == ("me:mine-and-long", "k")
    assert secrets["VALKEY_APP_PASSWORD"]
    assert (tmp_path / ".env").read_text() == "COMPOSE_PROFILES=monitoring,live\n"


@pytest.mark.endurance
@pytest.mark.parametrize("line", ["NAME=VALUE", "NAME='VALUE' # why", 'export NAME = "VALUE"', "NAME=old\nNAME=VALUE"])
def test_secrets_in_dotenv_are_copied(tmp_path: Path, line: str) -> None:
    """`make up` reads them there, so that both use the same."""
    names = RANDOM | OPTIONAL | {"MUSICAPI_KEY"}
    values = {name: f"value-of-{name.replace('_', '-')}-{'0' * 40}" for name in names}
    (tmp_path / ".env").write_text(
        "".join(f"{line}\n".replace("NAME", name).replace("VALUE", values[name]) for name in names)
    )

    output = make_secrets(tmp_path)

    assert {f"copied {name} from .env to .secrets/{name}" for name in names} <= set(output.splitlines())
    assert {name: read(tmp_path)[name] for name in names} == values
    assert "too short" not in output
    assert make_secrets(tmp_path) == ""


@pytest.mark.endurance
@pytest.mark.parametrize("empty", ["", "''", '""', " # to do", "'' # to do", '""   ', "set before\nNAME="])
def test_make_secrets_does_not_copy_values_that_are_empty(tmp_path: Path, empty: str) -> None:
    """Compose and the settings treat such values as empty."""
    (tmp_path / ".env").write_text("".join(f"NAME={empty}\n".replace("NAME", name) for name in sorted(RANDOM)))

    output = make_secrets(tmp_path)

    assert {f"created .secrets/{name}" for name in RANDOM} <= set(output.splitlines())
    assert all(re.fullmatch(r"(whsec_|operator:)?[0-9a-f]{64}", read(tmp_path)[name]) for name in RANDOM)


@pytest.mark.endurance
def test_make_secrets_reports_a_value_in_dotenv_that_containers_do_not_use(tmp_path: Path) -> None:
    """An operator who changes `.env` sees why nothing changes."""
    write(tmp_path, MUSICAPI_KEY="one-key")
    (tmp_path / ".env").write_text("MUSICAPI_KEY=another-key\n")

    output = make_secrets(tmp_path)

    assert "MUSICAPI_KEY in .env differs from .secrets/MUSICAPI_KEY, which containers use" in output
    assert "one-key" not in output
    assert "another-key" not in output


@pytest.mark.endurance
def test_make_secrets_reports_a_redis_in_dotenv_that_containers_do_not_use(tmp_path: Path) -> None:
    """The command line on the host reads it: jobs would wait in one Redis, and workers in another."""
    (tmp_path / ".env").write_text("REDIS_URL=redis://:its-password@redis.internal:6379/3\n")
    output = make_secrets(tmp_path)

    assert "REDIS_URL in .env differs from .secrets/REDIS_URL_WORKER, which containers use" in output
    assert "its-password" not in output


@pytest.mark.endurance
def test_make_secrets_reports_a_profile_that_starts_no_worker(tmp_path: Path) -> None:
    """It does not change a choice of the operator."""
    (tmp_path / ".env").write_text("COMPOSE_PROFILES=monitoring\n")

    assert "COMPOSE_PROFILES in .env does not contain live" in make_secrets(tmp_path)
    assert composed.read_values(tmp_path / ".env") == {"COMPOSE_PROFILES": "monitoring"}


def test_make_secrets_reports_secrets_that_are_too_short(tmp_path: Path) -> None:
    """It does not change them: other processes may use them. Of several logins, each password is checked."""
    names = (RANDOM | OPTIONAL) - {"grafana_password"}
    write(tmp_path, **dict.fromkeys(names, "short-1"))

    output = make_secrets(tmp_path)

    assert {line.split()[2] for line in output.splitlines() if "too short" in line} == {
        f".secrets/{name}," for name in names
    }
    assert "short-1" not in output
    assert {name: read(tmp_path)[name] for name in names} == dict.fromkeys(names, "short-1")
    write(tmp_path, FLOWER_BASIC_AUTH=f"me:{'x' * 40},somebody-with-a-long-name:short-1")
    assert "too short: .secrets/FLOWER_BASIC_AUTH" in make_secrets(tmp_path)


@pytest.mark.endurance
def test_make_secrets_reports_a_password_that_a_url_cannot_contain(tmp_path: Path) -> None:
    """Instead of a login that fails."""
    write(tmp_path, VALKEY_WORKER_PASSWORD=f"{'x' * 40}@/")

    assert ".secrets/VALKEY_WORKER_PASSWORD: use letters and digits" in make_secrets(tmp_path)


@pytest.mark.endurance
@pytest.mark.parametrize("place", ["a file", ".env"])
def test_make_secrets_does_not_replace_a_derived_callback_secret(tmp_path: Path, place: str) -> None:
    """If it is derived from VOICEQUEUE_SECRET, the output says how to keep it."""
    secret = "0123456789abcdef" * 4
    if place == ".env":
        (tmp_path / ".env").write_text(f"VOICEQUEUE_SECRET={secret}\n")
    else:
        write(tmp_path, VOICEQUEUE_SECRET=secret)

    output = make_secrets(tmp_path)

    assert "voicequeue callbacks --root-secret" in output
    assert "VOICEQUEUE_CALLBACK_SECRET" not in read(tmp_path)
