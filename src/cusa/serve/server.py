"""The process of `cusa serve`: it listens, answers, and stops after SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from cusa.errors import ConfigurationError
from cusa.serve.application import application
from cusa.serve.monitoring import Monitoring
from cusa.serve.served_index import ServedIndex, named_folders
from cusa.serve.settings import Settings

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as HTTPProtocol
else:
    HTTPProtocol = AutoHTTPProtocol

LOG = logging.getLogger(__name__)
BACKLOG = 1024
BAD_REQUEST = json.dumps({"error": "That is not an HTTP request."}).encode()


def serve(indexes: Sequence[str], settings: Settings, model: Path | None = None, device: str | None = None) -> None:
    """Open the indexes, print the address, and answer until SIGTERM or SIGINT.

    `indexes` are folders, or NAME=FOLDER; `model` answers all of them in place of the models that they name. Raises
    CusaError if an index or its model cannot be opened, or the port is taken.
    """
    folders = named_folders(indexes)
    with listening(settings) as listener:
        monitoring = Monitoring()
        served = [
            ServedIndex(name, folder, settings.limits, monitoring, model, device) for name, folder in folders.items()
        ]
        for index in served:
            index.warm_up()
        config = uvicorn.Config(
            application(served, settings, monitoring),
            http=_Protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=settings.limits.idle_seconds,
            timeout_graceful_shutdown=round(settings.limits.stop_seconds),
        )
        _Protocol.head_seconds = settings.limits.head_seconds
        sys.stdout.write(f"{address(settings, listener.getsockname()[1])}\n")
        sys.stdout.flush()
        asyncio.run(_Server(config).serve([listener]))
        LOG.info("stopped")


@contextmanager
def listening(settings: Settings) -> Generator[socket.socket]:
    """A socket on the host and port, taken before models are loaded. Raises ConfigurationError if it cannot be."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(
            f"--host {settings.host} is not an address of this machine ({error.strerror})."
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(where)
            listener.listen(BACKLOG)
        except OSError as error:
            raise ConfigurationError(
                f"{settings.host}, port {settings.port}, cannot be listened on ({error.strerror}); take another with "
                "--port, or --port 0 for any that is free."
            ) from None
        yield listener
    finally:
        listener.close()


def address(settings: Settings, port: int) -> str:
    """The address of the page for a browser on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port}/"


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """On SIGTERM and SIGINT answer what has begun, then return, so that the process ends with status 0.

        uvicorn's own method raises the signal again when all is done, and the process would end by it.
        """
        handled = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Protocol(HTTPProtocol):
    """uvicorn's HTTP protocol with a time limit for a request's head; uvicorn alone would wait for ever."""

    head_seconds = 10.0
    _impatience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_a_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering:
            self._be_patient()
        elif self._impatience is None:
            self._expect_a_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._be_patient()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer to bytes that are not HTTP, with a sentence as every other error has."""
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n"
            + f"Content-Length: {len(BAD_REQUEST)}\r\n\r\n".encode()
            + BAD_REQUEST
        )
        self.transport.close()
        LOG.warning("400: a client sent something that is not an HTTP request")

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_a_head(self) -> None:
        self._impatience = self.loop.call_later(self.head_seconds, self._give_up)

    def _be_patient(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

    def _give_up(self) -> None:
        if not self.transport.is_closing() and not self._is_answering:
            LOG.info("a client sent no complete head of a request in %g s; its connection is closed", self.head_seconds)
            self.transport.close()
