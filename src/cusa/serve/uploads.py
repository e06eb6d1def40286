"""The body of a request, read with limits: its bytes are counted while they come, and they have to come in time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from PIL import Image
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from cusa.common.images import decoded_rgb, picture_size
from cusa.common.json_stream import unrepeated
from cusa.errors import DataError
from cusa.serve.problems import HungUpError, RequestError, busy
from cusa.serve.search_request import fields_of_json
from cusa.serve.settings import Limits

FIELD_BYTES = 64 << 10
END_BYTES = 1024  # of a form, in which its last boundary stands
FORM = "multipart/form-data"
JSON = "application/json"


@dataclass(frozen=True)
class Body:
    """The fields of a form or of JSON, and the bytes of its picture, None if there is none."""

    fields: list[tuple[str, str]]
    file: bytes | None = None


class Uploads:
    """Reads bodies and decodes pictures; the limits bound the number of clients at the same time."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._reading = 0
        self._held = asyncio.Semaphore(limits.decoded_pictures)
        self._waiting = 0
        self._decoders = ThreadPoolExecutor(2, "cusa-decode")

    async def read(self, request: Request) -> Body:
        """The body of a search. Raises RequestError if it is too large, too slow, or no form or JSON."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in (FORM, JSON):
            raise RequestError(415, f"The body of a search is a form ({FORM}) with the picture in `file`, or {JSON}.")
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self.limits.upload_bytes:
            raise self._too_large()
        if self._reading >= self.limits.uploads:
            raise busy(f"{self._reading} uploads are being read already; try again in a moment.", 2)
        self._reading += 1
        try:
            async with self._in_time():
                return await (self._form(request) if kind == FORM else self._json(request))
        finally:
            self._reading -= 1

    async def field(self, request: Request, name: str) -> str:
        """The one field of a form, or an empty text. Raises RequestError if it is too slow."""
        async with self._in_time():
            form = await request.form(max_files=0, max_fields=1, max_part_size=FIELD_BYTES)
        return str(form.get(name, ""))

    @asynccontextmanager
    async def _in_time(self) -> AsyncGenerator[None]:
        """The time in which a body has to be there."""
        try:
            async with asyncio.timeout(self.limits.upload_seconds):
                yield
        except TimeoutError:
            seconds = f"{self.limits.upload_seconds:g}"
            raise RequestError(
                408, f"The body of the request was not there after {seconds} s.", {"Connection": "close"}
            ) from None
        except ClientDisconnect:
            raise HungUpError from None

    @asynccontextmanager
    async def picture(self, content: bytes) -> AsyncGenerator[Image.Image]:
        """A picture as upright RGB, which is in memory until the block ends.

        Raises RequestError: 415 if the bytes are not a picture, 422 if it has too many pixels, which its header
        tells before anything is decoded.
        """
        if self._waiting >= self.limits.uploads:
            raise busy(f"{self._waiting} pictures are waiting already; try again in a moment.", 5)
        self._waiting += 1
        try:
            await self._held.acquire()
        finally:
            self._waiting -= 1
        try:
            yield await asyncio.get_running_loop().run_in_executor(self._decoders, self._decoded, content)
        finally:
            self._held.release()

    def close(self) -> None:
        """End the threads that decode."""
        self._decoders.shutdown(cancel_futures=True)

    def _decoded(self, content: bytes) -> Image.Image:
        try:
            width, height = picture_size(content)
        except DataError as error:
            raise RequestError(415, f"The file {error}.") from None
        if width * height > self.limits.pixels:
            raise RequestError(
                422, f"The picture has {width:,} x {height:,} pixels; at most {self.limits.pixels:,} are read."
            )
        try:
            with decoded_rgb(content, self.limits.pixels, "The picture") as picture:
                return picture
        except DataError as error:
            reason = str(error).removesuffix("; replace or remove it.")
            raise RequestError(415, f"{reason}.") from None

    def _too_large(self) -> RequestError:
        limit = f"{self.limits.upload_bytes / (1 << 20):g}"
        return RequestError(413, f"The upload has more than {limit} MiB; shrink the picture.", {"Connection": "close"})

    async def _counted(self, request: Request, ending: bytes = b"") -> AsyncGenerator[bytes]:
        """The body, part by part. Raises RequestError if it is too large, or its end lacks `ending`."""
        size, end = 0, b""
        async for chunk in request.stream():
            size += len(chunk)
            if size > self.limits.upload_bytes:
                raise self._too_large()
            end = (end + chunk)[-END_BYTES:]
            yield chunk
        if ending not in end:
            raise RequestError(400, "The body is not a complete form: its last boundary is missing.")

    async def _json(self, request: Request) -> Body:
        content = b"".join([chunk async for chunk in self._counted(request)])
        try:
            found = json.loads(content, parse_constant=_no_number, object_pairs_hook=unrepeated)
            return Body(fields_of_json(found))
        except (ValueError, RecursionError) as error:
            raise RequestError(400, f"The body is not valid JSON ({error}).") from None

    async def _form(self, request: Request) -> Body:
        _, options = parse_options_header(request.headers["content-type"])
        parser = MultiPartParser(
            request.headers,
            self._counted(request, b"--" + options.get(b"boundary", b"") + b"--"),
            max_files=1,
            max_fields=self.limits.fields,
            max_part_size=FIELD_BYTES,
        )
        try:
            form = await parser.parse()
        except (MultiPartException, KeyError, ValueError) as error:
            reason = getattr(error, "message", None) or "it has no boundary"
            raise RequestError(400, f"The body is not a complete form: {str(reason).rstrip('.')}.") from None
        try:
            return await self._body(form.multi_items())
        finally:
            with suppress(OSError):
                await form.close()

    async def _body(self, parts: list[tuple[str, UploadFile | str]]) -> Body:
        fields: list[tuple[str, str]] = []
        file: bytes | None = None
        for name, value in parts:
            if isinstance(value, str):
                fields.append((name, value))
            elif name != "file":
                raise RequestError(422, "The picture of a search is in the field `file`.")
            else:
                file = await value.read()
        if file == b"":
            raise RequestError(422, "The file has zero bytes.")
        return Body(fields, file)


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
