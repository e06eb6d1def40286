"""The application: the routes of the page, of its API, and of those that watch the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cusa import __version__
from cusa.errors import CusaError
from cusa.serve.access import Access
from cusa.serve.documentation import add_documentation
from cusa.serve.monitoring import Monitoring
from cusa.serve.page_files import add_page
from cusa.serve.problems import HungUpError, RequestError, error_response
from cusa.serve.routes import Routes
from cusa.serve.served_index import ServedIndex
from cusa.serve.settings import Settings

DRAINED_SECONDS = 2.0
MISSING = "There is nothing at this address; the page is at /, the API is described at /docs."


def application(indexes: Sequence[ServedIndex], settings: Settings, monitoring: Monitoring) -> Access:
    """The ASGI application over some indexes, the first of which is the default one."""
    routes = Routes(indexes, settings, monitoring)
    monitoring.watch(indexes)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncGenerator[None]:
        watchers = [asyncio.create_task(index.watch()) for index in indexes]
        try:
            yield
        finally:
            routes.close()
            for watcher in watchers:
                watcher.cancel()
                with suppress(asyncio.CancelledError):
                    await watcher
            for index in indexes:
                await asyncio.to_thread(index.batcher.close)

    app = FastAPI(
        title="cusa serve",
        version=__version__,
        summary="Search of pictures and texts by a model that cusa trained.",
        docs_url=None,
        redoc_url=None,
        lifespan=running,
    )
    routes.add_to(app)
    add_documentation(app)
    add_page(app)
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(CusaError, _wrong)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HungUpError, _nobody)
    app.add_exception_handler(Exception, _mistake)
    return Access(app, settings, monitoring)


class _Refusal(Response):
    """An error whose request may still be arriving.

    A connection that is closed with unread bytes is reset, and the client may never see the answer. So the answer is
    sent first, and then what still comes is read for a moment and thrown away.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAINED_SECONDS):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Nothing(Response):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send nothing, because the client is gone."""


def _told(request: Request, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    request.scope.setdefault("state", {})["sentence"] = sentence
    return error_response(status, sentence, headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    response = _told(request, error.status, error.sentence, error.headers)
    if error.__cause__ is not None:  # for the log only; the client need not know it
        request.scope["state"]["sentence"] += f" ({error.__cause__})"
    if error.status == 413 and "expect" not in request.headers:
        return _Refusal(response.body, response.status_code, dict(response.headers))
    return response


async def _wrong(request: Request, error: Exception) -> Response:
    return _told(request, 422, str(error))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentences = {404: MISSING, 405: f"This address is not asked with {request.method}; see /docs."}
    return _told(request, error.status_code, sentences.get(error.status_code, str(error.detail)), error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _told(request, 422, f"`{first['loc'][-1]}`: {first['msg']}.")


async def _nobody(request: Request, error: Exception) -> Response:
    request.scope.setdefault("state", {})["hung_up"] = True
    return _Nothing()


async def _mistake(request: Request, error: Exception) -> Response:
    return _told(request, 500, "The server made a mistake; its log says which.")
