"""Flickr30K's captions: results_20130124.token, or the results.csv of the later release.

Young et al., From image descriptions to visual denotations, TACL 2014. A line of the token file is
`NAME.jpg#NUMBER<tab>CAPTION`, one of the CSV file `NAME.jpg| NUMBER| CAPTION` after a heading. Neither has the
splits: text files with one image name a line give them (Karpathy's names, for instance).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cusa.annotations.sources.image_paths import image_path
from cusa.annotations.sources.source import LeftOut, MalformedRow, Record, Source
from cusa.common.files import expanded
from cusa.common.text import text_lines, unstorable
from cusa.config.dataset import SPLITS, Flickr30kDataset

SETTINGS = Flickr30kDataset
LINE = re.compile(r"(?P<name>[^#|\t]+?)\s*(?:#\d+\t|\|\s*\d+\s*\|)(?P<caption>.*)")
HEADING = "image_name|"


class Flickr30kSource(Source):
    """Reads the captions; images in none of the three lists are counted and left out, as in Karpathy's split."""

    def __init__(self, dataset: Flickr30kDataset) -> None:
        self.dataset = dataset

    def records(self) -> Iterator[Record | MalformedRow | LeftOut]:
        """Every caption of an image that a split lists, in file order."""
        splits_of = self._splits_of()
        path = expanded(self.dataset.file)
        seen = set()
        for number, line in enumerate(text_lines(path, self.dataset.encoding), start=1):
            if not line.strip() or (number == 1 and line.replace(" ", "").startswith(HEADING)):
                continue
            match = LINE.fullmatch(line)
            if match is None:
                yield MalformedRow(
                    f"{path}, line {number}", f"is neither NAME#N<tab>CAPTION nor NAME|N|CAPTION: {line!r}"
                )
                continue
            if what := unstorable(line):
                yield MalformedRow(f"{path}, line {number}", f"has {what} in it")
                continue
            name = match["name"]
            seen.add(name)
            if name not in splits_of:
                yield LeftOut(f"{path}, line {number}", f"has {name}, which no list of a split names")
            for split in splits_of.get(name, ()):
                location = image_path(self.dataset.image_root, path, name, self.dataset.image_prefix)
                yield Record(split, name, location, match["caption"].strip())
        for name in (name for name in splits_of if name not in seen):
            yield MalformedRow(f"the list of {splits_of[name][0]}", f"names {name}, which {path} has no caption of")

    def _splits_of(self) -> dict[str, list[str]]:
        """The splits that list each image; more than one is reported as a leak, as in every format."""
        splits_of: dict[str, list[str]] = {}
        for split in SPLITS:
            for line in text_lines(expanded(self.dataset.splits[split]), self.dataset.encoding):
                if name := line.strip():
                    splits_of.setdefault(name if name.endswith(".jpg") else f"{name}.jpg", []).append(split)
        return splits_of


def open_source(dataset: Flickr30kDataset, image_folder: Path) -> Flickr30kSource:
    """The source of Flickr30K's captions; it makes no images of its own."""
    return Flickr30kSource(dataset)
