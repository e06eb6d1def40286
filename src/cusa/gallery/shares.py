"""A gallery of the user's own images in the workflow: several jobs embed shares of it, and one job joins them.

The jobs write into a folder beside the gallery, which is not one of their outputs. So the finished parts of an
interrupted job stay there, and the job continues. The gallery appears when it is complete.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from cusa.config.losses import HeadName
from cusa.gallery.embedding import PART_ROWS, Embedding, embed_gallery
from cusa.gallery.parts import join
from cusa.gallery.plan import PLAN, read_plan
from cusa.gallery.sources.opening import open_source
from cusa.gallery.store import GalleryMeta
from cusa.model import load

log = logging.getLogger(__name__)


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
    there is one. What other weights have embedded there is removed. Raises DataError if there is nothing to embed,
    or if the folder was begun with other items, and ConfigurationError if the model cannot be loaded.
    """
    unfinished = Path(unfinished).absolute()
    source = open_source(items, output=unfinished)
    how = Embedding(head=head, threads=threads, part=share[0], of=share[1])
    if source.total:
        how = replace(how, part_rows=min(PART_ROWS, -(-source.total // share[1])))
    model = load(run, device)
    _drop_other_model(unfinished, model.weights_sha256)
    embed_gallery(model, source, unfinished, how)


def _drop_other_model(unfinished: Path, weights_sha256: str) -> None:
    """Remove embeddings of an earlier training of the model, which cannot be used any more."""
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    lock = unfinished.with_name(f".{unfinished.name}.lock")
    with FileLock(lock):  # shares start at the same time, and none may remove the parts of another
        if (unfinished / PLAN).is_file() and (found := read_plan(unfinished).model_sha256) != weights_sha256:
            log.info("%s was begun with the weights %s, which have changed; starting again", unfinished, found[:12])
            shutil.rmtree(unfinished)


def finish_gallery(unfinished: str | Path, output: str | Path) -> GalleryMeta:
    """Join the shares in `unfinished` and move the gallery to `output`, in place of what is there.

    Raises DataError if shares are missing, or hold no item that could be read.
    """
    unfinished, output = Path(unfinished).absolute(), Path(output).absolute()
    meta = join(unfinished)
    if output.exists():
        shutil.rmtree(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished.rename(output)
    unfinished.with_name(f".{unfinished.name}.lock").unlink(missing_ok=True)
    return meta
