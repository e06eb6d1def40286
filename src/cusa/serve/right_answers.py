"""The right answers to a text: the rows that have it as a caption."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BLOCK = 65_536  # rows whose captions are read at once
PUNCTUATION = r"""[,.'!?"()*#:;~\-/]"""
NO_WORDS = hash("")


class RightAnswers:
    """The captions of an index by their words, 16 bytes a caption."""

    def __init__(self, captions: pa.ChunkedArray) -> None:
        """`captions` has the captions of each row, list<string> [rows]."""
        keys, rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for start in range(0, len(captions), BLOCK):
            block = captions.slice(start, BLOCK).combine_chunks()
            keys.append(_hashes(pc.list_flatten(block)))
            rows.append(pc.list_parent_indices(block).to_numpy(zero_copy_only=False).astype(np.int64) + start)
        unordered = np.concatenate(keys)
        order = np.argsort(unordered, kind="stable")
        self._keys, self._rows = unordered[order], np.concatenate(rows)[order]

    def __len__(self) -> int:
        """How many captions there are."""
        return len(self._keys)

    def rows(self, text: str) -> np.ndarray:
        """The rows that have this text as a caption, ascending int64; case, punctuation and blanks do not matter."""
        key = _hashes(pa.array([text]))[0]
        if key == NO_WORDS:
            return np.empty(0, np.int64)
        start, stop = np.searchsorted(self._keys, key), np.searchsorted(self._keys, key, side="right")
        return np.unique(self._rows[start:stop])


def _hashes(texts: pa.Array) -> np.ndarray:
    """A number for the words of each text, int64 [n]; equal words have equal numbers in one process."""
    spaced = pc.replace_substring_regex(pc.utf8_lower(texts), PUNCTUATION, " ")
    words = pc.utf8_trim_whitespace(pc.replace_substring_regex(spaced, r"\s+", " "))
    return np.fromiter(map(hash, words.to_pylist()), np.int64, len(words))
