"""Routes of the voices that were created."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from voicequeue import VoiceQueue
from voicequeue.auth.api_keys import Scope
from workers.gateway.api.jobs import Cursor, Limit
from workers.gateway.api.list_schemas import PersonaList, page_end
from workers.gateway.api.schemas import ChangeReason
from workers.gateway.openapi import problems, response_of
from workers.gateway.problems import ProblemError
from workers.gateway.security.access import AccessControl, acting, reading
from workers.gateway.server.large_responses import LargeResponses


def router(queue: VoiceQueue, access: AccessControl, large: LargeResponses) -> APIRouter:
    """Return the routes of voices."""
    routes = APIRouter(tags=["Personas"])

    @routes.get(
        "/v1/personas",
        dependencies=access.require(Scope.READ),
        responses={200: response_of(PersonaList, "A page of voices."), **problems(401, 403, 422, 429, 503)},
    )
    async def list_personas(
        request: Request,
        search: Annotated[
            str | None,
            Query(
                max_length=2_048,
                description="Only voices with this text in their persona id, name, recording URL, or the id of the "
                "job that created them.",
            ),
        ] = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Response:
        """List the voices that were created and can be shared, newest first in each namespace.

        A page may have fewer than `limit` voices, even none, while `has_more` is true.
        """

        def read() -> PersonaList:
            page = reading(queue, request).list_personas(search=search, limit=limit, cursor=cursor)
            return {"data": [persona.as_dict() for persona in page.items], **page_end(page.cursor)}

        return await large.respond(request, read)

    @routes.delete(
        "/v1/personas/{persona_id}",
        status_code=204,
        response_class=Response,
        dependencies=access.require(Scope.OPERATE),
        responses={204: {"description": "The voice is no longer shared."}, **problems(401, 403, 404, 422, 503)},
    )
    async def forget_persona(
        request: Request,
        persona_id: Annotated[str, Path(max_length=200, description="MusicAPI's id of the voice.")],
        reason: ChangeReason = "",
    ) -> Response:
        """Stop sharing a voice that MusicAPI has deleted.

        The next job with the same recording creates a new one. Jobs that use the voice already are not changed.
        """
        forget = acting(queue, request, reason).forget_persona
        if not await run_in_threadpool(forget, persona_id):
            raise ProblemError(404, "No voice has this persona id.", code="persona_not_found")
        return Response(status_code=204)

    return routes
