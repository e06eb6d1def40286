"""Tokens of a split's captions, made once for each tokeniser and then mapped into memory.

tokens/{student}/{split}/ids.npy    uint16 or int32 [tokens], the ids of all captions, one caption after the other
tokens/{student}/{split}/ends.npy   int64 [captions], where each caption's ids end
meta.json                           the padding id, and the digest of captions.parquet
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cusa.annotations.tables import CAPTIONS, SplitTables
from cusa.common.files import (
    atomic_folder,
    made_again,
    read_array,
    read_json,
    read_mapping,
    sha256_of_file,
    write_json,
)
from cusa.common.progress import progress
from cusa.common.versions import versions
from cusa.config.models import StudentSettings
from cusa.errors import DataError
from cusa.layout import META, DatasetFolder
from cusa.student.registry import load_backbone
from cusa.teachers.registry import load_text_encoder

log = logging.getLogger(__name__)
IDS = "ids.npy"
ENDS = "ends.npy"
SMALL_IDS, LARGE_IDS = np.uint16, np.int32
AT_ONCE = 8192  # captions that a call of the tokeniser gets
COMPARED = 64  # captions that are tokenised again when tokens are opened
Tokenise = Callable[[Sequence[str]], tuple[list[list[int]], int]]  # as Backbone.tokenise


@dataclass(frozen=True)
class Tokens:
    """The token ids of captions: `ids` [tokens] one caption after the other, `ends` int64 [captions]."""

    ids: np.ndarray
    ends: np.ndarray
    pad_token: int

    @classmethod
    def of(cls, captions: Sequence[Sequence[int]], pad_token: int) -> Tokens:
        """The tokens of captions that are lists of ids, as int32."""
        ends = np.cumsum(np.fromiter(map(len, captions), np.int64, count=len(captions)))
        count = int(ends[-1]) if len(ends) else 0
        return cls(np.fromiter(chain.from_iterable(captions), np.int32, count=count), ends, pad_token)

    @property
    def starts(self) -> np.ndarray:
        """Where each caption's ids start, int64 [captions]."""
        return np.concatenate([np.zeros(min(1, len(self.ends)), np.int64), self.ends[:-1]])


def tokeniser_of_student(student: StudentSettings) -> Tokenise:
    """The function that tokenises for a student with a trained text tower, as its backbone does.

    Raises ConfigurationError if it cannot be loaded.
    """
    if student.towers is None:
        return load_backbone(student).tokenise
    encoder = load_text_encoder(student.towers.text)
    return lambda captions: (encoder.tokenise(captions, student.max_tokens), encoder.pad_token)


