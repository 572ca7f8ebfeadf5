"""Answers that deviate from the contract, with real workers: paid results are kept, nothing else is unsure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.acceptance.conftest import Build, settled
from tests.conftest import eventually
from tests.support.scripted import Request, ScriptedServer, answer
from voicequeue import FailureCode, Job, Song, State, VoiceJob

#: Upstream's answers to orders by title, before it accepts them: each is given once.
REFUSALS = {
    "limited": [
        answer({"error": "API QPS limit exceeded"}, status="403 Forbidden"),
        answer({"message": "Queue is full"}, status="400 Bad Request"),
        answer({"code": "429", "message": "Too many requests"}),
    ],
    "refused": [answer({"code": 400, "message": "The prompt is empty."})],
    "unreadable": [answer({"code": 200, "message": "success", "order": "number seven"})],
}


class Upstream:
    """An upstream that accepts orders by title; the task id is the title, in another shape each time."""

    def __init__(self) -> None:
        self.polls: Counter[str] = Counter()
        self.refusals = {title: list(answers) for title, answers in REFUSALS.items()}

    def __call__(self, request: Request) -> Iterator[bytes]:
        """Answer a request."""
        if request.path.endswith("/get-credits"):
            yield answer({"credits": 10_000})
        elif request.method == "POST":
            title = request.json()["title"]
            waiting = self.refusals.get(title)
            yield waiting.pop(0) if waiting else answer({"code": 200, "data": [{"taskId": title}]})
        else:
            title = request.path.rpartition("/")[2]
            self.polls[title] += 1
            yield answer({"status": "SUCCESS", "data": {"result": self.songs(title)}})

    def songs(self, title: str) -> list[dict[str, Any]]:
        """Return the result of a poll: links that arrive late, and a second song that never settles."""
        is_late = title == "late" and self.polls[title] < 3
        first = {
            "id": f"{title}-1",
            "status": "complete",
            "audioUrl": "" if is_late else f"https://cdn.example/{title}",
        }
        return [first, {"id": f"{title}-2", "status": "running" if title == "twin" else "cancelled"}]


def test_orders_are_paid_once_and_paid_results_are_kept_whatever_the_shape_of_answers(build: Build) -> None:
    """Limits in other words, rejections with status 200, ids and songs in other places, late links, a song that never
    settles: the one unreadable answer is left to an operator, who can see it."""
    system = build(workers=0)
    with ScriptedServer(Upstream()) as upstream:
        system.stack._env |= {"MUSICAPI_BASE_URL": upstream.url, "VOICEQUEUE_MUSIC_DEADLINE_S": "5"}
        [worker] = system.stack.start_workers(1)
        with system.queue() as queue:
            titles = ("limited", "refused", "unreadable", "late", "twin")
            queue.enqueue_many(
                VoiceJob(persona_id="p", song=Song(title=title, prompt="la"), batch="voices") for title in titles
            )
            eventually(lambda: settled(queue), within_s=60)
            jobs: dict[str, Job] = {
                str(job.spec.song and job.spec.song.title): job for job in queue.jobs(batch="voices")
            }
            [unsure] = queue.charge_reviews()
        log = (system.home / "log" / f"{worker}.log").read_text()

    states = {title: job.state for title, job in jobs.items()}
    succeeded = dict.fromkeys(("limited", "late", "twin"), State.SUCCEEDED)
    assert states == {**succeeded, "refused": State.FAILED, "unreadable": State.UNSURE}
    for title in succeeded:
        assert [clip.audio_url for clip in jobs[title].clips] == [f"https://cdn.example/{title}", None]
    assert {title for title, job in jobs.items() if job.is_incomplete} == {"twin"}
    assert jobs["refused"].failure is not None
    assert jobs["refused"].failure.code is FailureCode.REFUSED
    assert '"order": "number seven"' in (unsure.as_dict()["upstream_response"] or "")
    assert "number seven" not in log
    posts = Counter(request.json()["title"] for request in upstream.requests if request.method == "POST")
    assert posts == {"limited": 4, "refused": 1, "unreadable": 1, "late": 1, "twin": 1}
