"""From a source's records to the published JSON and the Parquet tables whose row numbers everything later uses.

All problems of a data set are collected and reported together, before anything else is computed.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cusa.annotations.captions import clean_caption, sampled_positions
from cusa.annotations.distinct_images import DistinctImages
from cusa.annotations.problems import Problems
from cusa.annotations.published_json import PublishedJson, joined_members
from cusa.annotations.record_blocks import BLOCK_ROWS
from cusa.annotations.record_parts import spool_parts
from cusa.annotations.record_spool import RecordSpool, spool_blocks, spool_records
from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.row_source import RowSource
from cusa.annotations.sources.row_workers import row_reader
from cusa.annotations.sources.source import Source
from cusa.annotations.tables import (
    CAPTIONS,
    EXTENDED_POSITIVES,
    IMAGES,
    PROBLEMS,
    SENTENCE_PAIRS,
    captions_schema,
    write_table,
)
from cusa.common.files import atomic_file, write_json
from cusa.common.progress import stopwatch
from cusa.common.times import description
from cusa.config.captions import PUBLISHED, CaptionCleaning
from cusa.config.dataset import SPLITS, DatasetSection

log = logging.getLogger(__name__)


def convert(
    dataset: DatasetSection,
    folder: str | Path,
    image_folder: str | Path,
    threads: int = 1,
    cleaning: CaptionCleaning = PUBLISHED,
    parts: Sequence[Path] = (),
) -> None:
    """Read a data set and write {split}.json, images.parquet, captions.parquet and problems.json into `folder`.

    Rows are grouped by split (train, val, test, then others); row numbers are positions in the two tables. A format
    that provides them also gets extended_positives.parquet (caption, image) and sentence_pairs.parquet. Records are
    spooled to disk beside `folder`, so memory grows by some 100 bytes an image and 20 a caption. `parts` are the
    folders of all parts of the data set, in order, where `read_part` has read them.
    Raises DataError when the data has problems that `dataset.skip` does not name.
    """
    done, folder = stopwatch(log), Path(folder)
    source = open_source(dataset, Path(image_folder))
    source.threads = threads
    problems = Problems()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", suffix=".partial", dir=folder.parent) as name:
        spool = Path(name) / "records.arrow"
        if parts:
            records = spool_parts(parts, source, dataset, spool, problems, cleaning)
        else:
            records = _spool(source, dataset, spool, problems, cleaning, threads)
        images = DistinctImages(records, problems)
        images.check_files(dataset, problems, threads)
        images.check_splits(dataset, problems)
        problems.refuse_unless_skipped(dataset.skip)

        folder.mkdir(parents=True, exist_ok=True)
        _write_images(images, folder / IMAGES)
        _write_captions(images, folder, cleaning)
        _write_benchmark_data(source, dataset, images, folder, cleaning)
    for _, sentence in problems.note_sentences():
        log.info("%s", sentence)
    left_out = {kind: count for kind, count in problems.notes.items() if kind == "left_out_of_train"}
    found = {"skipped": problems.counts | left_out, "examples": problems.examples}
    found |= {"notes": problems.notes, "note_examples": problems.note_examples}
    # A newer time of one of these files is no reason to convert again if they are still the same.
    files = {path: description(path) for path in map(os.path.expanduser, dataset.files.values())}
    write_json(folder / PROBLEMS, found | {"files": files})
    written = {name: pq.read_metadata(folder / name).num_rows for name in (IMAGES, CAPTIONS)}
    done(f"{written[IMAGES]:,} images and {written[CAPTIONS]:,} captions")


def _spool(
    source: Source, dataset: DatasetSection, path: Path, problems: Problems, cleaning: CaptionCleaning, threads: int
) -> RecordSpool:
    """The records of a source on disk; rows of large files are read by several processes."""
    if not isinstance(source, RowSource):
        return spool_records(source.records(), path, problems, cleaning)
    with row_reader(source, dataset, cleaning, threads) as reader:
        return spool_blocks(source.record_blocks(reader, problems, cleaning), path)


@dataclass(frozen=True)
class Inspection:
    """The counts and the problems of a data set, by split if they are counts. `paths` are the images inspected.

    `made_bytes` is the mean size in bytes of those images that the source makes; 0 if it makes none. `texts` are
    some of the captions, evenly spread, each as it is and as cleaned. `labelled` counts the images that have a label,
    and `languages` the captions of each language, if the data name any.
    """

    problems: Problems
    images: dict[str, int]
    captions: dict[str, int]
    paths: list[str]
    texts: list[tuple[str, str]]
    labelled: dict[str, int]
    languages: dict[str, int]
    made_bytes: float = 0.0


def inspect(
    dataset: DatasetSection,
    scratch: str | Path,
    threads: int = 1,
    sample: int | None = None,
    cleaning: CaptionCleaning = PUBLISHED,
) -> Inspection:
    """Read a data set as `convert` does, and count its images, captions and problems.

    `scratch` is a folder for temporary files, and gets images.parquet. `sample` images are decoded, all if it is None;
    the others are taken to be sound.
    """
    problems = Problems()
    made_images = Path(scratch).absolute() / "images"
    source = open_source(dataset, made_images)
    source.threads = threads
    if sample is not None:
        source.sample_images(sample)
    records = _spool(source, dataset, Path(scratch) / "records.arrow", problems, cleaning, threads)
    images = DistinctImages(records, problems)
    inspected = images.check_files(dataset, problems, threads, sample, source.has_image)
    images.check_splits(dataset, problems)
    _write_images(images, Path(scratch) / IMAGES)
    paths = [path for _, table in images.blocks(inspected, ["image_path"]) for path in table["image_path"].to_pylist()]
    made = [
        Path(path).stat().st_size for path in paths if Path(path).is_relative_to(made_images) and Path(path).is_file()
    ]
    of_split = {name: images.split == code for code, name in enumerate(images.records.split_names)}
    return Inspection(
        problems=problems,
        images={name: int(mine.sum()) for name, mine in of_split.items()},
        captions={name: int(images.captions[mine].sum()) for name, mine in of_split.items()},
        paths=paths,
        labelled=_labelled(images),
        languages=_languages(images.records),
        made_bytes=sum(made) / max(1, len(made)),
        texts=_some_texts(images),
    )


def _labelled(images: DistinctImages) -> dict[str, int]:
    counts = dict.fromkeys(images.records.split_names, 0)
    for block, table in images.blocks(images.ordered, ["label"]):
        labelled = pc.filter(images.split_name(block), pc.is_valid(table["label"]))
        for count in pc.value_counts(labelled).to_pylist():
            counts[count["values"]] += count["counts"]
    return counts


def _languages(records: RecordSpool) -> dict[str, int]:
    if not records.has_languages:
        return {}
    found = records.column("language").filter(pa.array(records.captioned)).drop_null()
    return {count["values"]: count["counts"] for count in pc.value_counts(found).to_pylist()}


def _some_texts(images: DistinctImages) -> list[tuple[str, str]]:
    records = np.flatnonzero(images.records.captioned)
    table = images.records.take(records[sampled_positions(len(records))], ["caption", "cleaned"])
    return list(zip(table["caption"].to_pylist(), table["cleaned"].to_pylist(), strict=True))


def _write_images(images: DistinctImages, path: Path) -> None:
    schema = pa.schema([(name, pa.string()) for name in ("image_id", "image_path", "split", "label")])
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for block, table in images.blocks(images.ordered, ["image_id", "image_path", "label"]):
            columns = [table["image_id"], table["image_path"], images.split_name(block), table["label"]]
            writer.write_table(pa.table(columns, schema=schema))


def _write_captions(images: DistinctImages, folder: Path, cleaning: CaptionCleaning) -> None:
    """captions.parquet and the published JSON of each split, in one pass over the captions in row order."""
    rows = images.row[images.of_record]
    records = np.flatnonzero(images.records.captioned & (rows >= 0))
    records = records[np.argsort(rows[records], kind="stable")]
    languages = ["language"] if images.records.has_languages else []
    schema = captions_schema(cleaning, bool(languages))
    with ExitStack() as stack:
        temporary = stack.enter_context(atomic_file(folder / CAPTIONS))
        writer = stack.enter_context(pq.ParquetWriter(temporary, schema))
        lists = {split: stack.enter_context(_json_list(folder / f"{split}.json")) for split in SPLITS}
        beside = stack.enter_context(ThreadPoolExecutor(1))
        for start in range(0, len(records), BLOCK_ROWS):
            block = records[start : start + BLOCK_ROWS]
            owners = images.of_record[block]
            table = images.records.take(block, ["image_id", "caption", "cleaned", "caption_id", *languages])
            splits = images.split_name(owners)
            columns = [table["caption"], table["cleaned"], pa.array(rows[block]), splits, table["caption_id"]]
            columns += [table[name] for name in languages]
            written = beside.submit(writer.write_table, pa.table(columns, schema=schema))
            # An image's path is that of its first record.
            members = images.records.take(images.first[owners], ["image_path"])
            for name in ("caption", "image_id"):
                members = members.append_column(name, table[name])
            for split, published in lists.items():
                published.add(joined_members(members.filter(pc.equal(splits, split))))
            written.result()


@contextmanager
def _json_list(path: Path) -> Iterator[PublishedJson]:
    """The published JSON of a split; it is renamed into place when it is complete."""
    with atomic_file(path) as temporary, PublishedJson(temporary) as published:
        yield published


def _write_benchmark_data(
    source: Source, dataset: DatasetSection, images: DistinctImages, folder: Path, cleaning: CaptionCleaning
) -> None:
    if "extended_positives" in dataset.provides:
        row_of = images.rows_by_id("test")
        positives = [(caption, row_of[key]) for caption, key in source.extended_positives() if key in row_of]
        table = pa.table(
            {
                "caption": pa.array([caption for caption, _ in positives], pa.string()),
                "cleaned": pa.array([clean_caption(caption, cleaning) for caption, _ in positives], pa.string()),
                "image": pa.array([row for _, row in positives], pa.int64()),
            }
        )
        # A caption that is empty after the clean-up is not a query; captions that are equal after it are one query.
        table = table.filter(pc.not_equal(table["cleaned"], ""))
        table = table.group_by(["cleaned", "image"], use_threads=False).aggregate([("caption", "first")])
        write_table(folder / EXTENDED_POSITIVES, table.rename_columns(["cleaned", "image", "caption"]))
    if "sentence_pairs" in dataset.provides:
        pairs = list(source.sentence_pairs())
        table = pa.table(
            {
                "first": pa.array([pair.first for pair in pairs], pa.string()),
                "second": pa.array([pair.second for pair in pairs], pa.string()),
                "score": pa.array([pair.score for pair in pairs], pa.float64()),
            }
        )
        write_table(folder / SENTENCE_PAIRS, table)