def write_tokens(
    data: DatasetFolder, split: str, tokenise: Tokenise, folder: str | Path, part: int = 0, parts: int = 1
) -> None:
    """Tokenise the captions of a split into `folder`, which appears when it is complete.

    With `parts`, only the captions of one of them, `part` counted from 0; `join_tokens` makes the same files of all
    parts. The threads are those of the tokeniser's library, see `use_threads`. Raises DataError if the tables are
    missing.
    """
    captions = SplitTables.open(data, split, captions=["cleaned"]).captions["cleaned"]
    first, end = (len(captions) * edge // parts for edge in (part, part + 1))
    captions = captions.slice(first, end - first)
    count, pad_token = len(captions), 0
    ids, lengths = [np.empty(0, SMALL_IDS)], [np.empty(0, np.int64)]
    starts = range(0, count, AT_ONCE)
    for start in progress(starts, count, "captions", f"{split} tokens", step=AT_ONCE):
        block = Tokens.of(*tokenise(captions.slice(start, AT_ONCE).to_pylist()))
        # Ids of most models fit into two bytes.
        fitting = SMALL_IDS if block.ids.min(initial=0) >= 0 and block.ids.max(initial=0) < 2**16 else LARGE_IDS
        ids.append(block.ids.astype(fitting))
        lengths.append(np.diff(block.ends, prepend=0))
        pad_token = block.pad_token
    with atomic_folder(folder) as temporary:
        np.save(temporary / IDS, np.concatenate(ids))
        np.save(temporary / ENDS, np.cumsum(np.concatenate(lengths)))
        content = {"captions": count, "tokens": sum(map(len, ids)), "pad_token": pad_token}
        _write_meta(temporary, content, _digest(data))


def join_tokens(data: DatasetFolder, parts: Sequence[Path], folder: str | Path) -> None:
    """Make the tokens of a split from its parts, given in order; they equal those of `write_tokens` without parts.

    Memory does not grow with them. Raises DataError if a part is damaged, or was made of other captions.
    """
    metas = [read_mapping(part / META, made_again(part)) for part in parts]
    digest = _digest(data)
    for part, meta in zip(parts, metas, strict=True):
        if meta.get("captions_sha256") != digest:
            raise DataError(f"{part} was made of other captions than those of today; {made_again(part)}")
    tokens = [_mapped(part, meta) for part, meta in zip(parts, metas, strict=True)]
    count, captions = sum(len(each.ids) for each in tokens), sum(len(each.ends) for each in tokens)
    with atomic_folder(folder) as temporary:
        kind = np.result_type(SMALL_IDS, *(each.ids.dtype for each in tokens if len(each.ids)))
        ids = np.lib.format.open_memmap(temporary / IDS, mode="w+", dtype=kind, shape=(count,))
        ends = np.lib.format.open_memmap(temporary / ENDS, mode="w+", dtype=np.int64, shape=(captions,))
        token = caption = 0
        for each in tokens:
            ids[token : token + len(each.ids)] = each.ids
            ends[caption : caption + len(each.ends)] = each.ends + token
            token, caption = token + len(each.ids), caption + len(each.ends)
        ids.flush()
        ends.flush()
        # A part without captions has no padding id of its own.
        padding = next((meta["pad_token"] for meta in metas if meta["captions"]), metas[0]["pad_token"])
        _write_meta(temporary, {"captions": captions, "tokens": count, "pad_token": padding}, digest)


def _write_meta(folder: Path, content: dict[str, int], captions_sha256: str) -> None:
    files = {name: sha256_of_file(folder / name) for name in (IDS, ENDS)}
    write_json(
        folder / META, {**content, "files_sha256": files, "captions_sha256": captions_sha256, "versions": versions()}
    )


def use_threads(threads: int) -> None:
    """Set the number of threads of tokenisers that are loaded after this call."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"


def _digest(data: DatasetFolder) -> str:
    return sha256_of_file(data.annotations / CAPTIONS)


def open_tokens(data: DatasetFolder, name: str, tables: SplitTables, tokenise: Tokenise) -> Tokens | None:
    """The tokens of a split, mapped into memory; None if there are none for these captions and this tokeniser.

    `name` is that of config.student_inputs.tokens_folder, and `tables` has the column `cleaned`. Some captions are
    tokenised again as a check, because the model behind a folder or a name may have changed. Raises DataError for
    damaged files.
    """
    folder = data.tokens(name, tables.split)
    if not (folder / META).is_file():
        return None
    meta = read_json(folder / META, made_again(folder))
    captions = tables.captions["cleaned"]
    if isinstance(meta, dict) and (meta.get("captions"), meta.get("captions_sha256")) == (len(captions), _digest(data)):
        tokens = _mapped(folder, meta)
        if _is_by(tokenise, tokens, captions):
            log.info("tokens are mapped from %s", folder)
            return tokens
    log.warning(
        "%s is not used, but the captions are tokenised now: it was made of other captions, or by another tokeniser. "
        "Delete it, and the workflow makes it again before the next training.",
        folder,
    )
    return None


def _mapped(folder: Path, meta: dict[str, Any]) -> Tokens:
    # Plain arrays: indexing those of numpy's memmap class runs code of Python for each batch.
    ids, ends = (np.asarray(read_array(folder / name, made_again(folder))).view(np.ndarray) for name in (IDS, ENDS))
    expected = (meta["captions"],), (meta.get("tokens"),)
    if (ends.shape, ids.shape) != expected or ends.dtype != np.int64 or ids.dtype not in (SMALL_IDS, LARGE_IDS):
        raise DataError(
            f"{folder} holds {ids.dtype} of shape {ids.shape} and {ends.dtype} of shape {ends.shape}, expected ids of "
            f"shape {expected[1]} and ends of shape {expected[0]}; {made_again(folder)}"
        )
    return Tokens(ids, ends, int(meta["pad_token"]))


def _is_by(tokenise: Tokenise, tokens: Tokens, captions: pa.ChunkedArray) -> bool:
    """Whether some of the captions have the tokens that `tokenise` gives them."""
    count = len(captions)
    sample = np.unique(np.linspace(0, count - 1, min(count, COMPARED)).astype(np.int64))
    found, pad_token = tokenise(captions.take(pa.array(sample)).to_pylist())
    starts = tokens.starts
    stored = [tokens.ids[starts[place] : tokens.ends[place]].tolist() for place in sample]
    return pad_token == tokens.pad_token and stored == [list(row) for row in found]
