"""A real browser for page tests: Debian's chromium, driven by Playwright. `python -m tests.support.browser` installs
it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

MISSING = (
    "no browser is installed, and only root can install one here: `apt-get install chromium`, "
    "or install chromium or google-chrome by hand"
)

#: Options that keep the browser from sending requests other than those of the pages.
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def executable() -> str | None:
    """Return the path of an installed browser, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def install() -> bool:
    """Install Debian's chromium if no browser is installed and this user may; return whether a browser is installed
    now."""
    if executable() is None and shutil.which("apt-get"):
        as_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
        quietly = ["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
        for step in (["update"], ["install", "--yes", "--no-install-recommends", "chromium", "fonts-dejavu-core"]):
            _run([*as_root, "env", "DEBIAN_FRONTEND=noninteractive", *quietly, *step])
    return executable() is not None


def _run(command: list[str]) -> None:
    if shutil.which(command[0]):
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)


@contextmanager
def started() -> Iterator[Browser]:
    """Start a headless browser. Raises FileNotFoundError with installation instructions."""
    path = executable()
    if path is None:
        raise FileNotFoundError(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        yield browser
        browser.close()


if __name__ == "__main__":
    sys.exit(None if install() else f"{MISSING}. Page tests will fail; everything else works.")
