"""The ledger: calls, charges and tasks. Pure: no clock, no sockets, no random values."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from simulator.contract.orders import Hook, Kind, Song

#: The calls that are counted.
CALLS = ("create_voice", "create_music", "task", "credits")
#: The counts of webhooks. `sent` is `delivered` (a 2xx response) plus `failed` plus those without a response yet.
WEBHOOK_COUNTS = ("sent", "delivered", "failed")


@dataclass(slots=True)
class Task:
    """One charge and its task. Times are Unix seconds; `base` is the API's URL as the client uses it.

    `clip_fails`, `clip_stalls`: the second clip fails, with `clip_word` as its state, or never ends. `links_at`: when
    the links appear. `poll_refusal`: the name of the refusal that answers every poll of the task, if any.
    """

    task_id: str
    kind: Kind
    subject: str
    fingerprint: str
    at: float
    ready_at: float
    base: str
    song: Song
    credits: int = 0
    hook: Hook | None = None
    fails: bool = False
    clip_fails: bool = False
    clip_word: str = "failed"
    clip_stalls: bool = False
    links_at: float = 0.0
    poll_refusal: str = ""
    was_answered: bool = False
    polls: int = 0

    def as_charge(self) -> dict[str, object]:
        """Return the task as the ledger shows it."""
        return {
            "task_id": self.task_id,
            "kind": self.kind,
            "subject": self.subject,
            "fingerprint": self.fingerprint,
            "credits": self.credits,
            "at": self.at,
            "ready_at": None if math.isinf(self.ready_at) else self.ready_at,
            "polls": self.polls,
            "answered": self.was_answered,
        }


class Recorder:
    """Receives every change that a restart must not lose. This one keeps nothing."""

    def restore(self, ledger: "Ledger") -> None:
        """Write what was kept to a new ledger."""

    def record(self, ledger: "Ledger", tasks: Iterable[Task] = ()) -> None:
        """Keep the account and these tasks as they are now."""

    def clear(self) -> None:
        """Forget everything."""


class Ledger:
    """The account: its credits, its tasks, and the counts of calls, faults and webhooks."""

    def __init__(self, credits_left: int, recorder: Recorder | None = None) -> None:
        self._recorder = recorder or Recorder()
        self.credits_left = credits_left
        self.credits_spent = 0
        #: How many tasks were charged; `tasks` may have lost old ones at a restart.
        self.charged = 0
        self.tasks: dict[str, Task] = {}
        self.calls: Counter[str] = Counter(dict.fromkeys(CALLS, 0))
        self.statuses: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self.webhooks: Counter[str] = Counter(dict.fromkeys(WEBHOOK_COUNTS, 0))
        #: Files requested, and those sent completely, as a whole or as the requested part.
        self.media: Counter[str] = Counter(asked=0, whole=0, parts=0)
        #: How often each request was made, so that each repetition has its own random values.
        self.request_counts: Counter[str] = Counter()
        # (ready_at, task_id) of tasks in progress, earliest first; cleaned up on access, so no task needs a timer.
        self._working: list[tuple[float, str]] = []

    def charge(self, task: Task) -> None:
        """Charge the credits of a task and store it."""
        self.credits_left -= task.credits
        self.credits_spent += task.credits
        self.charged += 1
        self.add(task)
        self._recorder.record(self, [task])

    def add(self, task: Task) -> None:
        """Store a task."""
        self.tasks[task.task_id] = task
        heappush(self._working, (task.ready_at, task.task_id))

    def set_credits(self, balance: int) -> None:
        """Set the balance."""
        self.credits_left = balance
        self._recorder.record(self)

    def mark_answered(self, task: Task) -> None:
        """Record that the client was sent the id of a task."""
        task.was_answered = True
        self._recorder.record(self, [task])

    def count(self, what: str) -> int:
        """Count a request, and return how often it was made."""
        self.request_counts[what] += 1
        return self.request_counts[what]

    def in_progress(self, now: float) -> int:
        """Return the number of tasks that are charged and not ready."""
        while self._working and self._working[0][0] <= now:
            heappop(self._working)
        return len(self._working)

    def settle(self, task: Task, now: float, *, fails: bool) -> bool:
        """Make a task ready or failed now. Return False, without a change, if it was ready already."""
        if task.ready_at <= now:
            return False
        self._working.remove((task.ready_at, task.task_id))
        heapify(self._working)
        task.ready_at = now
        task.fails = fails
        self._recorder.record(self, [task])
        return True

    def as_json(self, *, charges: bool = True) -> dict[str, object]:
        """Return the ledger; without the charges its size is bounded."""
        shown = [task.as_charge() for task in self.tasks.values()] if charges else []
        return {
            "credits_spent": self.credits_spent,
            "credits_left": self.credits_left,
            "calls": self.calls,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "faults": self.faults,
            "webhooks": self.webhooks,
            "media": self.media,
            "charged": self.charged,
            "double_charges": repeated(task.fingerprint for task in self.tasks.values()),
            "charges": shown,
        }


def repeated(values: Iterable[str]) -> list[str]:
    """Return the values that occur more than once, in the order of their first occurrence."""
    return [value for value, count in Counter(values).items() if count > 1]
