"""The OpenAPI schema is true: generated requests are answered as it says.

The requests are generated while the module is collected, so `make test` ignores it (tests/web/conftest.py).
"""

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
from workers.gateway.app import create_app

# Unknown model versions are accepted with a warning; the generated examples contain some.
pytestmark = [pytest.mark.endurance, pytest.mark.filterwarnings("ignore::voicequeue.UnknownModelWarning")]

#: Some rules concern several fields (audio_url or persona_id; length of lyrics by model).
ACCEPTED = ["2xx", "404", "409", "415", "422"]

CONFIG: dict[str, Any] = {
    "generation": {"deterministic": True, "mode": "all", "with-security-parameters": False},
    "checks": {"positive_data_acceptance": {"expected-statuses": ACCEPTED}},
    "operations": [
        # Any text is read line by line, and each line has its own result.
        {"include-path": "/v1/batches/{name}/jobs", "checks": {"negative_data_rejection": {"enabled": False}}},
        # With `namespace`, what concerns the whole queue is forbidden.
        {
            "include-path-regex": "^/(metrics|v1/(pause|resume|limits|budgets/.*|keys(/.*)?))$",
            "checks": {"positive_data_acceptance": {"expected-statuses": [*ACCEPTED, "403"]}},
        },
    ],
}


@schemathesis.serializer("application/x-ndjson")
def as_it_is(_: object, value: object) -> bytes:
    """Return the body as sent: text, or something that is not."""
    return value.encode(errors="replace") if isinstance(value, str) else json.dumps(value).encode()


#: The API without the endless event stream, and without health, which depends on workers.
schema = schemathesis.openapi.from_dict(
    create_app(Settings(_env_file=None)).openapi(), config=SchemathesisConfig.from_dict(CONFIG)
).exclude(path_regex="^/(healthz|readyz|v1/events)$")


@schema.parametrize()
@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_response_matches_the_schema(gateway: Gateway, case: schemathesis.Case[Any]) -> None:
    """Statuses, media types, shapes and rejections are as described; no request causes a 500."""
    case.call_and_validate(base_url=gateway.url, headers={"Authorization": f"Bearer {KEYS['all'][0]}"})


def test_every_check_is_enabled() -> None:
    """The only exception is row uploads, where each row has its own result."""
    names = CHECKS.get_all_names()

    assert len(names) > 10
    assert [name for name in names if CONFIG["checks"].get(name, {}).get("enabled") is False] == []
    checks = [check for operation in CONFIG["operations"] for check in operation["checks"].items()]
    disabled = [name for name, options in checks if options.get("enabled") is False]
    assert disabled == ["negative_data_rejection"]
