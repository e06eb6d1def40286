"""Images that are replaced, touched or deleted after they were read, on the real Snakefile."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import draw_shape
from snakemake_runs import output_of_snakemake

from cusa.shards.image_files import IMAGE_FILES

ROOT = Path(__file__).parents[2]
NOTHING = "Nothing to be done"


def snakemake(folder: Path, *arguments: str, check: bool = True) -> str:
    """Run the target `shards`; returns standard output and error together."""
    words = ["shards", "--cores", "2", "--configfile", "mine.yaml", *arguments]
    return output_of_snakemake(*words, cwd=folder, check=check)


def planned(output: str) -> Counter[str]:
    """How many jobs of each rule a run wants."""
    return Counter(re.findall(r"^(?:local)?rule (\w+):$", output, flags=re.MULTILINE)) - Counter({"shards": 1})


def configure(folder: Path, **dataset: object) -> None:
    section = {"name": "shapes", "format": "published", "image_root": "data", "annotations": {}, **dataset}
    section["annotations"] = {split: f"data/{split}.json" for split in ("train", "val", "test")}
    write_configuration(folder, section)


def write_configuration(folder: Path, dataset: dict[str, object]) -> None:
    benchmarks = dict.fromkeys(("eccv_caption", "image_retrieval", "sts"))
    mapping = {"dataset": dataset, "shards": {"shorter_side": 32}, "benchmarks": benchmarks}
    mapping["train"] = {"batch_size": 16}
    (folder / "mine.yaml").write_text(yaml.safe_dump(mapping))


@pytest.fixture(scope="module")
def original(tmp_path_factory, shapes) -> tuple[Path, Path]:
    """Shards of a copy of the shapes data: where they lie, and a copy. The tables name the images by absolute paths."""
    folder = tmp_path_factory.mktemp("changed_images") / "here"
    shutil.copytree(shapes, folder / "data")
    configure(folder)
    snakemake(folder)
    return folder, Path(shutil.copytree(folder, folder.with_name("copy")))


@pytest.fixture
def stored(original) -> Path:
    """The shards and their images, with all times, whatever another test did with them."""
    folder, copy = original
    shutil.rmtree(folder)
    return Path(shutil.copytree(copy, folder))


def image_of(folder: Path, split: str, place: int = 0) -> Path:
    """An image of a split, by the place of its row in the annotations; each image has two rows."""
    return folder / "data" / json.loads((folder / f"data/{split}.json").read_text())[2 * place]["image_path"]


def test_a_replaced_image_is_stored_again_with_its_split_and_nothing_else(stored):
    assert NOTHING in snakemake(stored)
    image = image_of(stored, "val")
    draw_shape("red", "cross", "large").save(image, quality=50)
    output = snakemake(stored)
    says = "1 of the 8 images of val have another size or time than when they were stored"
    assert re.search(rf"{says}: .*{image.name}; they are stored again\.", output)
    assert planned(output) == {"write_shards": 1}
    # The reason for the job has it too.
    assert re.search(rf"reason: Params have changed since last execution: {says}: \S+{image.name}\n", output)
    assert NOTHING in snakemake(stored)


def test_an_image_that_is_touched_again_and_again_is_noticed_each_time(stored):
    image = image_of(stored, "test")
    for time in (1e9, 2e9):
        os.utime(image, (time, time))
        assert planned(snakemake(stored)) == {"write_shards": 1}
    assert NOTHING in snakemake(stored)


def test_five_changed_images_are_named_and_more_are_counted(stored):
    for place in range(7):
        os.utime(image_of(stored, "train", place), (1e9, 1e9))
    output = snakemake(stored, "--dry-run")
    assert re.search(
        r"7 of the 32 images of train have another size or time than when they were stored: (\S+, ){5}and 2 more;",
        output,
    )
    assert NOTHING in snakemake(stored, "--dry-run", "--config", "shards={watch_images: false}")


def test_a_deleted_image_is_one_sentence_before_the_first_job(stored):
    image = image_of(stored, "train")
    content = image.read_bytes()
    image.unlink()
    output = snakemake(stored, check=False)
    assert re.search(
        rf"1 of the 32 images that results/shapes/shards/train was made of are gone: .*{image.name}\. Put them back, "
        r"or take them out of the files that name them, or add missing_image to dataset\.skip; shards\.watch_images: "
        r"false goes on with the shards as they are\.",
        output,
    )
    assert "Traceback" not in output
    assert "rule " not in output
    # Each of the four is a way out.
    assert NOTHING in snakemake(stored, "--config", "shards={watch_images: false}")
    configure(stored, skip=["missing_image"])
    assert planned(snakemake(stored, "--dry-run"))["convert"] == 1
    configure(stored)
    annotations = stored / "data/train.json"
    rows = json.loads(annotations.read_text())
    annotations.write_text(json.dumps(rows[2:]))
    assert planned(snakemake(stored, "--dry-run"))["convert"] == 1
    annotations.write_text(json.dumps(rows))
    image.write_bytes(content)
    assert planned(snakemake(stored)) == {"write_shards": 1}


def test_a_record_of_snakemake_that_is_not_whole_ends_no_run(stored):
    """As while another Snakemake writes it. Such an output counts as one without a record."""
    for path in (stored / ".snakemake/metadata").rglob("*"):
        path.write_text('{"params": [')
    assert NOTHING in snakemake(stored, "--dry-run")


def test_results_without_their_images_are_up_to_date(stored):
    """As on another machine, to which only the results were copied."""
    shutil.rmtree(stored / "data/pics")
    assert NOTHING in snakemake(stored)


def test_results_from_before_are_recorded_as_they_are_and_nothing_is_made_again(stored):
    folders = sorted((stored / "results/shapes/shards").iterdir())
    for folder in folders:
        (folder / IMAGE_FILES).unlink()
    assert NOTHING in snakemake(stored, "--dry-run")
    assert not any((folder / IMAGE_FILES).exists() for folder in folders)
    assert NOTHING in snakemake(stored)
    assert all((folder / IMAGE_FILES).exists() for folder in folders)
    os.utime(image_of(stored, "test"), (1e9, 1e9))
    assert planned(snakemake(stored)) == {"write_shards": 1}
    assert NOTHING in snakemake(stored)


@pytest.mark.slow
def test_shards_that_several_jobs_wrote_are_written_and_joined_again(stored):
    shutil.rmtree(stored / "results/shapes/shards")  # what is there stays in the number of parts that it has
    in_parts = ("--config", "shards={parts: 2, samples_per_shard: 16}")
    snakemake(stored, *in_parts)
    assert NOTHING in snakemake(stored, *in_parts)
    image = image_of(stored, "train")
    os.utime(image, (1e9, 1e9))
    output = snakemake(stored, *in_parts)
    assert planned(output) == {"write_shards_part": 2, "join_shards": 1}
    assert "1 of the 32 images of train have another size or time than when they were stored" in output
    assert NOTHING in snakemake(stored, *in_parts)


def test_a_damaged_record_is_a_sentence(stored):
    record = stored / "results/shapes/shards/val" / IMAGE_FILES
    record.write_bytes(record.read_bytes()[:100])
    output = snakemake(stored, check=False)
    assert "val/image_files.parquet is not a complete Parquet file" in output
    assert (
        "delete results/shapes/shards/val/image_files.parquet, and the images are taken to be what they were." in output
    )


@pytest.mark.slow
def test_tables_that_depend_on_what_is_in_images_are_made_again(stored):
    configure(stored, skip=["unreadable_image"])
    snakemake(stored)
    image = image_of(stored, "val")
    image.write_bytes(b"no longer a picture")
    output = snakemake(stored)
    assert re.search(
        rf"1 images changed, and the configuration leaves out images for what is in them: .*{image.name}; "
        r"the data set is read again\.",
        output,
    )
    tables = stored / "results/shapes/annotations/images.parquet"
    assert image.name not in pq.read_table(tables)["image_id"].to_pylist()
    assert NOTHING in snakemake(stored)


@pytest.mark.slow
def test_a_picture_that_was_made_from_the_data_is_made_again(stored):
    """Pictures in a Parquet file count by the file: their own times say nothing."""
    rows = {"image": [], "caption": [], "split": []}
    for split in ("train", "val", "test"):
        for row in json.loads((stored / f"data/{split}.json").read_text())[::2]:
            rows["image"].append({"bytes": (stored / "data" / row["image_path"]).read_bytes(), "path": None})
            rows["caption"].append(row["caption"])
            rows["split"].append(split)
    pq.write_table(pa.table(rows), stored / "shapes.parquet")
    dataset = {"name": "packed", "format": "parquet", "file": "shapes.parquet"}
    dataset |= {"columns": {"image": "image", "caption": "caption", "split": "split"}}
    write_configuration(stored, dataset)
    snakemake(stored)
    pictures = sorted((stored / "results/packed/images").rglob("*.jpg"))
    for picture in pictures:
        os.utime(picture, (1e9, 1e9))
    assert NOTHING in snakemake(stored)
    pictures[0].unlink()
    pictures[1].write_bytes(b"cut off")
    output = snakemake(stored)
    assert "2 images that were made from the data set are damaged or gone: " in output
    assert "; the data set is read again." in output
    assert all(picture.stat().st_size > 100 for picture in pictures)
    assert NOTHING in snakemake(stored)
