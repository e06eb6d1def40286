"""Tables as people have them: captions in cells and columns, headings, names of splits, JSON of several shapes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cusa.annotations.sources.rows import captions_of, unpacked_cell
from cusa.annotations.sources.source import MalformedRow, Record
from cusa.annotations.sources.table import open_source
from cusa.annotations.table_rows import table_rows
from cusa.config.dataset import load_dataset
from cusa.config.dataset_tables import Columns
from cusa.errors import ConfigurationError, DataError

SHARES = {"val": 0.1, "test": 0.1}


def records(path: Path, **more) -> list[Record | MalformedRow]:
    if "split" not in more.get("columns", {}):
        more.setdefault("held_out", SHARES)
    dataset = load_dataset({"name": "d", "format": "table", "file": str(path), **more})
    return list(open_source(dataset, path.parent).records())


def pairs(path: Path, **more) -> list[tuple[str, str]]:
    found = records(path, **more)
    assert not [row for row in found if isinstance(row, MalformedRow)]
    return [(Path(row.image_path).name, row.caption) for row in found]


def written(folder: Path, text: str, name: str = "t.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20), min_size=1)


@settings(max_examples=80, deadline=None)
@given(texts=TEXTS, write=st.sampled_from([json.dumps, repr, lambda texts: json.dumps([{"raw": t} for t in texts])]))
def test_lists_in_cells_are_read_as_they_were_written(texts, write):
    value = unpacked_cell(write(texts))
    assert [member["raw"] if isinstance(member, dict) else member for member in value] == texts


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("['a dog' 'a cat']", ["a dog", "a cat"]),
        ("['a dog'\n 'it\\'s a cat']", ["a dog", "it's a cat"]),
        ("['a dog' ... 'a cat']", None),
        ("['a dog, 'a cat']", None),
        ("[a dog]", "[a dog]"),
        ("a [b]", "a [b]"),
        ("[]", []),
    ],
)
def test_lists_of_numpy_and_what_only_looks_like_a_list(cell, value):
    assert unpacked_cell(cell) == value


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_five_captions_in_one_cell(tmp_path, ending):
    rows = [{"image": f"{n}.jpg", "caption": json.dumps([f"caption {k} of {n}" for k in range(5)])} for n in range(3)]
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ending in ("csv", "tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if ending == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text(json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows)))
    assert pairs(path) == [(f"{n}.jpg", f"caption {k} of {n}") for n in range(3) for k in range(5)]


@pytest.mark.parametrize(("speaker", "text", "answers"), [("from", "value", "gpt"), ("role", "content", "assistant")])
@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet"])
def test_the_answers_of_a_conversation_are_captions(tmp_path, ending, speaker, text, answers):
    said = [("human", "<image>\nDescribe it."), (answers, "A dog."), ("human", "Where?"), (answers, "On a sofa.")]
    rows = [{"image": f"{n}.jpg", "talk": [{speaker: who, text: what} for who, what in said]} for n in range(2)]
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows)))
    columns = {"image": "image", "caption": "talk"}
    assert pairs(path, columns=columns) == [(f"{n}.jpg", a) for n in range(2) for a in ("A dog.", "On a sofa.")]


def test_a_conversation_without_an_answer_has_an_empty_caption(tmp_path):
    rows = [{"image": "0.jpg", "talk": [{"from": "human", "value": "Describe it."}]}]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(rows))
    assert pairs(path, columns={"image": "image", "caption": "talk"}) == [("0.jpg", "")]


def test_captions_in_several_columns_some_of_them_empty(tmp_path):
    path = written(tmp_path, "image,c0,c1\na.jpg,a dog,a hound\nb.jpg,,a cat\nc.jpg,,\n")
    found = pairs(path, columns={"caption": ["c0", "c1"]})
    assert found == [("a.jpg", "a dog"), ("a.jpg", "a hound"), ("b.jpg", "a cat"), ("c.jpg", "")]
    path = written(tmp_path, '{"image": "a.jpg", "c0": "a dog", "c1": null}\n{"image": "b.jpg", "c0": "x"}', "t.jsonl")
    assert pairs(path, columns={"caption": ["c0", "c1"]}) == [("a.jpg", "a dog"), ("b.jpg", "x")]


def test_columns_by_number_with_and_without_a_heading(tmp_path):
    bare = written(tmp_path, "a.jpg,a dog\nb.jpg,a cat\n")
    columns = {"image": 0, "caption": 1}
    assert pairs(bare, heading=False, columns=columns) == [("a.jpg", "a dog"), ("b.jpg", "a cat")]
    with pytest.raises(DataError, match="has no heading, it seems: its first row is a.jpg, a dog"):
        records(bare, columns=columns)
    twice = written(tmp_path, "image,caption,caption\na.jpg,x,y\n")
    assert pairs(twice, columns={"image": "image", "caption": 2}) == [("a.jpg", "y")]
    with pytest.raises(DataError, match="has the columns image, caption, caption, but not dataset.columns.caption `7`"):
        records(twice, columns={"caption": 7})


def test_ids_without_endings_are_completed(tmp_path):
    path = written(tmp_path, "image,caption\n12,a dog\n")
    assert pairs(path, image_name="COCO_{:0>6}.jpg") == [("COCO_000012.jpg", "a dog")]
    path = written(tmp_path, '[{"image": 12.0, "caption": "a dog"}]', "t.json")
    assert pairs(path, image_name="{}.png") == [("12.png", "a dog")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a.jpg": ["x", "y"], "b.jpg": "z"}, [("a.jpg", "x"), ("a.jpg", "y"), ("b.jpg", "z")]),
        ({"a.jpg": {"caption": "x", "n": 1}}, [("a.jpg", "x")]),
        ([{"image": "a.jpg", "caption": [{"raw": "x"}, {"caption": "y"}]}], [("a.jpg", "x"), ("a.jpg", "y")]),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_shapes_of_json(tmp_path, content, expected, indent):
    assert pairs(written(tmp_path, json.dumps(content, indent=indent), "t.json")) == expected


def test_one_json_object_of_something_else_is_a_sentence(tmp_path):
    content = {"images": [{"id": 1}], "annotations": []}
    with pytest.raises(DataError, match="is one JSON object that starts with the key `images`"):
        records(written(tmp_path, json.dumps(content), "t.json"))


def test_names_of_splits(tmp_path):
    names = {
        "train": ["Training", "trn", "restval", "train2017"],
        "val": ["validation", "DEV"],
        "test": ["testing"],
    }
    rows = [(name, split) for split, members in names.items() for name in members]
    path = written(tmp_path, "image,caption,s\n" + "".join(f"{n}.jpg,x,{name}\n" for n, (name, _) in enumerate(rows)))
    assert [row.split for row in records(path, columns={"split": "s"})] == [split for _, split in rows]


def test_other_names_of_splits_are_asked_about_and_counted(tmp_path):
    text = "image,caption,s\n" + "".join(f"{n}.jpg,x,{'train' if n < 6 else 'holdout'}\n" for n in range(10))
    path = written(tmp_path, text + "y.jpg,x,dev\nz.jpg,x,eval\n")
    found = [row for row in records(path, columns={"split": "s"}) if isinstance(row, MalformedRow)]
    assert {row.kind for row in found} == {"unknown_split"}
    assert "4 rows with `holdout` in `s`" in found[0].reason
    assert "1 rows with `eval` in `s`" in found[1].reason
    assert "beside `dev`, so it may mean test" in found[1].reason
    said = records(path, columns={"split": "s"}, split_names={"holdout": "skip", "eval": "test"})
    assert [row.split for row in said] == ["train"] * 6 + ["val", "test"]


def test_a_missing_split_is_drawn_from_train_only_where_this_is_said(tmp_path):
    text = "image,caption,s\n" + "".join(f"{n}.jpg,x,{'train' if n < 90 else 'test'}\n" for n in range(100))
    path = written(tmp_path, text)
    assert {row.split for row in records(path, columns={"split": "s"})} == {"train", "test"}
    drawn = [row.split for row in records(path, columns={"split": "s"}, held_out={"val": 0.2})]
    assert drawn[90:] == ["test"] * 10
    assert 8 < drawn[:90].count("val") < 28
    assert "test" not in drawn[:90]


SOUND = '{"image": "a.jpg", "caption": "x"}\n'
ROW = st.fixed_dictionaries(
    {"image": st.sampled_from(["a.jpg", "", None, 3]), "caption": st.none() | st.floats() | st.text(max_size=5)}
) | st.sampled_from([None, [], "x", 7, {}])


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=6), lines=st.booleans())
def test_every_row_of_json_is_a_record_or_a_malformed_row(tmp_path_factory, rows, lines):
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    path.write_text(SOUND * 2 + "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))
    assert len(records(path)) == len(rows) + 2 * lines


@settings(max_examples=120, deadline=None)
@given(data=st.binary(max_size=60), name=st.sampled_from(["m.csv", "m.tsv", "m.jsonl", "m.json", "m.txt", "m.parquet"]))
def test_mangled_files_are_rows_or_a_sentence(tmp_path_factory, data, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data if name != "m.csv" else b"image,caption\n" + data)
    try:
        records(path)
    except DataError as error:
        assert str(path) in str(error)


def test_an_object_of_rows_keeps_the_image_that_each_row_names(tmp_path):
    rows = {str(number): {"image": f"{number + 5}.jpg", "caption": "a dog"} for number in range(3)}
    assert pairs(written(tmp_path, json.dumps(rows), "t.json")) == [(f"{n}.jpg", "a dog") for n in (5, 6, 7)]


def test_a_line_with_a_key_twice_is_a_malformed_row(tmp_path):
    lines = ['{"image": "1.jpg", "caption": "a dog"}', '{"image": "2.jpg", "caption": "a dog", "caption": "a cat"}']
    found = records(written(tmp_path, "\n".join(lines), "t.jsonl"))
    assert [type(row) for row in found] == [Record, MalformedRow]
    assert found[1].reason == "is not valid JSON, or has a key twice with two values"


def test_blanks_on_both_sides_of_a_separator_are_no_part_of_a_cell(tmp_path):
    text = "image | number | caption\na.jpg | 0 | Two men .\nb.jpg | 1 | A dog .\n"
    assert pairs(written(tmp_path, text)) == [("a.jpg", "Two men ."), ("b.jpg", "A dog .")]


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ("('a dog', 'a hound')", ["a dog", "a hound"]),
        ("('it\\'s', \"a, b\", )", ["it's", "a, b"]),
        ("('a dog',)", ["a dog"]),
        ("('a dog')", ["('a dog')"]),
        ("(a dog), (a hound)", ["(a dog), (a hound)"]),
        ("('a dog', x)", ["('a dog', x)"]),
        ("(", ["("]),
    ],
)
def test_a_tuple_of_texts_is_captions_and_other_brackets_are_text(tmp_path, cell, captions):
    path = written(tmp_path, "image\tcaption\n" + f"a.jpg\t{cell}\nb.jpg\tx\n", "t.tsv")
    found = records(path, separator="\t", quotes=False)
    assert [row.caption for row in found] == [*captions, "x"]


def rows_of(folder: Path, content: object, columns: Columns | None = None) -> list[object]:
    """The rows of a JSON file with this content, or with this text."""
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "my rows.json").write_text(text)
    return [row for _, row in table_rows(folder / "my rows.json", columns)]


@pytest.mark.parametrize("key", ["0.jpg", "0001"])
@pytest.mark.parametrize("captions", ["captions", "sentences", "raw"])
def test_objects_with_captions_may_be_keyed_by_image(tmp_path, key, captions):
    value = {captions: ["a dog", "a hound"], "split": "train"}
    assert rows_of(tmp_path, {key: value}) == [{"image": key, **value}]


@pytest.mark.parametrize("key", ["0", "000000391895", "COCO_val2014_000000391895", "0.jpg"])
@pytest.mark.parametrize("caption", ["a photo", ["a photo", "a picture"]])
def test_captions_may_be_keyed_by_the_number_of_their_image(tmp_path, key, caption):
    assert rows_of(tmp_path, {key: caption}, Columns()) == [{"image": key, "caption": caption}]


def test_an_image_whose_object_has_no_captions_is_told_by_its_keys(tmp_path):
    (row,) = rows_of(tmp_path, {"0.jpg": {"width": 3}}, Columns())
    assert captions_of(row, ["caption"])[1] == "has no `caption` (its keys: image, width)"


def test_lists_in_lines_are_rows_that_are_no_objects(tmp_path):
    rows = rows_of(tmp_path, '["0.jpg", "a dog"]\n["1.jpg", "a cat"]\n')
    assert len(rows) == 2
    assert all("is a list of cells without the names of their columns" in row.reason for row in rows)
    assert rows_of(tmp_path, '[{"image": "0.jpg"},\n\n{"image": "1.jpg"}]') == [{"image": "0.jpg"}, {"image": "1.jpg"}]


@pytest.mark.parametrize("separator", ['"', "\n", "\r", "\0"])
def test_what_no_csv_has_between_cells_is_refused_with_the_configuration(tmp_path, separator):
    with pytest.raises(ConfigurationError, match=r"cannot stand between cells; write for instance ';'"):
        records(written(tmp_path, "image,caption\n0.jpg,a dog\n"), separator=separator)


def test_a_separator_that_the_heading_does_not_have_is_told(tmp_path):
    with pytest.raises(DataError, match=r"one column, `image,caption`.*, or dataset.separator, the character between"):
        records(written(tmp_path, "image,caption\n0.jpg,a dog\n"), separator=";")


@pytest.mark.parametrize(
    "text",
    [
        "| image | caption |\n|-------|:-------:|\n| 0.jpg | a dog |\n",
        "image | caption\n--- | ---\n0.jpg | a dog\n",
        " image | caption \n-------+---------\n 0.jpg | a dog\n",
    ],
)
def test_the_rule_below_a_heading_of_markdown_is_told_and_no_image(tmp_path, text):
    (tmp_path / "t.md").write_text(text)
    with pytest.raises(DataError, match=r"t.md, line 2 is a rule below the heading, .* write the table as CSV"):
        list(table_rows(tmp_path / "t.md"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.txt", "- image: 0.jpg\n  caption: a dog\n"),
        ("rows.yaml", "# mine\n---\n- image: 0.jpg\n  caption: a dog\n"),
        ("rows.yml", "pics/0.jpg: a dog, and a cat\npics/1.jpg: a cat\n"),
        ("rows.yaml", "pics/0.jpg:\n  - a dog\n"),
    ],
)
def test_yaml_is_told_with_what_makes_json_of_it(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="is YAML, it seems; write the rows as JSON or CSV"):
        list(table_rows(tmp_path / name))


def test_tables_that_only_start_like_yaml_are_read(tmp_path):
    (tmp_path / "rows.yaml").write_text("image,caption\n0.jpg,note: a dog\n")
    (tmp_path / "rows.csv").write_text("- image: x,caption\n0.jpg,a dog\n")
    assert [len(list(table_rows(tmp_path / name))) for name in ("rows.yaml", "rows.csv")] == [1, 1]


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_the_image_may_be_the_only_name_in_a_list(tmp_path, ending):
    """As chats with pictures have it (LLaMA-Factory, ms-swift)."""
    names = [["0.jpg"], ["1.jpg", "2.jpg"], "3.jpg", []]
    path = tmp_path / f"t.{ending}"
    if ending == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["images", "text"], *([str(name), "a dog"] for name in names)])
    else:
        path.write_text("\n".join(json.dumps({"images": name, "text": "a dog"}) for name in names))
    columns = {"image": "images", "caption": "text"}
    section = {
        "name": "t",
        "format": "table",
        "file": str(path),
        "columns": columns,
        "held_out": {"val": 0.1, "test": 0.1},
    }
    records = list(open_source(load_dataset(section), tmp_path / "images").records())
    read = [record.image_id for record in records if isinstance(record, Record)]
    assert [name for name in read if not name.startswith("[")] == ["0.jpg", "3.jpg"]
    if ending == "jsonl":
        odd = [record.reason for record in records if isinstance(record, MalformedRow)]
        assert odd == ["has a list for `images`, expected text"] * 2


def test_a_heading_of_one_cell_above_rows_of_several_may_be_a_remark(tmp_path):
    (tmp_path / "t.csv").write_text("# exported in 2024\nimage,caption\n0.jpg,a dog\n")
    ((_, odd), _) = table_rows(tmp_path / "t.csv")
    assert isinstance(odd, MalformedRow)
    assert (
        "the heading is `# exported in 2024`; if that is a title or a remark, remove the lines above it" in odd.reason
    )


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_an_empty_cell_of_the_split_column_means_what_split_names_say(tmp_path, ending):
    rows = [{"image": f"{n}.jpg", "caption": "a dog", "split": split} for n, split in enumerate(["test", None, "val"])]
    path = tmp_path / f"t.{ending}"
    if ending == "csv":
        path.write_text("image,caption,split\n" + "".join(f"{','.join(map(str, row.values()))}\n" for row in rows))
        path.write_text(path.read_text().replace("None", ""))
    elif ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    section = {"name": "t", "format": "table", "file": str(path), "columns": {"split": "split"}}
    for meaning, splits in ({"": "train"}, ["test", "train", "val"]), ({"": "skip"}, ["test", "val"]):
        records = list(open_source(load_dataset(section | {"split_names": meaning}), tmp_path / "images").records())
        assert [record.split for record in records if isinstance(record, Record)] == splits
        assert not any(isinstance(record, MalformedRow) for record in records)
    (odd,) = [r for r in open_source(load_dataset(section), tmp_path / "i").records() if isinstance(r, MalformedRow)]
    assert "`split`" in odd.reason


def test_a_negative_number_of_a_column_is_told(tmp_path):
    (tmp_path / "t.csv").write_text("image,caption\n0.jpg,a dog\n")
    with pytest.raises(DataError, match="has the columns image, caption, but not dataset.columns.image `-1`; correct"):
        list(table_rows(tmp_path / "t.csv", Columns(image=-1)))
