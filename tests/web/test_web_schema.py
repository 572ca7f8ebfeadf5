"""The description of the API is true: requests made from it are answered as it says."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig

from config.settings import Settings
from tests.web.conftest import KEYS, Gateway
from workers.gateway.app import build

# The gateway takes model versions of tomorrow with a warning; made-up ones are among the examples.
pytestmark = pytest.mark.filterwarnings("ignore::voicequeue.UnknownModelWarning")

CONFIG: dict[str, Any] = {
    "generation": {"deterministic": True, "mode": "all", "with-security-parameters": False},
    "checks": {
        # Some rules go across fields (an audio_url or a persona_id; lyrics as long as the model takes them).
        "positive_data_acceptance": {"expected-statuses": ["2xx", "404", "409", "415", "422"]},
    },
    "operations": [
        # Whatever text it is, it is read line by line, and each line is answered for itself.
        {"include-path": "/v1/batches/{name}/jobs", "checks": {"negative_data_rejection": {"enabled": False}}},
    ],
}


@schemathesis.serializer("application/x-ndjson")
def as_it_is(_: object, value: object) -> bytes:
    """Text, or what a client might send instead."""
    return value.encode(errors="replace") if isinstance(value, str) else json.dumps(value).encode()


#: The API as it describes itself; following has no end, health follows from the workers.
schema = schemathesis.openapi.from_dict(
    build(Settings(_env_file=None)).openapi(), config=SchemathesisConfig.from_dict(CONFIG)
).exclude(path_regex="^/(healthz|readyz|v1/events)$")


@schema.parametrize()
@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_is_described(gateway: Gateway, case: schemathesis.Case[Any]) -> None:
    """Statuses, media types, shapes, what is refused and what is not; never a 500."""
    case.call_and_validate(base_url=gateway.url, headers={"Authorization": f"Bearer {KEYS['all'][0]}"})


def test_no_check_is_left_out() -> None:
    """But for rows, of which each is answered for itself."""
    names = CHECKS.get_all_names()

    assert len(names) > 10
    assert [name for name in names if CONFIG["checks"].get(name, {}).get("enabled") is False] == []
    left_out = [each["checks"] for each in CONFIG["operations"]]
    assert left_out == [{"negative_data_rejection": {"enabled": False}}]


def test_every_route_has_a_summary_and_its_bodies_an_example(gateway: Gateway) -> None:
    """Whoever reads /docs sees what to send, and what comes."""
    described = gateway.get("/openapi.json", key=None)

    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            if path.startswith("/v1"):
                assert operation["description"], (method, path)
                assert operation["security"], (method, path)
            for body in operation.get("requestBody", {}).get("content", {}).values():
                assert body.get("examples") or body.get("example"), (method, path)


def test_the_docs_ask_nobody_else_for_scripts(gateway: Gateway) -> None:
    """They are served from here; keys are pasted there."""
    page = gateway("GET", "/docs", key=None).text

    assert "://" not in page.replace("http://www.w3.org", "")
    assert gateway("GET", "/docs/static/swagger-ui-bundle.js", key=None).status_code == 200
