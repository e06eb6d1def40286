"""Copies of pictures: the same file, equal bytes, and the same picture stored once more in another size or quality.

A picture is known again by a perceptual hash: the signs of its lowest frequencies, which another quality or size hardly
changes. Pictures whose hashes are close are then compared by their colours.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from cusa.common.perceptual_hash import thumbnail

COMPARED_SIDE = 24  # pixels of the thumbnails that are compared
MAX_BITS = 6  # of 64 that may differ between the hashes of a picture and its copy
# Measured: JPEGs of quality 50 and pictures of half the size stay below 12 and 0.04, and drawings that differ in a hand
# or in the length of hair, as emoji do, are above these.
MAX_DIFFERENCE = 20.0  # of 255, in any pixel and colour of two thumbnails
MAX_ERROR = 0.06  # root mean square difference of two thumbnails, relative to the standard deviation of the pictures
MAX_ASPECT = 0.05  # difference of the logarithms of the aspect ratios
COMPARED = 16  # of the nearest candidates of a picture
BLOCK = 1 << 24  # pairs of hashes that are compared at once
TAIL = 1 << 14  # bytes


def close_hashes(queries: np.ndarray, others: np.ndarray, same: np.ndarray | None = None) -> Iterator[tuple[int, int]]:
    """The pairs (query, other) whose hashes differ in at most MAX_BITS bits: at most COMPARED, the nearest, a query.

    Both are uint64 and must not have the 0 of flat pictures. `same` has the position in `others` of each query that is
    one of them, and -1 else; a query is not compared with itself.
    """
    rows = max(1, BLOCK // max(1, len(others)))
    for start in range(0, len(queries), rows):
        distances = np.bitwise_count(queries[start : start + rows, None] ^ others[None, :])
        if same is not None:
            mine = same[start : start + rows]
            distances[np.flatnonzero(mine >= 0), mine[mine >= 0]] = 255
        close = distances <= MAX_BITS
        for row in np.flatnonzero(close.any(axis=1)).tolist():
            found = np.flatnonzero(close[row])
            nearest = found[np.argsort(distances[row, found], kind="stable")[:COMPARED]]
            yield from ((start + row, other) for other in nearest.tolist())


class ImageFiles:
    """The properties that identify image files. Arrays have one element per image; `inode` is -1 for an unread file.

    `hashes` are perceptual hashes (uint64), 0 if there is none.
    """

    def __init__(self, count: int) -> None:
        self.device = np.zeros(count, dtype=np.int64)
        self.inode = np.full(count, -1, dtype=np.int64)
        self.size = np.zeros(count, dtype=np.int64)
        self.hashes = np.zeros(count, dtype=np.uint64)

    def add(self, image: int, path: str, perceptual_hash: int = 0) -> None:
        """Record the properties of a file. A file that cannot be read stays unknown."""
        try:
            status = os.stat(path)  # noqa: PTH116 (as fast as possible: all images are looked at)
        except (OSError, ValueError):
            return
        # Some file systems number beyond int64; equality is all that matters.
        self.device[image] = status.st_dev & (2**63 - 1)
        self.inode[image] = status.st_ino & (2**63 - 1)
        self.size[image] = status.st_size
        self.hashes[image] = perceptual_hash

    def same_files(self, images: np.ndarray) -> list[np.ndarray]:
        """The groups of images whose paths (with `..`, symbolic links or hard links) lead to one file."""
        known = images[self.inode[images] >= 0]
        return groups_of_equal(known, self.device[known], self.inode[known])

    def same_bytes(self, images: np.ndarray, path_of: Callable[[int], str]) -> list[np.ndarray]:
        """The groups of images whose files have equal bytes. Only files of equal sizes and hashes are read."""
        known = images[self.inode[images] >= 0]
        alike = groups_of_equal(known, self.size[known], self.hashes[known])
        return [group for candidates in alike for group in equal_bytes(candidates, path_of)]


class Thumbnails:
    """Compares pictures by small thumbnails, which are made when they are needed."""

    def __init__(self, open_picture: Callable[[int], Image.Image]) -> None:
        self._open = open_picture
        self.of = lru_cache(maxsize=4096)(self._thumbnail)

    def _thumbnail(self, image: int) -> tuple[np.ndarray, float]:
        """The thumbnail of a picture, float32 [side, side, 3], and the logarithm of its aspect ratio."""
        picture = self._open(image)
        return np.asarray(thumbnail(picture, COMPARED_SIDE), dtype=np.float32), float(
            np.log(picture.width / picture.height)
        )

    def are_copies(self, first: int, second: int) -> bool:
        """Whether two pictures differ in nothing but size and quality."""
        (one, aspect), (other, other_aspect) = self.of(first), self.of(second)
        difference = np.abs(one - other)
        error = float(np.sqrt(np.mean(difference**2)))
        contrast = min(float(one.std(axis=(0, 1)).max()), float(other.std(axis=(0, 1)).max()))
        return (
            abs(aspect - other_aspect) <= MAX_ASPECT
            and float(difference.max()) <= MAX_DIFFERENCE
            and error <= MAX_ERROR * contrast
        )


def near_copies(
    hashes: np.ndarray, splits: np.ndarray, train: int, open_picture: Callable[[int], Image.Image]
) -> Iterator[tuple[int, int]]:
    """Pairs of images in different splits that are the same picture in another size or quality.

    `hashes` (uint64) and `splits` (codes) have one element per image, `train` is the code of the train split, and
    `open_picture` decodes an image. The second of a pair is never in train.
    """
    known = np.flatnonzero(hashes != 0)
    queries = known[splits[known] != train]
    place = np.full(len(hashes), -1, dtype=np.int64)
    place[known] = np.arange(len(known))
    thumbnails = Thumbnails(open_picture)
    for query, other in close_hashes(hashes[queries], hashes[known], place[queries]):
        pair = int(known[other]), int(queries[query])
        # An image of val and one of test give the same pair twice.
        twice = splits[pair[0]] != train and pair[0] > pair[1]
        if splits[pair[0]] != splits[pair[1]] and not twice and thumbnails.are_copies(*pair):
            yield pair


def groups_of_equal(members: np.ndarray, *keys: np.ndarray) -> list[np.ndarray]:
    """The groups of at least two of `members` for which all `keys` are equal; `keys` have one element a member."""
    if not len(members):
        return []
    order = np.lexsort((members, *reversed(keys)))
    changes = np.zeros(len(members), dtype=bool)
    for key in keys:
        changes[1:] |= key[order][1:] != key[order][:-1]
    groups = np.split(members[order], np.flatnonzero(changes))
    return [group for group in groups if len(group) > 1]


def equal_bytes(candidates: np.ndarray, path_of: Callable[[int], str]) -> list[np.ndarray]:
    """The groups of candidates whose files have equal bytes. The ends of the files are compared before all of them."""
    groups = [candidates]
    for digest in (_digest_of_end, _digest):
        found: list[np.ndarray] = []
        for group in groups:
            digests = np.array([digest(path_of(image)) for image in group.tolist()])
            found += groups_of_equal(group, digests)
        groups = found
    return groups


def _digest_of_end(path: str) -> str:
    with Path(path).open("rb") as file:
        file.seek(-min(TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
        return hashlib.sha256(file.read()).hexdigest()


def _digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
