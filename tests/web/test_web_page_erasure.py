"""Erasing a person on the job page: a form, the plan, a confirmation, the certificate."""

from __future__ import annotations

import re

import pytest

from tests.store.life import job_with_song
from tests.support.jobs import voice
from tests.web.conftest import Build, Gateway
from tests.web.seen import PageUser
from voicequeue import VoiceQueue
from voicequeue.auth.api_keys import Scope, generate_key
from voicequeue.client.queue import in_namespace
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway

PERSON = {"subject": "42-ana"}


def test_a_person_is_erased_after_a_plan_and_a_confirmation(
    gateway: Gateway, store: JobStore, queue: VoiceQueue
) -> None:
    """The plan changes nothing; the certificate says what remains, and the page lists what to erase at MusicAPI."""
    job_with_song(store, key="own", metadata=PERSON)
    kept = queue.enqueue(voice(key="kept", audio_url="https://recordings.example/other.wav"))
    user = PageUser(gateway, "all")
    assert "/erase" in user.page("/controls").links()

    planned = user.submit(user.page("/erase"), "Show what would be erased", metadata="subject=42-ana")
    assert "1 job (1 succeeded), 2 songs" in planned.text
    assert len(list(queue.jobs())) == 2
    certificate = user.submit(planned, "Erase 1 job", reason="letter 17")

    assert [job.id for job in queue.jobs()] == [kept.id]
    assert "Certificate of erasure, 20" in certificate.text
    assert "p-1" in certificate.text.partition("To be erased at MusicAPI")[2]
    assert "42-ana" not in certificate.text
    assert user.submit(planned, "Erase 1 job").text == certificate.text
    [entry] = queue.audit_log(action="erase").items
    assert (entry.actor, entry.reason) == ("page:all", "letter 17")


def test_an_operator_erases_in_the_namespace_that_the_page_shows(gateway: Gateway, queue: VoiceQueue) -> None:
    """The form, the plan and its confirmation keep it; the plan names it."""
    for namespace in ("shop", "other"):
        in_namespace(queue, namespace).enqueue(voice(metadata=PERSON))
    user = PageUser(gateway, "all")
    everywhere = user.submit(user.page("/erase"), "Show what would be erased", metadata="subject=42-ana")
    assert "in all namespaces 2 jobs" in " ".join(everywhere.text.split())

    planned = user.submit(user.page("/erase?namespace=shop"), "Show what would be erased", metadata="subject=42-ana")
    assert "in the namespace shop 1 job" in " ".join(planned.text.split())
    user.submit(planned, "Erase 1 job")
    assert [job.namespace for job in queue.jobs()] == ["other"]


@pytest.mark.parametrize("metadata", ["", "42", "subject=", "=42"])
def test_the_form_needs_a_name_and_a_value(gateway: Gateway, queue: VoiceQueue, metadata: str) -> None:
    """Otherwise it would concern every job."""
    queue.enqueue(voice())
    user = PageUser(gateway, "all")
    page = user.submit(user.page("/erase"), "Show what would be erased", status=422, metadata=metadata)

    assert "NAME=VALUE" in page.text


def test_an_empty_plan_offers_nothing_to_erase(gateway: Gateway) -> None:
    """It says so."""
    user = PageUser(gateway, "all")
    page = user.submit(user.page("/erase"), "Show what would be erased", metadata="subject=nobody-known")

    assert "No job and no rejected message has these metadata." in page.text
    assert not any(form["action"] == "/erase/execute" for form in page.forms)


def test_erasing_on_the_page_needs_the_scope_admin(build_gateway: Build) -> None:
    """The controls do not offer it to others, and its pages are refused."""
    key, configured = generate_key("operator", [Scope.READ, Scope.OPERATE, Scope.REVIEW])
    gateway = build_gateway(api_keys=configured.as_setting())
    user = PageUser(gateway)
    user.post("/login", {"key": key})

    controls = user.page("/controls")
    token = next(form["fields"]["token"] for form in controls.forms if "token" in form["fields"])
    assert "/erase" not in controls.links()
    assert re.search("scope admin", user.page("/erase", status=403).text)
    for path in ("/erase/plan", "/erase/execute"):
        assert user.post(path, {"token": token, "metadata": "a=b", "plan": "x" * 22}).status_code == 403
