"""Run `voicequeue` from shells without starting an interpreter with all its imports for each command.

The server has imported the command line, and forks for each call. The child gets the caller's arguments, folder,
environment and standard streams, and runs the same `main` as the real script. A page has dozens of commands; their
starts would cost most of the time of the tests.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path

#: The program that takes the place of `voicequeue` in the PATH of a shell.
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    call = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(call).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(call)
    sys.exit(int(server.recv(16) or b"70"))
"""


def write_client(file: Path, address: Path) -> None:
    """Write the client, an executable."""
    file.write_text(CLIENT.format(python=Path(sys.executable).resolve(), address=str(address)), encoding="utf-8")
    file.chmod(0o755)


def serve(address: Path) -> None:
    """Answer calls until this process is stopped."""
    from voicequeue import cli  # noqa: PLC0415

    for module in pkgutil.walk_packages(cli.__path__, "voicequeue.cli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen(16)
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> None:
    """Run one call in this process, and end it."""
    code = 70
    try:
        code = _run(connection)
    except BaseException:  # an error of a command is for its caller, and must not reach the server's loop
        traceback.print_exc()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(str(code).encode())
    os._exit(code)


def _run(connection: socket.socket) -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, _, _ = socket.recv_fds(connection, 8, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    # The old ones remember what they know of the server's streams, such as whether these can seek.
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rww"))
    call = b""
    while len(call) < int.from_bytes(head, "big"):
        call += connection.recv(65_536)
    arguments, folder, environment = json.loads(call)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["voicequeue", *arguments]
    from voicequeue.cli import main  # noqa: PLC0415

    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
