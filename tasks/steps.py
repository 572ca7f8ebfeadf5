"""The steps of a job's way through upstream, as plain functions over a chunk of job ids.

One job's trouble never touches the others of its chunk: errors are caught, judged and written
per job. A step may run twice, late or after a crash: claims make what is done already a no-op.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from operator import attrgetter

from redis.exceptions import RedisError

from tasks import decisions
from tasks.context import Services
from tasks.musicapi import Exchange, Reading, Refused, Told, UpstreamError, requests
from tasks.musicapi.requests import Call
from tasks.poll_scheduler import kind_of
from voicequeue.client.orders import Named, name_order
from voicequeue.domain.claims import Charged, ChargedOrder, Claimed, Later, Overdue, Planned
from voicequeue.domain.clip import Clip
from voicequeue.domain.gate import Refusal
from voicequeue.domain.job import Doubt, Move, State
from voicequeue.domain.serialization import task_field
from voicequeue.domain.spec import VoiceJob
from voicequeue.domain.stage import Stage

log = logging.getLogger("voicequeue")

#: Seconds between two looks at whether the process stops, while jobs wait for answers to others.
STOP_CHECK_S = 0.5


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a chunk: orders that upstream took, when to ask about them (in seconds), the ids
    for which the time or the submit rate did not suffice, and when to send those (in seconds)."""

    pending: list[str] = field(default_factory=list)
    poll_in: float = 0.0
    left: list[str] = field(default_factory=list)
    left_in: float = 0.0


@dataclass(frozen=True, slots=True)
class Round:
    """Jobs that are to be asked about together, in so many seconds."""

    job_ids: list[str]
    seconds: float


@dataclass(frozen=True, slots=True)
class Polled:
    """What became of a chunk: when to ask again about which, the soonest first, and ids whose song is next."""

    again: list[Round] = field(default_factory=list)
    to_music: list[str] = field(default_factory=list)


def submit(services: Services, stage: Stage, job_ids: Sequence[str]) -> Submitted:
    """Send the POST of `stage` for each job that is admitted to it, once.

    No more are claimed than are sent at once. What upstream answers is written as soon as somebody hears of it,
    together with whatever else was answered by then, and as many others are claimed. A process that stops claims no
    more: it queues the others again and waits for the answers to what it has sent.
    """
    job_ids, luck = list(dict.fromkeys(job_ids)), services.polls.luck()
    enough = services.clock() + services.patience.submit_s
    orders = Exchange[Order, str](services.upstream, partial(_span, services, stage, "order"))
    ids, later, pending = deque(job_ids), dict[str, float](), dict[str, Pending]()
    while ids or orders.is_open:
        if services.stopping():
            _give_back(services, stage, ids)
            ids.clear()
        if services.clock() > enough:
            later |= dict.fromkeys(ids, 0.0)
            ids.clear()
        wave = [ids.popleft() for _ in range(min(orders.free, len(ids)))]
        with _left_to_the_pulse(wave):
            later |= _order(services, stage, wave, orders)
        answered = orders.told(within=STOP_CHECK_S if ids else None)
        pending |= {found.job_id: found for found in _settle(services, luck, answered)}
    # One message asks about all of them, so they are due together, as soon as the first of them is.
    poll_in = min((found.poll_in for found in pending.values()), default=0.0)
    due = services.clock() + poll_in
    services.store.plan(Planned(each.job_id, each.version, due) for each in pending.values() if each.poll_in > poll_in)
    taken = [job_id for job_id in job_ids if job_id in pending]
    left = [job_id for job_id in job_ids if job_id in later]
    return Submitted(taken, poll_in, left, left_in=max(later.values(), default=0.0))


@dataclass(frozen=True, slots=True)
class Order:
    """A POST that is on its way; of a song its model."""

    claim: Charged
    model: str = ""

    @property
    def job_id(self) -> str:
        """Whose it is."""
        return self.claim.job_id


@dataclass(frozen=True, slots=True)
class Pending:
    """A job that upstream took, the version it stands at now, and when to ask about it (seconds)."""

    job_id: str
    version: int
    poll_in: float


