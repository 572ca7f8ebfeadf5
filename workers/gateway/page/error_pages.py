"""Error pages: what happened, what to do, and where to go from there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from workers.gateway.problems import ProblemDetails, problem

#: The code of a form whose token is not that of the session.
EXPIRED_FORM = "expired_form"

#: What to do, by the code of the problem, else by its status. No entry: the text of the error says it.
ADVICE: Mapping[str | int, str] = {
    EXPIRED_FORM: "Nothing was changed. You logged in again, or logged out, after its page was loaded. Load that page "
    "again, and send the form from there.",
    "job_not_found": "It may have been purged or erased, or belongs to another namespace. Check the id.",
    "batch_not_found": "Its jobs may have been purged, or it belongs to another namespace. Check the name.",
    "plan_not_found": "Nothing was changed. Plan it again from the list of jobs.",
    "foreign_origin": "Nothing was changed. Open the job page itself, and do it from there.",
    "local_only": "Open the page on the machine that it runs on, with the link that `make up` prints, or create an API "
    "key.",
    400: "Nothing was changed. Load the page again, and repeat it from there.",
    401: "Log in again, and repeat it.",
    403: "Ask an administrator for an API key with that permission, then log in with it.",
    404: "Check the address, or start from the list of jobs.",
    405: "Nothing was changed. This address takes forms only: go back to the page of the form.",
    408: "Nothing was changed. Check your connection, and send it again.",
    409: "It changed after its page was loaded. Load that page again to see it as it is now.",
    413: "Nothing was changed. Shorten what you entered: use the command line or the API for large amounts.",
    415: "Nothing was changed. Send the form from its page.",
    422: "Correct the address, or start from the list of jobs.",
    429: "Wait, then load the page again.",
    500: "Jobs are not affected. Load the page again. If it fails again, report the time to an operator: the gateway "
    "logs the error.",
    503: "No job is lost. Load the page again in a moment.",
}


#: The texts of problems whose own are for programs.
DETAILS: Mapping[str, str] = {"not_found": "There is no page at this address."}

#: The problem of a page whose parameters FastAPI refuses.
INVALID_URL = problem(422, "The URL has an invalid parameter.", "invalid")


def context_of(problem: ProblemDetails, path: str, retry_after: str | None) -> dict[str, Any]:
    """Return the variables of the error page. `retry_after` is in seconds."""
    fields = "; ".join(f"{error['field']}: {error['message']}" for error in problem.get("errors", []))
    _, kind, job_id, *_ = [*path.split("/"), "", ""]
    return {
        "title": problem["title"],
        "error": " ".join(filter(None, [DETAILS.get(problem["code"], problem["detail"]), fields])),
        "advice": ADVICE.get(problem["code"]) or ADVICE.get(problem["status"], ""),
        "retry_after": retry_after,
        "needs_login": problem["status"] == HTTPStatus.UNAUTHORIZED,
        "job_id": job_id if kind == "job" and problem["code"] != "job_not_found" else "",
    }
