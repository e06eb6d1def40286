"""The images of a data set are told apart by their ids, wherever their records lie."""

from __future__ import annotations

import pyarrow as pa

from cusa.annotations.distinct_images import DistinctImages
from cusa.annotations.problems import Problems
from cusa.annotations.record_blocks import record_block
from cusa.annotations.record_spool import RecordSpool, spool_blocks
from cusa.annotations.sources.source import Record
from cusa.common.memory import peak_memory_gib
from cusa.config.captions import PUBLISHED


def record(number: int, caption: int) -> Record:
    return Record("train", f"image {number}", f"/data/{number}.jpg", f"caption {caption}")


def spooled(folder, *blocks: list[Record]) -> RecordSpool:
    problems = Problems()
    made = [record_block(block, problems, PUBLISHED) for block in blocks]
    return spool_blocks(iter(made), folder / "records.arrow")


def test_an_image_whose_captions_lie_in_several_blocks_is_one(tmp_path):
    blocks = [[record(7, 0), record(3, 1), record(7, 2)], [record(5, 3), record(3, 4)], [record(7, 5)]]
    images = DistinctImages(spooled(tmp_path, *blocks), Problems())
    assert images.of_record.tolist() == [0, 1, 0, 2, 1, 0]
    assert images.first.tolist() == [0, 1, 3]
    assert images.captions.tolist() == [3, 2, 1]


def test_labels_of_one_image_that_differ_are_told_once_an_image(tmp_path):
    labels = [["cat", "dog", "cat", None], ["dog", None, "cat", "fox"], ["cat", "dog", "fox", "cat"]]
    blocks = [
        [record(image, caption)._replace(label=label) for image, label in enumerate(row)]
        for caption, row in enumerate(labels)
    ]
    problems = Problems()
    DistinctImages(spooled(tmp_path, *blocks), problems)
    assert problems.notes == {"two_labels": 3}
    assert problems.note_examples["two_labels"] == [
        "image 0: cat and dog",
        "image 3: no label and fox",
        "image 2: cat and fox",
    ]
    assert not problems.counts


def test_no_records_are_no_images(tmp_path):
    images = DistinctImages(spooled(tmp_path), Problems())
    assert len(images.of_record) == len(images.first) == 0


def test_a_column_holds_the_memory_of_its_own_values_alone(tmp_path):
    block = [record(number, number) for number in range(50_000)]
    records = spooled(tmp_path, block, block)
    before = pa.total_allocated_bytes()
    ids = records.column("image_id")
    assert ids.to_pylist()[-1] == "image 49999"
    assert pa.total_allocated_bytes() - before < 1.2 * ids.nbytes


def test_memory_grows_with_the_images_and_not_with_their_number_of_blocks(tmp_path):
    """A dictionary of 200,000 ids for each of 400 blocks would be 300 MB."""
    one = record_block([record(number, number) for number in range(200_000)], Problems(), PUBLISHED)
    small = record_block([record(0, 0)], Problems(), PUBLISHED)
    records = spool_blocks(iter([one, *[small] * 400]), tmp_path / "records.arrow")
    before = peak_memory_gib()
    images = DistinctImages(records, Problems())
    assert len(images.first) == 200_000
    assert images.of_record[200_000:].max() == 0
    assert peak_memory_gib() - before < 0.15
