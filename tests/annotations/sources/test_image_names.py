"""Equal file names in different folders are different images; two records for one id are told in every format."""

from __future__ import annotations

import json

import pytest
from conftest import draw_shape

from cusa.annotations.sources.image_names import ImageNames
from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.source import MalformedRow
from cusa.config.dataset import load_dataset


def records(tmp_path, section):
    return list(open_source(load_dataset({"name": "d", **section}), tmp_path / "images").records())


def test_the_first_file_has_the_short_id_and_other_spellings_of_it_are_the_same():
    names = ImageNames()
    places = ["/d/pics/0.jpg", "/d/vg/0.jpg", "/e/vg/0.jpg", "/d/vg/../pics/./0.jpg", "/d/vg/0.jpg", "/d/1.jpg"]
    assert [names.identity(place) for place in places] == [
        "0.jpg",
        "vg/0.jpg",
        "e/vg/0.jpg",
        "0.jpg",
        "vg/0.jpg",
        "1.jpg",
    ]


def test_albef_s_equal_names_in_two_folders_are_two_images(tmp_path):
    for split, folder in (("train", "pics"), ("val", "vg"), ("test", "more")):
        (tmp_path / f"{split}.json").write_text(json.dumps([{"image": f"{folder}/0.jpg", "caption": split}]))
    files = {split: str(tmp_path / f"{split}.json") for split in ("train", "val", "test")}
    found = records(tmp_path, {"format": "albef", "annotations": files})
    assert [record.image_id for record in found] == ["0.jpg", "vg/0.jpg", "more/0.jpg"]


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"id": 1, "file_name": "b.jpg"}, "has the id 1, which an image before it has"),
        ({"id": 2, "file_name": "a.jpg"}, "has the file a.jpg, as the image 1 has"),
    ],
)
def test_coco_s_images_with_one_id_or_one_file_are_malformed(tmp_path, second, told):
    content = {"images": [{"id": 1, "file_name": "a.jpg"}, second], "annotations": [{"image_id": 1, "caption": "One."}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    files = {split: str(tmp_path / "a.json") for split in ("train", "val", "test")}
    found = records(tmp_path, {"format": "coco", "annotations": files})
    assert [record.reason for record in found if isinstance(record, MalformedRow)] == [told] * 3
    assert {record.caption for record in found if not isinstance(record, MalformedRow)} == {"One."}


@pytest.mark.parametrize(("key", "value"), [("imgid", 0), ("filename", "0.jpg")])
def test_karpathy_s_images_with_one_id_or_one_file_are_malformed(tmp_path, key, value):
    images = [
        {"filename": f"{number}.jpg", "split": "train", "imgid": number, "sentences": [{"raw": "One."}]}
        for number in range(2)
    ]
    images[1][key] = value
    (tmp_path / "k.json").write_text(json.dumps({"images": images}))
    first, second = records(tmp_path, {"format": "karpathy", "file": str(tmp_path / "k.json")})
    assert first.image_id == "0.jpg"
    assert second.reason == f"has the {'imgid 0' if key == 'imgid' else 'file 0.jpg'}, which an image before it has"


def test_backslashes_are_those_of_windows_unless_a_file_has_them(tmp_path):
    draw_shape("red", "circle", "large").save(tmp_path / "odd\\name.png")
    rows = [{"image": name, "caption": "A circle."} for name in ("pics\\0.jpg", "odd\\name.png")]
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.json").write_text(json.dumps(rows))
    files = {split: str(tmp_path / f"{split}.json") for split in ("train", "val", "test")}
    found = records(tmp_path, {"format": "albef", "annotations": files})
    assert [record.image_path for record in found][:2] == [f"{tmp_path}/pics/0.jpg", f"{tmp_path}/odd\\name.png"]
