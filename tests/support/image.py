"""The image of the Dockerfile, without Docker: its packages, its folders and its environment.

The packages are those of its lock file, linked from this environment, and the wheel of voicequeue. The folders are
copied as the Dockerfile copies them.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.support.composed import ROOT

#: A requirement of a lock file, with its marker.
_LOCKED = re.compile(r"^([a-z0-9._-]+==[^\\\n]+?) *\\?$", re.MULTILINE)


@dataclass(frozen=True)
class Image:
    """The view of a container: its environment (`/venv`), its working folder (`/app`), and its default command."""

    venv: Path
    app: Path
    command: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the Dockerfile sets, with local paths."""
        [line] = re.findall(r"^ENV (PATH=.*)$", dockerfile(), re.MULTILINE)
        pairs = (pair.partition("=")[::2] for pair in line.split())
        return {name: self.located(value).replace("$PATH", "/usr/bin:/bin") for name, value in pairs}

    def located(self, text: str) -> str:
        """Return the text with the folders of this image instead of a container's."""
        return re.sub(r"/(venv|app)\b", lambda match: str(getattr(self, match[1])), text)

    def files(self) -> dict[Path, int]:
        """Return the times of all files, to compare them: a container cannot write to its image."""
        return {file: file.lstat().st_mtime_ns for folder in (self.venv, self.app) for file in folder.rglob("*")}


def dockerfile() -> str:
    """Return the text of the Dockerfile."""
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


def build(folder: Path) -> Image:
    """Build the image, with the simulator of its stage `demo`, in this folder."""
    image = Image(folder / "venv", folder / "app", default_command())
    venv.EnvBuilder(symlinks=True).create(image.venv)
    site_packages = next(image.venv.glob("lib/python*/site-packages"))
    for requirement in locked():
        _link(requirement, site_packages)
    _install_wheel(image.venv, folder / "dist")
    for name in copied_folders():
        shutil.copytree(ROOT / name, image.app / name, ignore=_ignored)
    compileall.compile_dir(image.app, quiet=2)
    return image


def copied_folders() -> list[str]:
    """Return the folders that are copied to `/app`, as far as .dockerignore lets them into the build."""
    names: list[str] = re.findall(r"^COPY (\w+) \1$", dockerfile().partition("AS runtime")[2], re.MULTILINE)
    permitted = {line[1:] for line in _dockerignore() if line.startswith("!")}
    return [name for name in names if name in permitted]


def default_command() -> tuple[str, ...]:
    """Return the command of the image."""
    [arguments] = re.findall(r"^CMD \[(.*)\]$", dockerfile(), re.MULTILINE)
    return tuple(re.findall(r'"([^"]*)"', arguments))


def locked() -> list[Requirement]:
    """Return the packages that the Dockerfile installs for the processes, as far as they are for this system."""
    [lock] = re.findall(r"/venv/bin/pip install --require-hashes -r (\S+)$", dockerfile(), re.MULTILINE)
    requirements = map(Requirement, _LOCKED.findall((ROOT / lock).read_text(encoding="utf-8")))
    return [requirement for requirement in requirements if not requirement.marker or requirement.marker.evaluate()]


def _link(requirement: Requirement, site_packages: Path) -> None:
    """Link the files of an installed package. Raises LookupError if another version is installed."""
    package = distribution(requirement.name)
    if not requirement.specifier.contains(package.version, prereleases=True):
        raise LookupError(f"{requirement} is locked, and {package.version} is installed: make setup")
    for file in package.files or ():
        if ".." not in file.parts:  # its scripts are not used
            target = site_packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(Path(str(file.locate())).resolve())


def _install_wheel(environment: Path, folder: Path) -> None:
    build_wheel = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build_wheel, cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    install += ["--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": ""})


def _ignored(_: str, names: list[str]) -> set[str]:
    patterns = [line.removeprefix("**/") for line in _dockerignore() if line.startswith("**/")]
    return {name for name in names if any(fnmatch(name, pattern) for pattern in patterns)}


def _dockerignore() -> list[str]:
    return (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
