"""`cusa index`: its arguments."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cusa.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from cusa.index.meta import IndexMeta
    from cusa.index.options import IndexOptions

GIB = 1 << 30
DESCRIPTION = """Build the index of a gallery, add items to it, or remove some.

Without --add, --remove and --clip-retrieval the command builds the index. With few rows it is flat. With many rows, the
command compares kinds of index with exact search until one reaches --target-recall. It prints what it tried, and
meta.json keeps it."""


def add_index(commands: Any) -> None:
    """Add the command to the subparsers of `cusa`."""
    command = commands.add_parser(
        "index",
        help="build the index of a gallery, for cusa search and cusa serve",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("gallery", type=Path, help="the folder that cusa embed wrote")
    command.add_argument("--output", type=Path, metavar="INDEX", help="folder of the index; default: the gallery's")
    changes = command.add_mutually_exclusive_group()
    changes.add_argument(
        "--add", type=Path, metavar="GALLERY", help="add the embeddings of another gallery of the model"
    )
    changes.add_argument(
        "--remove", type=Path, metavar="FILE", help="remove the items in FILE, one name per line; - is standard input"
    )
    changes.add_argument(
        "--clip-retrieval",
        type=Path,
        metavar="FOLDER",
        help="write the index as the folder that clip-retrieval back and autofaiss read",
    )
    changes.add_argument("--from-scratch", action="store_true", help="build again, without added and removed items")
    command.add_argument("--replace", action="store_true", help="with --add: replace items that exist")
    command.add_argument("--missing-ok", action="store_true", help="with --remove: ignore items that do not exist")
    command.add_argument("--target-recall", type=float, help="recall@10 to reach, against exact search; default 0.95")
    command.add_argument(
        "--kind", choices=["auto", "flat", "hnsw", "ivf-sq", "ivf-pq"], help="kind of index; default auto"
    )
    command.add_argument("--flat-rows", type=int, help="up to this many rows the index is flat; default 20000")
    command.add_argument("--memory", type=float, metavar="GIB", help="largest memory of the index; default 2")
    command.add_argument(
        "--queries", type=Path, metavar="GALLERY", help="a gallery of texts to measure with; default: captions"
    )
    command.add_argument("--model", type=Path, help="model folder that embeds queries; default: the gallery's model")
    command.add_argument("--duplicates", choices=["near", "same", "none"], help="duplicates to mark; default near")
    command.add_argument("--threads", type=int, help="CPU threads; default: all processors")
    command.add_argument("--seed", type=int, help="seed of samples and of the index's training; default 23")
    command.set_defaults(call=_index)


def _index(arguments: argparse.Namespace) -> None:
    _require_sense(arguments)
    folder = arguments.output or arguments.gallery
    if arguments.clip_retrieval is not None:
        from cusa.index.clip_retrieval import write_clip_retrieval
        from cusa.index.folder import SearchIndex

        written = write_clip_retrieval(SearchIndex.open(folder), arguments.clip_retrieval)
        sys.stdout.write(f"wrote {written}; clip-retrieval back --indices_paths={written}/indices_paths.json\n")
        return
    from cusa.index.table import table

    sys.stdout.writelines(f"{line}\n" for line in table(_changed(arguments, folder)))
    name = shlex.quote(str(folder))
    sys.stdout.write(f'next: cusa search {name} "a text", or cusa serve {name}\n')


def _changed(arguments: argparse.Namespace, folder: Path) -> IndexMeta:
    if arguments.add is not None:
        from cusa.index.changes import add_gallery

        return add_gallery(folder, arguments.add, lambda before: _options(arguments, before), arguments.replace)
    if arguments.remove is not None:
        from cusa.index.changes import remove_items

        items = _lines(arguments.remove)
        return remove_items(folder, items, lambda before: _options(arguments, before), arguments.missing_ok)
    from cusa.index.build import build_index
    from cusa.index.options import IndexOptions

    return build_index(arguments.gallery, arguments.output, _options(arguments, IndexOptions()), arguments.from_scratch)


def _options(arguments: argparse.Namespace, options: IndexOptions) -> IndexOptions:
    """`options` with what the command line gives."""
    names = ("target_recall", "flat_rows", "queries", "model", "duplicates", "threads", "seed")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if arguments.kind is not None:
        given["kind"] = None if arguments.kind == "auto" else arguments.kind.replace("-", "_")
    if arguments.memory is not None:
        if not 1 <= arguments.memory * GIB < math.inf:  # false for nan, too
            raise ConfigurationError(f"--memory is {arguments.memory:g}; expected a number of GiB above 0, such as 2.")
        given["memory"] = round(arguments.memory * GIB)
    return replace(options, **given)


def _require_sense(arguments: argparse.Namespace) -> None:
    if arguments.replace and arguments.add is None:
        raise ConfigurationError("--replace is for --add: with it, items that the index has already get the new rows.")
    if arguments.missing_ok and arguments.remove is None:
        raise ConfigurationError("--missing-ok is for --remove: with it, items that the index does not have are fine.")


def _lines(path: Path) -> list[str]:
    """The lines of a file that are not empty. `-` is the standard input."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected UTF-8 text with one item per line.") from None
    items = [line for line in text.splitlines() if line.strip()]
    if not items:
        raise DataError(f"{path} names no item; expected one a line.")
    return items
