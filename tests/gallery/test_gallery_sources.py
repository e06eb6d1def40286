"""What is embedded: every kind of source gives its items in order, with captions, columns and places of pictures."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cusa.common.image_files import IMAGE_ENDINGS
from cusa.common.images import check_image
from cusa.errors import ConfigurationError, DataError
from cusa.gallery.items import column_of, items_table
from cusa.gallery.sources.folder import FolderSource
from cusa.gallery.sources.opening import Reading, open_source
from cusa.search.filters import rows_where


def everything(number):
    return True


def entries(source):
    return list(source.entries(everything))


def names(source):
    return [entry.item for entry in entries(source)]


def picture_bytes(shade=0, kind="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 2 * shade % 256, 50)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    for number, name in enumerate(["b.jpg", "a/2.PNG", "a/10.jpg", "a.jpg", "c/d/e.jpeg"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture_bytes(number))
    return folder


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def tars(tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"0000{shard}.tar", "w") as tar:
            for key in range(3):
                name = f"{shard}{key:03d}"
                metadata = {"caption": f"json {name}", "width": 8, "label": f"l{key % 2}", "exif": {"a": 1}}
                add(tar, f"{name}.jpg", picture_bytes(10 * shard + key))
                add(tar, f"{name}.json", json.dumps(metadata).encode())
                if key:
                    add(tar, f"{name}.txt", f"text {name}".encode())
    return tmp_path


class TestFolder:
    def test_pictures_come_in_the_order_of_sorted_paths(self, pictures):
        source = open_source(str(pictures))
        expected = [str(path.relative_to(pictures)) for path in sorted(pictures.rglob("*")) if path.is_file()]
        assert names(source) == expected == ["a/10.jpg", "a/2.PNG", "a.jpg", "b.jpg", "c/d/e.jpeg"]
        assert source.total == 5
        assert entries(source)[0].picture() == pictures / "a/10.jpg"

    def test_hidden_files_links_to_folders_and_other_files_are_left_out(self, pictures):
        for name in (".hidden.jpg", ".git/a.jpg", "@eaDir/a.jpg", "__MACOSX/a.jpg", "notes.txt"):
            (pictures / name).parent.mkdir(exist_ok=True)
            (pictures / name).write_bytes(picture_bytes())
        (pictures / "z").symlink_to(pictures / "a")
        (pictures / "link.jpg").symlink_to(pictures / "b.jpg")
        assert names(open_source(str(pictures))) == ["a/10.jpg", "a/2.PNG", "a.jpg", "b.jpg", "c/d/e.jpeg", "link.jpg"]

    def test_the_folder_that_is_written_is_none_of_the_pictures(self, pictures):
        (pictures / "out").mkdir()
        (pictures / "out/a.jpg").write_bytes(picture_bytes())
        assert open_source(str(pictures), output=pictures / "out").total == 5

    def test_a_name_that_is_no_text_is_an_unreadable_item(self, pictures):
        (pictures / os.fsdecode(b"\xff.jpg")).write_bytes(picture_bytes())
        found = entries(open_source(str(pictures)))[-1]
        assert "not UTF-8" in found.problem
        found.item.encode()

    def test_links_that_lead_nowhere_are_unreadable_items(self, pictures):
        (pictures / "circle.jpg").symlink_to("circle.jpg")
        (pictures / "circle").symlink_to("circle")
        (pictures / "gone.jpg").symlink_to("nowhere.jpg")
        (pictures / "long.jpg").symlink_to("x" * 300)
        (pictures / "through.jpg").symlink_to("b.jpg/x")
        source = open_source(str(pictures))
        added = {"circle.jpg", "gone.jpg", "long.jpg", "through.jpg"}
        assert set(names(source)) == added | {"a/10.jpg", "a/2.PNG", "a.jpg", "b.jpg", "c/d/e.jpeg"}
        assert source.total == 9
        for entry in entries(source):
            assert (check_image(entry.path, "decode").problem is not None) == (entry.item in added)

    @pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG, errno.EIO])
    def test_a_folder_that_cannot_be_read_is_an_unreadable_item(self, pictures, monkeypatch, number):
        scandir = os.scandir

        def refuse(folder):
            if folder.endswith("/c"):
                raise OSError(number, os.strerror(number), folder)
            return scandir(folder)

        monkeypatch.setattr("cusa.gallery.sources.folder.os.scandir", refuse)
        *sound, last = entries(open_source(str(pictures)))
        assert [entry.item for entry in sound] == ["a/10.jpg", "a/2.PNG", "a.jpg", "b.jpg"]
        assert (last.item, last.path) == ("c/", None)
        assert last.problem.startswith(f"this folder cannot be read ({os.strerror(number)}); give yourself the right")

    def test_tars_beside_a_folder_that_cannot_be_read_are_found(self, tars, monkeypatch):
        (tars / "lost+found").mkdir()
        scandir = os.scandir

        def refuse(folder):
            if str(folder).endswith("lost+found"):
                raise PermissionError(errno.EACCES, "Permission denied", folder)
            return scandir(folder)

        monkeypatch.setattr("cusa.gallery.sources.folder.os.scandir", refuse)
        assert len(names(open_source(str(tars)))) == 6

    def test_folders_lie_in_each_other_to_any_depth(self, tmp_path):
        name = "d/" * 400 + "a.jpg"
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(picture_bytes())
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(300)
        try:
            assert names(open_source(str(tmp_path))) == [name]
        finally:
            sys.setrecursionlimit(before)

    def test_a_change_is_noticed(self, pictures):
        before = open_source(str(pictures)).describe()
        assert open_source(str(pictures)).describe() == before
        (pictures / "b.jpg").write_bytes(picture_bytes() + b" ")
        assert open_source(str(pictures)).describe() != before

    def test_a_folder_without_pictures_is_a_sentence(self, tmp_path):
        with pytest.raises(DataError, match="has no picture"):
            open_source(str(tmp_path))


class TestTable:
    def table(self, folder, name="t.csv"):
        rows = ["file,caption,label", "b.jpg,one,x", "a.jpg,two,y", "b.jpg,three,x", "gone.jpg,four,z", ",five,z"]
        (folder / name).write_text("\n".join(rows) + "\n")
        return folder / name

    def test_each_picture_comes_once_with_the_captions_of_all_its_rows(self, pictures):
        source = open_source(str(self.table(pictures)))
        found = entries(source)
        assert source.total == len(found) == 4
        assert [entry.item for entry in found[:3]] == ["b.jpg", "a.jpg", "gone.jpg"]
        assert [entry.captions for entry in found[:2]] == [["one", "three"], ["two"]]
        assert [entry.columns for entry in found[:2]] == [{"label": "x"}, {"label": "y"}]
        assert found[0].path == str(pictures / "b.jpg")
        assert "has no name of a picture" in found[3].problem

    def test_columns_are_found_or_named(self, pictures, tmp_path):
        rows = [{"where": "b.jpg", "alt": "cap", "title": "a longer text of words", "n": 3, "more": {"a": [1]}}]
        (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows * 2)))
        found = entries(open_source(str(tmp_path / "t.jsonl"), Reading(image_root=pictures)))
        assert (found[0].item, found[0].captions) == ("b.jpg", ["a longer text of words"])
        assert found[0].columns == {"alt": "cap", "n": 3, "more": '{"a": [1]}'}
        named = Reading(image_column="where", text_column="alt", image_root=pictures)
        assert entries(open_source(str(tmp_path / "t.jsonl"), named))[0].captions == ["cap"]

    def test_paths_of_another_machine_lose_their_start(self, pictures):
        names = [f"/home/me/pictures/{name}" for name in ("a.jpg", "b.jpg", "a/10.jpg")]
        (pictures / "t.csv").write_text("\n".join(["image,caption", *(f"{name},a text" for name in names)]))
        source = open_source(str(pictures / "t.csv"))
        assert [entry.path for entry in entries(source)] == [
            str(pictures / name) for name in ("a.jpg", "b.jpg", "a/10.jpg")
        ]
        assert source.describe()["image_prefix"] == "/home/me/pictures"

    def test_captions_that_are_no_texts_are_told_and_missing_ones_are_none(self, pictures, caplog):
        captions = ["a text", None, float("nan"), 5, ["one", None], "\ud800"]
        images = ["a.jpg", "b.jpg", "a/10.jpg", "a/2.PNG", "c/d/e.jpeg", "c/d/e.jpeg"]
        rows = [{"image": image, "caption": caption} for image, caption in zip(images, captions, strict=True)]
        (pictures / "t.json").write_text(json.dumps(rows))
        found = entries(open_source(str(pictures / "t.json")))
        assert [entry.captions for entry in found] == [["a text"], [], [], [], []]
        (line,) = [record.getMessage() for record in caplog.records]
        assert "the captions of 3 rows are not texts and are left out" in line
        assert "`caption`" in line

    def test_lists_of_texts_stay_lists_for_filters(self, pictures):
        rows = [{"image": "a.jpg", "tags": ["red", "new"], "box": [1, 2]}, {"image": "b.jpg", "tags": [], "box": None}]
        pq.write_table(pa.Table.from_pylist(rows), pictures / "t.parquet")
        columns = [entry.columns for entry in entries(open_source(str(pictures / "t.parquet")))]
        assert [row["tags"] for row in columns] == [["red", "new"], []]
        assert [row["box"] for row in columns] == ["[1, 2]", None]
        table = items_table(["a", "b"], columns={"tags": [row["tags"] for row in columns]})
        assert rows_where(table, {"tags": "new"}).tolist() == [True, False]
        assert column_of([["red", "new"], "old", None]).to_pylist() == ['["red", "new"]', "old", None]

    @pytest.mark.parametrize("name", ["t.tsv", "t.json", "t.parquet"])
    def test_every_kind_of_table_is_read(self, pictures, name):
        rows = [{"image": f"{item}.jpg", "caption": f"a picture {item}", "n": number} for number, item in
                enumerate("ba")]  # fmt: skip
        if name == "t.tsv":
            lines = ["image\tcaption\tn", *("\t".join(map(str, row.values())) for row in rows)]
            (pictures / name).write_text("\n".join(lines))
        elif name == "t.json":
            (pictures / name).write_text(json.dumps(rows))
        else:
            pq.write_table(pa.Table.from_pylist(rows), pictures / name)
        found = entries(open_source(str(pictures / name)))
        assert [(entry.item, entry.captions) for entry in found] == [
            ("b.jpg", ["a picture b"]),
            ("a.jpg", ["a picture a"]),
        ]
        assert [str(entry.columns["n"]) for entry in found] == ["0", "1"]

    def test_a_table_without_a_heading_has_numbered_columns(self, pictures):
        (pictures / "t.csv").write_text("b.jpg,a first caption\na.jpg,a second caption\n")
        with pytest.raises(DataError, match=r"has no heading.*use --no-heading.*--image-column 0"):
            open_source(str(pictures / "t.csv"))
        found = entries(open_source(str(pictures / "t.csv"), Reading(heading=False, image_column="0")))
        assert [(entry.item, entry.captions) for entry in found] == [
            ("b.jpg", ["a first caption"]),
            ("a.jpg", ["a second caption"]),
        ]

    def test_columns_that_are_not_there_are_a_sentence(self, pictures):
        table = self.table(pictures)
        with pytest.raises(ConfigurationError, match="--image-column is `x`, but .* has the columns file, caption"):
            open_source(str(table), Reading(image_column="x"))
        (pictures / "n.csv").write_text("a,b\n1,2\n3,4\n")
        with pytest.raises(ConfigurationError, match="none of which holds names of pictures; name it with --image-col"):
            open_source(str(pictures / "n.csv"))

    def test_a_changed_table_is_noticed(self, pictures):
        table = self.table(pictures)
        before = open_source(str(table)).describe()
        table.write_text(table.read_text().replace("two", "new"))
        assert open_source(str(table)).describe() != before


class TestTars:
    def test_pictures_captions_and_metadata_are_found(self, tars):
        source = open_source(str(tars))
        found = entries(source)
        assert [entry.item for entry in found[:4]] == [
            *("00000.tar/0000.jpg", "00000.tar/0001.jpg", "00000.tar/0002.jpg", "00001.tar/1000.jpg"),
        ]
        assert [entry.captions for entry in found[:2]] == [["json 0000"], ["text 0001"]]
        assert found[0].columns == {"width": 8, "label": "l0"}
        assert found[1].picture() == picture_bytes(1)
        assert found[4].path == str(tars / "00001.tar")

    @pytest.mark.parametrize("pattern", ["{00000..00001}.tar", "0000?.tar"], ids=["braces", "glob"])
    def test_patterns_name_tars(self, tars, pattern):
        assert len(names(open_source(f"{tars}/{pattern}"))) == 6

    def test_one_tar_and_a_caption_key(self, tars):
        found = entries(open_source(str(tars / "00001.tar"), Reading(text_column="caption")))
        assert [entry.captions for entry in found] == [["json 1000"], ["json 1001"], ["json 1002"]]

    def test_compressed_tars_give_the_bytes(self, tars):
        with tarfile.open(tars / "packed.tar.gz", "w:gz") as tar:
            add(tar, "a.jpg", picture_bytes(7))
            add(tar, "a.txt", b"seven")
        (found,) = entries(open_source(str(tars / "packed.tar.gz")))
        assert (found.content, found.path, found.captions) == (picture_bytes(7), None, ["seven"])

    def test_a_tar_that_was_cut_off_gives_its_sound_pictures_and_a_problem(self, tars):
        content = (tars / "00000.tar").read_bytes()
        (tars / "00000.tar").write_bytes(content[: len(content) // 3 // 512 * 512])
        found = entries(open_source(str(tars)))
        problems = [entry for entry in found if entry.problem]
        assert [entry.item for entry in problems] == ["00000.tar"]
        assert names(open_source(str(tars)))[-3:] == [f"00001.tar/100{key}.jpg" for key in range(3)]

    def test_a_tar_that_is_missing_is_a_sentence(self, tars):
        with pytest.raises(DataError, match=r"00002.tar: the file does not exist"):
            open_source(f"{tars}/{{00000..00002}}.tar")

    def test_broken_captions_do_not_cost_the_picture_and_are_counted(self, tmp_path, caplog):
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            add(tar, "a.jpg", picture_bytes(1))
            add(tar, "a.json", b"{")
            add(tar, "b.txt", b"no picture")
            add(tar, "c.jpg", picture_bytes(2))
            add(tar, "c.txt", b"\xff")
            add(tar, "d.jpg", picture_bytes(3))
            add(tar, "d.json", b'{"caption": 5}')
            add(tar, "e.jpg", picture_bytes(4))
            add(tar, "e.json", b'{"caption": null}')
        found = entries(open_source(str(tmp_path / "a.tar")))
        assert [(entry.item, entry.captions, entry.problem) for entry in found] == [
            ("a.tar/a.jpg", [], None),
            ("a.tar/c.jpg", [], None),
            ("a.tar/d.jpg", [], None),
            ("a.tar/e.jpg", [], None),
        ]
        assert (
            "3 captions or JSON files that cannot be read in the tars are left out; for instance, a.tar/a.json: "
            "Expecting property name" in caplog.text
        )
        assert (
            "1 texts without a picture beside them in the tars are left out; for instance, a.tar/b.txt" in caplog.text
        )

    def test_a_json_that_is_no_object_is_told(self, tmp_path, caplog):
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            add(tar, "a.jpg", picture_bytes(1))
            add(tar, "a.json", b"5")
        assert len(entries(open_source(str(tmp_path / "a.tar")))) == 1
        assert "a.tar/a.json: is a int, expected a JSON object" in caplog.text

    @pytest.mark.parametrize("ending", IMAGE_ENDINGS)
    def test_tars_and_folders_have_pictures_of_the_same_endings(self, tmp_path, ending, caplog):
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / f"a{ending}").write_bytes(picture_bytes(1))
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            add(tar, f"a{ending.upper()}", picture_bytes(1))
            add(tar, "a.txt", b"one")
        (found,) = entries(open_source(str(tmp_path / "a.tar")))
        assert (found.captions, found.picture()) == (["one"], picture_bytes(1))
        assert names(open_source(str(tmp_path / "folder"))) == [f"a{ending}"]
        assert "left out" not in caplog.text

    def test_masks_beside_a_picture_are_no_items(self, tmp_path, caplog):
        with tarfile.open(tmp_path / "t.tar", "w") as tar:
            for name in ("a.pgm", "a.jpg", "b.pgm", "c.jpg"):
                add(tar, name, picture_bytes(1))
        caplog.set_level(logging.INFO)
        assert names(open_source(str(tmp_path / "t.tar"))) == ["t.tar/a.jpg", "t.tar/b.pgm", "t.tar/c.jpg"]
        told = "1 files with endings of masks or depth beside a picture in the tars are left out; for instance, "
        assert f"{told}t.tar/a.pgm" in caplog.text

    def test_files_of_other_endings_are_counted_and_named(self, tmp_path, caplog):
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            add(tar, "a.jpg", picture_bytes(1))
            for name in ("a.cls", "b.cls", "b.jxl", "c"):
                add(tar, name, b"7")
        with caplog.at_level("INFO"):
            assert len(entries(open_source(str(tmp_path / "a.tar")))) == 1
        assert (
            "4 files whose endings are none of a picture, .txt or .json in the tars are left out (.cls, " in caplog.text
        )

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
    @pytest.mark.parametrize("ending", ["txt", "json"])
    def test_captions_have_any_encoding_that_they_are_marked_with(self, tmp_path, encoding, ending):
        text = "ein grünes 木" if ending == "txt" else json.dumps({"caption": "ein grünes 木"}, ensure_ascii=False)
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            add(tar, "a.jpg", picture_bytes(1))
            add(tar, f"a.{ending}", text.encode(encoding))
        (found,) = entries(open_source(str(tmp_path / "a.tar")))
        assert found.captions == ["ein grünes 木"]

    def test_a_name_that_a_tar_has_twice_is_a_problem(self, tmp_path):
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for shade in (1, 2):
                add(tar, "a.jpg", picture_bytes(shade))
                add(tar, "b.jpg", picture_bytes(shade))
        found = entries(open_source(str(tmp_path / "a.tar")))
        assert len({entry.item for entry in found}) == 4
        assert [entry.problem for entry in found] == [None, None, *["its tar has its name twice"] * 2]


class TestParquet:
    def write(self, folder, row_group=3):
        (folder / "beside.jpg").write_bytes(picture_bytes(99))
        rows = [{"bytes": picture_bytes(n), "path": f"{n}.jpg"} for n in range(7)]
        rows += [{"bytes": None, "path": "beside.jpg"}, {"bytes": None, "path": None}]
        table = pa.table({"image": rows, "text": [f"a caption {n}" for n in range(9)], "n": list(range(9))})
        pq.write_table(table, folder / "p.parquet", row_group_size=row_group)
        return folder / "p.parquet"

    def test_bytes_paths_and_rows_without_a_picture(self, tmp_path):
        source = open_source(str(self.write(tmp_path)))
        found = entries(source)
        assert source.total == 9
        assert [entry.item for entry in found[:2]] == ["p.parquet/0", "p.parquet/1"]
        assert found[3].content == picture_bytes(3)
        assert found[3].captions == ["a caption 3"]
        assert found[3].columns == {"n": 3}
        assert found[7].path == str(tmp_path / "beside.jpg")
        assert "has no picture" in found[8].problem

    @pytest.mark.parametrize("first", [b"\x00\x01 bytes", None])
    def test_bytes_that_are_no_pictures_are_no_column_of_pictures(self, tmp_path, caplog, first):
        table = {"bin": [first, b"no picture"], "image": [None, picture_bytes(1)], "caption": ["a", "b"]}
        pq.write_table(pa.table(table), tmp_path / "t.parquet")
        (tmp_path / "folder").mkdir()
        for number in range(2):
            pq.write_table(pa.table(table), tmp_path / f"folder/{number}.parquet")
        for place in ("t.parquet", "folder"):
            found = entries(open_source(str(tmp_path / place)))
            assert [entry.content for entry in found[:2]] == [None, picture_bytes(1)]
            assert [entry.captions for entry in found[:2]] == [["a"], ["b"]]
        assert "the bytes in `bin` are left out of the gallery" in caplog.text

    def test_pictures_that_come_after_many_rows_without_one_are_found(self, tmp_path):
        pictures = [None] * 30 + [picture_bytes(number) for number in range(3)]
        files = [f"{number}.jpg" for number in range(33)]
        thumbnails = [b"\0\1 no picture"] * 33
        pq.write_table(pa.table({"image": pictures, "file": files, "hash": thumbnails}), tmp_path / "t.parquet")
        found = entries(open_source(str(tmp_path / "t.parquet")))
        assert [entry.content for entry in found[30:]] == pictures[30:]

    def test_bytes_beside_names_of_pictures_are_left_out(self, pictures, caplog):
        rows = {"file": ["a.jpg", "b.jpg"], "embedding": [b"\1\2", b"\3\4"], "text": ["a", "b"]}
        pq.write_table(pa.table(rows), pictures / "t.parquet")
        found = entries(open_source(str(pictures / "t.parquet")))
        assert [(entry.item, entry.captions, entry.problem) for entry in found] == [
            ("a.jpg", ["a"], None),
            ("b.jpg", ["b"], None),
        ]
        assert "t.parquet: the bytes in `embedding` are left out of the gallery" in caplog.text

    def test_pictures_that_are_all_broken_are_unreadable_items(self, tmp_path):
        pq.write_table(pa.table({"image": [b"broken"] * 30, "caption": ["a"] * 30}), tmp_path / "t.parquet")
        assert [entry.content for entry in entries(open_source(str(tmp_path / "t.parquet")))] == [b"broken"] * 30

    def test_a_second_picture_of_a_row_is_not_kept_as_text(self, tmp_path, caplog):
        second = {"bytes": picture_bytes(2), "path": "x.jpg"}
        pq.write_table(pa.table({"image": [picture_bytes(1)], "second": [second]}), tmp_path / "t.parquet")
        (found,) = entries(open_source(str(tmp_path / "t.parquet"), Reading(image_column="image")))
        assert found.columns == {"second": '{"bytes": null, "path": "x.jpg"}'}
        assert "the bytes in `second` are left out of the gallery" in caplog.text

    def test_times_that_lose_nanoseconds_are_told(self, tmp_path, pictures, caplog):
        times = {
            "at": pa.array([1_000], pa.timestamp("ns")),
            "t": pa.array([1_000], pa.time64("ns")),
            "took": pa.array([[1_000]], pa.list_(pa.duration("ns"))),
            "fine": pa.array([1], pa.timestamp("us")),
        }
        says = "t.parquet: the times in `at`, `t`, `took` have nanoseconds; the gallery keeps them to the microsecond"
        pq.write_table(pa.table({"image": [picture_bytes(1)], **times}), tmp_path / "t.parquet")
        open_source(str(tmp_path / "t.parquet"))
        assert caplog.text.count(says) == 1
        pq.write_table(pa.table({"file": ["a.jpg"], "text": ["a"], **times}), pictures / "t.parquet")
        open_source(str(pictures / "t.parquet"))
        assert caplog.text.count(says) == 2
        open_source(str(pictures / "t.parquet"), Reading(texts="text"))
        assert caplog.text.count(says) == 3

    def test_rows_that_nobody_wants_are_passed(self, tmp_path):
        source = open_source(str(self.write(tmp_path)))
        found = list(source.entries(lambda number: number in (4, 8)))
        assert [number for number, entry in enumerate(found) if entry is not None] == [4, 8]
        assert found[4].content == picture_bytes(4)

    def test_a_folder_of_parquet_files(self, tmp_path):
        for name in ("x", "y"):
            pq.write_table(pa.table({"image": [picture_bytes(1)], "label": [name]}), tmp_path / f"{name}.parquet")
        assert names(open_source(str(tmp_path))) == ["x.parquet/0", "y.parquet/0"]


class TestSplit:
    def test_pictures_of_the_shards_with_the_captions_of_the_tables(self, shapes_data):
        from cusa.shards.reading import ShardReader

        source = open_source(str(shapes_data), Reading(splits=["test"]))
        found = entries(source)
        assert source.total == len(found) == 8
        assert all(len(entry.captions) == 2 and entry.in_shard for entry in found)
        assert {entry.columns["split"] for entry in found} == {"test"}
        assert found[3].item == found[3].columns["image_id"]
        assert found[3].picture() == ShardReader(shapes_data / "shards/test").encoded(3)

    def test_all_splits_and_those_that_are_none(self, shapes_data):
        assert open_source(str(shapes_data), Reading(splits=["all"])).total == 48
        with pytest.raises(ConfigurationError, match=r"has the splits .*, but not tset"):
            open_source(str(shapes_data), Reading(splits=["tset"]))
        with pytest.raises(ConfigurationError, match="say with --split which"):
            open_source(str(shapes_data))
        with pytest.raises(ConfigurationError, match="--split is for the results"):
            open_source(str(shapes_data / "annotations"), Reading(splits=["test"]))

    def test_captions_as_texts(self, shapes_data):
        source = open_source(str(shapes_data), Reading(splits=["test"], texts="caption"))
        assert source.modality == "text"
        assert source.total == 16


class TestTexts:
    def test_lines_come_once_and_blank_ones_never(self, tmp_path):
        (tmp_path / "t.txt").write_text("a dog\n\n  a cat \na dog\n")
        source = open_source(None, Reading(texts=str(tmp_path / "t.txt")))
        assert names(source) == ["a dog", "a cat"]
        assert source.total == 2

    def test_a_column_keeps_the_other_ones(self, tmp_path):
        (tmp_path / "t.csv").write_text("text,label\na dog,x\na cat,y\n")
        for items, how in (
            (str(tmp_path / "t.csv"), Reading(texts="text")),
            (None, Reading(texts=str(tmp_path / "t.csv"), text_column="text")),
        ):
            found = entries(open_source(items, how))
            assert [(entry.item, entry.columns) for entry in found] == [
                ("a dog", {"label": "x"}),
                ("a cat", {"label": "y"}),
            ]

    def test_what_is_not_there_or_not_clear_is_a_sentence(self, tmp_path):
        (tmp_path / "t.csv").write_text("text,label\na dog,x\n")
        with pytest.raises(ConfigurationError, match="name its column of texts with --text-column"):
            open_source(None, Reading(texts=str(tmp_path / "t.csv")))
        with pytest.raises(DataError, match="does not exist; --texts names a file"):
            open_source(None, Reading(texts=str(tmp_path / "gone.txt")))
        with pytest.raises(ConfigurationError, match="name what to embed"):
            open_source(None)


@pytest.mark.parametrize("name", ["c.tar", "c.tar.gz"])
def test_texts_of_a_tar_are_a_sentence(tars, name):
    (tars / "00000.tar").rename(tars / name)
    says = "c.tar.* is a tar, of which pictures are embedded, not texts; .*expected a table with the column `caption`"
    with pytest.raises(ConfigurationError, match=says):
        open_source(str(tars / name), Reading(texts="caption"))
    with pytest.raises(ConfigurationError, match="--texts names a file with a text per line"):
        open_source(None, Reading(texts=str(tars / name)))


def test_a_pipe_is_a_sentence_and_never_waits(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    pipe = str(tmp_path / "pipe.csv")
    for items, how in ((pipe, Reading()), (pipe, Reading(texts="caption")), (None, Reading(texts=pipe))):
        with pytest.raises(DataError, match="pipe.csv is a pipe, but is read more than once; write its content into"):
            open_source(items, how)


def test_other_things_are_sentences(tmp_path, pictures):
    with pytest.raises(DataError, match="does not exist"):
        open_source(str(tmp_path / "gone"))
    with pytest.raises(ConfigurationError, match="is one picture"):
        open_source(str(pictures / "b.jpg"))
    with pytest.raises(DataError, match="names no tar"):
        open_source(f"{tmp_path}/*.tar")


@pytest.mark.parametrize("kind", ["folder", "table", "tars", "parquet", "texts"])
def test_passed_entries_keep_the_numbers_of_the_others(kind, pictures, tars, tmp_path):
    how = Reading()
    match kind:
        case "folder":
            items = str(pictures)
        case "table":
            items = str(TestTable().table(pictures))
        case "tars":
            items = f"{tars}/*.tar"
        case "parquet":
            items = str(TestParquet().write(tmp_path))
        case "texts":
            (tmp_path / "t.txt").write_text("a\nb\na\nc\nd\ne\n")
            items, how = None, Reading(texts=str(tmp_path / "t.txt"))
    source = open_source(items, how)
    whole = names(source)
    assert source.total in (len(whole), None)
    chosen = np.random.default_rng(0).random(len(whole)) < 0.5
    found = list(source.entries(lambda number: bool(chosen[number])))
    assert [None if entry is None else entry.item for entry in found] == [
        item if chosen[number] else None for number, item in enumerate(whole)
    ]


def test_files_that_are_no_pictures_by_their_endings_are_counted_by_them(tmp_path, caplog):
    caplog.set_level("INFO")
    for name in ("0.jpg", "1.TGA", "2.tga", "3.psd", "noending"):
        (tmp_path / name).touch()
    assert FolderSource(tmp_path).total == 1
    (message,) = caplog.messages
    assert message.endswith("ignored 4 files that are not pictures by their endings (2 .tga, 1 .psd, 1 without one)")
