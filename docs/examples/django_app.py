"""Django: a view that enqueues a voice, and a view that receives its callback.

    python docs/examples/django_app.py runserver 9000

Needs the package (`pip install .`), Django, standardwebhooks, REDIS_URL and CALLBACK_SECRET (`voicequeue callbacks
--secret http://127.0.0.1:9000` prints it). The callback process must be able to reach this app.
"""

import json
import os
import sys
from typing import Any

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from standardwebhooks import Webhook, WebhookVerificationError

from voicequeue import InvalidJobError, VoiceQueue

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "localhost"], SECRET_KEY=os.urandom(32).hex())
django.setup()

#: One queue per process: threads share its connections.
queue = VoiceQueue(app="shop")

#: In a real app, a table of the database.
finished: dict[str, list[str]] = {}


@csrf_exempt
@require_POST
def create_voice(request: HttpRequest) -> JsonResponse:
    try:
        job = queue.enqueue({**json.loads(request.body), "callback_url": request.build_absolute_uri("/callbacks")})
    except InvalidJobError as error:
        return JsonResponse({problem.field: problem.message for problem in error.problems}, status=422)
    return JsonResponse({"id": job.id}, status=202)


@csrf_exempt
@require_POST
def receive_callback(request: HttpRequest) -> HttpResponse:
    try:
        event: dict[str, Any] = Webhook(os.environ["CALLBACK_SECRET"]).verify(request.body, dict(request.headers))
    except WebhookVerificationError:
        return HttpResponse(status=401)
    job = event["data"]
    if job["source"] != "library:shop":
        return HttpResponse(status=410)  # the job of another app, with this URL
    if event["type"] == "job.succeeded":
        finished[job["id"]] = [clip["audio_url"] for clip in job["clips"]]
    return HttpResponse(status=204)


def show_voice(_request: HttpRequest, job_id: str) -> JsonResponse:
    return JsonResponse({"songs": finished.get(job_id)})


urlpatterns = [
    path("voices", create_voice),
    path("voices/<job_id>", show_voice),
    path("callbacks", receive_callback),
]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
