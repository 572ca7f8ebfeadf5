"""A model of stop-loss: the outcomes that each batch must count, derived from the timelines of its jobs."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

from voicequeue import FailureCode, State
from voicequeue.domain.states import ACTIVE, SETTLED
from voicequeue.domain.stop_loss import STOP_MIN

#: Failures that no sample counts.
NOT_SAMPLED = {FailureCode.EXPIRED, FailureCode.ABANDONED}


class Outcomes:
    """The sample of each batch, followed step by step."""

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}
        #: By batch, the failed jobs that its sample counts, with their failure codes.
        self._failed: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._settled: Counter[str] = Counter()
        #: The failed jobs that a sample counts, of which no order may have been charged; and their number by batch.
        self._free_jobs: set[str] = set()
        self._free: Counter[str] = Counter()
        #: By batch, the failures by code; a retried job counts again when it fails again.
        self._failures: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.stopped: set[str] = set()

    def restart(self, batch: str) -> None:
        """End the stop of a batch, and count from the beginning."""
        self.stopped.discard(batch)
        del self._settled[batch], self._free[batch]
        self._failed.pop(batch, None)
        self._failures.pop(batch, None)

    def follow(self, records: dict[str, dict[str, str]], timelines: dict[str, list[str]]) -> None:
        """Follow the transitions since the last call."""
        self._versions = {job_id: version for job_id, version in self._versions.items() if job_id in records}
        for failed in self._failed.values():
            for job_id in failed.keys() - records.keys():
                del failed[job_id]  # purged: its outcome stays counted
        for job_id, record in records.items():
            entries = [json.loads(line) for line in timelines.get(job_id, [])]
            first = self._versions.get(job_id, 1) - 1
            self._versions[job_id] = int(record["version"])
            for index in range(first, len(entries)) if "batch" in record else ():
                before = State(entries[index - 1]["state"] if index else State.QUEUED)
                self._step(record, job_id, before, entries[index])

    def _step(self, record: dict[str, str], job_id: str, before: State, entry: dict[str, Any]) -> None:
        batch, failure = record["batch"], json.loads(record.get("failure", "{}"))
        state, reason = State(entry["state"]), entry.get("reason", "")
        # Transitions of waiting jobs with a reason are those of the job that creates the voice.
        if reason.startswith("uses voice") or (before is State.WAITING and state is State.FAILED and reason):
            return
        counted = self._failed[batch].pop(job_id, None) if before is State.FAILED else None
        if counted and state in (State.QUEUED, State.WAITING):
            return
        if counted:
            self._settled[batch] -= 1
            self._failures[batch][counted] -= 1
            self._free[batch] -= job_id in self._free_jobs
        code = failure.get("code", "") if state is State.FAILED else ""
        has_outcome = state is State.SUCCEEDED or (code and code not in NOT_SAMPLED)
        if has_outcome and (counted or before not in SETTLED):
            self._settled[batch] += 1
            if code:
                self._failures[batch][code] += 1
                self._failed[batch][job_id] = code
                self._free_jobs.discard(job_id)
                if not int(record.get("credits", 0)) and "lost_orders" not in record:
                    self._free_jobs.add(job_id)
                    self._free[batch] += 1

    def check(self, batch: str, record: dict[str, str]) -> None:
        """Compare the record of a batch with its sample, and with the stop that follows from it."""
        failures = +self._failures[batch]
        settled, failed, free = self._settled[batch], failures.total(), self._free[batch]
        limit, least = float(record.get("stop_after", 2)), int(record.get("stop_min", STOP_MIN))
        is_paid_in_vain = settled - free >= least and (failed - free) / (settled - free) >= limit
        is_failing = settled >= least and failed / (settled + int(record.get("pending", 0))) >= limit
        if (is_paid_in_vain or is_failing) and any(int(record.get(state, 0)) for state in ACTIVE):
            self.stopped.add(batch)
        sample = {name.removeprefix("sample."): int(n) for name, n in record.items() if name.startswith("sample.")}
        counts = sample.pop("settled", 0), sample.pop("failed", 0), sample.pop("free", 0)
        assert counts == (settled, failed, free)
        by_code = {name.removeprefix("failed."): n for name, n in sample.items() if name != "round" and n}
        assert by_code == failures
        assert ("stopped" in record) == (batch in self.stopped)
