"""Rows that are the same as another row, or nearly: copies that a result list should not show twice.

Rows are the same if their embeddings are equal, or if the files of their pictures have equal bytes. Rows are near if
their pictures differ only in size or quality. A high cosine is not enough: a contrastive model also places different
pictures of the same content close together. So the nearest neighbours that the index finds are only candidates. Their
pictures are compared as those of a data set are (cusa.annotations.copies): by perceptual hashes, then by the colours of
thumbnails.
"""

from __future__ import annotations

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cusa.annotations.copies import MAX_BITS, Thumbnails
from cusa.common.images import decoded_rgb
from cusa.common.perceptual_hash import perceptual_hash
from cusa.common.progress import progress
from cusa.config.dataset_section import MAX_PIXELS
from cusa.errors import DataError
from cusa.index.contents import Contents
from cusa.index.galleries import blocks
from cusa.index.meta import Kind, SearchSettings
from cusa.index.options import IndexOptions
from cusa.index.searching import faiss_nearest

log = logging.getLogger(__name__)
NEIGHBOURS = 8  # of each row that may be its copies, itself included
# Measured on the emoji: 98 to 99 of 100 JPEGs of quality 50 and 85 and pictures of half the size have higher cosines
# with their originals (0.87 to 0.94 in the median), and half of all pictures have no other one that is so close.
CANDIDATE_COSINE = 0.7
EQUAL_COSINE = 0.999  # of pictures with equal bytes: batches of other sizes round otherwise
MOST_PAIRS = 200_000  # that are compared, those with the highest cosines first: a picture takes milliseconds to decode
# Copies are the very nearest rows, so they are nearly always in the same list as a row, or in the next one.
QUICK = {
    "flat": SearchSettings(),
    "hnsw": SearchSettings(ef_search=32),
    "ivf_sq": SearchSettings(nprobe=2, rerank=1),
    "ivf_pq": SearchSettings(nprobe=2, rerank=1),
}
BLOCK_ROWS = 4096
PAIRS_AT_ONCE = 20_000
PICTURE = tuple[bytes, int]  # the digest of a file, and the perceptual hash of its picture
Pairs = np.ndarray  # int64 [n, 2] of rows


def find_duplicates(
    contents: Contents,
    kind: Kind,
    index: Any,
    options: IndexOptions,
    new: np.ndarray | None = None,
    known: pa.Table | None = None,
) -> pa.Table:
    """The rows that are the same as others or nearly, one line per row: row, group, kind; sorted by row.

    `group` is the first row of those that belong together. `kind` says what a row is to that one, `same` or `near`; of
    the first row itself it is `same` if any of the others is. Rows have the numbers that searches return. If rows
    were added, `new` are those, and `known` is the table of the others.
    """
    nothing = np.empty((0, 2), dtype=np.int64)
    if options.duplicates == "none":
        return _table(nothing, nothing)
    same, near = _equal_rows(contents), nothing
    if contents.items["path"].null_count < len(contents.items):
        candidates = _candidates(contents, kind, index, options, contents.live if new is None else new)
        of_pictures, near = _compared(contents, candidates, options)
        same = np.concatenate([same, of_pictures])
    numbers = np.full(len(contents.vectors), -1, dtype=np.int64)
    numbers[contents.live] = np.arange(len(contents.live))
    same, near = numbers[same], numbers[near]
    if known is not None:
        links = np.stack([known["group"].to_numpy(), known["row"].to_numpy()], axis=1)
        is_same = np.array(known["kind"].to_pylist(), dtype=object) == "same"
        same, near = np.concatenate([same, links[is_same]]), np.concatenate([near, links[~is_same]])
    return _table(same, near)


