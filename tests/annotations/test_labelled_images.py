"""Each archive in the layout it unpacks to, and damaged."""

from __future__ import annotations

import json

import archives
import pyarrow.parquet as pq
import pytest

from cusa.annotations.benchmark_data import convert_labelled_images
from cusa.annotations.labelled_images import labelled_images
from cusa.errors import DataError


def found(name, place):
    images = labelled_images(name, place)
    assert all(image.path.is_file() for image in images)
    return [(image.path.name, image.label, image.role) for image in images]


def test_cub_tests_the_last_hundred_classes(tmp_path):
    images = found("cub", archives.cub(tmp_path))
    assert [label for _, label, _ in images] == ["101", "101", "200", "200"]
    assert images[0][0] == "White_Pelican_0001_18.jpg"


def test_cars_tests_the_last_98_classes(tmp_path):
    images = found("cars", archives.cars(tmp_path))
    assert images == [("000002.jpg", "99", None), ("000003.jpg", "99", None), ("000004.jpg", "196", None)]


def test_sop_reads_ebay_test(tmp_path):
    images = found("sop", archives.sop(tmp_path))
    assert images == [("111_0.JPG", "11319", None), ("111_1.JPG", "11320", None), ("222_0.JPG", "11320", None)]


def test_inshop_has_queries_and_a_gallery(tmp_path):
    images = found("inshop", archives.inshop(tmp_path))
    assert [role for _, _, role in images] == ["query", "gallery", "gallery", "query", "gallery"]
    assert images[0][:2] == ("01_1_front.jpg", "id_00000001")


def test_inshop_in_the_flat_layout(tmp_path):
    root = archives.inshop(tmp_path)
    (root / "Eval/list_eval_partition.txt").rename(root / "list_eval_partition.txt")
    (root / "Eval").rmdir()
    (root / "Img/img").rename(root / "img")
    assert len(found("inshop", root)) == 5


def test_inaturalist_takes_the_folder_as_the_class(tmp_path):
    images = found("inaturalist", archives.inaturalist(tmp_path))
    assert [label for _, label, _ in images] == ["2267", "2267", "3000"]


def test_one_s_own_folder_and_csv(tmp_path):
    for number, name in enumerate(("cats/a.png", "cats/b.webp", "dogs/deep/c.jpg", "dogs/notes.txt")):
        archives.picture(tmp_path / "pets" / name, number) if not name.endswith("txt") else (
            tmp_path / "pets" / name
        ).write_text("no image")
    assert [(name, label) for name, label, _ in found("pets", tmp_path / "pets")] == [
        ("a.png", "cats"), ("b.webp", "cats"), ("c.jpg", "dogs"),
    ]  # fmt: skip
    table = tmp_path / "pets.csv"
    table.write_text("image,label\npets/cats/a.png,tabby\npets/cats/b.webp,tabby\n")
    assert found("pets", table) == [("a.png", "tabby", None), ("b.webp", "tabby", None)]


def test_images_of_one_class_are_no_benchmark(tmp_path):
    archives.picture(tmp_path / "pets/cats/a.png", 0)
    archives.picture(tmp_path / "pets/cats/b.png", 1)
    with pytest.raises(DataError, match=r"pets has 2 images of one class, `cats`, so every result would be right"):
        convert_labelled_images("pets", tmp_path / "pets", tmp_path / "tables")


def test_tables_keep_the_roles(tmp_path):
    convert_labelled_images("inshop", archives.inshop(tmp_path), tmp_path / "tables")
    table = pq.read_table(tmp_path / "tables/images.parquet").to_pydict()
    assert table["role"][:2] == ["query", "gallery"]
    assert set(table["split"]) == {"test"}
    convert_labelled_images("cub", archives.cub(tmp_path), tmp_path / "cub-tables")
    assert pq.read_table(tmp_path / "cub-tables/images.parquet")["role"].null_count == 4


def damage(archive, name, text):
    def made(folder):
        root = archive(folder)
        (root / name).write_text(text)
        return root

    return made


def without(archive, name):
    def made(folder):
        root = archive(folder)
        (root / name).unlink()
        return root

    return made


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("cub", without(archives.cub, "images.txt"), r"images.txt does not exist; unpack all of the archive into"),
        ("cub", damage(archives.cub, "image_class_labels.txt", "9 101\n"), "has the image 9, which images.txt does"),
        ("cub", damage(archives.cub, "images.txt", "1 a b\n"), r"images.txt, line 1: 3 columns, expected 2: '1 a b'"),
        ("cub", damage(archives.cub, "image_class_labels.txt", "1 1\n"), "lists no test image; expected images.txt"),
        ("cub", damage(archives.cub, "image_class_labels.txt", "1 crow\n"), "has the class `crow`, expected a number"),
        ("cars", damage(archives.cars, "cars_annos.mat", "no MATLAB file"), "is not the annotation file of Cars-196"),
        ("sop", without(archives.sop, "chair_final/111_1.JPG"), "lists 3 test images, but 1 of them do not exist"),
        ("inshop", damage(archives.inshop, "Eval/list_eval_partition.txt", "1\nh\nimg/x.jpg id_1 probe\n"),
         "has the status `probe`, expected train, query or gallery"),
        ("inaturalist", without(archives.inaturalist, "Inat_dataset_splits/Inaturalist_test_set1.txt"), "not exist"),
    ],
)  # fmt: skip
def test_damaged_archives_are_sentences(tmp_path, name, make, sentence):
    with pytest.raises(DataError, match=sentence):
        labelled_images(name, make(tmp_path))


