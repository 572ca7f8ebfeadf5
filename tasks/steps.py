"""The steps of a job's way through upstream, as plain functions over a chunk of job ids.

One job's trouble never touches the others of its chunk: errors are caught, judged and written
per job. A step may run twice, late or after a crash: claims make what is done already a no-op.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from redis.exceptions import RedisError

from tasks import decide
from tasks.musicapi import NoAnswer, Refused, UpstreamError
from tasks.services import Services
from voicequeue import flow
from voicequeue.claims import Charged, Claimed, Later
from voicequeue.job import Move, State
from voicequeue.records import task_field
from voicequeue.stage import Stage

log = logging.getLogger("voicequeue")

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a chunk: orders that upstream took, when to ask about them (in seconds), the ids
    for which the time or the submit rate did not suffice, and when to send those (in seconds)."""

    pending: list[str] = field(default_factory=list)
    poll_in: float = 0.0
    left: list[str] = field(default_factory=list)
    left_in: float = 0.0


@dataclass(frozen=True, slots=True)
class Polled:
    """What became of a chunk: ids to ask again (`again_in` seconds) and ids whose song is next."""

    waiting: list[str] = field(default_factory=list)
    again_in: float = 0.0
    to_music: list[str] = field(default_factory=list)


def submit(services: Services, stage: Stage, job_ids: Sequence[str]) -> Submitted:
    """Send the POST of `stage` for each job that is admitted to it, once."""
    enough = services.clock() + services.patience.submit_s
    poll_in = services.plan.delay()
    outcomes = _each(services, partial(_submit_one, services, stage, poll_in, enough), job_ids)
    by_id = list(zip(job_ids, outcomes, strict=True))
    return Submitted(
        pending=[job_id for job_id, state in by_id if state is State.PENDING],
        poll_in=poll_in,
        left=[job_id for job_id, state in by_id if isinstance(state, Later)],
        left_in=max((state.seconds for state in outcomes if isinstance(state, Later)), default=0.0),
    )


def _submit_one(services: Services, stage: Stage, poll_in: float, enough: float, job_id: str) -> State | Later | None:
    """The state it left the job in; Later if it could not begin yet; None if nothing was to do."""
    now = services.clock()
    if now > enough:
        return Later(0.0)
    claim = services.store.charge(job_id, stage, secrets.token_hex(8), now, lease=services.patience.charge_s)
    if not isinstance(claim, Charged):
        return claim
    move = _order(services, claim, poll_in)
    return move.to if _settle_claim(services, claim, move) else None


def _order(services: Services, claim: Charged, poll_in: float) -> Move:
    """Send the POST and judge its answer."""
    if services.clock() >= claim.until:
        return decide.not_sent(claim)
    try:
        task_id = services.health.of_order(partial(_post, services, claim))
    except UpstreamError as error:
        return decide.not_accepted(claim, error, services.clock())
    return decide.accepted(claim, task_id, services.clock(), poll_in)


def _post(services: Services, claim: Charged) -> str:
    try:
        spec = claim.spec()
    except ValueError:
        raise Refused("this release cannot read the job's record") from None
    webhook = services.webhooks.of(claim) if services.webhooks else None
    if claim.stage is Stage.VOICE and spec.audio_url is not None:
        return services.upstream.create_voice(spec.audio_url, webhook)
    persona_id = claim.persona_id or spec.persona_id
    if claim.stage is Stage.MUSIC and persona_id is not None and spec.song is not None:
        return services.upstream.create_music(persona_id, spec.song, webhook)
    raise Refused(f"the record lacks what the {claim.stage} stage needs")


def _settle_claim(services: Services, claim: Charged, move: Move) -> bool:
    """Write what the POST led to, also when the answer came after the claim had run out."""
    now = services.clock()
    if services.store.apply([move], now) == [True]:
        return True
    [job] = services.store.get([claim.job_id])
    if job is not None and job.attempt == claim.attempt:
        if job.state is move.to and job.task_ids.get(claim.stage) == move.fields.get(task_field(claim.stage)):
            return True  # it was written; only Redis's answer was lost
        if job.state is State.UNSURE and (better := decide.late(job, move)):
            return services.store.apply([better], now) == [True]
    log.error("job %s: %s: the job has moved on from %s", claim.job_id, claim.stage, dict(move.fields) or move.reason)
    return False


def poll(services: Services, stage: Stage, job_ids: Sequence[str]) -> Polled:
    """Ask upstream about each job that is due, and write what it says."""
    claims = services.store.claim(job_ids, stage, services.clock(), lease=services.patience.poll_s)
    answers = zip(claims, _each(services, partial(_poll_one, services), claims), strict=True)
    now, again_in = services.clock(), services.plan.delay()
    waiting: list[Claimed] = []
    moves: list[Move] = []
    for claim, answer in answers:
        # Where asking went wrong for any reason, the deadline holds all the same.
        move = answer or decide.overdue(claim, now, _deadline(services, claim))
        if move is not None:
            moves.append(move)
        elif claim.state is State.PENDING:
            waiting.append(claim)
        else:  # the pulse asks again in its time
            later = now + max(again_in, flow.look_again(now - claim.since))
            services.store.plan([(claim.job_id, claim.version)], later)
    made = [move for move, written in zip(moves, services.store.apply(moves, now), strict=True) if written]
    return Polled(
        waiting=services.store.plan([(claim.job_id, claim.version) for claim in waiting], now + again_in),
        again_in=again_in,
        to_music=[move.job_id for move in made if move.to is State.ADMITTED],
    )


def _poll_one(services: Services, claim: Claimed) -> Move | None:
    try:
        reading = services.health.of_question(partial(services.upstream.task, claim.task_id))
    except UpstreamError as error:
        if not isinstance(error, NoAnswer):
            log.warning("job %s: asking about its %s: %s", claim.job_id, claim.stage, error)
        return decide.overdue(claim, services.clock(), _deadline(services, claim), error.message)
    return decide.read(claim, reading, services.clock())


def _deadline(services: Services, claim: Claimed) -> float:
    """How long after its order a result is waited for, or at least kept if it comes."""
    return services.deadlines[claim.stage] if claim.state is State.PENDING else services.patience.late_s


def _each(services: Services, work: Callable[[T], R | None], chunk: Sequence[T]) -> list[R | None]:
    """Do the work for each of the chunk on the process's threads; None where it went wrong.

    What goes wrong here (Redis away for long, a defect) leaves the record as it stands, and the
    pulse looks after it when its time is up.
    """

    def guarded(item: T) -> R | None:
        try:
            return work(item)
        except Exception as error:
            job_id = item.job_id if isinstance(item, Claimed) else item
            # Redis quotes what it was sent: of its errors the name must do.
            log.error("job %s left to the pulse: %r", job_id, type(error), exc_info=not isinstance(error, RedisError))
            return None

    return list(services.threads.map(guarded, chunk))
