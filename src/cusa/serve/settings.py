"""The settings of a server: its address, its clients, and the limits of requests."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from cusa.errors import ConfigurationError

LAST_PORT = 65_535
SHORTEST_TOKEN = 8


@dataclass(frozen=True)
class Limits:
    """The most that a request, or all of them together, may take."""

    upload_bytes: int = 20 << 20
    pixels: int = 50_000_000
    text_characters: int = 1_000
    top: int = 200
    excluded_texts: int = 8
    filters: int = 32
    fields: int = 64  # of a form
    decoded_pictures: int = 4  # pictures of clients that are in memory at the same time
    uploads: int = 16  # that are read at the same time
    queue: int = 256  # queries that wait for one model
    batch: int = 32  # queries that one model answers together
    requests: int = 1_024  # that are under way at the same time
    upload_seconds: float = 30.0  # in which a request's body has to be there
    head_seconds: float = 10.0  # in which a new connection has to send the head of its first request
    idle_seconds: int = 15  # that a connection is kept open for its next request
    stop_seconds: float = 20.0  # that running requests have after SIGTERM


@dataclass(frozen=True)
class Settings:
    """Where a server listens and whom it answers. `port` 0 takes a free one. `token` None asks for none."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    origins: tuple[str, ...] = ()  # whose pages may call the API (CORS)
    limits: Limits = field(default_factory=Limits)

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine reach the server."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is that of this machine itself."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check(settings: Settings, no_token: bool) -> None:
    """Raise ConfigurationError for an option that is out of its range, or a server that would be open to everybody.

    `no_token` says that everybody may search who reaches the host.
    """
    limits = settings.limits
    for option, value in (
        ("--max-upload-mb", limits.upload_bytes),
        ("--max-pixels", limits.pixels),
        ("--queue", limits.queue),
        ("--batch", limits.batch),
    ):
        if value < 1:
            raise ConfigurationError(f"{option} is not above 0.")
    if not 0 <= settings.port <= LAST_PORT:
        raise ConfigurationError(f"--port is {settings.port}; expected a number from 0 to {LAST_PORT}.")
    for origin in settings.origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
            raise ConfigurationError(
                f"--origin is {origin!r}; expected for instance https://example.org, without a path."
            )
    if settings.token is not None:
        if not settings.token.isascii() or not settings.token.isprintable() or len(settings.token) < SHORTEST_TOKEN:
            raise ConfigurationError(
                f"The token has to be {SHORTEST_TOKEN} or more printable ASCII characters; make one with "
                "`python -c 'import secrets; print(secrets.token_urlsafe(16))'`."
            )
    elif not settings.is_local and not no_token:
        raise ConfigurationError(
            f"--host {settings.host} lets other machines search and see every picture of the index; give them a token "
            "with --token TOKEN or the environment variable CUSA_TOKEN, or say --no-token if everybody may."
        )