def _equal_rows(contents: Contents) -> Pairs:
    """Each row with equal embeddings, and the first row that has them."""
    # Equal rows have equal hashes; the rows of equal hashes are compared below.
    hashes = np.empty(len(contents.live), dtype=np.uint64)
    weights = np.random.default_rng(0).integers(1, 2**63, contents.vectors.shape[1], dtype=np.uint64) * 2 + 1
    done = 0
    for _, block in blocks(contents.vectors, contents.live):
        for start in range(0, len(block), BLOCK_ROWS):
            words = block[start : start + BLOCK_ROWS].view(np.uint32)
            hashes[done : done + len(words)] = words.astype(np.uint64) @ weights  # modulo 2**64
            done += len(words)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    firsts = first[inverse]
    again = np.flatnonzero(firsts != np.arange(len(hashes)))
    pairs = contents.live[np.stack([firsts[again], again], axis=1)]
    equal = [
        (contents.vectors[part[:, 0]] == contents.vectors[part[:, 1]]).all(axis=1)
        for part in np.array_split(pairs, max(1, -(-len(pairs) // BLOCK_ROWS)))
    ]
    return np.asarray(pairs[np.concatenate(equal)])


def _candidates(contents: Contents, kind: Kind, index: Any, options: IndexOptions, searched: np.ndarray) -> Pairs:
    """Pairs of the rows `searched` and neighbours that may be copies, the first row first, each once."""
    least = CANDIDATE_COSINE if options.duplicates == "near" else EQUAL_COSINE
    found, cosines = [], []
    count = min(NEIGHBOURS, len(contents.live))
    total = len(searched)
    starts = range(0, total, BLOCK_ROWS)
    for start in progress(starts, total, "rows", "looking for copies", step=BLOCK_ROWS):
        rows = searched[start : start + BLOCK_ROWS]
        scores, others = faiss_nearest(index, QUICK[kind], contents.vectors, contents.vectors[rows], count)
        close = (scores >= least) & (others >= 0) & (others != rows[:, None])
        mine = np.broadcast_to(rows[:, None], others.shape)[close]
        found.append(np.stack([np.minimum(mine, others[close]), np.maximum(mine, others[close])], axis=1))
        cosines.append(scores[close])
    pairs, first = np.unique(np.concatenate(found), axis=0, return_index=True)
    scores = np.concatenate(cosines)[first]
    if len(contents.removed):
        live = ~np.isin(pairs, contents.removed).any(axis=1)
        pairs, scores = pairs[live], scores[live]
    if len(pairs) > MOST_PAIRS:
        log.info("of %d pairs of close pictures, the %d with the highest cosines are compared", len(pairs), MOST_PAIRS)
        pairs = pairs[np.sort(np.argpartition(-scores, MOST_PAIRS)[:MOST_PAIRS])]
    return pairs


def _compared(contents: Contents, candidates: Pairs, options: IndexOptions) -> tuple[Pairs, Pairs]:
    """Those of the candidates that have equal bytes, and those that show the same picture."""
    pictures = _Pictures(contents, options)
    same, near = [], []
    with ThreadPoolExecutor(options.processors()) as pool:
        for pairs in progress(
            [candidates[at : at + PAIRS_AT_ONCE] for at in range(0, len(candidates), PAIRS_AT_ONCE)],
            len(candidates),
            "pairs",
            "comparing copies",
            step=PAIRS_AT_ONCE,
        ):
            rows = np.unique(pairs)
            identities = dict(zip(rows.tolist(), pool.map(pictures.identify, rows.tolist()), strict=True))
            for first, second in pairs.tolist():
                one, other = identities[first], identities[second]
                if one is None or other is None:
                    continue
                if one[0] == other[0]:
                    same.append((first, second))
                elif pictures.are_copies(first, one[1], second, other[1]):
                    near.append((first, second))
    if pictures.unreadable:
        log.warning(
            "%d pictures that may be copies of others cannot be read any more, so they were not compared: %s",
            len(pictures.unreadable),
            "; ".join(list(pictures.unreadable.values())[:3]),
        )
    return (np.array(same, dtype=np.int64).reshape(-1, 2), np.array(near, dtype=np.int64).reshape(-1, 2))


class _Pictures:
    """The pictures of rows, and what is wrong with those that cannot be read."""

    def __init__(self, contents: Contents, options: IndexOptions) -> None:
        self.contents, self.near = contents, options.duplicates == "near"
        self.starts = np.cumsum([0, *(gallery.rows for gallery in contents.galleries)])
        self.unreadable: dict[int, str] = {}
        self.thumbnails = Thumbnails(self._open)

    def identify(self, row: int) -> PICTURE | None:
        """The digest and hash of a row's picture; None if there is none, or it cannot be read."""
        try:
            content = self._bytes(row)
            if content is None:
                return None
            digest = hashlib.sha256(content).digest()
            if not self.near:
                return digest, 0
            with decoded_rgb(content, MAX_PIXELS, "the picture") as picture:
                return digest, perceptual_hash(picture)
        except DataError as error:
            self.unreadable[row] = str(error).rstrip(".")
            return None

    def are_copies(self, first: int, one: int, second: int, other: int) -> bool:
        """Whether two pictures with these hashes differ only in size and quality. Flat ones never are."""
        close = bool(one and other) and (one ^ other).bit_count() <= MAX_BITS
        return close and self.thumbnails.are_copies(first, second)

    def _bytes(self, row: int) -> bytes | None:
        place = int(np.searchsorted(self.starts, row, side="right")) - 1
        gallery, own = self.contents.galleries[place], row - int(self.starts[place])
        return None if gallery.picture_path(own) is None else gallery.picture_bytes(own)

    def _open(self, row: int) -> Image.Image:
        content = self._bytes(row)
        assert content is not None
        with decoded_rgb(content, MAX_PIXELS, "the picture") as picture:
            return picture


def _table(same: Pairs, near: Pairs) -> pa.Table:
    """The rows that pairs connect, by the groups that they form together."""
    rows, inverse = np.unique(np.concatenate([same, near]), return_inverse=True)
    edges = inverse.reshape(-1, 2)
    groups = _components(edges, len(rows))
    twins = _components(edges[: len(same)], len(rows))  # rows that are all the same
    first = np.full(len(rows), len(rows))
    np.minimum.at(first, groups, np.arange(len(rows)))
    leader = first[groups]
    is_same = twins == twins[leader]
    is_same &= np.bincount(twins, minlength=len(rows))[twins] > 1
    return _as_table(rows, rows[leader], is_same)


def _as_table(rows: np.ndarray, groups: np.ndarray, is_same: np.ndarray) -> pa.Table:
    kinds = pa.array(["near", "same"]).take(pa.array(is_same.astype(np.int8)))
    return pa.table({"row": pa.array(rows, pa.int64()), "group": pa.array(groups, pa.int64()), "kind": kinds})


def _components(edges: np.ndarray, count: int) -> np.ndarray:
    """The number of the connected component of each of `count` nodes."""
    graph = coo_array((np.ones(len(edges), dtype=bool), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1])


def renumbered(duplicates: pa.Table, numbers: np.ndarray) -> pa.Table:
    """The table after rows were removed: `numbers` has the new number of each old row, -1 for removed ones."""
    rows = numbers[duplicates["row"].to_numpy()]
    kept = rows >= 0
    rows, is_same = rows[kept], (np.array(duplicates["kind"].to_pylist(), dtype=object) == "same")[kept]
    _, first, group, counts = np.unique(
        duplicates["group"].to_numpy()[kept], return_index=True, return_inverse=True, return_counts=True
    )
    is_same &= is_same[first][group]  # to the row that is the first one now
    is_same &= np.bincount(group, weights=is_same, minlength=len(counts))[group] > 1
    several = counts[group] > 1
    return _as_table(rows[several], rows[first][group][several], is_same[several])
