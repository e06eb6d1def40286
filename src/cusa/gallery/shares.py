"""A gallery of one's own in the workflow: shares of it are embedded by several jobs, and one job joins them.

The jobs write into a folder beside the gallery, which is no output of theirs: what an interrupted job has finished
stays there, and the job continues it. The gallery appears when it is whole.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from cusa.config.losses import HeadName
from cusa.gallery.embedding import PART_ROWS, Embedding, embed_gallery
from cusa.gallery.parts import join
from cusa.gallery.sources.opening import open_source
from cusa.gallery.store import GalleryMeta
from cusa.model import load


def embed_share(
    run: str | Path,
    items: str,
    unfinished: str | Path,
    head: HeadName = "cross",
    share: tuple[int, int] = (0, 1),
    device: str | None = None,
    threads: int | None = None,
) -> None:
    """Embed a share of a folder, a table or tars into the folder `unfinished`.

    `share` is its number, counted from 0, and the number of shares. `device` is `cpu` or `cuda`; None takes a GPU if
    there is one. Raises DataError where there is nothing to embed, or where the folder was begun with another model or
    other items, and ConfigurationError where the model cannot be loaded.
    """
    unfinished = Path(unfinished).absolute()
    source = open_source(items, output=unfinished)
    how = Embedding(head=head, threads=threads, part=share[0], of=share[1])
    if source.total:
        how = replace(how, part_rows=min(PART_ROWS, -(-source.total // share[1])))
    embed_gallery(load(run, device), source, unfinished, how)


def finish_gallery(unfinished: str | Path, output: str | Path) -> GalleryMeta:
    """Join the shares in `unfinished` and move the gallery to `output`, in place of what is there.

    Raises DataError where shares are missing, or hold no item that could be read.
    """
    unfinished, output = Path(unfinished).absolute(), Path(output).absolute()
    meta = join(unfinished)
    if output.exists():
        shutil.rmtree(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished.rename(output)
    return meta
