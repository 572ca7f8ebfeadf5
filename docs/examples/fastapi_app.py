"""FastAPI: a backend that enqueues a voice and returns its songs.

    uvicorn --app-dir docs/examples fastapi_app:app --port 9000

Needs the package (`pip install .`), FastAPI, uvicorn and REDIS_URL.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request

from voicequeue import AsyncVoiceQueue, InvalidJobError, JobNotFoundError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncVoiceQueue() as queue:
        app.state.queue = queue
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/voices", status_code=202)
async def create_voice(request: Request) -> dict[str, Any]:
    queue: AsyncVoiceQueue = request.app.state.queue
    try:
        job = await queue.enqueue(await request.json())
    except InvalidJobError as error:
        problems = [{"field": problem.field, "message": problem.message} for problem in error.problems]
        raise HTTPException(422, problems) from None
    return {"id": job.id}


@app.get("/voices/{job_id}")
async def show_voice(request: Request, job_id: str) -> dict[str, Any]:
    queue: AsyncVoiceQueue = request.app.state.queue
    try:
        job = await queue.get(job_id)
    except JobNotFoundError:
        raise HTTPException(404, "no job has this id") from None
    return {"state": job.state, "songs": [clip.audio_url for clip in job.clips]}
