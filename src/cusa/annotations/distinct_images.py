"""The distinct images of a data set's records, and the checks of their files, paths and splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cusa.annotations.copies import ImageFiles, near_copies
from cusa.annotations.problems import EXAMPLES, Problems
from cusa.annotations.record_blocks import BLOCK_ROWS
from cusa.annotations.record_spool import RecordSpool
from cusa.common.image_files import why_missing
from cusa.common.images import ImageCheck, check_image, open_rgb
from cusa.common.progress import progress
from cusa.config.dataset import SPLITS, DatasetSection

IMAGES_AT_ONCE = 64  # that a thread checks before it takes the next ones
OFTEN = 10  # images that are one picture: more than people make by mistake


class DistinctImages:
    """The distinct images of the records, in the order of their first records, and the checks of them.

    Arrays have one element per image: `first` its first record, `split` the code of its split, `captions` their number,
    `usable` whether its file can be read. `of_record` has the image of each record.
    """

    def __init__(self, records: RecordSpool, problems: Problems) -> None:
        self.records = records
        # All chunks have one dictionary already: to unify them would take every id once for each chunk.
        encoded = records.column("image_id").dictionary_encode()
        codes = [chunk.indices.to_numpy() for chunk in encoded.chunks]
        self.of_record = np.concatenate([*codes, np.empty(0, dtype=np.int32)])
        count = int(self.of_record.max(initial=-1)) + 1
        self.first = np.empty(count, dtype=np.int64)
        self.first[self.of_record[::-1]] = np.arange(len(records))[::-1]
        self.split = records.split[self.first]
        self.captions = np.bincount(self.of_record[records.captioned], minlength=count)
        self.usable = np.ones(count, dtype=bool)
        self.files = ImageFiles(count)
        self._check_consistency(problems)

    def _check_consistency(self, problems: Problems) -> None:
        """Each image has one path and one split. An image counts once, however many captions it has."""
        split = self.records.split
        rows = self._once(np.flatnonzero(split != self.split[self.of_record]))

        def two_splits(row: int) -> str:
            names = [self.records.split_names[code] for code in (self.split[self.of_record[row]], split[row])]
            return f"{self._text(row, 'image_id')}: {names[0]} and {names[1]}"

        def two_paths(row: int) -> str:
            paths = [self._text(place, "image_path") for place in (int(self.first[self.of_record[row]]), row)]
            return f"{self._text(row, 'image_id')}: {paths[0]} and {paths[1]}"

        problems.add_all("two_splits", rows, two_splits)
        self._check_caption_ids(problems)
        problems.add_all("two_paths", self._that_differ("image_path"), two_paths)
        if self.records.has_values("label"):
            problems.note_all("two_labels", self._that_differ("label"), self._two_labels)

    def _two_labels(self, record: int) -> str:
        """The label of an image's first record, and that of another one, as an example."""
        first = int(self.first[self.of_record[record]])
        labels = [self._text(place, "label") or "no label" for place in (first, record)]
        return f"{self._text(record, 'image_id')}: {labels[0]} and {labels[1]}"

    def _once(self, rows: np.ndarray) -> np.ndarray:
        """The first of the records `rows` of each image."""
        return rows[np.sort(np.unique(self.of_record[rows], return_index=True)[1])]

    def _that_differ(self, column: str) -> np.ndarray:
        """For each image whose records differ in a column, the first record with another value than the first one."""
        found = [np.empty(0, dtype=np.int64)]
        for start in range(0, len(self.records), BLOCK_ROWS):
            records = np.arange(start, min(start + BLOCK_ROWS, len(self.records)))
            first = self.first[self.of_record[records]]
            later = first != records
            here = self.records.take(records[later], [column])[column]
            same = pc.equal(self.records.take(first[later], [column])[column], here).fill_null(False)
            differs = pc.and_(pc.is_valid(here), pc.invert(same)).to_numpy()
            found.append(self._once(records[later][differs]))
        return self._once(np.concatenate(found))

    def _check_caption_ids(self, problems: Problems) -> None:
        """Each caption of a split has an id of its own, if captions have ids."""
        column = self.records.column("caption_id").combine_chunks()
        records = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        ids = column.drop_null().to_numpy()
        order = np.lexsort((records, ids, self.records.split[records]))
        ids, records = ids[order], records[order]
        again = (ids[1:] == ids[:-1]) & (self.records.split[records][1:] == self.records.split[records][:-1])

        def two_captions(place: int) -> str:
            one, other = (self._text(record, "caption") for record in records[place : place + 2].tolist())
            return f"{ids[place]}: {one!r} and {other!r}"

        problems.note_all("two_captions", np.flatnonzero(again), two_captions)

    def _text(self, record: int, column: str) -> str:
        text: str = self.records.take(np.array([record]), [column])[column][0].as_py()
        return text

    def blocks(self, images: np.ndarray, columns: list[str]) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """The images in blocks, each with the columns of their first records."""
        for start in range(0, len(images), BLOCK_ROWS):
            block = images[start : start + BLOCK_ROWS]
            yield block, self.records.take(self.first[block], columns)

    def check_files(
        self,
        dataset: DatasetSection,
        problems: Problems,
        threads: int,
        sample: int | None = None,
        has_image: Callable[[str], bool] | None = None,
    ) -> np.ndarray:
        """Find files that are missing or cannot be decoded, and mark their images as not usable.

        Returns the images that were inspected, int64: all, or `sample` of them, drawn with a fixed seed. Images whose
        path `has_image` declines are not inspected.
        """
        chosen = np.arange(len(self.first))
        if has_image is not None:
            here = [
                has_image(path)
                for _, table in self.blocks(chosen, ["image_path"])
                for path in table["image_path"].to_pylist()
            ]
            chosen = chosen[np.array(here, dtype=bool)]
        if sample is not None and sample < len(chosen):
            chosen = np.sort(np.random.default_rng(0).choice(chosen, sample, replace=False))

        def check_some(images: np.ndarray, paths: list[str]) -> list[ImageCheck]:
            checks = [check_image(path, dataset.check_images, dataset.max_pixels) for path in paths]
            for image, path, check in zip(images.tolist(), paths, checks, strict=True):
                if check.problem is None:
                    self.files.add(image, path, check.perceptual_hash)
            return checks

        def checked() -> Iterator[tuple[int, str, str, ImageCheck]]:
            with ThreadPoolExecutor(max_workers=threads) as pool:
                for block, table in self.blocks(chosen, ["image_id", "image_path", "place"]):
                    paths = table["image_path"].to_pylist()
                    # Cut into pieces before the threads take them.
                    starts = range(0, len(block), IMAGES_AT_ONCE)
                    pieces = [block[start : start + IMAGES_AT_ONCE] for start in starts]
                    their_paths = [paths[start : start + IMAGES_AT_ONCE] for start in starts]
                    checks = chain.from_iterable(pool.map(check_some, pieces, their_paths))
                    ids, places = table["image_id"].to_pylist(), table["place"].to_pylist()
                    names = [
                        key if place is None else f"{key} ({place})" for key, place in zip(ids, places, strict=True)
                    ]
                    yield from zip(block.tolist(), names, paths, checks, strict=True)

        for image, key, path, check in progress(checked(), len(chosen), "images", "checking images"):
            for note in check.notes:
                problems.note(note, f"{key}: {path}")
            if check.problem is not None:
                kind = "missing_image" if check.missing else "unreadable_image"
                hint = why_missing(path) if problems.counts.get(kind, 0) < EXAMPLES and check.missing else ""
                problems.add(kind, f"{key}: {path}: {check.problem}{hint}")
                self.usable[image] = False
        return chosen

    def check_splits(self, dataset: DatasetSection, problems: Problems) -> None:
        """Each file is in one split, each split has the expected number of images, and none is empty."""
        self._check_copies(dataset, problems)
        in_splits = self.usable & (self.split < len(SPLITS))
        expected = getattr(dataset, "expected_images", None) or {}
        for code, split in enumerate(SPLITS):
            count = int((self.split == code).sum())
            if split in expected and count != expected[split]:
                problems.add("unexpected_count", f"{split} has {count:,} images, expected {expected[split]:,}")
            if not (in_splits & (self.split == code) & (self.captions > 0)).any():
                problems.add("empty_split", split)

    def _check_copies(self, dataset: DatasetSection, problems: Problems) -> None:
        """No picture may be in two splits: as one file, as equal bytes, or as a copy in another size or quality.

        The images of train that `dataset.leave_out_of_train` names are marked as not usable.
        """
        for block, table in self.blocks(np.flatnonzero(self.files.inode < 0), ["image_path"]):
            for image, path in zip(block.tolist(), table["image_path"].to_pylist(), strict=True):
                self.files.add(image, path)
        images = np.flatnonzero(self.usable & (self.split < len(SPLITS)))
        leave_out = dataset.leave_out_of_train
        original = np.arange(len(self.first))
        images_of = np.ones(len(self.first), dtype=np.int64)  # how many have the file of this one
        for group in self.files.same_files(images):
            original[group] = group[0]
            images_of[group[0]] = len(group)
            for one, other in self._across(group, problems, "copies" in leave_out):
                problems.add("two_splits", self._both(one, other))
            for image in self._repeated(group):
                problems.note("one_file", self._both(*image))
        distinct = images[original[images] == images]
        for group in self.files.same_bytes(distinct, self._path):
            original[group] = group[0]
            images_of[group[0]] = images_of[group].sum()
            for one, other in self._across(group, problems, "copies" in leave_out):
                problems.note("copies_across_splits", self._both(one, other))
            for image in self._repeated(group):
                problems.note("copies", self._both(*image))
        for image in np.flatnonzero((images_of >= OFTEN) & (original == np.arange(len(original)))).tolist():
            problems.note("one_picture_often", f"{self._path(image)}: {images_of[image]:,} images")
        distinct = distinct[self.usable[distinct]]
        hashes, splits = self.files.hashes[distinct], self.split[distinct]
        found = near_copies(hashes, splits, SPLITS.index("train"), lambda place: open_rgb(self._path(distinct[place])))
        for pair in found:
            group = distinct[list(pair)]
            if original[group[0]] != original[group[1]]:
                for one, other in self._across(group, problems, "near_copies" in leave_out):
                    problems.note("near_copies", self._both(one, other))

    def _across(self, group: np.ndarray, problems: Problems, leave_out: bool) -> Iterator[tuple[int, int]]:
        """Each image of a group with one of another split. With `leave_out`, those of train are left out instead."""
        train = self.split[group] == SPLITS.index("train")
        if leave_out and train.any() and not train.all():
            other = int(group[~train][0])
            for image in group[train & self.usable[group]].tolist():
                problems.note("left_out_of_train", self._both(image, other))
                self.usable[image] = False
            group = group[~train]
        # The image of the rarer split represents the group, so the count is the number that would be left out.
        first = int(group[np.argmax(self.split[group])])
        yield from ((image, first) for image in group[self.split[group] != self.split[first]].tolist())

    def _repeated(self, group: np.ndarray) -> Iterator[tuple[int, int]]:
        """The second and later images of each split in a group, each with the first one."""
        for split in np.unique(self.split[group]).tolist():
            first, *others = group[self.split[group] == split].tolist()
            yield from ((image, first) for image in others)

    def _path(self, image: int) -> str:
        return self._text(int(self.first[image]), "image_path")

    def _both(self, one: int, other: int) -> str:
        """Two images as an example: their paths (one if they are equal), ids and splits."""
        table = self.records.take(self.first[[one, other]], ["image_path", "image_id"])
        (path, second), (key, other_key) = (table[name].to_pylist() for name in ("image_path", "image_id"))
        names = [self.records.split_names[code] for code in self.split[[one, other]]]
        second = "" if path == second else f"{second}: "
        return f"{path}: {key} in {names[0]} and {second}{other_key} in {names[1]}"

    @cached_property
    def ordered(self) -> np.ndarray:
        """The images that are used, by split: the rows of images.parquet."""
        # An image whose captions are all empty can be neither trained on nor searched for.
        used = np.flatnonzero(self.usable & ((self.captions > 0) | (self.split >= len(SPLITS))))
        return used[np.argsort(self.split[used], kind="stable")]

    @cached_property
    def row(self) -> np.ndarray:
        """Each image's row in images.parquet, int64; -1 for an image that is not used."""
        row = np.full(len(self.first), -1, dtype=np.int64)
        row[self.ordered] = np.arange(len(self.ordered))
        return row

    def split_name(self, images: np.ndarray) -> pa.Array:
        """The names of the images' splits."""
        return pa.array(self.records.split_names, pa.string()).take(pa.array(self.split[images]))

    def rows_by_id(self, split: str) -> dict[str, int]:
        """Row numbers of one split's images by their ids."""
        chosen = self.ordered[self.split[self.ordered] == self.records.split_names.index(split)]
        ids = [image_id for _, table in self.blocks(chosen, ["image_id"]) for image_id in table["image_id"].to_pylist()]
        return dict(zip(ids, self.row[chosen].tolist(), strict=True))
