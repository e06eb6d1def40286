"""From a source's records to the published JSON and the Parquet tables whose row numbers everything later uses.

All problems of a data set are collected and reported together, before anything else is computed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cusa.captions import clean_caption
from cusa.config import SPLITS, DatasetSection
from cusa.errors import DataError
from cusa.files import whole_file, write_json
from cusa.images import image_problem
from cusa.progress import progress
from cusa.sources import MalformedRow, Record, Source, open_source
from cusa.sources.labelled_images import labelled_images
from cusa.sources.sentence_similarity import ScoredPair, own_pairs, senteval_pairs

EXAMPLES = 5
IMAGES = "images.parquet"
CAPTIONS = "captions.parquet"
PROBLEMS = "problems.json"
EXTENDED_POSITIVES = "extended_positives.parquet"
SENTENCE_PAIRS = "sentence_pairs.parquet"

WHAT_TO_DO = {
    "missing_image": "image files that do not exist: correct the paths or dataset.image_root",
    "unreadable_image": "image files that cannot be decoded: replace them",
    "empty_caption": "captions without a word after clean-up: correct them",
    "malformed_row": "rows that are not records: correct them",
    "two_paths": "image ids that name two different files: give each image its own id",
    "two_splits": "images in more than one split, which lets the test set leak: keep each in one",
    "unexpected_count": "splits whose size is not dataset.expected_images: take the files it means, or correct it",
    "empty_split": "splits without a usable image and caption: every one of train, val and test needs some",
}


@dataclass
class Problems:
    """Everything wrong with a data set: counts and the first few examples of each kind."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, example: str) -> None:
        """Count one problem of a kind in WHAT_TO_DO."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        shown = self.examples.setdefault(kind, [])
        if len(shown) < EXAMPLES:
            shown.append(example)

    def add_all(self, kind: str, rows: np.ndarray, describe: Callable[[int], str]) -> None:
        """Count a problem for each of `rows`; only those that are shown as examples are described."""
        shown = self.examples.get(kind, [])
        shown += [describe(row) for row in rows[: EXAMPLES - len(shown)].tolist()]
        if len(rows):
            self.examples[kind] = shown
            self.counts[kind] = self.counts.get(kind, 0) + len(rows)

    def refuse_unless_skipped(self, skip: Iterable[str]) -> None:
        """Raise DataError describing every kind that `skip` does not name."""
        skipped = set(skip)
        lines = []
        for kind, count in self.counts.items():
            if kind in skipped:
                continue
            option = f" (or add {kind} to dataset.skip)" if kind in SKIPPABLE else ""
            lines.append(f"{count} {WHAT_TO_DO[kind]}{option}.")
            lines += [f"    {example}" for example in self.examples[kind]]
            if count > EXAMPLES:
                lines.append(f"    ... and {count - EXAMPLES} more")
        if lines:
            raise DataError("the data set has problems:\n" + "\n".join(lines))


SKIPPABLE = ("missing_image", "unreadable_image", "empty_caption", "malformed_row")


def convert(dataset: DatasetSection, folder: str | Path, image_folder: str | Path, threads: int = 1) -> None:
    """Read a data set and write {split}.json, images.parquet, captions.parquet and problems.json into `folder`.

    Rows are grouped by split (train, val, test, then others); row numbers are positions in the two tables. Formats
    that list them also get extended_positives.parquet (caption, image) and sentence_pairs.parquet. Records are spooled
    to disk beside `folder`, so that memory grows by some 100 bytes an image and 20 a caption.
    Raises DataError when the data has problems that `dataset.skip` does not name.
    """
    folder = Path(folder)
    source = open_source(dataset, Path(image_folder))
    problems = Problems()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", suffix=".partial", dir=folder.parent) as name:
        images = _Images(_spool(source.records(), Path(name) / "records.arrow", problems), problems)
        images.check_files(dataset, problems, threads)
        images.check_splits(dataset, problems)
        problems.refuse_unless_skipped(dataset.skip)

        folder.mkdir(parents=True, exist_ok=True)
        _write_images(images, folder / IMAGES)
        _write_captions(images, folder)
        _write_benchmark_data(source, dataset, images, folder)
    write_json(folder / PROBLEMS, {"skipped": problems.counts, "examples": problems.examples})


@dataclass(frozen=True)
class Inspection:
    """What a data set holds and what is wrong with it, found without writing anything."""

    problems: Problems
    images: dict[str, int]
    captions: dict[str, int]
    paths: list[str]


def inspect(dataset: DatasetSection, scratch: str | Path, threads: int = 1, sample: int | None = None) -> Inspection:
    """Read a data set as `convert` does and count what it holds; `paths` are the images that were looked at.

    `scratch` is a folder for what is needed meanwhile. `sample` images are decoded (all where it is None); the others
    are taken to be sound.
    """
    problems = Problems()
    source = open_source(dataset, Path(scratch) / "images")
    images = _Images(_spool(source.records(), Path(scratch) / "records.arrow", problems), problems)
    looked_at = images.check_files(dataset, problems, threads, sample)
    images.check_splits(dataset, problems)
    paths = [path for _, table in images.blocks(looked_at, ["image_path"]) for path in table["image_path"].to_pylist()]
    of_split = {name: images.split == code for code, name in enumerate(images.records.split_names)}
    return Inspection(
        problems=problems,
        images={name: int(mine.sum()) for name, mine in of_split.items()},
        captions={name: int(images.captions[mine].sum()) for name, mine in of_split.items()},
        paths=paths,
    )


def split_rows(table: pa.Table, split: str) -> np.ndarray:
    """Row numbers (int64) of one split in images.parquet or captions.parquet."""
    return np.flatnonzero(pc.equal(table["split"], split).to_numpy())


def read_table(folder: str | Path, name: str, columns: list[str] | None = None) -> pa.Table:
    """Read one of the Parquet tables. Raises DataError when it is not there."""
    path = Path(folder) / name
    if not path.is_file():
        raise DataError(f"{path} does not exist; run `snakemake annotations` first.")
    return pq.read_table(path, columns=columns)


class _Records:
    """Records in an Arrow file, whose batches are read when asked for, only the columns asked for.

    In memory are a code of each record's split (into `split_names`), and whether it has a caption.
    """

    def __init__(self, path: Path, splits: list[np.ndarray], captioned: list[np.ndarray], names: list[str]) -> None:
        self.path, self.split_names = path, names
        self.split, self.captioned = np.concatenate(splits), np.concatenate(captioned)
        self.starts = np.cumsum([0, *map(len, splits)])
        self.batch = lru_cache(maxsize=8)(self._batch)
        self.reader = cache(self._reader)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _reader(self, columns: tuple[str, ...]) -> pa.ipc.RecordBatchFileReader:
        options = pa.ipc.IpcReadOptions(included_fields=[SPOOLED.get_field_index(name) for name in columns])
        return pa.ipc.open_file(pa.OSFile(str(self.path)), options=options)

    def _batch(self, number: int, columns: tuple[str, ...]) -> pa.RecordBatch:
        return self.reader(columns).get_batch(number)

    def column(self, name: str) -> pa.ChunkedArray:
        """One column, whole."""
        batches = [self._batch(number, (name,)) for number in range(len(self.starts) - 1)]
        return pa.chunked_array([batch.column(0) for batch in batches], SPOOLED.field(name).type)

    def take(self, rows: np.ndarray, columns: list[str]) -> pa.Table:
        """The given rows in the given order; only batches that hold some of them are read."""
        which = np.searchsorted(self.starts, rows, side="right") - 1
        order = np.argsort(which, kind="stable")
        numbers, first = np.unique(which[order], return_index=True)
        wanted = tuple(sorted(columns, key=SPOOLED.get_field_index))
        pieces = [
            self.batch(number, wanted).take(pa.array(rows[members] - self.starts[number]))
            for number, members in zip(numbers.tolist(), np.split(order, first[1:]), strict=False)
        ]
        back = np.empty(len(rows), dtype=np.int64)
        back[order] = np.arange(len(rows))
        schema = pa.schema([SPOOLED.field(name) for name in wanted])
        return pa.Table.from_batches(pieces, schema).take(pa.array(back))


SPOOLED = pa.schema(
    [
        ("image_id", pa.string()),
        ("image_path", pa.string()),
        ("label", pa.string()),
        ("caption", pa.string()),
        ("cleaned", pa.string()),
        ("caption_id", pa.int64()),
    ]
)
BLOCK_ROWS = 65_536


def _spool(records: Iterable[Record | MalformedRow], path: Path, problems: Problems) -> _Records:
    """Write records to an Arrow file, captions cleaned; where a caption is empty then, only its image stays."""
    codes = {str(split): number for number, split in enumerate(SPLITS)}
    columns: list[list[Any]] = [[] for _ in SPOOLED]
    splits: list[int] = []
    split_parts, captioned_parts = [], []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SPOOLED) as writer:

        def flush() -> None:
            arrays = [pa.array(column, field.type) for column, field in zip(columns, SPOOLED, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=SPOOLED))
            split_parts.append(np.array(splits, dtype=np.int16))
            captioned_parts.append(arrays[SPOOLED.get_field_index("cleaned")].is_valid().to_numpy(zero_copy_only=False))
            for column in (*columns, splits):
                column.clear()

        for record in records:
            if isinstance(record, MalformedRow):
                problems.add("malformed_row", f"{record.where} {record.why}")
                continue
            caption, cleaned = record.caption, None
            if caption is not None and not (cleaned := clean_caption(caption)):
                problems.add("empty_caption", f"{record.image_id}: {caption!r}")
                caption = cleaned = None
            row = (record.image_id, record.image_path, record.label, caption, cleaned, record.caption_id)
            for column, value in zip(columns, row, strict=True):
                column.append(value)
            splits.append(codes.setdefault(record.split, len(codes)))
            if len(splits) == BLOCK_ROWS:
                flush()
        flush()
    return _Records(path, split_parts, captioned_parts, list(codes))


class _Images:
    """The distinct images of the records, in the order of their first records, and what is wrong with them."""

    def __init__(self, records: _Records, problems: Problems) -> None:
        self.records = records
        encoded = records.column("image_id").dictionary_encode().unify_dictionaries()
        # `of_record`: each record's image. `first`: each image's first record.
        codes = [chunk.indices.to_numpy() for chunk in encoded.chunks]
        self.of_record = np.concatenate([*codes, np.empty(0, dtype=np.int32)])
        count = int(self.of_record.max(initial=-1)) + 1
        self.first = np.empty(count, dtype=np.int64)
        self.first[self.of_record[::-1]] = np.arange(len(records))[::-1]
        self.split = records.split[self.first]
        self.captions = np.bincount(self.of_record[records.captioned], minlength=count)
        self.usable = np.ones(count, dtype=bool)
        self._check_consistency(problems)

    def _check_consistency(self, problems: Problems) -> None:
        """One path and one split an image."""
        split = self.records.split
        rows = np.flatnonzero(split != self.split[self.of_record])

        def two_splits(row: int) -> str:
            names = [self.records.split_names[code] for code in (self.split[self.of_record[row]], split[row])]
            return f"{self._text(row, 'image_id')}: {names[0]} and {names[1]}"

        def two_paths(row: int) -> str:
            paths = [self._text(place, "image_path") for place in (int(self.first[self.of_record[row]]), row)]
            return f"{self._text(row, 'image_id')}: {paths[0]} and {paths[1]}"

        problems.add_all("two_splits", rows, two_splits)
        for start in range(0, len(self.records), BLOCK_ROWS):
            records = np.arange(start, min(start + BLOCK_ROWS, len(self.records)))
            first = self.first[self.of_record[records]]
            later = first != records
            here = self.records.take(records[later], ["image_path"])["image_path"]
            same = pc.equal(self.records.take(first[later], ["image_path"])["image_path"], here).to_numpy()
            problems.add_all("two_paths", records[later][~same], two_paths)

    def _text(self, record: int, column: str) -> str:
        text: str = self.records.take(np.array([record]), [column])[column][0].as_py()
        return text

    def blocks(self, images: np.ndarray, columns: list[str]) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """(some of the images, those columns of their first records), a block at a time."""
        for start in range(0, len(images), BLOCK_ROWS):
            block = images[start : start + BLOCK_ROWS]
            yield block, self.records.take(self.first[block], columns)

    def check_files(
        self, dataset: DatasetSection, problems: Problems, threads: int, sample: int | None = None
    ) -> np.ndarray:
        """Find missing and undecodable files; their images are not usable, so that skipping them is possible.

        Returns the images that were looked at: all, or `sample` of them, drawn with a fixed seed.
        """
        chosen = np.arange(len(self.first))
        if sample is not None and sample < len(chosen):
            chosen = np.sort(np.random.default_rng(0).choice(chosen, sample, replace=False))

        def checked() -> Iterator[tuple[int, str, str, str | None]]:
            with ThreadPoolExecutor(max_workers=threads) as pool:
                for block, table in self.blocks(chosen, ["image_id", "image_path"]):
                    paths = table["image_path"].to_pylist()
                    found = pool.map(lambda path: image_problem(path, dataset.check_images), paths)
                    yield from zip(block.tolist(), table["image_id"].to_pylist(), paths, found, strict=True)

        for image, key, path, why in progress(checked(), len(chosen), "images", "checking images"):
            if why is not None:
                kind = "missing_image" if why == "the file does not exist" else "unreadable_image"
                problems.add(kind, f"{key}: {path}: {why}")
                self.usable[image] = False
        return chosen

    def check_splits(self, dataset: DatasetSection, problems: Problems) -> None:
        """No file in two splits, as many images as expected, and something to use in each split."""
        in_splits = self.usable & (self.split < len(SPLITS))
        self._check_shared_files(np.flatnonzero(in_splits), problems)
        expected = getattr(dataset, "expected_images", None) or {}
        for code, split in enumerate(SPLITS):
            count = int((self.split == code).sum())
            if split in expected and count != expected[split]:
                problems.add("unexpected_count", f"{split} has {count:,} images, expected {expected[split]:,}")
            if not (in_splits & (self.split == code) & (self.captions > 0)).any():
                problems.add("empty_split", split)

    def _check_shared_files(self, images: np.ndarray, problems: Problems) -> None:
        """Hashes of paths find the few that may be equal; the paths themselves decide."""
        found = [
            np.fromiter(map(hash, table["image_path"].to_pylist()), dtype=np.int64, count=len(block))
            for block, table in self.blocks(images, ["image_path"])
        ]
        hashes = np.concatenate([*found, np.empty(0, dtype=np.int64)])
        order = np.argsort(hashes, kind="stable")
        alike = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
        for pair in zip(images[order[alike]].tolist(), images[order[alike + 1]].tolist(), strict=True):
            members = np.array(pair)
            if self.split[members[0]] == self.split[members[1]]:
                continue
            table = self.records.take(self.first[members], ["image_path", "image_id"])
            path, other = table["image_path"].to_pylist()
            if path == other:
                names = [self.records.split_names[code] for code in self.split[members]]
                places = [f"{key} in {name}" for key, name in zip(table["image_id"].to_pylist(), names, strict=True)]
                problems.add("two_splits", f"{path}: {places[0]} and {places[1]}")

    @cached_property
    def ordered(self) -> np.ndarray:
        """The images that are used, by split: the rows of images.parquet."""
        # An image whose captions were all skipped as empty cannot be trained or asked for; its captions are counted.
        used = np.flatnonzero(self.usable & ((self.captions > 0) | (self.split >= len(SPLITS))))
        return used[np.argsort(self.split[used], kind="stable")]

    @cached_property
    def row(self) -> np.ndarray:
        """Each image's row in images.parquet, -1 where it is not used."""
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


