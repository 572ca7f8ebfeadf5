"""The job page as HTML: what it shows, to whom, and that nothing a caller wrote becomes part of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import requests
from redis import Redis

from tests.store.life import CLIPS, NOW, brought_to, charging, failed, make, put, song_of
from tests.support.jobs import sung
from tests.web.conftest import KEYS, Build, Gateway
from tests.web.seen import Person, Seen, logged_in, seen
from voicequeue import Clip, Code, Song, Stage, State, VoiceJob
from voicequeue.domain.claims import ChargedOrder
from voicequeue.storage.job_store import Store

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"


# ── what it shows ─────────────────────────────────────────────────────────────────────────────────


def test_the_list_shows_jobs_and_the_summary(local: Gateway, store: Store) -> None:
    """What stands where, and a way to each job."""
    job = failed(store, brought_to(store, State.PENDING, sung(batch="spring", name="Ana")), Code.UPSTREAM_FAILED)
    [queued] = put(store, sung(key="another"))

    page = seen(local, "/")

    assert {f"/job/{job.id}", f"/job/{queued}", "/batches"} <= set(page.links())
    for part in ("queued 1", "failed 1", "gate open", "Ana", "upstream_failed", "spring"):
        assert part in page.text


def test_filters_stand_in_the_url(local: Gateway, store: Store) -> None:
    """By state and by batch; what is none shows everything."""
    b = brought_to(store, State.PENDING, sung(key="b", batch="summer"))
    [a] = put(store, sung(key="a", batch="spring"))

    assert [each for each in seen(local, "/?state=queued").links() if "/job/" in each] == [f"/job/{a}"]
    assert [each for each in seen(local, "/?batch=summer").links() if "/job/" in each] == [f"/job/{b.id}"]
    assert [each for each in seen(local, "/?batch=summer&state=queued").links() if "/job/" in each] == []
    assert len([each for each in seen(local, "/?state=nonsense").links() if "/job/" in each]) == 2
    assert "spring" in seen(local, "/?batch=spring").text


def test_a_job_that_moves_while_the_list_is_read_stands_there_once(
    local: Gateway, store: Store, redis: Redis, prefix: str
) -> None:
    """As it would be met in two states: here in two indexes."""
    job = brought_to(store, State.PENDING, sung())
    redis.zadd(f"{{{prefix}}}:state:unsure", {job.id: 1})

    assert [each for each in seen(local, "/").links() if "/job/" in each] == [f"/job/{job.id}"]


def test_a_long_list_goes_on(local: Gateway, store: Store) -> None:
    """By a link to the next page, with the filter kept; no job twice, none missing."""
    ids = put(store, *(sung(key=str(n), batch="many") for n in range(120)))
    found, path = [], "/?batch=many"
    while path:
        page = seen(local, path)
        found += [each.removeprefix("/job/") for each in page.links() if "/job/" in each]
        path = next((f"/{each}" for each in page.links() if "cursor=" in each), "")

    assert sorted(found) == sorted(ids)


@pytest.mark.parametrize("of", ["job", "batch"])
def test_a_search_leads_to_the_job_or_the_batch_of_that_name(local: Gateway, store: Store, of: str) -> None:
    """And says so where there is none."""
    [job_id] = put(store, sung(batch="spring"))
    sought = job_id if of == "job" else "spring"

    answer = local("GET", "/", key=None, params={"q": f" {sought} "}, allow_redirects=False)

    assert (answer.status_code, answer.headers["Location"]) == (
        303, f"/job/{job_id}" if of == "job" else "/?batch=spring"
    )  # fmt: skip
    assert "No job and no batch is called nothing" in seen(local, "/?q=nothing").text
    assert "No job and no batch is called" in seen(local, "/?q=%00%ff../").text


def test_a_job_shows_its_timeline_its_charges_and_its_songs(local: Gateway, store: Store) -> None:
    """With players for what can be played."""
    job = song_of(store, batch="spring", metadata={"shop": "Lisbon"})

    page = seen(local, f"/job/{job.id}")

    assert [attrs["src"] for tag, attrs in page.elements if tag == "audio"] == [clip.audio_url for clip in job.clips]
    for part in ("succeeded", "19 spent", "p-1", "First, take", "1:01", "Lisbon", "charging", "pending", "la la"):
        assert part in page.text


def test_a_job_shows_all_of_a_song_and_which_one_is_missing(local: Gateway, store: Store) -> None:
    """The missing one can be asked for, free; of one that failed nothing is to come."""
    known = replace(CLIPS[0], tags="calm, pop", lyrics="la la la", mv="sonic-v5", video_url="https://cdn.example/1.mp4")
    job = song_of(store, (known, Clip("c-2", "running")))

    page = seen(local, f"/job/{job.id}")

    for part in (
        "calm, pop",
        "la la la",
        "sonic-v5",
        "video",
        "running, no link yet",
        "Not every song has its link yet",
    ):
        assert part in page.text
    assert "https://cdn.example/1.mp4" in page.links()
    assert f"/job/{job.id}/retry" in page.links()
    assert "which is free" in seen(local, f"/job/{job.id}/retry").text
    done = song_of(store, (known, Clip("c-2", "cancelled")), key="done")
    assert f"/job/{done.id}/retry" not in seen(local, f"/job/{done.id}").links()


def test_a_review_shows_what_upstream_answered(local: Gateway, store: Store) -> None:
    """As text, whatever it is."""
    answer = f"<html>{EVIL}"
    unsure = make(store, brought_to(store, State.CHARGING, sung()), State.UNSURE, fields={"answer": answer})

    for path in (f"/job/{unsure.id}", f"/job/{unsure.id}/review"):
        assert " ".join(answer.split()) in seen(local, path).text


def test_a_charge_that_was_found_later_shows_its_task(local: Gateway, store: Store) -> None:
    """Its answer was lost, it was ordered again, and upstream named the first one afterwards."""
    job = make(store, brought_to(store, State.UNSURE), State.ADMITTED)
    charging(store, job.id)
    store.book(ChargedOrder(job.id, Stage.VOICE, 1, "task-that-was-lost"), NOW, reason="named")

    page = seen(local, f"/job/{job.id}")

    for part in ("taken, as was found later", "task-that-was-lost", "4 spent"):
        assert part in page.text


def test_batches_show_how_far_they_are(local: Gateway, store: Store) -> None:
    """Newest first, each with a way to its jobs."""
    put(store, sung(key="a", batch="spring"), sung(key="b", batch="spring"))

    page = seen(local, "/batches")

    assert "/?batch=spring" in page.links()
    assert "spring 2 0 0 0 0" in page.text


def test_what_is_not_there_is_said_to_be_so(local: Gateway) -> None:
    """As a page, not as JSON."""
    assert "no job" in seen(local, "/job/nothing", status=404).text
    assert "batch" in seen(local, "/?batch=nothing").text
    assert seen(local, "/?cursor=nonsense").text
    assert seen(local, "/batches?cursor=nonsense", status=422).text


def test_nothing_that_a_caller_or_upstream_wrote_becomes_part_of_the_page(local: Gateway, store: Store) -> None:
    """Every field that takes text, and a link that would run something."""
    spec = VoiceJob(
        audio_url="https://a.example/x.wav?" + "a=<b>'\"", key=f"k{EVIL}", name=EVIL[:60], batch="b",
        song=Song(title=EVIL[:80], prompt=EVIL, tags=EVIL), metadata={"<i>": EVIL},
    )  # fmt: skip
    job = failed(store, brought_to(store, State.PENDING, spec), Code.UPSTREAM_FAILED)
    failure = '{"code": "upstream_failed", "stage": "voice", "message": "<script>alert(2)</script>"}'
    clips = (
        '[{"clip_id": "c", "state": "succeeded", "title": "<svg onload=alert(3)>", "audio_url": "javascript:alert(4)",'
        ' "image_url": "data:text/html,x", "duration": 3}]'
    )
    space = store._space
    space.redis.hset(space.key(f"job:{job.id}"), mapping={"failure": failure, "clips": clips})

    unsure = brought_to(store, State.UNSURE, sung(key=f"u{EVIL}", metadata={"a": EVIL}))
    space.redis.lset(
        space.key(f"timeline:{unsure.id}"),
        -1,
        json.dumps({"at": 1, "state": "unsure", "stage": "voice", "reason": EVIL}),
    )
    store.controls.pause(NOW, by=EVIL)
    own = [f"/job/{job.id}{end}" for end in ("", "/retry")] + [f"/job/{unsure.id}{end}" for end in ("", "/review")]

    for path in (
        "/",
        "/batches",
        "/controls",
        *own,
        "/?batch=b",
        f"/?q={EVIL}",
        f"/?batch={EVIL}",
        f"/login?onward={EVIL}",
    ):
        answer = local("GET", path, key=None)
        page = Seen(answer.text)
        assert not {"svg", "i", "b>"} & {tag for tag, _ in page.elements}
        assert {attrs.get("src") for tag, attrs in page.elements if tag == "script"} <= {
            "/static/live.js",
            "/static/keys.js",
        }
        for tag, attrs in page.elements:
            assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
            values = [str(attrs.get(name) or "") for name in ("href", "src", "action")]
            assert not [value for value in values if value.startswith(("javascript", "data"))]


# ── to whom ───────────────────────────────────────────────────────────────────────────────────────


def test_with_keys_the_page_asks_for_a_login_and_leads_on_to_where_one_wanted_to_go(
    gateway: Gateway, store: Store
) -> None:
    """The key goes into a form, and a cookie that no script reads remembers it."""
    [job_id] = put(store, sung())
    sent = gateway("GET", f"/job/{job_id}", key=None, allow_redirects=False)
    assert (sent.status_code, sent.headers["Location"]) == (303, f"/login?onward=%2Fjob%2F{job_id}")

    answer = logged_in(gateway, KEYS["read"][0], f"/job/{job_id}")

    assert (answer.status_code, answer.headers["Location"]) == (303, f"/job/{job_id}")
    said = answer.headers["Set-Cookie"]
    assert all(part in said for part in ("HttpOnly", "SameSite=strict", "Max-Age="))
    assert KEYS["read"][0] not in said
    assert job_id in seen(gateway, f"/job/{job_id}", cookies=answer.cookies).text


@pytest.mark.parametrize(
    "onward", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x", "x\n"]
)
def test_a_login_leads_nowhere_else(gateway: Gateway, onward: str) -> None:
    """A link to the login is no way to another site."""
    assert logged_in(gateway, KEYS["read"][0], onward).headers["Location"] == "/"


def test_a_wrong_key_is_refused_and_not_shown_again(gateway: Gateway) -> None:
    """Nothing is remembered."""
    answer = logged_in(gateway, "vq_wrong")

    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers
    assert "no such key" in answer.text
    assert "vq_wrong" not in answer.text


def test_a_login_of_any_size_is_bounded(gateway: Gateway) -> None:
    """Nobody is known yet who sends it."""
    assert logged_in(gateway, "x" * 100_000).status_code == 413


def test_a_key_that_may_not_read_sees_nothing(gateway: Gateway) -> None:
    """It may log in, and is told what is missing."""
    answer = gateway("GET", "/", key=None, cookies=logged_in(gateway, KEYS["enqueue"][0]).cookies)

    assert answer.status_code == 403
    assert "scope read" in answer.text


@pytest.mark.parametrize("given", ["", "x" * 43, '"x.y.z', "read.99999999999.00"])
def test_a_cookie_that_is_not_ours_is_no_login(gateway: Gateway, prefix: str, given: str) -> None:
    """One is asked to log in."""
    answer = gateway("GET", "/", key=None, cookies={prefix: given}, allow_redirects=False)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?onward=%2F")


def test_after_the_logout_nothing_is_remembered(gateway: Gateway, prefix: str) -> None:
    """The cookie is taken back; no other site can have somebody logged out."""
    person = Person(gateway, "read")

    assert person.post("/logout", {"token": ""}).status_code == 403
    person.submit(person.page("/"), "Log out read")

    assert person.session.cookies.get(prefix) is None


def test_a_key_that_may_not_read_can_be_logged_out(gateway: Gateway) -> None:
    """Its pages show nothing else."""
    person = Person(gateway, "enqueue")

    person.submit(person.page("/", status=403), "Log out enqueue")

    assert person.session.cookies.keys() == []


def test_a_login_to_one_queue_does_not_end_that_to_another_on_the_same_host(build_gateway: Build, prefix: str) -> None:
    """Browsers keep one set of cookies for all ports of a host."""
    names = set()
    for queue in (prefix, f"{prefix}-2"):
        names |= set(logged_in(build_gateway(prefix=queue), KEYS["read"][0]).cookies.keys())

    assert names == {prefix, f"{prefix}-2"}


def test_what_moves_is_told_only_to_those_who_are_logged_in(gateway: Gateway) -> None:
    """It begins at once, and ends when nobody listens any more."""
    assert gateway("GET", "/live", key=None, allow_redirects=False).status_code == 303

    cookies = logged_in(gateway, KEYS["read"][0]).cookies
    with requests.get(f"{gateway.url}/live", cookies=cookies, stream=True, timeout=10) as told:
        assert told.headers["Content-Type"].startswith("text/event-stream")
        assert next(told.iter_lines()) == b": it is told when something moves"


def test_without_keys_this_machine_alone_is_answered(local: Gateway) -> None:
    """As the rest of the gateway; whoever is logged in elsewhere is not either."""
    local.stage.client = ("203.0.113.9", 5)

    assert local("GET", "/", key=None).status_code == 403


@pytest.mark.parametrize("path", ["/", "/?batch=spring&state=failed", "/job/x", "/controls", "/live", "/login"])
def test_a_link_with_the_local_token_logs_in_and_leads_to_the_page_without_it(keyless: Gateway, path: str) -> None:
    """A cookie takes its place at once: no page has it in its address, and none tells it to another site."""
    answer = requests.get(keyless.link(path), allow_redirects=False, timeout=10)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/" if path == "/login" else path)
    assert answer.headers["Referrer-Policy"] in ("same-origin", "no-referrer")
    assert answer.headers["Cache-Control"] == "no-store"
    assert str(keyless.token) not in str(answer.headers)
    assert seen(keyless, "/", cookies=answer.cookies).links()


@pytest.mark.parametrize("token", ["", "wrong", "x" * 43])
def test_a_link_with_a_wrong_token_leads_to_the_login_which_says_so(keyless: Gateway, token: str) -> None:
    """Which does not have it in its address either."""
    path = f"/controls?token={token}&a=b"
    answer = requests.get(keyless.url + path, allow_redirects=False, timeout=10)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?onward=%2Fcontrols%3Fa%3Db&by=link")
    assert "Set-Cookie" not in answer.headers
    shown = seen(keyless, answer.headers["Location"]).text
    assert all(words in shown for words in ("local_token", "Local token", "the token in this link is not valid"))
    assert "API key" not in shown
    assert "this link" not in seen(keyless, "/login").text


def test_the_local_token_can_be_given_at_the_login_too(keyless: Gateway) -> None:
    """For a browser whose address line others see."""
    answer = logged_in(keyless, str(keyless.token))

    assert answer.status_code == 303
    assert "Log out local" in next(iter(seen(keyless, "/", cookies=answer.cookies).forms[1]["buttons"]))
