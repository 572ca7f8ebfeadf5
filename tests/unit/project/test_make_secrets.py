"""`make secrets`: it generates what compose requires, and changes nothing that is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from config.settings import Settings
from tests.support import composed
from tests.support.composed import REQUIRED, ROOT


def make_secrets(folder: Path) -> str:
    """Run `make secrets` and return its output."""
    command = ["sh", str(ROOT / "config" / "secrets.sh")]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def test_make_secrets_generates_every_secret_of_compose_readable_by_its_user_only(tmp_path: Path) -> None:
    """They are long, random, need no quoting and are valid settings. None is printed."""
    output = make_secrets(tmp_path)
    values = composed.read_values(tmp_path / ".env")
    grafana = tmp_path / ".secrets" / "grafana_password"

    assert set(values) == REQUIRED - {"MUSICAPI_KEY"}
    assert "MUSICAPI_KEY" in output
    assert all(re.fullmatch(r"(whsec_|operator:)?[0-9a-f]{64}", value) for value in values.values())
    assert len(set(values.values()) | {grafana.read_text()}) == len(values) + 1
    assert not any(value in output for value in (*values.values(), grafana.read_text()))
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert grafana.parent.stat().st_mode & 0o777 == 0o700
    for service in composed.services().values():
        composed.environment(service, {**values, "MUSICAPI_KEY": "k"})
    assert Settings(_env_file=tmp_path / ".env").callback_secret.get_secret_value()


def test_make_secrets_changes_nothing_that_is_there(tmp_path: Path) -> None:
    """Not on a second run, existing values are kept; an empty value is none."""
    (tmp_path / ".env").write_text("FLOWER_BASIC_AUTH=me:mine-and-long\nVALKEY_APP_PASSWORD=\nMUSICAPI_KEY=k")
    make_secrets(tmp_path)
    before, grafana = (tmp_path / ".env").read_text(), (tmp_path / ".secrets" / "grafana_password").read_text()

    assert make_secrets(tmp_path) == ""
    assert (tmp_path / ".env").read_text() == before
    assert (tmp_path / ".secrets" / "grafana_password").read_text() == grafana
    values = composed.read_values(tmp_path / ".env")
    assert (values["FLOWER_BASIC_AUTH"], values["MUSICAPI_KEY"]) == ("me:mine-and-long", "k")
    assert values["VALKEY_APP_PASSWORD"]


@pytest.mark.parametrize("empty", ["", "''", '""', " # to do", "'' # to do", '""   ', "set before\nNAME="])
def test_make_secrets_replaces_values_that_are_empty(tmp_path: Path, empty: str) -> None:
    """Compose and the settings treat such values as empty."""
    names = sorted(REQUIRED - {"MUSICAPI_KEY"})
    (tmp_path / ".env").write_text("".join(f"NAME={empty}\n".replace("NAME", name) for name in names))

    output, values = make_secrets(tmp_path), composed.read_values(tmp_path / ".env")

    assert {f"added {name} to .env" for name in names} <= set(output.splitlines())
    assert all(re.fullmatch(r"(whsec_|operator:)?[0-9a-f]{64}", values[name]) for name in names)


@pytest.mark.parametrize("value", ["short-1", "'short-1'", '"short-1" # and why'])
def test_make_secrets_reports_secrets_that_are_too_short(tmp_path: Path, value: str) -> None:
    """It does not change them: other processes may use them."""
    names = REQUIRED - {"MUSICAPI_KEY"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name in names))

    output = make_secrets(tmp_path)

    assert {line.split()[4] for line in output.splitlines() if "too short" in line} == {f"{name}," for name in names}
    assert "short-1" not in output
    assert [line for line in output.splitlines() if line.startswith(("added ", "created "))] == [
        "created .secrets/grafana_password"
    ]


def test_make_secrets_checks_each_login_of_flower(tmp_path: Path) -> None:
    """Long secrets are not reported, with any quoting."""
    names = REQUIRED - {"MUSICAPI_KEY"}
    (tmp_path / ".env").write_text("".join(f"export {name} = '{'x' * 70}'   # mine\n" for name in names))
    assert "too short" not in make_secrets(tmp_path)
    (tmp_path / ".env").write_text(f"FLOWER_BASIC_AUTH=me:{'x' * 40},somebody-with-a-long-name:short-1\n")
    assert "too short in .env: FLOWER_BASIC_AUTH" in make_secrets(tmp_path)


def test_make_secrets_does_not_replace_a_derived_callback_secret(tmp_path: Path) -> None:
    """If it is derived from VOICEQUEUE_SECRET, the output says how to keep it."""
    (tmp_path / ".env").write_text(f"VOICEQUEUE_SECRET={'0123456789abcdef' * 4}\n")

    output = make_secrets(tmp_path)

    assert "voicequeue callbacks --root-secret" in output
    assert "VOICEQUEUE_CALLBACK_SECRET" not in composed.read_values(tmp_path / ".env")