def _write_images(images: _Images, path: Path) -> None:
    schema = pa.schema([(name, pa.string()) for name in ("image_id", "image_path", "split", "label")])
    with whole_file(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for block, table in images.blocks(images.ordered, ["image_id", "image_path", "label"]):
            columns = [table["image_id"], table["image_path"], images.split_name(block), table["label"]]
            writer.write_table(pa.table(columns, schema=schema))


CAPTIONS_SCHEMA = pa.schema(
    [
        ("caption", pa.string()),
        ("cleaned", pa.string()),
        ("image", pa.int64()),
        ("split", pa.string()),
        ("caption_id", pa.int64()),
    ]
)


def _write_captions(images: _Images, folder: Path) -> None:
    """captions.parquet and the published JSON of each split, in one pass over the captions in row order."""
    rows = images.row[images.of_record]
    records = np.flatnonzero(images.records.captioned & (rows >= 0))
    records = records[np.argsort(rows[records], kind="stable")]
    with ExitStack() as stack:
        temporary = stack.enter_context(whole_file(folder / CAPTIONS))
        writer = stack.enter_context(pq.ParquetWriter(temporary, CAPTIONS_SCHEMA))
        lists = {split: stack.enter_context(_json_list(folder / f"{split}.json")) for split in SPLITS}
        for start in range(0, len(records), BLOCK_ROWS):
            block = records[start : start + BLOCK_ROWS]
            owners = images.of_record[block]
            table = images.records.take(block, ["image_id", "caption", "cleaned", "caption_id"])
            splits = images.split_name(owners)
            columns = [table["caption"], table["cleaned"], pa.array(rows[block]), splits, table["caption_id"]]
            writer.write_table(pa.table(columns, schema=CAPTIONS_SCHEMA))
            # An image's path is that of its first record.
            paths = images.records.take(images.first[owners], ["image_path"])["image_path"]
            texts = (column.to_pylist() for column in (splits, paths, table["caption"], table["image_id"]))
            for split, path, caption, image_id in zip(*texts, strict=True):
                if add := lists.get(split):
                    add({"image_path": path, "caption": caption, "image_id": image_id})


@contextmanager
def _json_list(path: Path) -> Iterator[Callable[[dict[str, str]], None]]:
    """Yield a function that adds a member to the JSON list in `path`, one a line; the file appears whole."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = "[\n"

        def add(member: dict[str, str]) -> None:
            nonlocal separator
            file.write(separator + json.dumps(member, ensure_ascii=False))
            separator = ",\n"

        yield add
        file.write("\n]\n")


def _write_benchmark_data(source: Source, dataset: DatasetSection, images: _Images, folder: Path) -> None:
    if "extended_positives" in dataset.provides:
        row_of = images.rows_by_id("test")
        positives = [(caption, row_of[key]) for caption, key in source.extended_positives() if key in row_of]
        table = pa.table(
            {
                "caption": pa.array([caption for caption, _ in positives], pa.string()),
                "cleaned": pa.array([clean_caption(caption) for caption, _ in positives], pa.string()),
                "image": pa.array([row for _, row in positives], pa.int64()),
            }
        )
        # Captions that clean up to nothing cannot be asked for; captions that clean up alike are one query.
        table = table.filter(pc.not_equal(table["cleaned"], ""))
        table = table.group_by(["cleaned", "image"], use_threads=False).aggregate([("caption", "first")])
        _write_table(folder / EXTENDED_POSITIVES, table.rename_columns(["cleaned", "image", "caption"]))
    if "sentence_pairs" in dataset.provides:
        pairs = list(source.sentence_pairs())
        table = pa.table(
            {
                "first": pa.array([pair.first for pair in pairs], pa.string()),
                "second": pa.array([pair.second for pair in pairs], pa.string()),
                "score": pa.array([pair.score for pair in pairs], pa.float64()),
            }
        )
        _write_table(folder / SENTENCE_PAIRS, table)


def convert_labelled_images(name: str, path: str | Path, folder: str | Path) -> None:
    """Write images.parquet (and an empty captions.parquet) of labelled images, all in the split `test`.

    `name` is a key of sources.labelled_images.ARCHIVES or a name of one's own. A column `role` says query or gallery
    where the data set divides its images so, and is null where every image searches all the others.
    """
    images = labelled_images(name, path)
    table = pa.table(
        {
            "image_id": pa.array([f"{number:08d}" for number in range(len(images))], pa.string()),
            "image_path": pa.array([image.path.as_posix() for image in images], pa.string()),
            "split": pa.array(["test"] * len(images), pa.string()),
            "label": pa.array([image.label for image in images], pa.string()),
            "role": pa.array([image.role for image in images], pa.string()),
        }
    )
    folder = Path(folder)
    _write_table(folder / IMAGES, table)
    _write_table(folder / CAPTIONS, CAPTIONS_SCHEMA.empty_table())


def convert_sentence_pairs(name: str, path: str | Path, folder: str | Path) -> None:
    """Write sentence_pairs.parquet with a task and a subset a pair, of SentEval (`senteval`) or a TSV of one's own."""
    pairs = senteval_pairs(path) if name == "senteval" else own_pairs(path, name)
    columns: dict[str, pa.Array] = {
        column: pa.array([getattr(pair, column) for pair in pairs]) for column in ScoredPair._fields
    }
    _write_table(Path(folder) / SENTENCE_PAIRS, pa.table(columns))


def _write_table(path: Path, table: pa.Table) -> None:
    with whole_file(path) as temporary:
        pq.write_table(table, temporary)
