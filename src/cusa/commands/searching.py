"""The command `cusa search`: its arguments."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cusa.errors import ConfigurationError

if TYPE_CHECKING:
    from cusa.search.query import Query
    from cusa.search.searcher import Searcher


def add_search(commands: Any) -> None:
    """Add the command to the parsers of `cusa`."""
    command = commands.add_parser("search", help="an index and a text or a picture -> the items that fit best")
    command.add_argument("index", type=Path, help="INDEX folder, which cusa index wrote")
    command.add_argument("query", nargs="?", metavar="TEXT", help="what to look for; the same as --text")
    command.add_argument("--text", help="what to look for")
    command.add_argument("--image", metavar="FILE", help="a picture to look for; with a text, their weighted sum")
    command.add_argument("--like", metavar="ROW", help="a row, or the name of an item, in place of a picture")
    command.add_argument("--weight", type=float, help="of the picture beside the text, 0 to 1; default 0.5")
    command.add_argument("--not", dest="exclude", metavar="TEXT", action="append", default=[], help="what hits are not")
    command.add_argument("--queries", type=Path, metavar="FILE", help="many queries: .txt, .csv, .jsonl, or - for text")
    command.add_argument(
        "--where",
        metavar="CONDITION",
        action="append",
        default=[],
        help="column=value, or column>=number (also <=, > and <), of items.parquet; several: all of them, or one of "
        "the values where the column is the same",
    )
    command.add_argument("--top", type=int, default=10, help="number of hits; default 10")
    command.add_argument("--collapse", action="store_true", help="only the best of hits that are the same, or nearly")
    command.add_argument("--model", type=Path, help="run or exported folder of the same model; default: the index's")
    command.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
    command.add_argument("--json", action="store_true", help="a list of hits; with --queries an object a line")
    command.add_argument("--pictures", choices=["always", "never", "auto"], default="auto", help="default auto")
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
    like = arguments.like
    return Query(
        text=arguments.query if arguments.text is None else arguments.text,
        image=arguments.image,
        weight=Query.weight if arguments.weight is None else arguments.weight,
        exclude=tuple(arguments.exclude),
        like=None if like is None else int(like) if like.isdecimal() else searcher.row_of(like),
    )