def test_a_csv_without_a_heading_is_told_to_have_one(tmp_path):
    (tmp_path / "mine.csv").write_text("x.jpg,1\ny.jpg,2\n")
    with pytest.raises(
        DataError, match=r"its first row is x.jpg, 1. Write a first line above it with the names of the"
    ):
        labelled_images("mine", tmp_path / "mine.csv")


def test_why_each_image_of_one_s_own_cannot_be_read_is_told(tmp_path):
    archives.picture(tmp_path / "a.png", 0)
    (tmp_path / "b.png").touch()
    (tmp_path / "mine.csv").write_text("image,label\na.png,1\nb.png,2\nA.PNG,1\n")
    with pytest.raises(DataError) as caught:
        labelled_images("mine", tmp_path / "mine.csv")
    first, *rest = str(caught.value).splitlines()
    assert first.endswith("lists 3 test images, but 2 of them do not exist or cannot be read; correct or remove them:")
    assert [line.split("/")[-1] for line in rest] == [
        "b.png: the file has zero bytes",
        "A.PNG: the file does not exist, but a.png does",
    ]


def test_a_csv_without_the_columns(tmp_path):
    (tmp_path / "mine.csv").write_text("file,class\nx.jpg,1\n")
    with pytest.raises(DataError, match="has the columns file, class, but not image, label"):
        labelled_images("mine", tmp_path / "mine.csv")


def test_hidden_files_and_folders_are_nobody_s_class_and_nobody_s_image_and_are_counted(tmp_path, caplog):
    root = tmp_path / "pets"
    hidden = ("cats/._a.png", "cats/.ipynb_checkpoints/a.png", "@eaDir/a.jpg", ".git/a.png", "__MACOSX/cats/a.png")
    images = ("cats/a.JPG", "cats/it's #1.jpeg", "cats/deep/b.jpe", "dogs/c.AVIF", "a.png")
    for number, name in enumerate((*hidden, *images)):
        ending = "PNG" if name.endswith("AVIF") else None
        picture = archives.picture(root / f"{name}.png" if ending else root / name, number)
        if ending:
            (root / f"{name}.png").rename(root / name)
        del picture
    (root / "empty").mkdir()
    for name in ("Thumbs.db", "cats/Thumbs.db", "dogs/notes.txt"):
        (root / name).write_text("no image")
    with caplog.at_level("INFO"):
        images = found("pets", root)
    assert [(name, label) for name, label, _ in images] == [
        ("a.JPG", "cats"),
        ("b.jpe", "cats"),
        ("it's #1.jpeg", "cats"),
        ("c.AVIF", "dogs"),
    ]
    for told in ("1 files beside the folders", "1 folders without an image", "1 files that are not images"):
        assert told in caplog.text
    assert "hidden files and folders" in caplog.text


def test_file_names_that_are_not_utf8_are_a_sentence(tmp_path):
    archives.picture(tmp_path / "pets/cats/a.png", 0)
    (tmp_path / "pets/cats/a.png").rename(f"{tmp_path}/pets/cats/caf\udce9.png")
    with pytest.raises(
        DataError, match=r"1 image files in .* have names that are not UTF-8 text; rename them"
    ) as error:
        labelled_images("pets", tmp_path / "pets")
    assert r"caf\udce9.png" in str(error.value)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b.png", "data:image/png;base64," + "A" * 3000])
def test_a_text_that_is_no_file_name_is_counted_as_missing(tmp_path, name):
    (tmp_path / "pets.jsonl").write_text(json.dumps({"image": name, "label": "cat"}))
    with pytest.raises(DataError) as error:
        labelled_images("pets", tmp_path / "pets.jsonl")
    assert len(str(error.value)) < 2000


def test_a_file_that_is_there_twice_is_refused_because_it_would_find_itself(tmp_path):
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    table = tmp_path / "labels.csv"
    table.write_text("image,label\ncat\\1.jpg,cat\ndog/1.jpg,dog\n")
    assert found("mine", table) == [("1.jpg", "cat", None), ("1.jpg", "dog", None)]
    table.write_text("image,label\ncat/1.jpg,cat\ndog/1.jpg,dog\ncat/../cat/1.jpg,dog\n")
    with pytest.raises(DataError, match="labels.csv has 1 images that are the file of another one"):
        labelled_images("mine", table)
    table.unlink()
    (tmp_path / "kitten").symlink_to(tmp_path / "cat")
    with pytest.raises(DataError, match="has 2 images that are the file of another one"):
        labelled_images("mine", tmp_path)
