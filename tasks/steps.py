"""The steps of a job's way through upstream, as plain functions over a chunk of job ids.

One job's trouble never touches the others of its chunk: errors are caught, judged and written
per job. A step may run twice, late or after a crash: claims make what is done already a no-op.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from redis.exceptions import RedisError

from tasks import decide
from tasks.musicapi import Refused, UpstreamError
from tasks.polls import kind_of
from tasks.services import Services
from voicequeue import flow
from voicequeue.claims import Charged, Claimed, Later, Overdue
from voicequeue.job import Move, State
from voicequeue.records import task_field
from voicequeue.spec import VoiceJob
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
    outcomes = _each(services, partial(_submit_one, services, stage, enough), job_ids)
    pending = [found for found in outcomes if isinstance(found, Pending)]
    # One message asks about all of them, so they are due together, as soon as the first of them is.
    poll_in = min((found.poll_in for found in pending), default=0.0)
    services.store.plan(
        [(found.job_id, found.version) for found in pending if found.poll_in > poll_in], services.clock() + poll_in
    )
    later = {job_id: found for job_id, found in zip(job_ids, outcomes, strict=True) if isinstance(found, Later)}
    return Submitted(
        pending=[found.job_id for found in pending],
        poll_in=poll_in,
        left=list(later),
        left_in=max((found.seconds for found in later.values()), default=0.0),
    )


@dataclass(frozen=True, slots=True)
class Pending:
    """A job that upstream took, the version it stands at now, and when to ask about it (seconds)."""

    job_id: str
    version: int
    poll_in: float


def _submit_one(services: Services, stage: Stage, enough: float, job_id: str) -> Pending | Later | None:
    """Later if it could not begin yet; None if nothing was to do, or upstream did not take it."""
    now = services.clock()
    if now > enough:
        return Later(0.0)
    claim = services.store.charge(job_id, stage, secrets.token_hex(8), now, lease=services.patience.charge_s)
    if isinstance(claim, Overdue):
        [again] = services.store.apply([decide.unheard(claim, now)], now)
        return Later(0.0) if again else None
    if not isinstance(claim, Charged):
        return claim
    began = time.monotonic()
    with services.span("order", job=claim.job_id, stage=str(claim.stage)):
        move = _order(services, claim)
    _tell_order(claim, move, time.monotonic() - began)
    written = _settle_claim(services, claim, move)
    if not written or move.to is not State.PENDING or move.due is None:
        return None
    return Pending(job_id, move.version + 1, move.due - services.clock())


def _tell_order(claim: Charged, move: Move, seconds: float) -> None:
    about = {"job": claim.job_id, "stage": str(claim.stage), "attempt": claim.attempt, "outcome": str(move.to)}
    known = {"task_id": move.fields.get(task_field(claim.stage)), "reason": move.reason}
    said = {name: value for name, value in known.items() if value}
    log.info("ordered", extra={**about, **said, "duration": round(seconds, 3)})


def _order(services: Services, claim: Charged) -> Move:
    """Send the POST and judge its answer."""
    if services.clock() >= claim.until:
        return decide.not_sent(claim)
    try:
        spec = _readable(claim)
        task_id = services.health.of_order(partial(_post, services, claim, spec))
    except UpstreamError as error:
        return decide.not_accepted(claim, error, services.clock())
    model = spec.song.mv if spec.song and claim.stage is Stage.MUSIC else ""
    poll_in = services.polls.after(0.0, kind_of(claim.stage, model))
    return decide.accepted(claim, task_id, services.clock(), poll_in, model)


def _readable(claim: Charged) -> VoiceJob:
    try:
        return claim.spec()
    except ValueError:
        raise Refused("this release cannot read the job's record") from None


def _post(services: Services, claim: Charged, spec: VoiceJob) -> str:
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
    late = dict(move.fields) or move.reason
    log.error("the job has moved on from %s", late, extra={"job": claim.job_id, "stage": str(claim.stage)})
    return False


def poll(services: Services, stage: Stage, job_ids: Sequence[str]) -> Polled:
    """Ask upstream about each job that is due, and write what it says."""
    claims = services.store.claim(job_ids, stage, services.clock(), lease=services.patience.poll_s)
    answers = zip(claims, _each(services, partial(_poll_one, services), claims), strict=True)
    now = services.clock()
    waiting: list[Claimed] = []
    silent: list[Claimed] = []
    moves: list[Move] = []
    for claim, answer in answers:
        # Where asking went wrong for any reason, the deadline holds all the same.
        move = (answer and answer.move) or decide.overdue(claim, now, _deadline(services, claim))
        if move is not None:
            moves.append(move)
        elif claim.state is State.PENDING:
            (waiting if answer and answer.heard else silent).append(claim)
        else:  # the pulse asks again in its time
            later = now + max(services.plan.delay(), flow.look_again(now - claim.since))
            services.store.plan([(claim.job_id, claim.version)], later)
    made = [move for move, written in zip(moves, services.store.apply(moves, now), strict=True) if written]
    ready = {move.job_id for move in made if move.to in (State.ADMITTED, State.SUCCEEDED)}
    services.polls.learn([claim for claim in claims if claim.job_id in ready and claim.state is State.PENDING], now)
    again_in = _until_next(services, [*waiting, *silent], now)
    planned = services.store.plan(_versions(waiting), now + again_in, asked=now)
    planned += services.store.plan(_versions(silent), now + again_in)
    to_music = [move.job_id for move in made if move.to is State.ADMITTED]
    return Polled(waiting=planned, again_in=again_in, to_music=to_music)


def _until_next(services: Services, waiting: Sequence[Claimed], now: float) -> float:
    """When to ask about these again: together, as soon as it is time for the first of them."""
    times = [services.polls.after(now - claim.since, kind_of(claim.stage, claim.model)) for claim in waiting]
    return min(times, default=0.0)


def _versions(claims: Sequence[Claimed]) -> list[tuple[str, int]]:
    return [(claim.job_id, claim.version) for claim in claims]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a poll led to (None: it is not ready), and whether upstream was heard at all."""

    move: Move | None
    heard: bool


def _poll_one(services: Services, claim: Claimed) -> Answer:
    try:
        with services.span("poll", job=claim.job_id, stage=str(claim.stage)):
            reading = services.health.of_question(partial(services.upstream.task, claim.task_id))
    except UpstreamError as error:
        if isinstance(error, Refused):  # anything else is everybody's, and was told once
            log.warning("asking about it: %s", error, extra={"job": claim.job_id, "stage": str(claim.stage)})
        late = decide.overdue(claim, services.clock(), _deadline(services, claim), error.message)
        return Answer(late, heard=False)
    return Answer(decide.read(claim, reading, services.clock()), heard=True)


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
            defect = not isinstance(error, RedisError)
            log.error("left to the pulse: %s", type(error).__name__, exc_info=defect, extra={"job": job_id})
            return None

    return services.hands.each(guarded, chunk)
