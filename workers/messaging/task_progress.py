"""The tasks that this process runs now, and the jobs or callbacks in them, for its heartbeats."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from celery.worker import state

from workers.process_info import ACTIVE_TASKS, IN_PROGRESS


def task_facts() -> Mapping[str, Any]:
    """Return the number of tasks in progress, and of the ids in them; nothing if the tasks change meanwhile."""
    with suppress(RuntimeError):  # the event loop adds tasks while this thread reads them
        requests = list(state.active_requests)
        return {ACTIVE_TASKS: len(requests), IN_PROGRESS: sum(map(_ids, requests))}
    return {}


def _ids(request: Any) -> int:
    """Return the number of ids in a task; 1 for a task without a list of them."""
    args = request.args
    return len(args[0]) if args and isinstance(args[0], list) else 1
