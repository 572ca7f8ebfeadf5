"""The version: packages, processes and pages take it from one place, and each build has its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from config.settings import Settings
from tests.tools.distribution import DistributionError, check_changelog
from voicequeue.version import BUILD_VARIABLE, RELEASE, USER_AGENT, VERSION, described
from workers.gateway.app import create_app
from workers.process_info import process_facts

ROOT = Path(__file__).parents[3]


# ── one place ─────────────────────────────────────────────────────────────────────────────────────


def test_every_part_names_the_same_version() -> None:
    """The command, the HTTP API, heartbeats and requests to other servers."""
    settings = Settings(_env_file=None)
    command = [sys.executable, "-m", "voicequeue.cli", "--version"]

    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert shown == f"voicequeue {VERSION}\n"
    assert create_app(settings).version == VERSION
    assert process_facts(settings, "worker")["version"] == VERSION
    assert f"voicequeue/{VERSION}" == USER_AGENT


def test_only_one_module_asks_for_the_version_of_the_package() -> None:
    """The metadata of a checkout are those of its installation, which may be older than its code."""
    asking = [
        str(path.relative_to(ROOT))
        for package in ("voicequeue", "tasks", "workers", "config")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"\b(version|distribution|metadata)\(\s*[\"']voicequeue", path.read_text(encoding="utf-8"))
    ]

    assert asking == ["voicequeue/version.py"]


def test_the_changelog_begins_with_the_release() -> None:
    """Under its number; `make dist` builds no other release."""
    check_changelog((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))

    for other in ("", "# Changelog\n\n## Unreleased\n", f"## {RELEASE}1\n\n## {RELEASE}\n"):
        with pytest.raises(DistributionError, match=f"under the heading `## {RELEASE}`"):
            check_changelog(other)


# ── each build has its own ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("description", "version"),
    [
        (f"v{RELEASE}-0-g1234abcd", RELEASE),
        (f"v{RELEASE}-0-g1234abcd.dirty", f"{RELEASE}.dev0+g1234abcd.dirty"),
        (f"v{RELEASE}-12-g1234abcd", f"{RELEASE}.dev0+g1234abcd"),
        ("1234abcd", f"{RELEASE}.dev0+g1234abcd"),
        ("1234abcd.dirty", f"{RELEASE}.dev0+g1234abcd.dirty"),
        ("", f"{RELEASE}.dev0"),
        ("fatal: not a git repository", f"{RELEASE}.dev0"),
    ],
)
def test_only_the_tagged_commit_is_the_release(description: str, version: str) -> None:
    """Every other commit, and each changed checkout, is a development version that names its commit."""
    assert described(description) == version


def sources_of_image() -> list[str]:
    """Return the files and folders that the image's build copies before it makes the wheel."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    steps = dockerfile.partition(" AS build\n")[2].partition("RUN python -m hatchling build")[0]
    return [name for names in re.findall(r"^COPY (.+) \S+$", steps, re.MULTILINE) for name in names.split()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a copy of what the image's build has: it has no git, and no other file of the checkout."""
    folder = tmp_path / "source"
    folder.mkdir()
    for path in (ROOT / name for name in sources_of_image()):
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, folder)
    return folder


def build(folder: Path, target: str, **environment: str) -> Path:
    """Build a package with the tools of this environment, without network access; return its file."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder / "dist")]
    env = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", BUILD_VARIABLE)}
    subprocess.run(command, cwd=folder, env={**env, **environment}, check=True, capture_output=True)
    [path] = (folder / "dist").glob("*.whl" if target == "wheel" else "*.tar.gz")
    return path


def test_a_build_without_git_has_the_version_that_it_is_given(source: Path) -> None:
    """The image's build has no git; without a version, it is a development version of unknown commit."""
    unknown = build(source, "wheel").name
    shutil.rmtree(source / "dist")

    assert unknown == f"voicequeue-{RELEASE}.dev0-py3-none-any.whl"
    assert build(source, "wheel", **{BUILD_VARIABLE: "7.8.9"}).name == "voicequeue-7.8.9-py3-none-any.whl"


def test_the_image_is_built_with_the_version_of_the_checkout() -> None:
    """The build receives it before it makes the wheel, from compose and from `docker build`."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    worker = compose["services"]["worker"]["build"]

    assert re.search(rf"\nARG {BUILD_VARIABLE}\nRUN python -m hatchling build", dockerfile)
    assert worker["args"] == {BUILD_VARIABLE: f"${{{BUILD_VARIABLE}:-}}"}


@pytest.mark.endurance
def test_a_source_package_builds_the_very_wheel(source: Path) -> None:
    """With the same version and bytes, at another time and in another folder."""
    environment = {BUILD_VARIABLE: f"{RELEASE}.dev0+g1234abcd", "SOURCE_DATE_EPOCH": "1790000000"}
    packed, wheel = build(source, "sdist", **environment), build(source, "wheel", **environment)
    unpacked = source.parent / "unpacked"
    shutil.unpack_archive(packed, unpacked, filter="data")

    again = build(next(unpacked.iterdir()), "wheel", SOURCE_DATE_EPOCH="1790000000")

    assert (again.name, again.read_bytes()) == (wheel.name, wheel.read_bytes())
