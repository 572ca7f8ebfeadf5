"""What can go wrong with a call: the names of the faults, which of them a call meets, and what is answered instead."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from simulator.contract.answers import Answer, Json
from simulator.contract.refusals import REFUSALS

#: Faults a POST can meet. `…_before` strikes before the charge, `…_after` when the credits are gone.
POST_FAULTS = (
    *(f"{kind}_{when}" for kind in ("reset", "hang", "error", "html", "garbage") for when in ("before", "after")),
    "no_task_id_after",
    "drip_after",
    "cut_after",
    "rate_limited",
    "rate_in_body",
    "rate_403",
)
#: Faults a GET can meet. `lost_task` strikes polls alone.
#: `false_failure` says that the task failed, which the next poll may take back.
GET_FAULTS = (
    *("reset", "hang", "error", "html", "garbage", "drip", "cut", "rate_limited", "lost_task"),
    *("key_401", "style_403", "subscription_403", "busy", "false_failure"),
)

#: Faults of a GET that are about a task: get-credits meets none of them.
TASK_FAULTS = ("lost_task", "busy", "false_failure")

#: Faults the file behind a link can meet. With `overlong` its length is said to be more than what comes.
MEDIA_FAULTS = ("reset", "hang", "error", "page", "cut", "overlong", "lost")

#: Bodies that come with HTTP 200 and are not the contract's: not JSON, cut short, no object, an object of others.
GARBAGE = ("OK", '{"code": 200, "mess', "", "null", "[]", '{"ok": true}')

_ERROR_PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>\n"


class Fault(NamedTuple):
    """One fault that a call meets: its name on the dial, what it does, and whether it strikes after the charge.

    `roll` is a number of 0..1 that picks among the ways in which a fault can look.
    """

    name: str
    kind: str
    after: bool
    roll: float

    @property
    def tells_the_answer(self) -> bool:
        """Whether the client still gets the whole answer, if it is patient."""
        return self.kind == "drip"


def drawn(table: Mapping[str, float], fraction: float) -> Fault | None:
    """The fault that a fraction of 0..1 falls on: each fault owns a share of the range, the rest is no fault."""
    for name, share in table.items():
        if fraction < share:
            kind = name.removesuffix("_before").removesuffix("_after")
            # Where within its share the fraction fell is as good a die as a new one.
            return Fault(name, kind, after=name.endswith("_after"), roll=fraction / share)
        fraction -= share
    return None


def spoilt(fault: Fault, answer: Answer) -> Answer:
    """What is answered in place of this answer. Faults of the wire (reset, hang, drip, cut) leave it as it is."""
    match fault.kind:
        case "error":
            return Answer(502, {"error": "Bad gateway."})
        case "html":
            return _PAGES[int(fault.roll * len(_PAGES))]
        case "garbage":
            return Answer(200, GARBAGE[int(fault.roll * len(GARBAGE))])
        case "busy":
            return _BUSY
        case "false_failure":
            return _FALSE_FAILURES[int(fault.roll * len(_FALSE_FAILURES))]
        case name if name in REFUSALS:
            return REFUSALS[name]
        case "no_task_id" if isinstance(answer.body, dict):
            return replace(answer, body=_without_task_id(answer.body))
    return answer


def _without_task_id(body: Json) -> Json:
    rest = {key: value for key, value in body.items() if key not in ("task_id", "taskId", "task_ids")}
    return {**rest, "data": {}} if "data" in rest else rest


_BUSY = Answer(200, {"status": "error", "message": "Server busy, try again later"})

_FALSE_FAILURES = (
    Answer(200, {"status": "error", "message": "The task has failed."}),
    Answer(200, {"code": 200, "data": {"state": "failed", "error": "A worker was lost."}, "message": "success"}),
    Answer(200, {"success": False, "error": {"message": "The task was interrupted."}}),
)

_PAGES = tuple(
    Answer(status, _ERROR_PAGE.format(title), content_type="text/html")
    for status, title in ((502, "502 Bad Gateway"), (200, "We will be back soon"))
)
