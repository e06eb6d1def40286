"""Servers for the tests: the application with a client in the same process, and `cusa serve` as a process."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from PIL import Image
from starlette.testclient import TestClient

from cusa.serve.application import application
from cusa.serve.monitoring import Monitoring
from cusa.serve.served_index import ServedIndex
from cusa.serve.settings import Limits, Settings

ADDRESS = "http://127.0.0.1:8000"
START = (
    "import sys\n"
    "from cusa.common import program\n"
    "from cusa.serve.server import serve\n"
    "from cusa.serve.settings import Limits, Settings\n"
    "program.run(lambda: serve(sys.argv[2:], Settings(port=int(sys.argv[1]), limits=Limits(**{limits!r}))))\n"
)


@contextmanager
def client_of(
    *folders: Path, settings: Settings | None = None, names: tuple[str, ...] = ("shapes", "other")
) -> Iterator[TestClient]:
    """A client of an application over indexes. `client.indexes` are the ServedIndex objects."""
    settings, monitoring = settings or Settings(), Monitoring()
    indexes = [
        ServedIndex(name, folder, settings.limits, monitoring, device="cpu")
        for name, folder in zip(names, folders, strict=False)
    ]
    with TestClient(application(indexes, settings, monitoring), ADDRESS, raise_server_exceptions=False) as client:
        client.indexes = indexes
        yield client


@contextmanager
def process_of(*folders: Path, port: int = 0, **limits: object) -> Iterator[Server]:
    """`cusa serve` as a process, with other limits than its own."""
    command = [sys.executable, "-c", START.format(limits=limits), str(port), *map(str, folders)]
    with running(command) as server:
        yield server


class Server:
    """A process that serves."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self._log = process, log
        self.first_line = process.stdout.readline()
        self.address = self.first_line.strip()
        self.port = urlsplit(self.address).port

    @property
    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str, **fields: object) -> httpx.Response:
        return httpx.get(f"{self.address.rstrip('/')}{path}", params=fields, timeout=60)

    def search(self, text: str = "a red circle") -> httpx.Response:
        return self.get("/api/search", q=text, top=1)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit status after a signal."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


@contextmanager
def running(command: list[str]) -> Iterator[Server]:
    """A process until the block ends. What it logs is kept."""

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as file:
            environment = {name: value for name, value in os.environ.items() if name != "CUSA_TOKEN"}
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment)
        try:
            server = Server(process, log)
            assert server.first_line, log.read_text()
            yield server
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def png(width: int = 64, height: int = 48, colour: str = "#d22") -> bytes:
    """A picture file of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def until(condition: object, seconds: float = 30.0) -> None:
    """Wait until a call returns something true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


SMALL = Limits(upload_bytes=20_000, pixels=10_000, text_characters=50, top=30, fields=12, filters=3, excluded_texts=2)
