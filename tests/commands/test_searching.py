"""The command `cusa search`."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cusa import cli


def search(monkeypatch, capsys, *arguments: object) -> tuple[str, str]:
    """Standard output and standard error of the command, in this process, where torch is imported already."""
    monkeypatch.setattr(sys, "argv", ["cusa", "search", *map(str, arguments)])
    cli.main()
    return capsys.readouterr()


def refused(monkeypatch, capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        search(monkeypatch, capsys, *arguments)
    return str(stopped.value.code)


def process(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cusa.cli", "search", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_json_is_a_list_of_hits(monkeypatch, capsys, shapes_index, search_model, shapes_items):
    output, _ = search(monkeypatch, capsys, shapes_index, "a red circle", "--top", 3, "--json")
    hits = json.loads(output)
    scores = search_model.encode_text("a red circle") @ search_model.encode_image(shapes_items["path"].to_pylist()).T
    assert [hit["row"] for hit in hits] == (-scores[0]).argsort()[:3].tolist()
    assert hits[0]["score"] == pytest.approx(scores.max(), abs=1e-5)
    row = shapes_items.slice(hits[0]["row"], 1).to_pylist()[0]
    assert (hits[0]["item"], hits[0]["captions"], hits[0]["path"]) == (row["item"], row["captions"], row["path"])
    assert hits[0]["columns"] == {name: row[name] for name in ("split", "colour", "radius")}


def test_the_table_has_no_pictures_where_the_output_is_no_terminal(monkeypatch, capsys, shapes_index):
    output, _ = search(monkeypatch, capsys, shapes_index, "a red circle", "--top", 2)
    heading, *lines = output.splitlines()
    assert heading.split() == ["score", "row", "item", "captions"]
    assert [line.split()[0] for line in lines] == ["1", "2"]
    assert "\x1b" not in output
    output, _ = search(monkeypatch, capsys, shapes_index, "a red circle", "--top", 2, "--pictures", "always")
    assert "▀" in output


def test_every_part_of_a_query_on_the_command_line(monkeypatch, capsys, shapes_index, shapes_items):
    item, path = shapes_items["item"][4].as_py(), shapes_items["path"][4].as_py()

    def rows(*arguments: object) -> list[int]:
        return [hit["row"] for hit in json.loads(search(monkeypatch, capsys, shapes_index, *arguments, "--json")[0])]

    assert rows("--image", path)[0] == 4
    assert rows("--text", "a red circle") == rows("a red circle")
    assert rows("--text", "large", "--image", path, "--weight", "1") == rows("--image", path)
    assert rows("--text", "large", "--image", path, "--weight", "0") == rows("large")
    assert rows("--like", 4) == rows("--like", item)
    assert 4 not in rows("--like", 4)
    assert rows("red", "--not", "circle", "--not", "large") != rows("red")
    tested = rows("red", "--where", "split=test", "--where", "split=val", "--where", "radius>8", "--top", 48)
    items = shapes_items.to_pylist()
    expected = [row for row, each in enumerate(items) if each["split"] != "train" and each["radius"] == 20]
    assert sorted(tested) == expected


def test_a_picture_may_be_a_url_of_a_local_file(monkeypatch, capsys, shapes_index, shapes_items):
    address = Path(shapes_items["path"][4].as_py()).as_uri()
    hits = json.loads(search(monkeypatch, capsys, shapes_index, "--image", address, "--top", 1, "--json")[0])
    assert hits[0]["row"] == 4


def test_many_queries_are_a_line_of_json_each(monkeypatch, capsys, shapes_index, tmp_path):
    path = tmp_path / "queries.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "not"], ["a red circle", ""], ["a circle", "red"]])
    output, _ = search(monkeypatch, capsys, shapes_index, "--queries", path, "--json", "--top", 2)
    first, second = map(json.loads, output.splitlines())
    alone = json.loads(search(monkeypatch, capsys, shapes_index, "a red circle", "--json", "--top", 2)[0])
    assert first["query"] == {"text": "a red circle"}
    assert second["query"] == {"text": "a circle", "not": ["red"]}
    assert [hit["row"] for hit in first["results"]] == [hit["row"] for hit in alone]
    output, _ = search(monkeypatch, capsys, shapes_index, "--queries", path, "--top", 2)
    assert len(re.findall(r"^\s+score", output, flags=re.M)) == 2
    assert "text 'a circle', not ['red']" in output


def test_a_query_without_a_word_that_the_model_knows_is_told_once(monkeypatch, capsys, shapes_index):
    advice = "nothing: use words that it knows, or a model with a multilingual text side.\n"
    output, told = search(monkeypatch, capsys, shapes_index, "😀", "--json", "--top", 2)
    assert told == f"the model has no word for '😀', so the hits mean {advice}"
    assert [sorted(hit)[0] for hit in json.loads(output)] == ["captions", "captions"]
    assert search(monkeypatch, capsys, shapes_index, "😀", "--top", 1)[1] == told
    for known in ("a red circle", "red 😀"):
        assert search(monkeypatch, capsys, shapes_index, known, "--not", "blue", "--top", 1)[1] == ""
    _, told = search(monkeypatch, capsys, shapes_index, "red", "--not", "😀", "--not", "blue", "--not", "zebra")
    assert told == f"the model has no word for '😀' and 'zebra', so this part of the query means {advice}"
    _, told = search(monkeypatch, capsys, shapes_index, "zebra", "--like", 3, "--top", 1)
    assert told == f"the model has no word for 'zebra', so this part of the query means {advice}"


@pytest.mark.parametrize("broken", ["", "...\n"])
def test_unknown_texts_of_many_queries_are_told_with_their_numbers(monkeypatch, capsys, shapes_index, tmp_path, broken):
    path = tmp_path / "queries.txt"
    path.write_text(f"a red circle\n😀\n{broken}")
    try:
        output, told = search(monkeypatch, capsys, shapes_index, "--queries", path, "--json", "--top", 1)
    except SystemExit:
        output, told = capsys.readouterr()
    lines = [json.loads(line) for line in output.splitlines()]
    assert [list(line) for line in lines[:2]] == [["query", "results"], ["query", "results", "unknown_texts"]]
    assert lines[1]["unknown_texts"] == ["😀"]
    assert told.startswith("query 1: the model has no word for '😀', so the hits mean nothing: use words")
    assert told.count("no word for") == 1


def test_a_file_in_place_of_the_text_is_told(monkeypatch, capsys, shapes_index, shapes_items):
    picture = shapes_items["path"][0].as_py()
    said = refused(monkeypatch, capsys, shapes_index, picture)
    assert f"{picture} is a file. To search with a picture, write --image {picture}" in said
    assert search(monkeypatch, capsys, shapes_index, "--text", picture)[0]


def test_a_bad_query_among_many_is_reported_and_the_others_are_answered(monkeypatch, capsys, shapes_index, tmp_path):
    path = tmp_path / "queries.txt"
    path.write_text("a red circle\n...\na blue square\n")
    with pytest.raises(SystemExit) as stopped:
        search(monkeypatch, capsys, shapes_index, "--queries", path, "--json")
    assert "1 of 3 queries cannot be answered; the first is query 1" in str(stopped.value.code)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [list(line) for line in lines] == [["query", "results"], ["query", "error"], ["query", "results"]]
    assert "no word after clean-up" in lines[1]["error"]


def test_a_query_that_the_index_cannot_answer_stops_before_the_model_is_loaded(
    monkeypatch, capsys, shapes_index, tmp_path
):
    path = tmp_path / "queries.csv"
    path.write_text("like\n3\n99\n")
    message = refused(monkeypatch, capsys, shapes_index, "--queries", path, "--model", tmp_path / "none")
    assert "Query 1: There is no row 99" in message
    assert capsys.readouterr().out == ""


def test_nothing_found_says_why(monkeypatch, capsys, shapes_index):
    output, errors = search(monkeypatch, capsys, shapes_index, "red", "--where", "split=tset", "--json")
    assert json.loads(output) == []
    assert "no item satisfies --where. split has 'test', 'train', 'val'." in errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param([], "A query needs a text, a picture, or the row", id="no query"),
        pytest.param(["red", "--text", "blue"], "The text is given twice", id="two texts"),
        pytest.param(["red", "--queries", "a.txt"], "--queries takes the whole queries", id="file, text"),
        pytest.param(["red", "--top", "0"], "top is 0; expected a number", id="top 0"),
        pytest.param(["red", "--weight", "7"], "`weight` of a query is 7.0", id="weight 7"),
        pytest.param(["red", "--where", "split"], "'split' is not a condition", id="no condition"),
        pytest.param(["red", "--where", "splitt=test"], "did you mean 'split'", id="unknown column"),
        pytest.param(["--like", "x.jpg"], "no item 'x.jpg'", id="unknown item"),
        pytest.param(["--like", "48"], "no row 48", id="unknown row"),
        pytest.param(["--image", "missing.jpg"], "missing.jpg: the file does not exist", id="no picture"),
        pytest.param(["--queries", "missing.txt"], "missing.txt does not exist", id="no file of queries"),
        pytest.param(["red", "--model", "missing"], "missing does not exist; expected a run folder", id="no model"),
    ],
)
def test_what_is_wrong_is_a_sentence(monkeypatch, capsys, shapes_index, arguments, sentence):
    assert sentence.lower() in refused(monkeypatch, capsys, shapes_index, *arguments).lower()


def test_a_picture_that_is_gone_leaves_its_place_empty(monkeypatch, capsys, shapes_index, shapes_items, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = tmp_path / "out"
    shutil.copytree(shapes_index, out, symlinks=True)
    paths = [path if row else "/gone.jpg" for row, path in enumerate(shapes_items["path"].to_pylist())]
    place = shapes_items.column_names.index("path")
    pq.write_table(shapes_items.set_column(place, "path", pa.array(paths)), out / "items.parquet")
    output, errors = search(monkeypatch, capsys, out, "--like", 1, "--top", 47, "--pictures", "always")
    assert len(output.splitlines()) == 1 + 47 + 7
    output, errors = search(monkeypatch, capsys, out, "--like", 1, "--where", "item=" + shapes_items["item"][0].as_py())
    assert "gone.jpg" not in errors, "without pictures none is read"
    arguments = ["--like", 1, "--where", "item=" + shapes_items["item"][0].as_py(), "--pictures", "always"]
    output, errors = search(monkeypatch, capsys, out, *arguments)
    assert "no picture of " in errors
    assert "/gone.jpg" in errors
    assert "▀" not in output


def test_rows_are_searched_without_torch_and_pandas(shapes_index):
    code = (
        "import sys; from cusa import cli; sys.argv = ['cusa', 'search', sys.argv[1], '--like', '3', '--json'];"
        "cli.main(); sys.stderr.write(str(sorted({'torch', 'transformers', 'pandas', 'snakemake'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(shapes_index)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)
    assert done.stderr == "[]"


def test_a_reader_that_leaves_early_is_no_error(shapes_index, tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("like\n" + "3\n" * 2000)
    program = f"{sys.executable} -m cusa.cli search {shapes_index} --queries {path} --json | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_help_names_every_option(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["cusa", "search", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    output = capsys.readouterr().out
    for option in ("--image", "--text", "--weight", "--not", "--like", "--where", "--top", "--json", "--queries"):
        assert option in output
