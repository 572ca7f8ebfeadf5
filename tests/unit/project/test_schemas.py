"""The JSON shapes: every `as_dict` returns what its schema says, and the HTTP reference is current."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from config.settings import Settings
from tests.support.jobs import voice_with_song
from voicequeue import (
    ArchivedFile,
    ArchiveEntry,
    ArchiveState,
    Batch,
    Callback,
    ChargeReview,
    Clip,
    Event,
    Failure,
    FailureCode,
    Gate,
    Hold,
    Job,
    Persona,
    Priority,
    RejectedMessage,
    Stage,
    State,
    Status,
    TimelineEntry,
)
from voicequeue.diagnostics.check_result import passed
from voicequeue.domain import operator_schemas, schemas
from voicequeue.domain.balance import Balance, BalanceWindow
from voicequeue.domain.budgets import Budget
from voicequeue.domain.erasure import ErasureCertificate, ErasurePlan
from voicequeue.domain.gate import Account
from voicequeue.domain.spending import Spending
from voicequeue.domain.status import BacklogLane, RefusedJob
from workers.gateway import reference
from workers.gateway.api import schemas as api_schemas
from workers.gateway.app import create_app

NOW = 1_760_000_000.0
FILE = ArchivedFile("file:///a.mp3", 3, "0" * 64)
CLIP = Clip("c", "succeeded", "Title", "https://cdn.example/1.mp3", duration=61.5, archived_audio=FILE)
JOB = Job(
    "j", 1, State.FAILED, Stage.MUSIC, voice_with_song(batch="b", metadata={"a": "1"}), NOW, NOW,
    settled_at=NOW, clips=(CLIP,), failure=Failure(FailureCode.DEADLINE, Stage.MUSIC, "late"),
    archive=ArchiveState.PENDING,
)  # fmt: skip
STEP = TimelineEntry(NOW, State.UNSURE, Stage.VOICE, "no answer", 1, "t")
BATCH = Batch("b", dict.fromkeys(State, 1), 4, is_paused=True, max_credits=5)
STATUS = Status(
    states=dict.fromkeys(State, 1),
    gate=Gate((Hold("paused", "lunch", NOW),)),
    in_flight=1,
    in_flight_limit=2,
    credits=4,
    workers=1,
    account=Account(balance=1, updated_at=NOW),
    backlog=(BacklogLane(Priority.NORMAL, "b", 1, NOW),),
    failures={"deadline": 1},
    jobs_per_minute=1.5,
    seconds_left=None,
    refused_jobs=(RefusedJob("j", Stage.VOICE, "no", 1, NOW),),
)
ERASURE = ErasurePlan(
    "t", {"failed": 1}, songs=1, archived_files=2, personas=1, callbacks=0, rejected_messages=0, sharing_jobs=0,
    uncertain=0, credits_in_flight=0, expires_at=NOW, is_complete=True,
)  # fmt: skip
CERTIFICATE = ErasureCertificate(NOW, "cli:ana", "shop", ("0" * 40,), callback_hosts=("a.example",))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (schemas.Job, JOB.as_dict()),
        (schemas.TimelineEntry, STEP.as_dict()),
        (schemas.Event, Event("1760000000000-0", "", "b", State.QUEUED, None, "2 enqueued").as_dict()),
        (schemas.ChargeReview, ChargeReview(JOB, STEP, None).as_dict()),
        (
            schemas.ChargeReview,
            ChargeReview(
                JOB, STEP, BalanceWindow(Balance(NOW, NOW, 9, 0, True), Balance(NOW, NOW, 5, 0, True))
            ).as_dict(),
        ),
        (schemas.BatchProgress, BATCH.as_dict()),
        (schemas.BatchLimits, BATCH.limits_dict()),
        (schemas.Batch, BATCH.full_dict()),
        (schemas.Status, STATUS.as_dict("b")),
        (operator_schemas.RejectedMessage, RejectedMessage(NOW, "m", "t", "no job", [1]).as_dict()),
        (operator_schemas.Persona, Persona("p", None, "https://a.example/a.wav", "j", NOW).as_dict()),
        (operator_schemas.Callback, Callback("c", "job.failed", NOW, "j", None, due_at=NOW).as_dict()),
        (operator_schemas.ArchiveJob, ArchiveEntry("j", "b", NOW, 1, "404", NOW).as_dict()),
        (operator_schemas.Budget, Budget("account", "day", 500, 19, 15, NOW).as_dict()),
        (operator_schemas.Spending, Spending(19, day="2026-03-01").as_dict()),
        (operator_schemas.ErasurePlan, ERASURE.as_dict()),
        (operator_schemas.ErasureCertificate, CERTIFICATE.as_dict()),
        (operator_schemas.Check, passed("redis", "Valkey 9").as_dict()),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_as_dict_matches_its_schema(schema: type[Any], value: Any) -> None:
    """Every key is present, no other is, all values have the right type, and JSON keeps them."""
    decoded = json.loads(json.dumps(value))

    TypeAdapter(schema).validate_python(decoded)
    assert decoded == value


def test_every_field_has_a_description() -> None:
    """The OpenAPI schema describes each field of these shapes, inherited ones included."""
    components = create_app(Settings(_env_file=None)).openapi()["components"]["schemas"]
    described = {name: schema for name, schema in components.items() if {name} <= {*vars(schemas), *vars(api_schemas)}}

    assert {"Job", "JobDetails", "Batch", "Event", "BulkPlan"} <= described.keys()
    missing = [
        f"{name}.{field}"
        for name, schema in described.items()
        for field, value in schema.get("properties", {}).items()
        if not value.get("description")
    ]
    assert missing == []


def test_the_http_reference_is_current() -> None:
    """docs/reference/http.md is what the OpenAPI schema yields."""
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run `make docs`"
