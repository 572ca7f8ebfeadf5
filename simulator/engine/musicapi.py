"""The decisions of MusicAPI: refusals, charges, results of polls. No sockets; time is an argument."""

import math
from collections.abc import Mapping
from operator import attrgetter

from simulator.contract import answers
from simulator.contract.answers import ApiResponse, Json
from simulator.contract.chance import Chance
from simulator.contract.ledger import Ledger, Recorder, Task
from simulator.contract.orders import Kind, Order
from simulator.contract.refusals import LIMITS, REFUSALS
from simulator.contract.rules import contract_violation, moderation_refusal
from simulator.engine.dials import (
    CLIP_WORDS,
    CLIPS_SHAPES,
    CODE_SHAPES,
    ERROR_PLACES,
    FAILURE_SHAPES,
    PENDING_SHAPES,
    TASK_ID_PLACES,
    VOICE_SHAPES,
    Dials,
)
from simulator.engine.faults import Fault, apply_fault, draw
from simulator.engine.limits import Rate

# The dials of each kind: seconds until ready, and the probability of failure.
_VOICE_DIALS = attrgetter("voice_s", "voice_failure")
_MUSIC_DIALS = attrgetter("music_s", "music_failure")


class MusicApi:
    """One account at MusicAPI. All times are Unix seconds."""

    def __init__(self, dials: Dials, recorder: Recorder | None = None) -> None:
        self.dials = dials
        self._recorder = recorder or Recorder()
        self._begin()
        self._recorder.restore(self.ledger)

    def reset(self) -> None:
        """Remove tasks and charges, and restore the credits and the random values. The dials are kept."""
        self._recorder.clear()
        self._begin()

    def save(self) -> None:
        """Keep everything as it is now, with the counts of polls."""
        self._recorder.record(self.ledger, self.ledger.tasks.values())

    def _begin(self) -> None:
        self.ledger = Ledger(self.dials.credits, self._recorder)
        self.chance = Chance(self.dials.seed)
        self._rate = Rate()

    def set_dials(self, values: Mapping[str, object]) -> None:
        """Set some dials, all or none. Raises InvalidDial."""
        self.dials = self.dials.changed(values)
        if "credits" in values:
            self.ledger.set_credits(self.dials.credits)
        if "seed" in values:
            self.chance = Chance(self.dials.seed)

    def fault(self, table: Mapping[str, float], what: str) -> Fault | None:
        """Return the fault that this call meets, if any. The n-th equal call always meets the same one."""
        nth = self.ledger.count(what)
        return draw(table, self.chance.fraction("fault", what, nth)) if table else None

    def create(self, order: Order, now: float) -> tuple[ApiResponse, Task | None]:
        """Charge for a voice or a song, or refuse. Return a task if and only if it was charged."""
        if refusal := self._refusal(order, now):
            return refusal, None
        task = self._task(order, now)
        self.ledger.charge(task)
        code = self._shape(self.dials.code_shape, CODE_SHAPES, "code", task.task_id)
        place = self._shape(self.dials.task_id_place, TASK_ID_PLACES, "place", task.task_id)
        return answers.created(task.task_id, code, place), task

    def poll(self, task_id: str, now: float) -> ApiResponse:
        """Return the response to a poll of this task."""
        task = self.ledger.tasks.get(task_id)
        if task is None:
            return self.task_not_found()
        task.polls += 1
        if task.poll_refusal:
            return REFUSALS[task.poll_refusal]
        if now >= task.ready_at:
            return ApiResponse(200, self.result(task, now))
        if self.dials.early_persona and task.kind == "voice":
            return ApiResponse(200, answers.voice_early(task, "running"))
        shape = self._shape(self.dials.pending_shape, PENDING_SHAPES, "pending", task_id, task.polls)
        if shape == "clips_pending":
            return ApiResponse(200, answers.clips_at(task, now))
        return answers.not_ready(202 if shape == "not_ready_202" else 200)

    def result(self, task: Task, now: float) -> Json:
        """Return the result of a settled task, equal for all polls and its webhook except for late links."""
        if task.fails and task.kind == "voice" and self.dials.early_persona:
            return answers.voice_early(task, "failed")
        if task.fails:
            shape = self._shape(self.dials.failure_shape, FAILURE_SHAPES, "failure", task.task_id)
            return answers.failed(task, shape)
        if task.kind == "voice":
            return answers.voice_ready(task, self._shape(self.dials.voice_shape, VOICE_SHAPES, "voice", task.task_id))
        shape = self._shape(self.dials.clips_shape, CLIPS_SHAPES, "clips", task.task_id)
        return answers.song_ready(task, shape, max(now, task.ready_at))

    def credits(self) -> ApiResponse:
        """Return the balance, split into credits and extra_credits; both count."""
        if self.dials.credits_with:
            return REFUSALS[self.dials.credits_with]
        balance = self.ledger.credits_left
        extra = min(balance, self.dials.extra_credits)
        return ApiResponse(200, {"credits": balance - extra, "extra_credits": extra})

    def refused(self, status: int, text: str) -> ApiResponse:
        """Return a refusal with its text in the field that the dial selects."""
        return answers.refused(status, text, self._error_place(text))

    def task_not_found(self) -> ApiResponse:
        """Return the response to a poll of an unknown task."""
        return self.refused(400, "task not found.")

    def apply_fault(self, fault: Fault, answer: ApiResponse, now: float) -> ApiResponse:
        """Return the response to a call that meets a fault."""
        match fault.kind:
            case "rate_limited":
                return self.slow_down("Too many requests. Please slow down.", now)
            case "lost_task":
                return self.task_not_found()
        return apply_fault(fault, answer)

    def _limited(self, text: str, now: float, wait: float | None = None) -> ApiResponse:
        """Return a refusal by a limit, in the words that the dial selects."""
        name = self._shape(self.dials.limit_with, LIMITS, "limit", self.ledger.count("limit"))
        return self.slow_down(text, now, wait) if name == "429" else REFUSALS[name]

    def slow_down(self, text: str, now: float, wait: float | None = None) -> ApiResponse:
        """Return a 429. Its Retry-After is the dial's value, or else the known wait in whole seconds."""
        seconds = self.dials.retry_after
        if seconds is None and wait is not None:
            seconds = math.ceil(wait)
        header = answers.retry_after(seconds, self.dials.retry_after_form, now)
        return answers.refused(429, text, self._error_place(text), header)

    def _refusal(self, order: Order, now: float) -> ApiResponse | None:
        if wait := self._wait_for_rate(now):
            return self._limited("Rate limit exceeded. Please slow down.", now, wait)
        if text := contract_violation(order):
            return self.refused(400, text)
        if order.mentions(self.dials.refuse_match):
            return REFUSALS[self.dials.refuse_with]
        if text := moderation_refusal(order, self.dials.moderate_match):
            return self.refused(403, text)
        if not self.dials.subscription:
            return self.refused(403, "You do not have an active subscription. Please subscribe to a plan.")
        if self.ledger.credits_left < self._price(order.kind):
            return self.refused(403, "The remaining credits are not enough. Please top up your credits.")
        if self._is_full(now):
            return self._limited("Too many tasks in progress. Please wait for one to finish.", now)
        return None

    def _wait_for_rate(self, now: float) -> float:
        rate = self.dials.rate_per_minute
        return self._rate.wait(now, rate, self.dials.rate_burst) if rate is not None else 0.0

    def _is_full(self, now: float) -> bool:
        # Called even without a limit, because it removes finished tasks from the heap.
        limit, working = self.dials.concurrency, self.ledger.in_progress(now)
        return limit is not None and working >= limit

    def _price(self, kind: Kind) -> int:
        return self.dials.voice_credits if kind == "voice" else self.dials.music_credits

    def _task_id(self, *what: object) -> str:
        """Return a UUID, or a number that JSON parsers read exactly."""
        task_id = self.chance.uuid("task", *what)
        return str(int(task_id.replace("-", "")[:12], 16) + 10**15) if self.dials.task_id_number else task_id

    def _task(self, order: Order, now: float) -> Task:
        dials, chance = self.dials, self.chance
        median, odds = _VOICE_DIALS(dials) if order.kind == "voice" else _MUSIC_DIALS(dials)
        what = (order.fingerprint, self.ledger.count(f"charge {order.fingerprint}"))
        ready_at = now + chance.spread(median, dials.jitter, "time", *what)
        if order.mentions(dials.stall_match):
            ready_at = math.inf
        is_late = chance.fraction("links", *what) < dials.link_late
        return Task(
            task_id=self._task_id(*what),
            kind=order.kind,
            subject=order.subject,
            fingerprint=order.fingerprint,
            at=now,
            ready_at=ready_at,
            credits=self._price(order.kind),
            base=order.base,
            song=order.song,
            hook=order.hook,
            fails=bool(order.mentions(dials.fail_match)) or chance.fraction("fail", *what) < odds,
            clip_fails=chance.fraction("clip", *what) < dials.clip_failure,
            clip_word=self._shape(dials.clip_word, CLIP_WORDS, "word", *what),
            clip_stalls=chance.fraction("stall", *what) < dials.clip_stall,
            links_at=ready_at + dials.link_delay_s if is_late else 0.0,
            poll_refusal=dials.refuse_polls_with if order.mentions(dials.refuse_polls_match) else "",
        )

    def _error_place(self, text: str) -> str:
        return self._shape(self.dials.error_place, ERROR_PLACES, "error", text)

    def _shape(self, dial: str, shapes: tuple[str, ...], *what: object) -> str:
        return self.chance.pick(shapes, *what) if dial == "mixed" else dial
