"""Faults of the simulator: lost, broken and slow responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from simulator.faults import GET_FAULTS, POST_FAULTS, TASK_FAULTS
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
from tests.contract.conftest import Connect, order, sent, trouble
from voicequeue.domain.stage import PRICES, Stage

#: The patience (seconds) of a client that meets a fault which answers too late.
HASTY_S = 0.4


def patience(fault: str) -> dict[str, float]:
    """How a client meets a fault: hastily where no answer comes, or too slowly."""
    return {"connect_s": HASTY_S, "answer_s": HASTY_S} if fault.startswith(("hang", "drip")) else {}


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("fault", POST_FAULTS)
def test_a_post_that_meets_a_fault_is_sent_once_and_judged_by_what_is_known(
    simulator: Simulator, connect: Connect, fault: str, stage: Stage
) -> None:
    """Only a rate limit is known to have cost nothing; all else may have, and the ledger says what it did."""
    simulator.turn(post_faults={fault: 1}, drip_s=0.05)

    error = trouble(lambda: order(connect(simulator.api_url, **patience(fault)), stage))

    is_limited = fault.startswith("rate_")
    assert (type(error), error.may_be_charged) == ((RateLimited, False) if is_limited else (AmbiguousFailure, True))
    charged = PRICES[stage] if fault.endswith("_after") else 0
    eventually(lambda: simulator.ledger()["credits_spent"] == charged)
    assert sent(simulator) == 1


def test_an_answer_that_drips_is_read_whole_by_a_patient_client(simulator: Simulator, client: MusicApi) -> None:
    """What was paid for is not given up early."""
    simulator.turn(post_faults={"drip_after": 1}, drip_s=0.001)

    task_id = order(client)

    assert [charge["task_id"] for charge in simulator.ledger()["charges"]] == [task_id]


def expected_of_get(fault: str) -> type[UpstreamError]:
    """The error of a GET that meets a fault."""
    said: dict[str, type[UpstreamError]] = {
        "rate_limited": RateLimited,
        "lost_task": InvalidRequest,
        "key_401": Unauthorized,
        "style_403": Forbidden,
        "subscription_403": PaymentRequired,
    }
    return said.get(fault, AmbiguousFailure)


@pytest.mark.parametrize("fault", [fault for fault in GET_FAULTS if fault not in ("busy", "false_failure")])
def test_a_poll_that_meets_a_fault_has_its_error_and_can_be_made_again(
    simulator: Simulator, connect: Connect, fault: str
) -> None:
    """The task is as it was, and so is the client."""
    client = connect(simulator.api_url, **patience(fault))
    simulator.turn(voice_s=0, drip_s=0.05)
    task_id = order(client)
    simulator.turn(get_faults={fault: 1})

    error = trouble(lambda: client.get_task(task_id))

    assert type(error) is expected_of_get(fault)
    simulator.turn(get_faults={})
    assert isinstance(client.get_task(task_id), VoiceReady)


@pytest.mark.parametrize("fault", [fault for fault in GET_FAULTS if fault not in TASK_FAULTS])
def test_a_balance_that_meets_a_fault_has_its_error(simulator: Simulator, connect: Connect, fault: str) -> None:
    """No balance is made up."""
    client = connect(simulator.api_url, **patience(fault))
    simulator.turn(get_faults={fault: 1}, drip_s=0.05)

    assert type(trouble(client.credits)) is expected_of_get(fault)


@pytest.mark.parametrize("read", [lambda client: client.get_task("t1"), MusicApi.credits], ids=["task", "credits"])
def test_a_fault_of_a_get_never_leads_to_a_charge(
    simulator: Simulator, client: MusicApi, read: Callable[[MusicApi], Any]
) -> None:
    """Asking is free, however it ends."""
    simulator.turn(get_faults={"error": 1})

    trouble(lambda: read(client))

    assert sent(simulator) == 0
