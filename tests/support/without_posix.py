"""Take from this process what only POSIX systems have, so that it fails where a producer on Windows would.

As a program it then runs the `voicequeue` command, as in `python -m tests.support.without_posix status`.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import pkgutil
import signal
import socket
import sys
import time
from types import ModuleType
from typing import Any, cast

#: Modules that Windows does not have.
MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty", "uvloop")

#: Names that these modules do not have on Windows, besides the clocks of `time`.
NAMES: dict[ModuleType, tuple[str, ...]] = {
    os: (
        *("chown", "fchmod", "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgroups", "getloadavg"),
        *("getpgid", "getpgrp", "getsid", "getuid", "killpg", "lchown", "lockf", "mkfifo", "mknod", "nice", "openpty"),
        *("pipe2", "pread", "preadv", "pwrite", "pwritev", "sched_getaffinity", "sched_yield", "sendfile", "setsid"),
        *("statvfs", "sync", "sysconf", "tcgetpgrp", "ttyname", "uname", "wait", "wait3", "wait4", "waitid"),
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "O_PATH", "O_SYNC"),
    ),
    signal: (
        *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP"),
        *("SIGUSR1", "SIGUSR2", "SIGWINCH", "alarm", "pause", "pthread_kill", "pthread_sigmask", "setitimer"),
    ),
    socket: ("AF_NETLINK", "AF_UNIX", "MSG_DONTWAIT", "SO_REUSEPORT", "TCP_USER_TIMEOUT", "TCP_CORK", "socketpair"),
    time: ("clock_gettime", "clock_settime", "pthread_getcpuclockid", "tzset"),
}

#: Libraries that choose by the platform when they are imported. They are tested by their authors.
_LIBRARIES = (
    *(
        "asyncio",
        "charset_normalizer",
        "cryptography.fernet",
        "dotenv",
        "openpyxl",
        "pydantic.fields",
        "redis.asyncio",
        "requests",
    ),
    *("rich.progress", "rich.prompt", "typer.main", "typer.rich_utils", "urllib3.contrib", "multiprocessing"),
    *(
        "concurrent.futures.process",
        "getpass",
        "gzip",
        "pathlib",
        "subprocess",
        "tempfile",
        "uuid",
        "webbrowser",
        "zoneinfo",
    ),
)


def _msvcrt() -> ModuleType:
    """Return a module with the lock of Windows, made from a lock of this system."""
    module: Any = ModuleType("msvcrt")
    module.LK_NBLCK = 2
    lockf, mode = fcntl.lockf, fcntl.LOCK_EX | fcntl.LOCK_NB
    module.locking = lambda descriptor, _, count: lockf(descriptor, mode, count)
    return cast(ModuleType, module)


def become_windows() -> None:
    """Remove the modules and names. Libraries are imported before, ours must not be."""
    assert not [name for name in sys.modules if name.startswith("voicequeue")]
    for library in _LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    sys.modules.update({"msvcrt": _msvcrt(), **dict.fromkeys(MODULES)})  # type: ignore[dict-item]
    for module, names in NAMES.items():
        for name in (*names, *(name for name in dir(module) if name.startswith("CLOCK_"))):
            if hasattr(module, name):
                delattr(module, name)
    sys.platform = "win32"


def import_everything() -> int:
    """Import each module of the library, and return how many there are."""
    package = importlib.import_module("voicequeue")
    names = [module.name for module in pkgutil.walk_packages(package.__path__, "voicequeue.")]
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    return len(names)


if __name__ == "__main__":
    become_windows()
    importlib.import_module("voicequeue.cli").main()
