"""The command `cusa search`: its arguments."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cusa.errors import ConfigurationError

if TYPE_CHECKING:
    from cusa.search.query import Query
    from cusa.search.searcher import Searcher


def add_search(commands: Any) -> None:
    """Add the command to the parsers of `cusa`."""
    command = commands.add_parser("search", help="find the items of an index that match a text or a picture best")
    command.add_argument("index", type=Path, help="the folder of an index, from cusa index or the workflow")
    command.add_argument("query", nargs="?", metavar="TEXT", help="the text to search for; the same as --text")
    command.add_argument("--text", help="the text to search for")
    command.add_argument("--image", metavar="FILE", help="a picture to search for; with a text, both are combined")
    command.add_argument("--like", metavar="ROW", help="the row or the name of an item to search for, like a picture")
    command.add_argument("--weight", type=float, help="weight of the picture beside the text, 0 to 1; default 0.5")
    command.add_argument(
        "--not", dest="exclude", metavar="TEXT", action="append", default=[], help="a text that hits must not match"
    )
    command.add_argument(
        "--queries", type=Path, metavar="FILE", help="a file of queries: .txt, .csv or .jsonl; - reads lines"
    )
    command.add_argument(
        "--where",
        metavar="CONDITION",
        action="append",
        default=[],
        help="column=value, or column>=number (also <=, > and <), of items.parquet; several: all of them, or one of "
        "the values where the column is the same",
    )
    command.add_argument("--top", type=int, default=10, help="number of hits; default 10")
    command.add_argument("--collapse", action="store_true", help="of equal or nearly equal hits, show only the best")
    command.add_argument("--model", type=Path, help="run folder or export of the same model; default: the index's")
    command.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
    command.add_argument(
        "--json", action="store_true", help="print JSON: a list of hits; with --queries, an object per line"
    )
    command.add_argument(
        "--pictures",
        choices=["always", "never", "auto"],
        default="auto",
        help="show pictures in the terminal; default auto",
    )
    command.set_defaults(call=_search)


def _search(arguments: argparse.Namespace) -> None:
    from cusa.commands.search_answers import Output, search_many, search_one
    from cusa.search.searcher import Searcher

    output = Output(sys.stdout, arguments.json, arguments.pictures)
    searcher = Searcher.open(arguments.index, arguments.model, arguments.device)
    options: dict[str, Any] = {"top": arguments.top, "collapse": arguments.collapse}
    if arguments.where:
        from cusa.search.filters import parse_where

        options["where"] = parse_where(arguments.where)
    parts = (arguments.query, arguments.text, arguments.image, arguments.like, arguments.weight, *arguments.exclude)
    if arguments.queries is None:
        search_one(searcher, _query(arguments, searcher), output, **options)
    elif any(part is not None for part in parts):
        raise ConfigurationError("--queries takes the whole queries from a file; give no other text or picture.")
    else:
        from cusa.search.query_files import read_queries

        search_many(searcher, read_queries(arguments.queries), output, **options)


def _query(arguments: argparse.Namespace, searcher: Searcher) -> Query:
    from cusa.search.query import Query

    if arguments.query is not None and arguments.text is not None:
        raise ConfigurationError("The text is given twice, after the index and with --text; give it once.")
    if arguments.query is not None and os.path.isfile(arguments.query):  # noqa: PTH113 (any text is an answer)
        raise ConfigurationError(
            f"{arguments.query} is a file. To search with a picture, write --image {shlex.quote(arguments.query)}; to "
            "search for this text, write --text before it."
        )
    like = arguments.like
    return Query(
        text=arguments.query if arguments.text is None else arguments.text,
        image=arguments.image,
        weight=Query.weight if arguments.weight is None else arguments.weight,
        exclude=tuple(arguments.exclude),
        like=None if like is None else int(like) if like.isdecimal() else searcher.row_of(like),
    )
