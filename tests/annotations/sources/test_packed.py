"""Parquet files and tars that hold the pictures: what people have in them, and what is wrong with them."""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_files import (
    PACKED,
    WRITERS,
    add_member,
    one_table,
    published_rows,
    write_parquet_struct,
    write_webdataset_gz,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cusa.annotations.convert import convert, inspect
from cusa.annotations.problems import Problems
from cusa.annotations.record_spool import spool_records
from cusa.annotations.sources.packed import PictureFolder
from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.source import LeftOut, MalformedRow, Record
from cusa.annotations.tables import IMAGES, read_table
from cusa.common.image_files import IMAGE_ENDINGS
from cusa.config.captions import CaptionCleaning
from cusa.config.dataset import load_dataset
from cusa.errors import ConfigurationError, DataError

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def rows(shapes: Path) -> dict[str, list[dict[str, str]]]:
    return published_rows(shapes)


def picture(number: int, kind: str = "PNG") -> bytes:
    """A picture like no other."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256 % 256, 7)).save(buffer, kind, lossless=True)
    return buffer.getvalue()


def records(folder: Path, section: dict) -> list:
    """What the source yields of a data set; its pictures are then in folder/images."""
    dataset = load_dataset({"name": "d", **section})
    return list(open_source(dataset, folder / "images").records())


def split_three_ways(place: Path | str) -> dict:
    return {"file": str(place), "held_out": {"val": 0.2, "test": 0.2}}


def parquet(folder: Path, table: dict | pa.Table, **section) -> list:
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), folder / "t.parquet")
    return records(folder, {"format": "parquet", **split_three_ways(folder / "t.parquet"), **section})


def tar(path: Path, members: dict[str, bytes] | list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:
        for name, content in members.items() if isinstance(members, dict) else members:
            add_member(file, name, content)
    return path


def webdataset(folder: Path, members, mode: str = "w", **section) -> list:
    tar(folder / "t.tar", members, mode)
    return records(folder, {"format": "webdataset", **split_three_ways(folder / "t.tar"), **section})


def reasons(found: list) -> list[str]:
    assert all(isinstance(row, MalformedRow) for row in found)
    return [f"{Path(row.place).name} {row.reason}" for row in found]


# Every format in which the pictures are


@pytest.mark.parametrize("name", PACKED)
def test_a_second_conversion_writes_the_same_bytes_under_the_same_paths(rows, tmp_path, name):
    dataset = load_dataset({"name": "d", **WRITERS[name](tmp_path, rows)})
    tables = []
    for _ in range(2):
        convert(dataset, tmp_path / "out", tmp_path / "images")
        tables.append(((tmp_path / "out/images.parquet").read_bytes(), (tmp_path / "out/train.json").read_bytes()))
        shutil.rmtree(tmp_path / "out")
    assert tables[0] == tables[1]
    assert len([path for path in (tmp_path / "images").rglob("*") if path.is_file()]) == 48
    assert {path.suffix for path in (tmp_path / "images").rglob("*.*")} == {".jpg"}
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize("name", PACKED)
def test_a_check_counts_everything_but_writes_only_a_sample_of_the_pictures(rows, tmp_path, name):
    dataset = load_dataset({"name": "d", **WRITERS[name](tmp_path, rows)})
    (tmp_path / "scratch").mkdir()
    (tmp_path / "all").mkdir()
    inspection = inspect(dataset, tmp_path / "scratch", sample=10)
    assert inspection.images == {"train": 32, "val": 8, "test": 8}
    assert inspection.captions == {"train": 64, "val": 16, "test": 16}
    assert not inspection.problems.counts
    written = [path for path in (tmp_path / "scratch/images").rglob("*") if path.is_file()]
    assert len(written) == 10 == len(inspection.paths)
    assert inspection.made_bytes == pytest.approx(np.mean([path.stat().st_size for path in written]))
    everything = inspect(dataset, tmp_path / "all")
    assert len(everything.paths) == 48


def test_a_sample_is_drawn_evenly(tmp_path):
    """Each of 200 pictures is among the 20 of a sample about as often as any other."""
    counts = np.zeros(200)
    contents = [str(number).encode() for number in range(200)]
    for seed in range(25):
        folder = PictureFolder(tmp_path / "images")
        folder.most, folder.random = 20, random.Random(seed)
        with folder.open([]):
            paths = [folder.add(content)[0] for content in contents]
        here = [Path(path).is_file() for path in paths]
        assert here == [folder.has(path) for path in paths]
        assert sum(here) == 20
        counts += here
    assert counts[:100].sum() == pytest.approx(250, abs=60)
    assert counts.max() < 15


def test_a_picture_in_two_splits_is_found_whatever_its_id_is(rows, tmp_path):
    table = [{"image": picture(number), "caption": "a b", "id": number, "split": "train"} for number in range(3)]
    table += [{**table[0], "id": 10, "split": "val"}, {**table[1], "id": 11, "split": "test"}]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "t.parquet")
    section = {"format": "parquet", "file": str(tmp_path / "t.parquet")}
    dataset = load_dataset({"name": "d", **section, "columns": {"split": "split", "image_id": "id"}})
    with pytest.raises(DataError, match=r"2 images in more than one split(.|\n)*0 in train and 10 in val"):
        convert(dataset, tmp_path / "out", tmp_path / "images")


def test_an_undecodable_picture_is_named_by_its_row_or_key(rows, tmp_path):
    content = write_parquet_struct(tmp_path, rows)
    path = tmp_path / "data/part-00001-of-00002.parquet"
    table = pq.read_table(path).to_pylist()
    table[4]["image"]["bytes"] = b"no picture"
    pq.write_table(pa.Table.from_pylist(table), path)
    with pytest.raises(DataError, match=r"unreadable_image(.|\n)*\(.*part-00001-of-00002.parquet, row 4\): .*\.img"):
        convert(load_dataset({"name": "d", **content}), tmp_path / "out", tmp_path / "images")

    (tmp_path / "tars").mkdir()
    samples = {f"{n}.{e}": picture(n) if e == "png" else b"a b" for n in range(30) for e in ("png", "txt")}
    tar(tmp_path / "tars/7.tar", samples | {"3.png": picture(3)[:40]})
    content = {"format": "webdataset", **split_three_ways(tmp_path / "tars"), "name": "d"}
    with pytest.raises(DataError, match=r"1 image files that cannot be decoded(.|\n)*7/3 \(.*7.tar, key 3\): .*\.png"):
        convert(load_dataset(content), tmp_path / "out", tmp_path / "images")
    convert(load_dataset({**content, "skip": ["unreadable_image"]}), tmp_path / "out", tmp_path / "images")
    assert len(read_table(tmp_path / "out", IMAGES)) == 29


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    captions=st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
            min_size=1,
            max_size=3,
        ),
        max_size=60,
    ),
    form=st.sampled_from(["struct", "binary", "large_binary", "dictionary", "txt", "json"]),
    group=st.integers(1, 70),
)
def test_n_rows_go_in_and_n_pairs_come_out(tmp_path, captions, form, group):
    """Whatever the captions and the files are: as many pairs, in the same order, each with its own picture."""
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    pictures = [picture(number) for number in range(len(captions))]
    if form in ("txt", "json"):
        captions = [texts[:1] for texts in captions] if form == "txt" else captions
        members = {}
        for number, texts in enumerate(captions):
            members[f"{number:04d}.png"] = pictures[number]
            content = texts[0] if form == "txt" else json.dumps({"caption": texts})
            members[f"{number:04d}.{form}"] = content.encode()
        found = webdataset(tmp_path, members, mode=["w", "w:gz", "w:bz2", "w:xz"][group % 4])
    else:
        if form == "struct":
            column = pa.array(
                [{"bytes": content, "path": None} for content in pictures],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            )
        elif form == "dictionary":
            column = pa.array(pictures, pa.binary()).dictionary_encode()
        else:
            column = pa.array(pictures, getattr(pa, form)())
        table = pa.table({"image": column, "caption": pa.array(captions, pa.list_(pa.string()))})
        pq.write_table(table, tmp_path / "t.parquet", row_group_size=group)
        found = records(tmp_path, {"format": "parquet", **split_three_ways(tmp_path / "t.parquet")})
    assert all(isinstance(record, Record) for record in found)
    expected = [(content, text) for content, texts in zip(pictures, captions, strict=True) for text in texts]
    if form == "txt":  # a byte order mark is not a part of a text
        expected = [(content, text.removeprefix("\ufeff")) for content, text in expected]
    assert [(Path(record.image_path).read_bytes(), record.caption) for record in found] == expected
    problems = Problems()
    spool = spool_records(iter(found), tmp_path / "spool", problems, CaptionCleaning(clean="none", max_words=None))
    assert spool.captioned.sum() + problems.counts.get("empty_caption", 0) == len(expected)


# Parquet


def test_ids_are_the_column_else_the_path_else_the_picture(tmp_path):
    struct = [{"bytes": picture(number), "path": f"{number}.png"} for number in range(3)]
    table = {"image": struct, "caption": ["a", "b", "c"], "id": [7, 8, 9]}
    assert [record.image_id for record in parquet(tmp_path, table)] == ["0.png", "1.png", "2.png"]
    found = parquet(tmp_path, table, columns={"image_id": "id"})
    assert [record.image_id for record in found] == ["7", "8", "9"]

    # Datasets often have one path for all rows. Then rows with the same picture are captions of one image.
    same = [{"bytes": picture(number // 2), "path": "image.png"} for number in range(4)]
    found = parquet(tmp_path, {"image": same, "caption": ["a", "b", "c", "d"]})
    ids = [record.image_id for record in found]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert len({record.image_path for record in found}) == 2


def test_a_picture_without_bytes_is_the_file_at_its_path(tmp_path):
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics/a.png").write_bytes(picture(1))
    struct = [
        {"bytes": None, "path": "a.png"},
        {"bytes": picture(2), "path": None},
        {"bytes": None, "path": None},
        None,
    ]
    found = parquet(tmp_path, {"image": struct, "caption": list("abcd")}, image_root=str(tmp_path / "pics"))
    assert [record.image_path for record in found[:1]] == [str(tmp_path / "pics/a.png")]
    assert Path(found[1].image_path).read_bytes() == picture(2)
    assert reasons(found[2:]) == [
        "t.parquet, row 2 has no picture in `image`: neither bytes nor a path",
        "t.parquet, row 3 has no picture in `image`: neither bytes nor a path",
    ]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"image": ["a.jpg"], "caption": ["a"]}, "has the type string.*Paths of pictures are for `format: table`"),
        ({"image": [1], "caption": ["a"]}, "has the type int64, expected the bytes of pictures"),
        ({"image": [{"path": "a"}], "caption": ["a"]}, "has the type struct<path: string>, expected the bytes"),
        ({"picture": [b"a"], "caption": ["a"]}, "columns picture, caption, but not dataset.columns.image `image`"),
        (pa.table([[b"a"], [b"b"], ["c"]], ["image", "image", "caption"]), "the column `image` more than once"),
    ],
)
def test_a_column_that_holds_no_pictures_is_a_sentence(tmp_path, table, says):
    with pytest.raises(DataError, match=says):
        parquet(tmp_path, table)
    assert not list(tmp_path.glob(".*partial"))


def test_captions_that_are_none_and_text_that_is_not_utf8_are_malformed_rows(tmp_path):
    texts = pa.StringArray.from_buffers(3, pa.py_buffer(np.array([0, 1, 3, 4], "i4")), pa.py_buffer(b"a\xff\xfeb"))
    found = parquet(tmp_path, pa.table({"image": [picture(n) for n in range(3)], "caption": texts}))
    assert [row.caption for row in found if isinstance(row, Record)] == ["a", "b"]
    assert reasons([found[1]]) == ["t.parquet, row 1 has text that is not UTF-8 (invalid start byte at byte 0)"]
    found = parquet(tmp_path, {"image": [picture(1)], "caption": pa.array([None], pa.string())})
    assert "for `caption`" in reasons(found)[0]


def test_a_parquet_file_that_is_cut_off_is_a_sentence(tmp_path):
    parquet(tmp_path, {"image": [picture(1)], "caption": ["a"]})
    whole = (tmp_path / "t.parquet").read_bytes()
    for size in (0, 4, len(whole) // 2, len(whole) - 1):
        (tmp_path / "t.parquet").write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"t\.parquet is not a complete Parquet file"):
            records(tmp_path, {"format": "parquet", **split_three_ways(tmp_path / "t.parquet")})


# WebDataset


def test_keys_with_dots_folders_hidden_files_and_upper_case_endings(tmp_path):
    members = {
        "./a/photo.v2.JPG": picture(1, "JPEG"),
        "./a/photo.v2.txt": b"\xef\xbb\xbfa dog",
        "./a/._photo.v2.txt": b"\x00\x05",
        "./.hidden/x.jpg": b"",
        "b/photo.v2.webp": picture(2, "WEBP"),
        "b/photo.v2.txt": b"a cat",
        "b/photo.v2.cls": b"3",
        "b/photo.v2.pickle": b"cos\nsystem\n(S'false'\ntR.",
    }
    found = webdataset(tmp_path, members)
    assert [(record.image_id, record.caption) for record in found] == [
        ("t/a/photo.v2", "a dog"),
        ("t/b/photo.v2", "a cat"),
    ]
    assert [Path(record.image_path).suffix for record in found] == [".jpg", ".webp"]


@pytest.mark.parametrize("ending", IMAGE_ENDINGS)
def test_tars_have_pictures_of_the_endings_that_folders_have(tmp_path, ending):
    place = tar(tmp_path / "t.tar", {f"a{ending}": picture(1), "a.txt": b"one"})
    found = records(tmp_path, {"format": "webdataset", **split_three_ways(place)})
    assert [record.caption for record in found] == ["one"]


@pytest.mark.parametrize("order", [(".jpg", ".pgm"), (".pgm", ".jpg"), (".pbm", ".png", ".ppm")])
def test_masks_beside_a_picture_are_passed_over(tmp_path, order):
    members = {f"a{ending}": picture(ending in (".jpg", ".png")) for ending in order} | {"a.txt": b"one"}
    (found,) = webdataset(tmp_path, members)
    assert Path(found.image_path).read_bytes() == picture(1)


def test_two_pictures_of_the_same_rank_are_a_malformed_row(tmp_path):
    found = webdataset(tmp_path, {"a.pgm": picture(1), "a.ppm": picture(2), "a.txt": b"one"})
    assert reasons(found) == ["t.tar, key a has two pictures; the second is a.ppm"]


def test_names_in_a_tar_never_become_paths(tmp_path):
    names = ["../../escape", "/absolute", "a" * 300, "it's #2\n", "\u65e5\u672c"]
    members = [
        (f"{name}.{end}", picture(n) if end == "png" else b"a")
        for n, name in enumerate(names)
        for end in ("png", "txt")
    ]
    found = webdataset(tmp_path, members)
    assert [record.image_id for record in found] == [f"t/{name}" for name in names]
    assert all(Path(record.image_path).parent.parent == tmp_path / "images" for record in found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "t.tar"]


def test_names_that_are_not_utf8_are_written_with_backslashes(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.GNU_FORMAT) as file:
        add_member(file, "caf\udce9.png", picture(1))
        add_member(file, "caf\udce9.txt", b"a cup")
    (found,) = records(tmp_path, {"format": "webdataset", **split_three_ways(tmp_path / "t.tar")})
    assert found.image_id == "t/caf\\xe9"


def test_equal_keys_in_different_tars_are_different_images(tmp_path):
    for number, name in enumerate(("x/0.tar", "y/0.tar", "z/0.tar.gz")):
        (tmp_path / name).parent.mkdir()
        tar(tmp_path / name, {"7.png": picture(number), "7.txt": b"a"}, "w:gz" if name.endswith("gz") else "w")
    places = {"train": str(tmp_path / "x"), "val": str(tmp_path / "y/0.tar"), "test": str(tmp_path / "z/*")}
    found = records(tmp_path, {"format": "webdataset", "annotations": places})
    assert [record.image_id for record in found] == ["x/0/7", "y/0/7", "z/0/7"]
    assert [record.split for record in found] == ["train", "val", "test"]


def test_files_that_stand_apart_are_put_together(tmp_path):
    """As in a tar of all pictures first: tar cf x.tar *.png *.json *.txt."""
    members = {f"{number}.png": picture(number) for number in range(5)}
    members |= {f"{number}.json": json.dumps({"caption": "no", "width": 8}).encode() for number in range(5)}
    members |= {f"{number}.txt": str(number).encode() for number in range(5)}
    found = webdataset(tmp_path, members)
    assert [(record.image_id, record.caption) for record in found] == [(f"t/{n}", str(n)) for n in range(5)]
    assert [Path(record.image_path).read_bytes() for record in found] == [picture(n) for n in range(5)]


@pytest.mark.parametrize("folder", ["", "a.b/"])
def test_names_with_a_part_between_key_and_ending_are_put_together(tmp_path, folder):
    """As webdataset.ShardWriter writes {"input.jpg": ..., "output.txt": ...}: its keys end at the first dot."""
    members = {}
    for number in range(4):
        members[f"{folder}{number}.input.png"] = picture(number)
        members[f"{folder}{number}.output.txt"] = str(number).encode()
    found = webdataset(tmp_path, members)
    assert [(record.image_id, record.caption) for record in found] == [(f"t/{folder}{n}", str(n)) for n in range(4)]
    assert [Path(record.image_path).read_bytes() for record in found] == [picture(n) for n in range(4)]
    json_too = {f"{folder}{number}.about.json": b'{"caption": "no", "kind": "a"}' for number in range(4)}
    (tmp_path / "json").mkdir()
    keys = {"label": "kind"}
    found = webdataset(tmp_path / "json", {**members, **json_too}, keys=keys)
    assert [(record.caption, record.label) for record in found] == [(str(n), "a") for n in range(4)]


@pytest.mark.parametrize(
    "names",
    [
        ("v1.2.png", "v1.3.txt", "v2.2.png", "v2.4.txt"),  # not one name behind the keys
        ("a.left.png", "a.right.png", "a.about.txt"),  # two pictures
        ("a.png", "a.txt", "b.input.png", "b.output.txt"),  # a whole sample, so that keys end at the last dot
    ],
)
def test_names_with_dots_are_put_together_only_where_a_tar_leaves_no_doubt(tmp_path, names):
    contents = {".png": lambda number: picture(number), ".txt": lambda number: str(number).encode()}
    members = {name: contents[Path(name).suffix](number) for number, name in enumerate(names)}
    found = webdataset(tmp_path, members)
    whole = [row.image_id for row in found if isinstance(row, Record)]
    assert whole == (["t/a"] if "a.txt" in names else [])
    assert len(found) - len(whole) == len(names) - 2 * len(whole)


@pytest.mark.parametrize("late", ["json", "txt"])
def test_files_that_come_after_their_whole_sample_are_told_as_that(tmp_path, late):
    first = {"json": b"a caption", "txt": b'{"caption": "a caption"}'}[late]
    early = [
        (f"{number}.{kind}", content)
        for number in range(2)
        for kind, content in (("png", picture(number)), ("txt" if late == "json" else "json", first))
    ]
    found = webdataset(tmp_path, [*early, *((f"{number}.{late}", b"{}") for number in range(2))])
    assert [row.caption for row in found if isinstance(row, Record)] == ["a caption"] * 2
    late_ones = [row.reason for row in found if isinstance(row, MalformedRow)]
    assert len(late_ones) == 2
    assert all("apart from the picture and caption of this key, which were read before" in row for row in late_ones)


def test_samples_that_lack_something_are_malformed_rows(tmp_path):
    members = [
        ("a.png", picture(1)),
        ("b.txt", b"a"),
        ("c.png", picture(2)),
        ("c.json", b"[]"),
        ("d.png", picture(3)),
        ("d.json", b'{"text": "a"}'),
        ("e.png", picture(4)),
        ("e.jpg", picture(5)),
        ("e.txt", b"a"),
        ("f.png", picture(6)),
        ("f.txt", b"\xff"),
        ("g.png", picture(7)),
        ("g.json", b'{"caption": ["a", NaN]}'),
    ]
    assert sorted(reasons(webdataset(tmp_path, members))) == [
        "t.tar, key a has no caption: neither a .txt nor a .json",
        "t.tar, key b has no picture (.jpg, .jpeg, .png, .webp, ...)",
        "t.tar, key c has c.json, which is not a JSON object, or has a key twice with two values",
        "t.tar, key d has no `caption` (its keys: text), in its JSON",
        "t.tar, key e has two pictures; the second is e.jpg",
        "t.tar, key f has f.txt, which is not UTF-8 (invalid start byte at byte 0); "
        "name its encoding in dataset.encoding",
        "t.tar, key g has a list of something else than texts for `caption` (a NaN), in its JSON",
    ]


def test_a_link_is_no_picture(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as file:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
        add_member(file, "a.txt", b"a")
    found = records(tmp_path, {"format": "webdataset", **split_three_ways(tmp_path / "t.tar")})
    assert reasons(found) == ["t.tar, key a has a.png, which is not a file but a link or a device"]


def test_samples_that_img2dataset_marks_as_failed_are_counted(rows, tmp_path):
    content = write_webdataset_gz(tmp_path, rows)
    table = one_table(rows)
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as file:
        for number, row in enumerate(table):
            status = "failed_to_resize" if number % 10 == 1 else "success"
            add_member(file, f"{number}.jpg", Path(row["image"]).read_bytes())
            add_member(file, f"{number}.json", json.dumps({**row, "status": status}).encode())
    dataset = load_dataset({"name": "d", **content})
    inspection = inspect(dataset, tmp_path)
    assert inspection.problems.notes == {"left_out": 5}
    assert "key 1 has the status `failed_to_resize`" in next(inspection.problems.note_sentences())[1]
    assert sum(inspection.images.values()) == 43
    convert(dataset, tmp_path / "out", tmp_path / "images")
    failed = [row for row in open_source(dataset, tmp_path / "x").records() if isinstance(row, LeftOut)]
    assert len(failed) == 5


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_that_is_cut_off_anywhere_is_a_sentence(tmp_path, mode):
    members = {f"{n}.{e}": picture(n) if e == "png" else b"a" for n in range(20) for e in ("png", "txt")}
    assert len(webdataset(tmp_path, members, mode)) == 20
    whole = (tmp_path / "t.tar").read_bytes()
    end = len(whole) if mode != "w" else len(whole.rstrip(b"\0")) + 512
    for size in np.linspace(0, end - 1, 25).astype(int).tolist():
        (tmp_path / "t.tar").write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"t\.tar (is not a tar, or not a complete one|has no end)"):
            records(tmp_path, {"format": "webdataset", **split_three_ways(tmp_path / "t.tar")})


def test_a_damaged_header_and_joined_tars_are_sentences(tmp_path):
    members = {f"{n}.{e}": picture(n) if e == "png" else b"a" for n in range(9) for e in ("png", "txt")}
    webdataset(tmp_path, members)
    whole = (tmp_path / "t.tar").read_bytes()
    section = {"format": "webdataset", **split_three_ways(tmp_path / "t.tar")}
    (tmp_path / "t.tar").write_bytes(whole + whole)
    with pytest.raises(DataError, match="goes on after the end of a tar at byte .*joined with cat"):
        records(tmp_path, section)
    place = whole.index(b"5.png")
    (tmp_path / "t.tar").write_bytes(whole[:place] + b"x" + whole[place + 1 :])
    with pytest.raises(DataError, match=f"has a damaged header at byte {place:,}"):
        records(tmp_path, section)


# The files that a place names


def test_places_are_files_folders_and_patterns(tmp_path):
    for name in ("a/00.tar", "a/01.tar", "a/sub/02.TAR", "a/._00.tar", "a/00.json", "a/.x/9.tar", "it's [1].tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        tar(tmp_path / name, {})

    def named(place: str) -> list[str]:
        dataset = load_dataset({"name": "d", "format": "webdataset", **split_three_ways(tmp_path / place)})
        return [str(Path(path).relative_to(tmp_path)) for path in dataset.files.values()]

    assert named("a") == ["a/00.tar", "a/01.tar", "a/sub/02.TAR"]
    assert named("a/*") == ["a/00.tar", "a/01.tar"]
    assert named("a/{00..02}.tar") == ["a/00.tar", "a/01.tar", "a/02.tar"]
    assert named("a/0[1-9].tar") == ["a/01.tar"]
    assert named("it's [1].tar") == ["it's [1].tar"]
    assert named("b/*.tar") == ["b/*.tar"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"file": "a{0..3.tar", "held_out": {"val": 0.1, "test": 0.1}}, "has braces that do not pair up"),
        ({"file": "{0..99999999999}.tar", "held_out": {"val": 0.1, "test": 0.1}}, "names more than 100,000 files"),
        ({"file": "a.tar"}, "`file` needs either keys.split or `held_out`"),
        ({"annotations": {"train": "a"}}, "annotations has to name train, val and test, and it lacks val and test"),
        ({"annotations": {"val": "a", "test": "b"}}, "and it lacks train"),
        (
            {"annotations": {"train": "a", "val": "b"}, "held_out": {"val": 0.1, "test": 0.1}},
            "would draw images of train into val, which has a file of its own",
        ),
        ({"annotations": {"train": "a", "val": "b", "test": "c"}, "keys": {"split": "s"}}, "keys.split is for one"),
        ({"file": "a.tar", "keys": {"split": "s"}, "image_root": "."}, "image_root has no effect"),
    ],
)
def test_contradictions_are_sentences(content, says):
    with pytest.raises(ConfigurationError, match=says):
        load_dataset({"name": "d", "format": "webdataset", **content})


# Names of splits, and several columns of captions


def split_records(folder: Path, kind: str, names: list[str], **section) -> list:
    """A data set whose column, or key, of splits has these names, one a picture."""
    if kind == "parquet":
        table = {"image": [picture(n) for n in range(len(names))], "caption": ["a b"] * len(names), "part": names}
        pq.write_table(pa.table(table), folder / "t.parquet")
        place = {"file": str(folder / "t.parquet"), "columns": {"split": "part"}}
    else:
        samples = [(f"{n:03d}", json.dumps({"caption": "a b", "part": name})) for n, name in enumerate(names)]
        members = [each for n, (key, text) in enumerate(samples) for each in ((key, n), (key, text.encode()))]
        contents = [
            (f"{key}.json", what) if isinstance(what, bytes) else (f"{key}.png", picture(what)) for key, what in members
        ]
        place = {"file": str(tar(folder / "t.tar", contents)), "keys": {"split": "part"}}
    return records(folder, {"format": kind, **place, **section})


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_splits_have_the_names_that_they_have_in_tables(tmp_path, kind):
    names = ["train", "restval", "validation", "DEV", "testing", "val2017"]
    assert [row.split for row in split_records(tmp_path, kind, names)] == [
        "train",
        "train",
        "val",
        "val",
        "test",
        "val",
    ]


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_names_that_are_no_splits_are_counted_or_explained(tmp_path, kind):
    names = ["train"] * 3 + ["holdout"] * 2 + ["dev", "eval"]
    unknown = [row for row in split_records(tmp_path, kind, names) if isinstance(row, MalformedRow)]
    assert {row.kind for row in unknown} == {"unknown_split"}
    assert "2 rows with `holdout` in `part` (the first: " in unknown[0].reason
    assert "1 rows with `eval` in `part`" in unknown[1].reason
    said = split_records(tmp_path, kind, names, split_names={"holdout": "skip", "eval": "test"})
    assert [row.split for row in said] == ["train"] * 3 + ["val", "test"]


def test_captions_of_a_parquet_file_stand_in_several_columns(tmp_path):
    table = {"image": [picture(0), picture(1)], "a": ["one", "three"], "b": ["two", None]}
    found = parquet(tmp_path, table, columns={"caption": ["a", "b"]})
    assert [row.caption for row in found] == ["one", "two", "three"]
    with pytest.raises(DataError, match=r"not dataset.columns.caption `c`; correct"):
        parquet(tmp_path, table, columns={"caption": ["a", "c"]})


def test_a_split_without_a_file_is_drawn_from_train_alone(tmp_path):
    for name, numbers in (("train", range(100)), ("val", range(100, 120))):
        table = {"image": [picture(number) for number in numbers], "caption": ["a b"] * len(numbers)}
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    files = {name: str(tmp_path / f"{name}.parquet") for name in ("train", "val")}
    found = records(tmp_path, {"format": "parquet", "annotations": files, "held_out": {"test": 0.2}})
    splits = [row.split for row in found]
    assert splits[100:] == ["val"] * 20
    assert set(splits[:100]) == {"train", "test"}
    assert 8 < splits.count("test") < 32


def test_a_key_that_a_tar_has_twice_in_its_json_is_told(tmp_path):
    found = webdataset(tmp_path, {"a.png": picture(0), "a.json": b'{"caption": "one", "caption": "two"}'})
    assert reasons(found) == ["t.tar, key a has a.json, which is not a JSON object, or has a key twice with two values"]
