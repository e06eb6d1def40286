"""`cusa serve`: its arguments."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

MEBI = 1 << 20


def add_serve(commands: Any) -> None:
    """Add the command to the subparsers of `cusa`."""
    command = commands.add_parser("serve", help="search indexes on a web page and by a JSON API")
    command.add_argument(
        "index",
        nargs="+",
        metavar="INDEX",
        help="folder of an index, as `cusa index` writes it, or NAME=FOLDER; several are shown side by side",
    )
    command.add_argument("--host", default="127.0.0.1", help="address to listen on; default 127.0.0.1, this machine")
    command.add_argument("--port", type=int, default=8000, help="port to listen on; default 8000; 0 takes a free one")
    command.add_argument(
        "--token",
        default=os.environ.get("CUSA_TOKEN") or None,
        help="token that clients must send; default: the environment variable CUSA_TOKEN, which other users cannot see",
    )
    command.add_argument(
        "--no-token", action="store_true", help="with another --host: everybody who reaches it may search"
    )
    command.add_argument("--model", type=Path, help="model folder that embeds queries; default: that of each index")
    command.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU, if the model can use one")
    command.add_argument(
        "--origin", action="append", default=[], metavar="URL", help="a site whose pages may send queries (CORS)"
    )
    command.add_argument("--max-upload-mb", type=float, default=20.0, help="largest upload in MiB; default 20")
    command.add_argument(
        "--max-pixels", type=int, default=50_000_000, help="largest uploaded picture; default 50000000"
    )
    command.add_argument("--queue", type=int, default=256, help="queries that may wait for a model; default 256")
    command.add_argument("--batch", type=int, default=32, help="queries that a model answers together; default 32")
    command.set_defaults(call=_serve)


def _serve(arguments: argparse.Namespace) -> None:
    from cusa.serve.settings import Limits, Settings, check

    limits = Limits(
        upload_bytes=round(arguments.max_upload_mb * MEBI),
        pixels=arguments.max_pixels,
        queue=arguments.queue,
        batch=arguments.batch,
    )
    settings = Settings(arguments.host, arguments.port, arguments.token, tuple(arguments.origin), limits)
    check(settings, arguments.no_token)

    from cusa.serve.server import serve

    serve(arguments.index, settings, arguments.model, arguments.device)
