"""The API: search, pictures, right answers, health and counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from cusa import __version__
from cusa.errors import DataError
from cusa.search.query import Query
from cusa.serve import schemas
from cusa.serve.access import Token
from cusa.serve.engine import Engine, Question, SearchResult
from cusa.serve.monitoring import Monitoring
from cusa.serve.pictures import Pictures, measure
from cusa.serve.problems import HungUpError, RequestError
from cusa.serve.results import answers, described_index, json_response, results, unknown_texts, unmeasured
from cusa.serve.search_request import SearchRequest, fields_of_url, read_fields
from cusa.serve.served_index import ServedIndex
from cusa.serve.settings import Settings
from cusa.serve.uploads import Uploads

FOREVER = "private, max-age=31536000, immutable"
ASK_AGAIN = "private, no-cache"
LONGEST_SIDE = 16_384


class Routes:
    """The functions behind the API's addresses."""

    def __init__(self, indexes: Sequence[ServedIndex], settings: Settings, monitoring: Monitoring) -> None:
        self.indexes = {index.name: index for index in indexes}
        self.settings, self.monitoring = settings, monitoring
        self.token = None if settings.token is None else Token(settings.token)
        self.uploads, self.pictures = Uploads(settings.limits), Pictures()
        self._files = ThreadPoolExecutor(4, "cusa-pictures")
        self._rankings = ThreadPoolExecutor(1, "cusa-ranks")

    def close(self) -> None:
        """End the threads."""
        for pool in (self._files, self._rankings):
            pool.shutdown(cancel_futures=True)
        self.uploads.close()

    def add_to(self, app: FastAPI) -> None:
        """Add the addresses of the API."""
        get, post = app.get, app.post
        get("/api/indexes", response_model=list[schemas.Index], summary="The indexes of this server")(self.list_indexes)
        get(
            "/api/search",
            response_model=schemas.SearchResponse,
            responses=schemas.PROBLEMS,
            openapi_extra={"parameters": schemas.SEARCH_PARAMETERS},
            summary="Search with a text, or for more like an item; without either, list items",
        )(self.search)
        post(
            "/api/search",
            response_model=schemas.SearchResponse,
            responses=schemas.UPLOAD_PROBLEMS,
            openapi_extra={"requestBody": schemas.SEARCH_BODY},
            summary="Search with a picture, and a text with it if you like",
        )(self.search_with_body)
        at = "/api/indexes/{name}"
        get(f"{at}/items/{{row}}", response_model=schemas.Result, responses=schemas.PROBLEMS, summary="One item")(
            self.item
        )
        get(
            f"{at}/pictures/{{row}}",
            response_class=Response,
            responses=schemas.PROBLEMS | {200: {"content": {"image/*": {}}, "description": "The picture."}},
            summary="The picture of a row; ?height=256 makes it smaller",
        )(self.picture)
        get(
            f"{at}/answers",
            response_model=schemas.Answers,
            responses=schemas.PROBLEMS,
            summary="The ranks of the right answers to a text that is a caption of the index",
        )(self.right_answers)
        # FastAPI's own route describes the search. This one, before it, answers and does not read parameters twice.
        app.router.routes.insert(0, _CountedRoute("/api/search", self.search, methods=["GET"]))
        post("/api/token", include_in_schema=False)(self.give_token)
        get("/health", response_model=schemas.Health, summary="Whether the server can answer")(self.health)
        get("/metrics", response_class=Response, summary="Counters for Prometheus")(self.metrics)

    async def list_indexes(self) -> Response:
        """Names, sizes, models and filters."""
        return json_response([described_index(index) for index in self.indexes.values()])

    async def search(self, request: Request) -> Response:
        """The best items, best first. Columns are filtered by with `filter.COLUMN=VALUE`."""
        return await self._search(request, fields_of_url(request.scope["query_string"]), None)

    async def search_with_body(self, request: Request) -> Response:
        """The fields are those of the search by GET, in a form, in JSON, or in the URL."""
        fields = fields_of_url(request.scope["query_string"])
        body = await self.uploads.read(request)
        return await self._search(request, [*fields, *body.fields], body.file)

    async def _search(self, request: Request, fields: list[tuple[str, str]], file: bytes | None) -> Response:
        started = time.perf_counter()
        wanted = read_fields(fields, self.settings.limits)
        index = self._index(wanted.index)
        engine = index.engine
        like = self._like(engine, wanted)
        if wanted.text is None and file is None and like is None:
            if wanted.exclude:
                raise RequestError(422, "`not` alone is not a query; give `q`, a picture or `like` with it.")
            result = engine.first(wanted.top, wanted.where)
        elif file is None:
            query = Query(wanted.text, None, wanted.weight, wanted.exclude, like)
            result = await self._ask(request, index, Question(query, wanted.top, wanted.where))
        elif like is not None:
            raise RequestError(422, "`file` and `like` are both pictures to search with; give one of them.")
        else:
            async with self.uploads.picture(file) as picture:
                query = Query(wanted.text, picture, wanted.weight, wanted.exclude)
                result = await self._ask(request, index, Question(query, wanted.top, wanted.where))
        await self._measure(result)
        return json_response(
            {
                "query": {
                    "index": index.name,
                    "q": wanted.text,
                    "not": list(wanted.exclude),
                    "picture": file is not None,
                    "like": None if like is None else await self._one(index.name, engine, like),
                    "weight": wanted.weight,
                    "top": wanted.top,
                    "filters": {name: list(values) for name, values in wanted.where},
                },
                "results": results(index.name, result),
                "answers": answers(result),
                "total": result.total,
                "fingerprint": result.engine.fingerprint,
                "milliseconds": round((time.perf_counter() - started) * 1000, 2),
                **unknown_texts(result),
            },
            {"Cache-Control": "no-store"},
        )

    async def item(self, name: str, row: int) -> Response:
        """One row of an index as a result without a score."""
        index = self._index(name)
        return json_response(await self._one(name, index.engine, _checked_row(index.engine, row)))

    async def picture(self, request: Request, name: str, row: int, height: int | None = None, v: str = "") -> Response:
        """Only pictures of the index are served, by their row. `v` is the start of the fingerprint that it is of."""
        index = self._index(name)
        engine = index.engine_of(v)
        if engine is None:
            raise RequestError(404, f"The index {name} was rebuilt since; search again.")
        if height is not None and not 1 <= height <= LONGEST_SIDE:
            raise RequestError(422, f"`height` is {height}; expected a number of pixels from 1 to {LONGEST_SIDE:,}.")
        if engine.index.modality != "image":
            raise RequestError(404, f"The index {name} is of texts; it has no pictures.")
        tag = f'"{engine.fingerprint[:16]}-{_checked_row(engine, row)}-{height or 0}"'
        headers = {"ETag": tag, "Cache-Control": FOREVER if v else ASK_AGAIN}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        loop = asyncio.get_running_loop()
        try:
            shown = await loop.run_in_executor(self._files, self.pictures.shown, engine, row, height)
        except DataError as error:
            raise RequestError(
                404, f"The picture of row {row} cannot be read; the log of the server says why."
            ) from error
        return Response(shown.content, headers=headers, media_type=shown.media_type)

    async def right_answers(self, request: Request, name: str, q: str) -> Response:
        """If the text is a caption of the index: the rows that have it, and the rank of each under its model."""
        fields_of_url(request.scope["query_string"])
        wanted = read_fields([("q", q)], self.settings.limits)
        index = self._index(name)
        if wanted.text is None:
            raise RequestError(422, "`q` is empty; expected a text.")
        result = await self._ask(request, index, Question(Query(wanted.text), 0))
        ranked = await asyncio.get_running_loop().run_in_executor(self._rankings, result.ranked)
        return json_response({"q": wanted.text, "answers": answers(ranked), "rows": result.engine.rows})

    async def give_token(self, request: Request) -> Response:
        """The token in the field `token` of a form becomes a cookie."""
        if self.token is None:
            return Response(status_code=204)
        if not self.token.is_right(await self.uploads.field(request, "token")):
            raise RequestError(401, "That is not the token.", {"WWW-Authenticate": "Bearer"})
        response = Response(status_code=204)
        self.token.give_cookie(response, request.url.scheme == "https")
        return response

    async def health(self, request: Request) -> Response:
        """Status 200 if the server can answer, 503 if it cannot."""
        ready = all(index.batcher.is_alive for index in self.indexes.values())
        content: dict[str, Any] = {"ready": ready, "version": __version__}
        if request.state.is_known:
            content["indexes"] = [
                {
                    "name": index.name,
                    "rows": index.engine.rows,
                    "fingerprint": index.engine.fingerprint,
                    "queue": len(index.batcher),
                    "problem": index.problem,
                }
                for index in self.indexes.values()
            ]
        response = json_response(content, {"Cache-Control": "no-store"})
        response.status_code = 200 if ready else 503
        return response

    async def metrics(self) -> Response:
        """In the text format of Prometheus."""
        return Response(self.monitoring.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def _index(self, name: str | None) -> ServedIndex:
        if name is None:
            return next(iter(self.indexes.values()))
        if (index := self.indexes.get(name)) is None:
            raise RequestError(404, f"There is no index {name!r:.80}; this server has {', '.join(self.indexes)}.")
        return index

    def _like(self, engine: Engine, wanted: SearchRequest) -> int | None:
        if wanted.like is not None and wanted.like_item is not None:
            raise RequestError(422, "`like` and `like_item` both name an item; give one of them.")
        if wanted.like_item is None:
            return None if wanted.like is None else _checked_row(engine, wanted.like)
        if (row := engine.row_of(wanted.like_item)) is None:
            raise RequestError(404, f"The index has no item {wanted.like_item!r:.80}.")
        return row

    async def _ask(self, request: Request, index: ServedIndex, question: Question) -> SearchResult:
        waiting = index.batcher.put(question)
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():  # the client has gone
                raise HungUpError
            return waiting.result()
        finally:
            index.batcher.withdraw(waiting)
            gone.cancel()

    async def _one(self, name: str, engine: Engine, row: int) -> dict[str, Any]:
        result = engine.one(row)
        await self._measure(result)
        return results(name, result)[0]

    async def _measure(self, result: SearchResult) -> None:
        if rows := unmeasured(result):
            await asyncio.get_running_loop().run_in_executor(self._files, measure, result.engine, rows)


class _CountedRoute(Route):
    """A route that the counters know by its path, as they know FastAPI's."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether this route answers a request, and what it adds to its scope."""
        match, added = super().matches(scope)
        return match, {**added, "route": self}


def _checked_row(engine: Engine, row: int) -> int:
    if not 0 <= row < engine.rows:
        raise RequestError(404, f"There is no row {row}; the index has the rows 0 to {engine.rows - 1:,}.")
    return row


async def _gone(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
