"""The gateway beside a newer release: values that it does not know are shown as they are."""

from __future__ import annotations

import pytest

from tests.store.newer_release import NewerRelease, in_newer_state
from tests.web.conftest import Gateway
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway


@pytest.mark.parametrize("path", ["/job/JOB", "/?batch=b", "/batches", "/controls"])
def test_pages_show_values_of_a_newer_release(local: Gateway, store: JobStore, path: str) -> None:
    """No page of a job, a list, or the gate is an error."""
    job_id = in_newer_state(store, NewerRelease(store))

    response = local("GET", path.replace("JOB", job_id), key=None)

    assert response.status_code == 200
    assert {"/batches": "b", "/controls": "moon phase"}.get(path, "paused") in response.text


@pytest.mark.parametrize("path", ["/v1/jobs/JOB", "/v1/jobs?batch=b", "/v1/status", "/v1/batches"])
def test_responses_have_values_of_a_newer_release(gateway: Gateway, store: JobStore, path: str) -> None:
    """Callers may know more than this gateway."""
    job_id = in_newer_state(store, NewerRelease(store))

    response = gateway("GET", path.replace("JOB", job_id))

    assert response.status_code == 200, response.text
    assert {"/v1/status": "moon_phase", "/v1/batches": "b"}.get(path, "paused") in response.text
