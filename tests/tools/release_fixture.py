"""Renew the fixture of the previous release: the code of its processes, which tests run beside the present one.

python -m tests.tools.release_fixture v0.1.0
"""

from __future__ import annotations

import argparse
import io
import lzma
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.releases import PREVIOUS

#: What a host of that release runs.
CONTENT = ("voicequeue", "tasks", "workers", "config", "Procfile")

ROOT = Path(__file__).resolve().parents[2]


def archive(commit: str) -> bytes:
    """Return the files of a commit as a tar file, compressed. The same commit gives the same bytes."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", commit, *CONTENT]
    content = subprocess.run(command, check=True, capture_output=True).stdout
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as target, tarfile.open(fileobj=io.BytesIO(content)) as source:
        for member in _needed(source):
            target.addfile(member, source.extractfile(member))
    return lzma.compress(packed.getvalue(), preset=9)


def _needed(source: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the files that processes read: no dashboards and alerts of other programs."""
    unread = ("config/grafana", "config/prometheus")
    return (member for member in source if member.isfile() and not member.name.startswith(unread))


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.release_fixture", description=__doc__)
    parser.add_argument("commit", help="the tag of the release")
    options = parser.parse_args()
    content = archive(options.commit)
    PREVIOUS.write_bytes(content)
    print(f"{PREVIOUS.relative_to(ROOT)}: {len(content):,} bytes, of {options.commit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
