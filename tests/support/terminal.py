"""A command as it looks on a terminal: it runs on a real one, and xterm.js draws in a browser what it wrote."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from playwright.sync_api import Browser

from tests.node import MISSING, MODULES

COLUMNS, LINES = 104, 8

_XTERM = MODULES / "@xterm" / "xterm"

_DRAW = """([written, prompt, columns, rows]) => new Promise((done) => {
  const colours = { background: "#16201c", foreground: "#e6ece9", cursor: "#16201c" };
  const shown = new Terminal({ cols: columns, rows, fontSize: 15, fontFamily: "DejaVu Sans Mono", theme: colours });
  shown.open(document.querySelector("#terminal"));
  shown.write(prompt);
  shown.write(Uint8Array.from(atob(written), (letter) => letter.charCodeAt(0)), () => setTimeout(done, 200));
})"""


def written_by(command: Sequence[str], environment: Mapping[str, str], *, until: Callable[[], bool]) -> bytes:
    """What a command wrote to its terminal until then; it is ended if it has not."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    shown = {**os.environ, **environment, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=shown, start_new_session=True)
    os.close(its)
    found = bytearray()
    give_up = time.monotonic() + 60
    while not until() and time.monotonic() < give_up:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                found += os.read(ours, 65_536)
            except OSError:  # it has ended
                break
    process.terminate()
    process.wait()
    os.close(ours)
    return bytes(found)


def taken(browser: Browser, written: bytes, said: str, path: Path) -> None:
    """A picture of a terminal on which `said` was typed and this was written. Raises FileNotFoundError."""
    if not _XTERM.is_dir():
        raise FileNotFoundError(MISSING)
    page = browser.new_page(viewport={"width": 1200, "height": 600})
    page.set_content('<body style="margin:0"><div id="terminal" style="display:inline-block;padding:12px"></div>')
    page.add_style_tag(content="#terminal { background: #16201c; border-radius: 8px }")
    page.add_style_tag(path=_XTERM / "css" / "xterm.css")
    page.add_script_tag(path=_XTERM / "lib" / "xterm.js")
    page.evaluate(_DRAW, [b64encode(written).decode(), f"$ {said}\r\n", COLUMNS, LINES])
    page.locator("#terminal").screenshot(path=path)
    page.close()
