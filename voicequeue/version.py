"""The version of the code that runs: the same for packages, the image, processes and pages.

`RELEASE` is the only place to change. A package carries the version that it was built with. A checkout is the release
if its commit has the tag `vRELEASE`, and a development version with the commit otherwise.
"""

from __future__ import annotations

import os
import re
import subprocess
from importlib import metadata
from pathlib import Path

#: The next release, or the one that was just made.
RELEASE = "0.1.0"

#: The version of a build outside of a git checkout, such as the image's: `make version` prints it.
BUILD_VARIABLE = "VOICEQUEUE_BUILD"

_GIT_TIMEOUT_S = 5.0


#: The output of `git describe`: the tag and the number of commits since, if there is one, and the commit.
_DESCRIPTION = re.compile(r"(?:v.+-(?P<since>[0-9]+)-)?g?(?P<commit>[0-9a-f]{8,40})(?P<dirty>\.dirty)?")


def described(description: str) -> str:
    """Return the version of a checkout from the output of `git describe`, which is empty without git.

    A commit without the release's tag, or with changes that are not committed, is a development version.
    """
    if (match := _DESCRIPTION.fullmatch(description)) is None:
        return f"{RELEASE}.dev0"
    if match["since"] == "0" and not match["dirty"]:
        return RELEASE
    return f"{RELEASE}.dev0+g{match['commit']}{match['dirty'] or ''}"


def _describe(folder: Path) -> str:
    """Return the release's tag, if there is one, and the commit of a checkout; an empty text without git."""
    if not (folder / ".git").exists():
        return ""
    options = ("--tags", f"--match=v{RELEASE}", "--long", "--always", "--abbrev=8", "--dirty=.dirty")
    command = ["git", "--no-optional-locks", "-C", str(folder), "describe", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _version() -> str:
    folder = Path(__file__).resolve().parents[1]
    if (folder / "pyproject.toml").is_file():
        return os.environ.get(BUILD_VARIABLE) or described(_describe(folder))
    try:
        return metadata.version("voicequeue")
    except metadata.PackageNotFoundError:  # a copy of the folder alone
        return described("")


VERSION = _version()

#: How our requests to other servers name this program.
USER_AGENT = f"voicequeue/{VERSION}"
