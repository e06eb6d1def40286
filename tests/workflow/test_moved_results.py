"""Results that were copied without times, moved, mounted read-only or made by another need nothing made again.

tests/data/run_b749c88 has finished results, and what Snakemake recorded of them.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from snakemake_runs import output_of_snakemake

from cusa.common.times import description

ROOT = Path(__file__).parents[2]
MADE = ROOT / "tests/data/run_b749c88"
RECORDS = Path(".snakemake/metadata")
NOTHING = "Nothing to be done"


def dry_run(folder: Path, *arguments: str, target: str = "scores") -> str:
    return output_of_snakemake(target, "--cores", "1", "--dry-run", *arguments, cwd=folder)


def planned(output: str) -> set[str]:
    """The rules of the jobs that a dry run wants to run."""
    return set(re.findall(r"^(?:local)?rule (\w+):$", output, flags=re.MULTILINE)) - {"scores"}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished results with Snakemake's records, in which each file has the time when it was made."""
    folder = Path(shutil.copytree(MADE, tmp_path_factory.mktemp("moved") / "finished"))
    with (folder / "config/config.yaml").open("a") as config:
        config.write("captions: {clean: published}\n")  # which every configuration meant at that commit
    (folder / RECORDS).mkdir(parents=True)
    jobs = json.loads((folder / "snakemake-metadata.json").read_text())
    of_rule = ["convert", "convert_sentence_pairs", "write_shards", "extract_image_features", "extract_text_features"]
    of_rule += ["write_baseline", "train", "embed", "embed_benchmark_data", "evaluate_itr", "evaluate_sts", "summarise"]
    for path in (folder / "shapes").iterdir():
        os.utime(path, (1e9, 1e9))
    for job in jobs:
        made = 1e9 + 100 * (1 + of_rule.index(job["record"]["rule"]))
        for output in job["outputs"]:
            for place in (folder / output, folder / output / ".snakemake_timestamp"):
                if place.exists():
                    os.utime(place, (made, made))
            name = urlsafe_b64encode(output.encode()).decode()
            (folder / RECORDS / name).write_text(json.dumps(job["record"] | {"endtime": made}))
    # The features of sentence pairs are new since that commit; trainings and what they read are not made again.
    assert planned(dry_run(folder)) == {"extract_benchmark_texts", "embed_benchmark_data", "evaluate_sts", "summarise"}
    output_of_snakemake("scores", "--cores", "2", "--quiet", "all", cwd=folder)
    assert NOTHING in dry_run(folder)
    return folder


@pytest.fixture
def finished(original: Path, tmp_path: Path) -> Path:
    """A copy of the finished results, with their times."""
    return Path(shutil.copytree(original, tmp_path / "finished"))


def copied(folder: Path, copy: Path) -> Path:
    """A copy with newer times of its own, in an order that has nothing to do with how the files were made."""
    shutil.copytree(folder, copy)
    paths = sorted((copy / "results").rglob("*"))
    random.Random(0).shuffle(paths)
    now = time.time()
    for number, path in enumerate(paths):
        os.utime(path, (now + number / 1000, now + number / 1000))
    return copy


@contextmanager
def read_only(folder: Path, place: Path) -> Iterator[Path]:
    """The folder, mounted read-only at `place`; skips the test where mounting is not allowed."""
    place.mkdir()
    if subprocess.run(["mount", "--bind", folder, place], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here: read-only results are NOT tested")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_results_that_were_copied_without_times_are_up_to_date(finished, tmp_path):
    copy = copied(finished, tmp_path / "deeper/copy")
    assert NOTHING in dry_run(copy)
    # The files have their own times again.
    features = "results/shapes/teachers/image/models--vit/train/features.npy"
    assert (copy / features).stat().st_mtime == (finished / features).stat().st_mtime


def test_results_that_came_without_snakemakes_records_are_up_to_date_and_it_says_so(finished, tmp_path):
    copy = copied(finished, tmp_path / "copy")
    shutil.rmtree(copy / ".snakemake")
    output = dry_run(copy)
    assert NOTHING in output
    assert "came without Snakemake's records (.snakemake), so all that is there is taken to be up to date" in output


@pytest.mark.parametrize("records", [True, False])
def test_read_only_results_whose_times_are_lost_are_up_to_date(finished, tmp_path, records):
    """A working directory of one's own has a link to them."""
    copy = copied(finished, tmp_path / "copy")
    if not records:
        shutil.rmtree(copy / ".snakemake")
    own = tmp_path / "own"
    shutil.copytree(copy, own, ignore=shutil.ignore_patterns("results"))
    with read_only(copy / "results", tmp_path / "mounted") as mounted:
        (own / "results").symlink_to(mounted)
        assert NOTHING in dry_run(own)


def test_a_working_directory_that_cannot_be_written_is_a_sentence(finished, tmp_path):
    with read_only(finished, tmp_path / "mounted") as mounted:
        output = output_of_snakemake("--cores", "1", "--dry-run", cwd=mounted, check=False)
    assert "/.snakemake cannot be written, and Snakemake writes there even in a dry run; make a folder" in output


def test_a_file_that_was_made_again_still_makes_again_what_depends_on_it(finished):
    shards = finished / "results/shapes/shards/train"
    for path in (shards, shards / ".snakemake_timestamp"):
        os.utime(path)
    jobs = planned(dry_run(finished))
    assert {"extract_image_features", "train", "embed", "evaluate_itr"} <= jobs
    assert {"convert", "write_shards", "extract_text_features"}.isdisjoint(jobs)


def test_forcing_a_rule_in_a_copy_makes_again_what_depends_on_it(finished, tmp_path):
    copy = copied(finished, tmp_path / "copy")
    assert {"embed", "evaluate_itr"} <= planned(dry_run(copy, "--forcerun", "write_baseline"))


def test_an_annotation_file_with_a_newer_time_is_read_again_only_if_it_has_changed(finished):
    """Snakemake keeps no checksums of large files: no file has one here."""
    problems, train = finished / "results/shapes/annotations/problems.json", finished / "shapes/train.json"
    files = {
        f"shapes/{split}.json": description(finished / f"shapes/{split}.json") for split in ("train", "val", "test")
    }
    made = problems.stat().st_mtime
    os.utime(train)
    no_checksums = ("--max-checksum-file-size", "0")
    assert "convert" in planned(dry_run(finished, *no_checksums))  # an earlier release did not describe the files
    problems.write_text(json.dumps(json.loads(problems.read_text()) | {"files": files}))
    os.utime(problems, (made, made))
    assert NOTHING in dry_run(finished, *no_checksums)
    train.write_text(train.read_text().replace("red", "rad"))
    assert "convert" in planned(dry_run(finished, *no_checksums))
