"""FastAPI: a page's backend that orders a voice, and is asked what became of it.

    uvicorn --app-dir docs/examples fastapi_app:app --port 9000

Needs the package (`pip install .`), FastAPI, uvicorn and REDIS_URL.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request

from voicequeue import AsyncVoiceQueue, InvalidJobError, JobNotFoundError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncVoiceQueue(os.environ.get("REDIS_URL", "redis://localhost:6379/0")) as queue:
        app.state.queue = queue
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/voices", status_code=202)
async def order(request: Request) -> dict[str, Any]:
    queue: AsyncVoiceQueue = request.app.state.queue
    try:
        job = await queue.enqueue(await request.json())
    except InvalidJobError as error:
        raise HTTPException(422, [{"field": each.field, "message": each.message} for each in error.problems]) from None
    return {"id": job.id}


@app.get("/voices/{job_id}")
async def voice(request: Request, job_id: str) -> dict[str, Any]:
    queue: AsyncVoiceQueue = request.app.state.queue
    try:
        job = await queue.get(job_id)
    except JobNotFoundError:
        raise HTTPException(404, "there is no such voice") from None
    return {"state": job.state, "songs": [clip.audio_url for clip in job.clips]}
