"""The command `cusa embed`: its arguments and its output."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from cusa.config.dataset_section import MAX_PIXELS
from cusa.errors import ConfigurationError

PART_ROWS = 10_000


def add_embed(commands: Any) -> None:
    """Add the command to the parsers of `cusa`."""
    command = commands.add_parser("embed", help="embed pictures or texts with a model, for search")
    command.add_argument("run", type=Path, help="run folder, or a folder that `cusa export` wrote")
    command.add_argument(
        "items",
        nargs="?",
        help="a folder of pictures, a table (CSV, TSV, JSON, JSONL, Parquet), tars (one, a pattern, a folder), or "
        "results/{dataset} with --split",
    )
    command.add_argument("--output", required=True, type=Path, help="folder to write; an interrupted command continues")
    items = command.add_argument_group("items")
    items.add_argument("--image-column", metavar="COLUMN", help="column of pictures; default: found by its values")
    items.add_argument("--text-column", metavar="COLUMN", help="column or key of captions; default: found by values")
    items.add_argument("--image-root", type=Path, metavar="FOLDER", help="folder that names of pictures start from")
    items.add_argument("--no-heading", action="store_true", help="the table has no heading; columns are numbers from 0")
    items.add_argument("--split", nargs="+", default=[], metavar="SPLIT", help="splits of results/{dataset}, or `all`")
    items.add_argument("--texts", help="embed texts: a file with a text per line; with items, their column of texts")
    items.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        metavar="N",
        help="larger pictures are not decoded; default %(default)s",
    )
    how = command.add_argument_group("how")
    how.add_argument(
        "--head",
        default="cross",
        choices=["cross", "uni"],
        help="cross (default) is for queries of texts and pictures, uni for those of the same kind",
    )
    how.add_argument(
        "--dtype", default="float32", choices=["float32", "float16"], help="type of the stored numbers; default float32"
    )
    how.add_argument("--device", help="cpu or cuda; default: a GPU, if there is one")
    how.add_argument(
        "--precision", choices=["fp32", "fp16", "bf16"], help="precision of the towers; default: that of the run"
    )
    how.add_argument("--threads", type=int, help="threads that decode pictures; default: as many as cores")
    how.add_argument(
        "--part-rows",
        type=int,
        default=PART_ROWS,
        metavar="N",
        help="items per part; an interrupted command loses at most one part; default %(default)s",
    )
    how.add_argument("--keep-parts", action="store_true", help="do not join the parts of the embeddings")
    how.add_argument(
        "--no-pictures",
        action="store_true",
        help="do not copy pictures out of Parquet files and compressed tars; then no page can show them",
    )
    how.add_argument("--part", type=int, metavar="I", help="embed only share I of --of, counted from 0; then --join")
    how.add_argument("--of", type=int, metavar="N", help="number of shares, for several GPUs or jobs")
    how.add_argument("--join", action="store_true", help="join the shares that were embedded with --part")
    command.set_defaults(call=_embed)


def _embed(arguments: argparse.Namespace) -> None:
    from cusa.gallery.parts import join

    if (arguments.part is None) != (arguments.of is None):
        raise ConfigurationError("--part I and --of N belong together: share I of N, counted from 0.")
    if arguments.join:
        if arguments.part is not None:
            raise ConfigurationError("--join is for when all shares are done; leave --part and --of out.")
        meta = join(arguments.output.absolute(), arguments.keep_parts)
    else:
        meta = _run(arguments)
    if meta is None:
        share = f"share {arguments.part} of {arguments.of}"
        sys.stdout.write(f"{arguments.output}: {share} is embedded; when all are, run the command with --join\n")
        return
    unit = "images" if meta.modality == "image" else "texts"
    sys.stdout.write(f"{arguments.output}: {meta.rows:,} {unit}, {meta.dtype} [{meta.rows}, {meta.dimension}]\n")
    if meta.unreadable:
        sys.stdout.write(f"unreadable: {meta.unreadable:,}, listed in {arguments.output}/unreadable.parquet\n")
    sys.stdout.write(f"next: {shlex.join(['cusa', 'index', str(arguments.output)])}\n")


def _run(arguments: argparse.Namespace) -> Any:
    from cusa.gallery.embedding import Embedding, embed_gallery
    from cusa.gallery.sources.opening import Reading, open_source
    from cusa.model import load

    reading = Reading(
        arguments.image_column,
        arguments.text_column,
        arguments.image_root,
        not arguments.no_heading,
        arguments.split,
        arguments.texts,
    )
    how = Embedding(
        head=arguments.head,
        dtype=arguments.dtype,
        part_rows=arguments.part_rows,
        max_pixels=arguments.max_pixels,
        threads=arguments.threads,
        keep_parts=arguments.keep_parts,
        keep_pictures=not arguments.no_pictures,
        part=arguments.part or 0,
        of=arguments.of or 1,
    )
    source = open_source(arguments.items, reading, arguments.output)
    return embed_gallery(load(arguments.run, arguments.device, arguments.precision), source, arguments.output, how)
