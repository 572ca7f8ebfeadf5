"""`voicequeue doctor` imports nothing from the working directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMMAND = Path(sys.executable).with_name("voicequeue")


@pytest.mark.endurance
@pytest.mark.parametrize(
    "module",
    [
        "workers/doctor.py",
        *(
            pytest.param(module, marks=pytest.mark.endurance)
            for module in ("workers/__init__.py", "json.py", "voicequeue/__init__.py")
        ),
    ],
)
def test_no_module_of_the_working_directory_is_imported(tmp_path: Path, module: str) -> None:
    """The folder may belong to another user; an operator who runs the command there must not run its code."""
    hostile = tmp_path / module
    hostile.parent.mkdir(exist_ok=True)
    hostile.write_text(f"open({str(tmp_path / 'was imported')!r}, 'w').close()\n")
    if module == "workers/doctor.py":
        (hostile.parent / "__init__.py").touch()
    environment = {**os.environ, "REDIS_URL": "redis://127.0.0.1:1/0"}

    ended = subprocess.run([COMMAND, "doctor"], cwd=tmp_path, env=environment, capture_output=True, check=False)

    assert ended.returncode == 3, ended.stderr
    assert not (tmp_path / "was imported").exists()


def test_the_image_names_the_folder_of_the_workers() -> None:
    """Its voicequeue is installed apart from them, so Python's path must lead there."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    runtime = text.partition(" AS runtime\n")[2].partition("\nFROM ")[0].splitlines()
    [folder] = [match[1] for line in runtime if (match := re.match(r"WORKDIR (\S+)", line))]

    assert text.endswith("\nFROM runtime\n")
    assert any(f"PYTHONPATH={folder}" in line for line in runtime if line.startswith("ENV "))
