"""The previous release, as a host would have it, and processes that run one release or the other."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

from workers.local.stack import procfile

ROOT = Path(__file__).resolve().parents[2]

#: The code of the previous release: tests/tools/release_fixture.py renews it.
PREVIOUS = ROOT / "tests" / "releases" / "previous.tar.xz"


def unpack_previous(folder: Path) -> Path:
    """Unpack the previous release; return its folder."""
    with tarfile.open(PREVIOUS) as content:
        content.extractall(folder, filter="data")
    return folder


@dataclass(frozen=True)
class Deployments:
    """The release of each program of a stack: a link per program, as deployments have them.

    A program runs the release that its link names when it starts.
    """

    folder: Path
    previous: Path

    def command(self, name: str, kind: str, *, is_previous: bool) -> str:
        """Return the command of a program that runs a kind of process, at first of this or of the previous release."""
        self.deploy(name, is_previous=is_previous)
        return f"cd '{self._link(name)}' && export PYTHONPATH=$(pwd -P) && {procfile()[kind]}"

    def deploy(self, name: str, *, is_previous: bool) -> None:
        """Let the next start of a program run this or the previous release."""
        self.folder.mkdir(parents=True, exist_ok=True)
        link = self._link(name)
        new = link.with_suffix(".new")
        new.symlink_to(self.previous if is_previous else ROOT)
        new.replace(link)

    def _link(self, name: str) -> Path:
        return self.folder / name
