"""The faults: their names, which of them a call meets, and the responses that they cause."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from simulator.contract.answers import ApiResponse, Json
from simulator.contract.refusals import REFUSALS

#: The faults of a POST. `…_before` occurs before the charge, `…_after` after it.
POST_FAULTS = (
    *(f"{kind}_{when}" for kind in ("reset", "hang", "error", "html", "garbage") for when in ("before", "after")),
    "no_task_id_after",
    "drip_after",
    "cut_after",
    "rate_limited",
    "rate_in_body",
    "rate_403",
)
#: The faults of a GET. `lost_task` occurs in polls alone. `false_failure` reports a failure that the next poll may
#: revoke.
GET_FAULTS = (
    *("reset", "hang", "error", "html", "garbage", "drip", "cut", "rate_limited", "lost_task"),
    *("key_401", "style_403", "subscription_403", "busy", "false_failure"),
)

#: The faults of polls; they do not occur in get-credits.
TASK_FAULTS = ("lost_task", "busy", "false_failure")

#: The faults of a file. With `overlong` its Content-Length is larger than its body.
MEDIA_FAULTS = ("reset", "hang", "error", "page", "cut", "overlong", "lost")

#: Bodies with HTTP 200 that violate the contract: not JSON, truncated, not an object, a foreign object.
GARBAGE = ("OK", '{"code": 200, "mess', "", "null", "[]", '{"ok": true}')

_ERROR_PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>\n"


class Fault(NamedTuple):
    """A fault that a call meets: its name on the dial, its kind, and whether it occurs after the charge.

    `roll`: a number of 0..1 that selects among the variants of the fault.
    """

    name: str
    kind: str
    after: bool
    roll: float

    @property
    def delivers_response(self) -> bool:
        """True if the client still receives the whole response."""
        return self.kind == "drip"


def draw(table: Mapping[str, float], fraction: float) -> Fault | None:
    """Return the fault for a fraction of 0..1: each fault has a share of the range, the rest means no fault."""
    for name, share in table.items():
        if fraction < share:
            kind = name.removesuffix("_before").removesuffix("_after")
            # The position within the share is itself uniform in 0..1.
            return Fault(name, kind, after=name.endswith("_after"), roll=fraction / share)
        fraction -= share
    return None


def apply_fault(fault: Fault, answer: ApiResponse) -> ApiResponse:
    """Return the response that the fault causes. Faults of the transport (reset, hang, drip, cut) do not change it."""
    match fault.kind:
        case "error":
            return ApiResponse(502, {"error": "Bad gateway."})
        case "html":
            return _PAGES[int(fault.roll * len(_PAGES))]
        case "garbage":
            return ApiResponse(200, GARBAGE[int(fault.roll * len(GARBAGE))])
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


_BUSY = ApiResponse(200, {"status": "error", "message": "Server busy, try again later"})

_FALSE_FAILURES = (
    ApiResponse(200, {"status": "error", "message": "The task has failed."}),
    ApiResponse(200, {"code": 200, "data": {"state": "failed", "error": "A worker was lost."}, "message": "success"}),
    ApiResponse(200, {"success": False, "error": {"message": "The task was interrupted."}}),
)

_PAGES = tuple(
    ApiResponse(status, _ERROR_PAGE.format(title), content_type="text/html")
    for status, title in ((502, "502 Bad Gateway"), (200, "We will be back soon"))
)
