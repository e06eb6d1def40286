"""The published format on the real sample, where it is at hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.source import Record
from cusa.config.dataset import PublishedDataset

SAMPLE = Path(__file__).parents[4] / "shared/coco-sample"


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="../shared/coco-sample is not here: the real COCO sample is NOT tested")
def test_the_coco_sample_reads_as_published(tmp_path):
    files = {split: str(SAMPLE / f"{split}.json") for split in ("train", "val", "test")}
    source = open_source(PublishedDataset(name="coco", format="published", annotations=files), tmp_path)
    records = list(source.records())
    assert all(isinstance(record, Record) for record in records)
    assert Counter(record.split for record in records) == {"train": 1501, "val": 297, "test": 298}
    assert all(Path(record.image_path).is_file() for record in records)
