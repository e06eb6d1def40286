"""Images of a benchmark's own data that are gone, beside a data set that is to be read again."""

from __future__ import annotations

import pytest

from cusa.config import load
from cusa.errors import DataError
from cusa.plan import Plan, find_changed_images
from cusa.shards.image_files import describe_files, write_image_files


@pytest.fixture
def plan(tiny_configuration, tmp_path, monkeypatch) -> Plan:
    """Shards of the data set and of a benchmark, each of two pictures, of which the second is gone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds").mkdir()
    benchmarks = {"itr": {}, "image_retrieval": {"labelled_images": {"birds": str(tmp_path / "birds")}}}
    return Plan(load({**tiny_configuration, "benchmarks": {"eccv_caption": None, "sts": None, **benchmarks}}))


def lose_a_picture(shards, pictures) -> None:
    paths = [pictures / "here.png", pictures / "gone.png"]
    shards.mkdir(parents=True)
    pictures.mkdir(exist_ok=True)
    for path in paths:
        path.write_bytes(b"a picture")
    write_image_files(describe_files([str(path) for path in paths]), shards)
    paths[1].unlink()


@pytest.mark.parametrize("again", [False, True])
def test_reading_the_data_set_again_brings_no_picture_of_a_benchmark_back(plan, tmp_path, again):
    lose_a_picture(plan.folder.benchmark_data("birds").shards("test"), tmp_path / "birds")
    with pytest.raises(DataError, match=r"1 of the 2 images that .*birds/shards/test was made of are gone"):
        find_changed_images(plan, is_converted_anyway=again)


def test_a_data_set_that_is_read_again_may_name_other_pictures(plan, tmp_path):
    lose_a_picture(plan.folder.shards("test"), tmp_path / "pictures")
    with pytest.raises(DataError, match=r"1 of the 2 images that .* are gone"):
        find_changed_images(plan)
    assert find_changed_images(plan, is_converted_anyway=True).sentences() == []