def _order(services: Services, stage: Stage, job_ids: list[str], orders: Exchange[Order, str]) -> dict[str, float]:
    """Claim jobs and begin their POSTs; gives those that could not begin yet, with the seconds to wait."""
    if not job_ids:
        return {}
    now = services.clock()
    found = services.store.charge(job_ids, stage, secrets.token_hex(8), now, lease=services.patience.charge_s)
    posts: list[tuple[Order, Call[str]]] = []
    moves: list[tuple[Charged, Move]] = []
    for claim in found:
        if isinstance(claim, Charged):
            with _left_to_the_pulse([claim.job_id]):
                try:
                    posts.append(_post(services, claim))
                except Refused as error:
                    moves.append((claim, decisions.not_accepted(claim, error, now)))
    if reason := _why_not(services, claimed_at=now):
        moves += [(order.claim, decisions.not_sent(order.claim, reason)) for order, _ in posts]
        posts.clear()
    orders.begin(posts)
    _write(services, moves)
    unheard = [decisions.unheard(claim, now) for claim in found if isinstance(claim, Overdue)]
    anew = [move.job_id for move, made in zip(unheard, services.store.apply(unheard, now), strict=True) if made]
    waits = zip(job_ids, found, strict=True)
    return {job_id: wait.seconds for job_id, wait in waits if isinstance(wait, Later)} | dict.fromkeys(anew, 0.0)


def _why_not(services: Services, *, claimed_at: float) -> str:
    """Return why POSTs that were claimed then must not be sent any more; empty if they may."""
    if services.clock() >= claimed_at + services.patience.charge_s:
        return decisions.TOO_LATE
    return decisions.STOPPING if services.stopping() else ""


def _give_back(services: Services, stage: Stage, job_ids: Collection[str]) -> None:
    """Queue jobs again that are still admitted to the stage."""
    if not job_ids:
        return
    with _left_to_the_pulse(list(job_ids)):
        jobs = [job for job in services.store.get(list(job_ids)) if job and job.stage is stage]
        moves = [decisions.not_begun(job) for job in jobs if job.state is State.ADMITTED]
        services.store.apply(moves, services.clock())


def _post(services: Services, claim: Charged) -> tuple[Order, Call[str]]:
    spec = _readable(claim)
    webhook = services.webhooks.of(claim) if services.webhooks else None
    if claim.stage is Stage.VOICE and spec.audio_url is not None:
        return Order(claim), requests.create_voice(spec.audio_url, webhook)
    persona_id = claim.persona_id or spec.persona_id
    if claim.stage is Stage.MUSIC and persona_id is not None and spec.song is not None:
        return Order(claim, spec.song.mv), requests.create_music(persona_id, spec.song, webhook)
    raise Refused(f"the record lacks what the {claim.stage} stage needs")


def _readable(claim: Charged) -> VoiceJob:
    try:
        return claim.spec()
    except ValueError:
        raise Refused("this release cannot read the job's record") from None


def _settle(services: Services, luck: float, told: Sequence[Told[Order, str]]) -> list[Pending]:
    """Write what came of POSTs; gives those that upstream took."""
    moves: list[tuple[Charged, Move]] = []
    for each in told:
        with _left_to_the_pulse([each.of.job_id]):
            moves.append((each.of.claim, _judged(services, luck, each)))
    return _write(services, moves)


def _judged(services: Services, luck: float, told: Told[Order, str]) -> Move:
    claim, found = told.of.claim, told.result
    refusal = _noted(services, claim, found)
    if isinstance(found, UpstreamError):
        move = decisions.not_accepted(claim, found, services.clock(), refusal)
    else:
        poll_in = services.polls.after(0.0, kind_of(claim.stage, told.of.model), luck)
        move = decisions.accepted(claim, found, services.clock(), poll_in, told.of.model)
    about = {"job": claim.job_id, "stage": str(claim.stage), "attempt": claim.attempt, "outcome": str(move.to)}
    known = {"task_id": move.fields.get(task_field(claim.stage)), "reason": move.reason}
    said = {name: value for name, value in known.items() if value}
    log.info("ordered", extra={**about, **said, "duration": round(told.seconds, 3)})
    return move


def _noted(services: Services, claim: Charged, found: str | UpstreamError) -> Refusal | None:
    """Note what an answer says of upstream. Where Redis does not take that, the answer is written all the same: it may
    have been paid for."""
    try:
        return services.health.of_order(claim.job_id, found)
    except RedisError as error:
        about = {"job": claim.job_id, "stage": str(claim.stage)}
        log.warning("other workers cannot be told of the answer: %s", type(error).__name__, extra=about)
        return None


