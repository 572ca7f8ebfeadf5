"""Faults of the simulator: lost, broken and slow responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from simulator.engine.faults import GET_FAULTS, POST_FAULTS, TASK_FAULTS
from simulator.process import Simulator
from tasks.musicapi import (
    AmbiguousFailure,
    Forbidden,
    InvalidRequest,
    MusicApi,
    PaymentRequired,
    RateLimited,
    Unauthorized,
    UpstreamError,
    VoiceReady,
)
from tests.conftest import eventually
from tests.contract.conftest import Connect, order, sent, upstream_error
from voicequeue.domain.stage import PRICES, Stage

#: Timeout in seconds for faults that respond too late.
HASTY_S = 0.4


def timeouts(fault: str) -> dict[str, float]:
    """Return the timeouts for a fault: short ones if the response is missing or too slow."""
    return {"connect_s": HASTY_S, "answer_s": HASTY_S} if fault.startswith(("hang", "drip")) else {}


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("fault", POST_FAULTS)
def test_a_post_that_meets_a_fault_is_sent_once_and_judged_by_what_is_known(
    simulator: Simulator, connect: Connect, fault: str, stage: Stage
) -> None:
    """Only a rate limit certainly costs nothing; any other fault may have been charged, as the ledger shows."""
    simulator.set_dials(post_faults={fault: 1}, drip_s=0.05)

    error = upstream_error(lambda: order(connect(simulator.api_url, **timeouts(fault)), stage))

    is_limited = fault.startswith("rate_")
    assert (type(error), error.may_be_charged) == ((RateLimited, False) if is_limited else (AmbiguousFailure, True))
    charged = PRICES[stage] if fault.endswith("_after") else 0
    eventually(lambda: simulator.ledger()["credits_spent"] == charged)
    assert sent(simulator) == 1


def test_an_answer_that_drips_is_read_whole_by_a_client_with_long_timeouts(
    simulator: Simulator, client: MusicApi
) -> None:
    """A slow response of a paid order is read to its end."""
    simulator.set_dials(post_faults={"drip_after": 1}, drip_s=0.001)

    task_id = order(client)

    assert [charge["task_id"] for charge in simulator.ledger()["charges"]] == [task_id]


def expected_of_get(fault: str) -> type[UpstreamError]:
    """Return the error of a GET for a fault."""
    errors: dict[str, type[UpstreamError]] = {
        "rate_limited": RateLimited,
        "lost_task": InvalidRequest,
        "key_401": Unauthorized,
        "style_403": Forbidden,
        "subscription_403": PaymentRequired,
    }
    return errors.get(fault, AmbiguousFailure)


@pytest.mark.parametrize("fault", [fault for fault in GET_FAULTS if fault not in ("busy", "false_failure")])
def test_a_poll_that_meets_a_fault_has_its_error_and_can_be_made_again(
    simulator: Simulator, connect: Connect, fault: str
) -> None:
    """Neither the task nor the client is affected."""
    client = connect(simulator.api_url, **timeouts(fault))
    simulator.set_dials(voice_s=0, drip_s=0.05)
    task_id = order(client)
    simulator.set_dials(get_faults={fault: 1})

    error = upstream_error(lambda: client.get_task(task_id))

    assert type(error) is expected_of_get(fault)
    simulator.set_dials(get_faults={})
    assert isinstance(client.get_task(task_id), VoiceReady)


@pytest.mark.parametrize("fault", [fault for fault in GET_FAULTS if fault not in TASK_FAULTS])
def test_a_balance_that_meets_a_fault_has_its_error(simulator: Simulator, connect: Connect, fault: str) -> None:
    """A fault never results in a balance."""
    client = connect(simulator.api_url, **timeouts(fault))
    simulator.set_dials(get_faults={fault: 1}, drip_s=0.05)

    assert type(upstream_error(client.get_credits)) is expected_of_get(fault)


@pytest.mark.parametrize("read", [lambda client: client.get_task("t1"), MusicApi.get_credits], ids=["task", "credits"])
def test_a_fault_of_a_get_never_leads_to_a_charge(
    simulator: Simulator, client: MusicApi, read: Callable[[MusicApi], Any]
) -> None:
    """Asking is free, however it ends."""
    simulator.set_dials(get_faults={"error": 1})

    upstream_error(lambda: read(client))

    assert sent(simulator) == 0
