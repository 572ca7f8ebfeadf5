"""The installer of `make demo`, `make up` and `make setup`: what it shows, and how it recovers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from workers.local import install

ROOT = Path(__file__).parents[3]


def pip_that(tmp_path: Path, code: str) -> tuple[str, ...]:
    """Return the command of a program in the place of pip."""
    script = tmp_path / "pip.py"
    script.write_text(code)
    return sys.executable, str(script)


def test_packages_of_other_systems_are_not_counted() -> None:
    """The count is shown to the user, and is the end of the progress."""
    lock = "a==1 \\\n    --hash=sha256:00\nb==2 ; sys_platform == 'win32' \\\n    --hash=sha256:00\nc-d==3\n"

    assert install.package_count(lock) == 2


def test_progress_names_each_package_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also packages that pip takes from this machine."""
    lines = [
        "Collecting celery==5.7.0 (from -r x.lock (line 1))",
        "Processing /tmp/wheels/kombu-5.7.0-py3-none-any.whl",
    ]
    command = pip_that(tmp_path, f"print({chr(10).join(lines)!r})")
    progress = install.Progress(is_terminal=True)

    install.install_with_progress(command, 2, progress)

    shown = capsys.readouterr().out
    assert "1 of 2: celery" in shown
    assert "2 of 2: kombu" in shown


def test_progress_is_a_line_every_ten_seconds_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """A log of CI stays short."""
    progress = install.Progress(is_terminal=False)

    progress.show("1 of 2: celery")

    assert capsys.readouterr().out == ""


def test_progress_continues_while_pip_unpacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip prints nothing then, for most of the time that an installation takes."""
    monkeypatch.setattr(install, "MEASURE_EVERY_S", 0.01)
    monkeypatch.setattr(install, "VENV", tmp_path)
    (tmp_path / "module.py").write_bytes(b"#" * 3_000_000)
    command = pip_that(tmp_path, "import time; print('Installing collected packages: a', flush=True); time.sleep(0.5)")

    install.install_with_progress(command, 1, install.Progress(is_terminal=True))

    assert "unpacking 0 packages: 3 MB" in capsys.readouterr().out


def test_a_failure_of_pip_shows_the_end_of_its_output(tmp_path: Path) -> None:
    """What pip says is the only clue, such as a missing network."""
    command = pip_that(tmp_path, "import sys; print('no matching distribution'); sys.exit(1)")

    with pytest.raises(install.InstallError, match="no matching distribution"):
        install.install_with_progress(command, 2, install.Progress(is_terminal=False))


def test_the_local_stack_pins_what_everything_pins() -> None:
    """Installing everything on top of it changes no package."""
    local, everything = (
        {match[:2] for match in install.PINNED.findall((ROOT / name).read_text(encoding="utf-8"))}
        for name in ("requirements-local.lock", "requirements.lock")
    )

    assert local < everything