def _write(services: Services, moves: Sequence[tuple[Charged, Move]]) -> list[Pending]:
    """Write what POSTs led to, also where an answer came after its claim had run out."""
    if not moves:
        return []
    pending: list[Pending] = []
    with _left_to_the_pulse([claim.job_id for claim, _ in moves]):
        done = services.store.write([move for _, move in moves], services.clock())
        for (claim, move), written in zip(moves, done, strict=True):
            if written and move.refused:
                services.health.tell(claim.job_id, move.refused, written)
            if (written or _write_late(services, claim, move)) and move.to is State.PENDING and move.due is not None:
                pending.append(Pending(claim.job_id, move.version + 1, move.due - services.clock()))
    return pending


def _write_late(services: Services, claim: Charged, move: Move) -> bool:
    [job] = services.store.get([claim.job_id])
    if job is not None and job.attempt == claim.attempt:
        if job.state is move.to and job.task_ids.get(claim.stage) == move.fields.get(task_field(claim.stage)):
            return True  # it was written; only Redis's answer was lost
        if job.state is State.UNSURE and (better := decisions.late(job, move)):
            return services.store.apply([better], services.clock()) == [True]
    if (task_id := move.fields.get(task_field(claim.stage))) is not None:
        order = ChargedOrder(claim.job_id, claim.stage, claim.attempt, task_id)
        named = name_order(services.store, order, services.clock(), reason="the answer came late")
        if named is not Named.UNKNOWN:
            return named is Named.TAKEN_UP
    # What upstream answered is for the record alone.
    late = {name: value for name, value in move.fields.items() if name != "answer"} or move.reason
    log.error("the job has moved on from %s", late, extra={"job": claim.job_id, "stage": str(claim.stage)})
    return False


def poll(services: Services, stage: Stage, job_ids: Sequence[str]) -> Polled:
    """Ask upstream about each job that is due, and about others of the stage that are due by then; write what it
    says."""
    near_s, lease = services.plan.near_s, services.patience.poll_s
    claims = services.store.claim(job_ids, stage, services.clock(), lease=lease, near=near_s, most=services.chunk)
    answers, not_asked = _asked(services, stage, claims)
    now, luck = services.clock(), services.polls.luck()
    moves: list[Move] = []
    waiting = [Planned(claim.job_id, claim.version, now) for claim in not_asked if claim.state is State.PENDING]
    abandoned = [Planned(claim.job_id, claim.version, now) for claim in not_asked if claim.state is not State.PENDING]
    for claim in claims[: len(claims) - len(not_asked)]:
        answer = answers.get(claim.job_id)
        # Where asking went wrong for any reason, the deadline holds all the same.
        move = answer.move if answer else decisions.overdue(claim, now, _deadline(services, claim), said=_said(claim))
        if move is not None:
            moves.append(move)
        elif claim.state is State.PENDING:
            waiting.append(_next_look(services, claim, answer, now, luck))
        else:  # the pulse asks again in its time
            abandoned.append(_next_look(services, claim, answer, now, luck))
    made = [move for move, written in zip(moves, services.store.apply(moves, now), strict=True) if written]
    # A song of which a part is still missing does not tell how long songs take.
    ready = {move.job_id for move in made if move.to is State.ADMITTED or (move.to is State.SUCCEEDED and not move.due)}
    services.polls.learn([claim for claim in claims if claim.job_id in ready and claim.state is State.PENDING], now)
    rounds = _together(waiting, near_s)
    planned = set(services.store.plan(chain(abandoned, *rounds)))
    again = [Round([look.job_id for look in looks if look.job_id in planned], looks[0].due - now) for looks in rounds]
    to_music = [move.job_id for move in made if move.to is State.ADMITTED]
    return Polled(again=[each for each in again if each.job_ids], to_music=to_music)


def _together(looks: Iterable[Planned], near_s: float) -> list[list[Planned]]:
    """Those that are due soon after one another, at the time of the first of them; the soonest first."""
    rounds: list[list[Planned]] = []
    for look in sorted(looks, key=attrgetter("due")):
        if not rounds or look.due > rounds[-1][0].due + near_s:
            rounds.append([])
        rounds[-1].append(look)
    return [[replace(look, due=looks[0].due) for look in looks] for looks in rounds]


