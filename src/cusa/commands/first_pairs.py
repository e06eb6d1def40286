"""The first pairs of image and caption of a data set, as `cusa init` shows them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cusa.annotations.problems import printable
from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.source import MalformedRow, Record
from cusa.common.image_files import why_missing
from cusa.config.dataset import DatasetSection, PackedDataset, load_dataset
from cusa.errors import ConfigurationError

SHOWN_PAIRS = 3


def first_pairs(section: Mapping[str, Any], warnings: list[str]) -> Iterator[str]:
    """The lines of the first pairs as they are read; a warning is added if an image is not there.

    Raises ConfigurationError if no row can be read, whatever the names of splits mean.
    """
    missing, shown, odd = [], 0, dict[str, MalformedRow]()
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch).absolute() / "images"
        source = open_source(_first_files(section), made)
        source.sample_images(SHOWN_PAIRS)
        for record in source.records():
            if isinstance(record, MalformedRow):
                odd.setdefault(record.kind, record)
            if not isinstance(record, Record):
                continue
            shown += 1
            is_made = Path(record.image_path).is_relative_to(made)
            shown_as = record.place if is_made else record.image_path
            yield printable(f"    {record.split}: {shown_as}: {record.caption}")
            if not (is_made or Path(record.image_path).is_file()):
                missing.append(record.image_path)
            if shown == SHOWN_PAIRS:
                break
    if not shown and (unknown := odd.get("unknown_split")):
        # The configuration that is written is the place to say it.
        yield "    none before dataset.split_names says what the names of splits mean"
        if not any("split_names" in warning for warning in warnings):
            warnings.append(f"{unknown.place} {unknown.reason}; say in dataset.split_names what it means")
        return
    if not shown:
        first = next(iter(odd.values()), None)
        why = f"; the first one: {first.place} {first.reason}" if first else ""
        raise ConfigurationError(f"no row of the data can be read{why}. Expected at least one image with a caption.")
    if missing:
        why = why_missing(missing[0]) or "; correct dataset.image_root, or give the folder with --images"
        warnings.append(f"{missing[0]} does not exist{why}")


def _first_files(section: Mapping[str, Any]) -> DatasetSection:
    """The data set; of many files that hold the pictures only the first of each split, which can be opened at once."""
    dataset = load_dataset(section)
    if not isinstance(dataset, PackedDataset):
        return dataset
    first = {split: dataset.files_of(split)[0] for split in dataset.places}
    places = {"file": first[None]} if None in first else {"annotations": first}
    return load_dataset({**section, **places})
