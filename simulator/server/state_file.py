"""The account in a file (SQLite): tasks, credits and counts survive a restart, also a kill.

A change is written before its response is sent. It reaches the disk when the system writes it, so only a crash of the
machine may lose the latest changes; SQLite then still reads the file.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from simulator.contract.ledger import Ledger, Recorder, Task
from simulator.contract.orders import Hook, Song

#: The latest tasks are kept, with up to so many more until the next deletion.
TASKS_MAX = 5_000
_DELETED_AT_ONCE = 500

#: Seconds to wait for another process that uses the file and is stopping.
_LOCK_TIMEOUT_S = 5.0

_COUNTS = ("calls", "faults", "webhooks", "media")
_TABLES = """
CREATE TABLE IF NOT EXISTS tasks (task_id TEXT PRIMARY KEY, at REAL NOT NULL, task TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS tasks_by_time ON tasks (at);
CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_DELETE_OLDEST = """
DELETE FROM tasks WHERE task_id IN (SELECT task_id FROM tasks ORDER BY at DESC, rowid DESC LIMIT -1 OFFSET ?)
"""


class StateFileError(Exception):
    """The file cannot be used; the text says why."""


class StateFile(Recorder):
    """A file with the state of one account. Raises StateFileError if it is another kind of file, or in use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unpruned = 0
        with self._errors():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S, isolation_level=None)
            for setting in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = OFF"):
                self._database.execute(f"PRAGMA {setting}")
            self._database.executescript(_TABLES)

    def restore(self, ledger: Ledger) -> None:
        """Write the tasks, credits and counts of the file to a new ledger."""
        with self._errors():
            account = {name: json.loads(value) for name, value in self._database.execute("SELECT * FROM account")}
            rows = self._database.execute("SELECT task FROM tasks ORDER BY at, rowid").fetchall()
        for name in ("credits_left", "credits_spent", "charged"):
            setattr(ledger, name, account.get(name, getattr(ledger, name)))
        for name in _COUNTS:
            getattr(ledger, name).update(account.get(name, {}))
        ledger.statuses.update({int(status): count for status, count in account.get("statuses", {}).items()})
        for (line,) in rows:
            ledger.add(_task(json.loads(line)))
        # The next order of the same content is another one: without this, a seed would give it the same task id.
        charges = Counter(task.fingerprint for task in ledger.tasks.values())
        ledger.request_counts.update({f"charge {fingerprint}": count for fingerprint, count in charges.items()})

    def record(self, ledger: Ledger, tasks: Iterable[Task] = ()) -> None:
        """Write the account and these tasks, all or nothing."""
        rows = [(task.task_id, task.at, _line(task)) for task in tasks]
        with self._errors(), self._transaction():
            self._database.executemany("INSERT OR REPLACE INTO account VALUES (?, ?)", _account(ledger))
            self._database.executemany("INSERT OR REPLACE INTO tasks VALUES (?, ?, ?)", rows)
            self._unpruned += len(rows)
            if self._unpruned >= _DELETED_AT_ONCE:
                self._prune()

    def clear(self) -> None:
        """Delete everything from the file."""
        with self._errors(), self._transaction():
            self._database.execute("DELETE FROM tasks")
            self._database.execute("DELETE FROM account")

    def _prune(self) -> None:
        self._database.execute(_DELETE_OLDEST, (TASKS_MAX,))
        self._unpruned = 0

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise StateFileError(f"another simulator uses the state file {self._path}") from error
            raise StateFileError(f"{self._path} cannot be used as a state file: {error}; delete it") from error


def _account(ledger: Ledger) -> list[tuple[str, str]]:
    names = ("credits_left", "credits_spent", "charged", "statuses", *_COUNTS)
    return [(name, json.dumps(getattr(ledger, name))) for name in names]


def _line(task: Task) -> str:
    song, hook = task.song._asdict(), task.hook._asdict() if task.hook else None
    return json.dumps({**asdict(task), "song": song, "hook": hook})


def _task(line: dict[str, Any]) -> Task:
    """Return the task of a line, also of another release: unknown fields are ignored, missing ones have defaults."""
    values = {field.name: line[field.name] for field in fields(Task) if field.name in line}
    song = Song(**{name: line["song"].get(name, "") for name in Song._fields})
    hook = Hook(line["hook"]["url"], line["hook"]["secret"]) if line["hook"] else None
    return Task(**{**values, "song": song, "hook": hook})