@dataclass(frozen=True, slots=True)
class Answer:
    """The effect of a poll (None: it is not ready), whether upstream answered at all, the failure that it reports, and
    the songs where one has finished."""

    move: Move | None
    heard: bool
    doubt: Doubt | None = None
    clips: tuple[Clip, ...] = ()


def _said(claim: Claimed) -> str:
    """Return what upstream said last of a failure, where it did."""
    return claim.doubt.message if claim.doubt else ""


def _next_look(services: Services, claim: Claimed, answer: Answer | None, now: float, luck: float) -> Planned:
    """Return when to ask about a job again, with what upstream reports."""
    doubt = answer.doubt if answer else claim.doubt
    if doubt and not claim.doubt:
        about = {"job": claim.job_id, "stage": str(claim.stage), "reason": doubt.message}
        log.info("upstream says that it failed: it is asked again", extra=about)
    asked = now if answer and answer.heard and claim.state is State.PENDING else None
    due = now + services.polls.wait(claim, now, luck, is_doubted=doubt is not None)
    clips = answer.clips if answer else ()
    return Planned(claim.job_id, claim.version, due, asked, doubt, keeps_doubt=claim.doubt is None, clips=clips)


def _asked(services: Services, stage: Stage, claims: Sequence[Claimed]) -> tuple[dict[str, Answer], list[Claimed]]:
    """What upstream says about each job; those of which it could not be asked are not among them. Then the claims that
    a process which stops did not begin to ask about, the last ones."""
    questions = Exchange[Claimed, Reading](services.upstream, partial(_span, services, stage, "poll"))
    left, answers = deque(claims), dict[str, Answer]()
    results: dict[Claimed, Reading | UpstreamError] = {}
    while questions.is_open or (left and not services.stopping()):
        wave = [left.popleft() for _ in range(0 if services.stopping() else min(questions.free, len(left)))]
        questions.begin([(claim, requests.task(claim.task_id, stage)) for claim in wave])
        for told in questions.told():
            with _left_to_the_pulse([told.of.job_id]):
                results[told.of] = told.result
                answers[told.of.job_id] = _heard(services, told.of, told.result)
    # Of what nobody waits for any more, silence says nothing of upstream.
    current = {claim.job_id: found for claim, found in results.items() if claim.state is State.PENDING}
    with _left_to_the_pulse(list(current)):
        alone = services.health.of_questions(current)
        for claim, found in results.items():
            if claim.job_id in alone or isinstance(found, Refused):
                log.warning("asking about it: %s", found, extra={"job": claim.job_id, "stage": str(claim.stage)})
    return answers, list(left)


def _heard(services: Services, claim: Claimed, found: Reading | UpstreamError) -> Answer:
    now, deadline = services.clock(), _deadline(services, claim)
    if not isinstance(found, UpstreamError):
        move = decisions.read(claim, found, now, services.plan.recheck_s)
        doubt = decisions.doubt(claim, found, now)
        late = decisions.overdue(claim, now, deadline, said=doubt.message if doubt else "", reading=found)
        return Answer(move or late, heard=True, doubt=doubt, clips=decisions.finished_songs(claim, found))
    return Answer(decisions.overdue(claim, now, deadline, said=found.message), heard=False, doubt=claim.doubt)


def _deadline(services: Services, claim: Claimed) -> float:
    """How long after its order a result is waited for, or at least kept if it comes."""
    return services.deadlines[claim.stage] if claim.state is State.PENDING else services.patience.late_s


def _span(services: Services, stage: Stage, name: str, of: Order | Claimed) -> AbstractContextManager[None]:
    return services.span(name, job=of.job_id, stage=str(stage))


@contextmanager
def _left_to_the_pulse(job_ids: Sequence[str]) -> Iterator[None]:
    """What goes wrong here (Redis away for long, a defect) leaves the records as they stand, and the pulse looks
    after them when their time is up."""
    try:
        yield
    except Exception as error:
        # Redis quotes what it was sent: of its errors the name must do.
        defect = not isinstance(error, RedisError)
        for job_id in job_ids:
            log.error("left to the pulse: %s", type(error).__name__, exc_info=defect, extra={"job": job_id})
