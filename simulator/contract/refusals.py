"""Refusals in the words and shapes that clients report, by name. Pure; none of them is charged."""

from collections.abc import Mapping

from simulator.contract.answers import ApiResponse

_PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center><hr>firewall</body></html>\n"


def _error(status: int, text: str) -> ApiResponse:
    return ApiResponse(status, {"error": text})


def _page(status: int, title: str) -> ApiResponse:
    return ApiResponse(status, _PAGE.format(title), content_type="text/html")


#: Responses to a POST, a poll or get-credits. `…_in_body` has HTTP 200 and the refusal in its body.
REFUSALS: Mapping[str, ApiResponse] = {
    "persona_not_found": _error(404, "persona not found"),
    "firewall_403": _page(403, "403 Forbidden"),
    "firewall_413": _page(413, "413 Request Entity Too Large"),
    "model_403": _error(403, "Your subscription does not include the model sonic-v5."),
    "payment_402": _error(402, "Payment required."),
    "busy_429": _error(429, "This persona is busy."),
    "busy_for_ever": ApiResponse(429, {"error": "This persona is busy."}, {"Retry-After": "1000000000"}),
    "key_401": _error(401, "Invalid API key."),
    "subscription_403": _error(403, "You do not have an active subscription. Please subscribe to a plan."),
    "credits_403": _error(403, "The remaining credits are not enough. Please top up your credits."),
    "credits_400": _error(400, "The remaining credits are not enough."),
    "rate_403": _error(403, "API QPS limit exceeded"),
    "queue_403": _error(403, "Queue is full"),
    "rate_400": _error(400, "Too many requests in a short time."),
    "style_403": _error(403, "This style is not permitted."),
    "review_403": _error(403, "The request was rejected by moderation review."),
    "rate_in_body": ApiResponse(200, {"code": 429, "message": "Too many requests."}),
    "forbidden_in_body": ApiResponse(200, {"code": "403", "message": "This style is not permitted."}),
    "bad_request_in_body": ApiResponse(200, {"code": 400, "message": "The 'mv' field is invalid."}),
    "false_in_body": ApiResponse(200, {"success": False, "error": {"message": "The 'tags' field is invalid."}}),
    "unreadable": ApiResponse(200, "OK", content_type="text/plain"),
    "error_500": _error(500, "Internal server error."),
}

#: The refusals by a limit on the rate or on the tasks in progress. `429` is the contract's.
LIMITS = ("429", "rate_403", "queue_403", "rate_400", "rate_in_body")
