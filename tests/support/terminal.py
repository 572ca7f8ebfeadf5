"""Pictures of a command on a terminal: it runs on a pseudo-terminal, and xterm.js draws its output in a browser."""

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


def output_of(command: Sequence[str], environment: Mapping[str, str], *, until: Callable[[], bool]) -> bytes:
    """Return the command's terminal output until the condition holds, then terminate the command."""
    parent_end, child_end = pty.openpty()
    fcntl.ioctl(child_end, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    env = {**os.environ, **environment, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(
        command, stdin=child_end, stdout=child_end, stderr=child_end, env=env, start_new_session=True
    )
    os.close(child_end)
    output = bytearray()
    deadline = time.monotonic() + 60
    while not until() and time.monotonic() < deadline:
        if select.select([parent_end], [], [], 0.1)[0]:
            try:
                output += os.read(parent_end, 65_536)
            except OSError:  # the command has ended
                break
    process.terminate()
    process.wait()
    os.close(parent_end)
    return bytes(output)


def save_picture(browser: Browser, output: bytes, command: str, path: Path) -> None:
    """Save a picture of a terminal on which `command` was typed and printed `output`. Raises FileNotFoundError."""
    if not _XTERM.is_dir():
        raise FileNotFoundError(MISSING)
    page = browser.new_page(viewport={"width": 1200, "height": 600})
    page.set_content('<body style="margin:0"><div id="terminal" style="display:inline-block;padding:12px"></div>')
    page.add_style_tag(content="#terminal { background: #16201c; border-radius: 8px }")
    page.add_style_tag(path=_XTERM / "css" / "xterm.css")
    page.add_script_tag(path=_XTERM / "lib" / "xterm.js")
    page.evaluate(_DRAW, [b64encode(output).decode(), f"$ {command}\r\n", COLUMNS, LINES])
    page.locator("#terminal").screenshot(path=path)
    page.close()
