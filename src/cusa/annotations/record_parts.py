"""Parts of a data set: several jobs each read some of its files into a folder, and one job joins the folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from cusa.annotations.problems import Problems
from cusa.annotations.record_blocks import RecordBlock, record_block
from cusa.annotations.record_spool import RecordSpool, spool_blocks, spool_records
from cusa.annotations.sources.packed import PackedSource
from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.several_files import SeveralFiles
from cusa.annotations.sources.source import Source
from cusa.annotations.sources.splits import SplitsOfRows
from cusa.common.files import atomic_folder, made_again, read_array, read_mapping, write_json
from cusa.config.captions import PUBLISHED, CaptionCleaning
from cusa.config.dataset import DatasetSection
from cusa.errors import ConfigurationError, DataError

RECORDS, SPLITS_OF_RECORDS, PICTURES, FOUND = "records.arrow", "splits.npy", "pictures", "found.json"


def read_part(
    dataset: DatasetSection,
    folder: str | Path,
    image_folder: str | Path,
    part: int,
    parts: int,
    cleaning: CaptionCleaning = PUBLISHED,
) -> None:
    """Read one of `parts` parts of a data set's files, `part` counted from 0, into `folder`.

    It gets the records with cleaned captions (records.arrow, splits.npy: the split of each), found.json (problems, and
    the names of splits in the rows) and, of files that hold them, the pictures, whose paths are those that they will
    have in `image_folder`. Parts have nearly equal numbers of files. Raises ConfigurationError for a format that does
    not read several files.
    """
    source = _several_files(open_source(dataset, Path(image_folder)), dataset)
    source.part, source.parts = part, parts
    problems = Problems()
    with atomic_folder(folder) as temporary:
        if isinstance(source, PackedSource):
            source.pictures.place = temporary / PICTURES
        records = spool_records(source.records(), temporary / RECORDS, problems, cleaning)
        np.save(temporary / SPLITS_OF_RECORDS, records.split)
        found = {
            "problems": asdict(problems),
            "split_names": records.split_names,
            "has_languages": records.has_languages,
            "seen": source.splits.seen,
            "meaning": source.splits.of_name,
            "first_seen": source.splits.first,
        }
        write_json(temporary / FOUND, found)


def spool_parts(
    parts: Sequence[Path],
    source: Source,
    dataset: DatasetSection,
    path: Path,
    problems: Problems,
    cleaning: CaptionCleaning,
) -> RecordSpool:
    """The records of parts, given in order, as one Arrow file; pictures in them become those of the source.

    Raises DataError if a part is damaged.
    """
    several = _several_files(source, dataset)
    several.splits = SplitsOfRows(several.dataset)
    if isinstance(several, PackedSource):
        with several.pictures.open([]):
            for part in parts:
                several.pictures.add_all(part / PICTURES)
    return spool_blocks(_blocks(parts, several, problems, cleaning), path)


def _blocks(
    parts: Sequence[Path], source: SeveralFiles, problems: Problems, cleaning: CaptionCleaning
) -> Iterator[RecordBlock]:
    for part in parts:
        found = read_mapping(part / FOUND, made_again(part))
        problems.merge(Problems(**found["problems"]))
        splits = SplitsOfRows(source.dataset)
        splits.seen, splits.of_name = Counter(found["seen"]), found["meaning"]
        splits.first = found["first_seen"]
        source.splits.add_all(splits)
        codes, names = read_array(part / SPLITS_OF_RECORDS, made_again(part)), np.array(found["split_names"])
        start = 0
        try:
            with pa.OSFile(str(part / RECORDS)) as file, pa.ipc.open_file(file) as reader:
                for number in range(reader.num_record_batches):
                    batch = reader.get_batch(number)
                    mine = names[codes[start : start + len(batch)]].tolist()
                    start += len(batch)
                    yield RecordBlock(batch, mine, found["has_languages"])
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{part / RECORDS} is damaged ({error}); {made_again(part)}") from None
    yield record_block(list(source.splits.unknown()), problems, cleaning)


def _several_files(source: Source, dataset: DatasetSection) -> SeveralFiles:
    if not isinstance(source, SeveralFiles):
        raise ConfigurationError(
            f"files of the format {dataset.format} are not read in parts; leave parts out, or use the format table, "
            "parquet or webdataset."
        )
    return source
