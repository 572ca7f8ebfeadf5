"""Django: a view that orders a voice, and one that is called back when it is there.

    python docs/examples/django_app.py runserver 9000

Needs the package (`pip install .`), Django, standardwebhooks, REDIS_URL and CALLBACK_SECRET (`voicequeue callbacks
--secret http://127.0.0.1:9000` prints it). Voices are put in with a callback to this app, which must be where workers
reach it.
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

#: One for the process: its connections are shared by the threads.
queue = VoiceQueue(os.environ.get("REDIS_URL", "redis://localhost:6379/0"), app="shop")

#: In a real app a table of its own.
finished: dict[str, list[str]] = {}


@csrf_exempt
@require_POST
def order(request: HttpRequest) -> JsonResponse:
    try:
        job = queue.enqueue({**json.loads(request.body), "callback_url": request.build_absolute_uri("/called-back")})
    except InvalidJobError as error:
        return JsonResponse({each.field: each.message for each in error.problems}, status=422)
    return JsonResponse({"id": job.id}, status=202)


@csrf_exempt
@require_POST
def called_back(request: HttpRequest) -> HttpResponse:
    try:
        told: dict[str, Any] = Webhook(os.environ["CALLBACK_SECRET"]).verify(request.body, dict(request.headers))
    except WebhookVerificationError:
        return HttpResponse(status=401)
    if told["data"]["origin"] != "library:shop":
        return HttpResponse(status=410)  # another app's job, which names this URL
    if told["type"] == "job.succeeded":
        finished[told["data"]["id"]] = [clip["audio_url"] for clip in told["data"]["clips"]]
    return HttpResponse(status=204)


def voice(_request: HttpRequest, job_id: str) -> JsonResponse:
    return JsonResponse({"songs": finished.get(job_id)})


urlpatterns = [path("voices", order), path("voices/<job_id>", voice), path("called-back", called_back)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
