"""The API of `cusa serve` on an index of real embeddings by a tiny model."""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import SMALL, client_of, png

from cusa.search.query import Query
from cusa.search.searcher import Searcher
from cusa.serve.search_request import fields_of_url
from cusa.serve.settings import Settings

SEARCH = "/api/search"


@pytest.fixture(scope="module")
def client(shapes_index):
    with client_of(shapes_index, shapes_index) as found:
        yield found


@pytest.fixture(scope="module")
def careful(shapes_index):
    """A client of a server with small limits."""
    with client_of(shapes_index, settings=Settings(limits=SMALL)) as found:
        yield found


@pytest.fixture(scope="module")
def searcher(shapes_index) -> Searcher:
    return Searcher.open(shapes_index, device="cpu")


def rows(answer) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [result["row"] for result in answer.json()["results"]]


def expected(searcher: Searcher, query: Query, top: int = 5, **options) -> list[int]:
    return [hit.row for hit in searcher.search([query], top, **options)[0]]


def test_a_text_finds_what_the_searcher_finds(client, searcher):
    answer = client.get(SEARCH, params={"q": "a large red circle", "top": 5})
    assert rows(answer) == expected(searcher, Query("a large red circle"))
    found = answer.json()
    (hits,) = searcher.search([Query("a large red circle")], 5)
    assert [result["score"] for result in found["results"]] == pytest.approx([hit.score for hit in hits], abs=1e-5)
    assert [result["item"] for result in found["results"]] == [hit.item for hit in hits]
    first = found["results"][0]
    assert first["captions"] == list(hits[0].captions)
    assert first["columns"] == hits[0].columns
    assert (first["width"], first["height"]) == (64, 48)
    assert found["total"] == 48
    assert found["milliseconds"] > 0
    assert found["query"]["q"] == "a large red circle"


def test_top_is_twenty_where_nothing_is_said(client):
    assert len(rows(client.get(SEARCH, params={"q": "red"}))) == 20


def test_texts_that_are_excluded_change_the_results_as_in_the_library(client, searcher):
    answer = client.get(SEARCH, params={"q": "a circle", "not": ["red", "blue"], "top": 5})
    assert rows(answer) == expected(searcher, Query("a circle", exclude=("red", "blue")))


def test_more_like_a_row_leaves_it_out_and_says_what_it_is(client, searcher):
    answer = client.get(SEARCH, params={"like": 7, "top": 5})
    assert rows(answer) == expected(searcher, Query(like=7))
    like = answer.json()["query"]["like"]
    assert (like["row"], like["score"]) == (7, None)
    by_name = client.get(SEARCH, params={"like_item": like["item"], "top": 5})
    assert rows(by_name) == rows(answer)


def test_texts_that_the_model_does_not_know_are_told(client):
    fields = ["query", "results", "answers", "total", "fingerprint", "milliseconds"]
    found = client.get(SEARCH, params={"q": "😀", "top": 2}).json()
    assert list(found) == [*fields, "unknown_texts"]
    assert found["unknown_texts"] == ["😀"]
    assert len(found["results"]) == 2
    for known in ({"q": "a red circle"}, {"q": "red 😀"}, {"like": 3}, {"filter.colour": "green"}):
        assert list(client.get(SEARCH, params=known | {"top": 1}).json()) == fields
    found = client.get(SEARCH, params={"q": "zebra", "not": ["red", "😀"], "index": "other"}).json()
    assert found["unknown_texts"] == ["zebra", "😀"]
    found = client.post(SEARCH, files={"file": png()}, data={"q": "😀"}).json()
    assert found["unknown_texts"] == ["😀"]


def test_filters_are_alternatives_in_a_column_and_all_columns_must_fit(client, shapes_items):
    fields = {"q": "circle", "top": 48, "filter.colour": ["red", "blue"], "filter.radius": "8"}
    answer = client.get(SEARCH, params=fields)
    wanted = [
        row
        for row, item in enumerate(shapes_items.to_pylist())
        if item["colour"] in ("red", "blue") and item["radius"] == 8
    ]
    assert sorted(rows(answer)) == wanted
    assert answer.json()["total"] == len(wanted)
    assert answer.json()["query"]["filters"] == {"colour": ["blue", "red"], "radius": ["8"]}


def test_without_a_query_the_first_items_that_pass_are_listed(client, shapes_items):
    answer = client.get(SEARCH, params={"filter.colour": "green", "top": 3})
    green = [row for row, colour in enumerate(shapes_items["colour"].to_pylist()) if colour == "green"]
    assert rows(answer) == green[:3]
    assert {result["score"] for result in answer.json()["results"]} == {None}


def test_a_picture_alone_and_with_a_text(client, searcher, shapes_items):
    path = Path(shapes_items["path"][5].as_py())
    content = path.read_bytes()
    alone = client.post(SEARCH, files={"file": content}, data={"top": "5"})
    assert rows(alone) == expected(searcher, Query(image=content))
    assert rows(alone)[0] == 5
    assert alone.json()["query"]["picture"] is True
    both = client.post(SEARCH, files={"file": content}, data={"q": "blue", "weight": "0.3", "top": "5"})
    assert rows(both) == expected(searcher, Query("blue", content, 0.3))


def test_json_is_a_form_too(client, searcher):
    asked = {"q": "a circle", "not": ["red"], "top": 4, "filter": {"radius": 20, "colour": ["green", "blue"]}}
    where = {"radius": ["20"], "colour": ["green", "blue"]}
    answer = client.post(SEARCH, json=asked)
    assert rows(answer) == expected(searcher, Query("a circle", exclude=("red",)), 4, where=where)


def test_the_second_index_is_asked_by_its_name(client):
    assert [index["name"] for index in client.get("/api/indexes").json()] == ["shapes", "other"]
    answer = client.get(SEARCH, params={"q": "red", "index": "other", "top": 1}).json()
    assert answer["query"]["index"] == "other"
    assert answer["results"][0]["image"].startswith("/api/indexes/other/pictures/")


def test_indexes_say_what_they_hold(client, shapes_index, searcher):
    index = client.get("/api/indexes").json()[0]
    assert (index["rows"], index["dimension"], index["modality"]) == (48, 16, "image")
    assert index["fingerprint"] == searcher.index.fingerprint
    assert index["filters"]["radius"] == [{"value": "20", "count": 24}, {"value": "8", "count": 24}]
    assert index["filters"]["split"][0] == {"value": "train", "count": 32}
    assert index["has_answers"] is True
    assert index["examples"]


def test_right_answers_are_marked_and_ranked(client, shapes_items, searcher, search_model):
    caption = shapes_items["captions"][9].as_py()[0]
    answer = client.get(SEARCH, params={"q": caption.upper(), "top": 48}).json()
    assert [result["row"] for result in answer["results"] if result["correct"]] == [9]
    assert sum(result["correct"] is False for result in answer["results"]) == 47
    scores = searcher.index.vectors(np.arange(48)).astype(np.float64) @ search_model.encode_text([caption])[0]
    rank = 1 + int((np.delete(scores, 9) >= scores[9] - 1e-12).sum())
    assert answer["answers"] == [{"row": 9, "item": shapes_items["item"][9].as_py(), "rank": rank}]
    alone = client.get("/api/indexes/shapes/answers", params={"q": caption}).json()
    assert alone == {"q": caption, "answers": answer["answers"], "rows": 48}


@pytest.mark.parametrize(
    "fields", [{"q": "no caption of any item"}, {"q": "red", "not": "blue"}, {"like": 3}], ids=["other", "not", "like"]
)
def test_where_the_data_know_no_right_answer_nothing_is_marked(client, fields):
    answer = client.get(SEARCH, params=fields).json()
    assert answer["answers"] is None
    assert {result["correct"] for result in answer["results"]} == {None}
    if "q" in fields and len(fields) == 1:
        assert client.get("/api/indexes/shapes/answers", params=fields).json()["answers"] is None


def test_pictures_are_served_as_they_are_with_a_tag(client, shapes_items):
    answer = client.get("/api/indexes/shapes/pictures/3")
    assert answer.content == Path(shapes_items["path"][3].as_py()).read_bytes()
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "private, no-cache"
    again = client.get("/api/indexes/shapes/pictures/3", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    listed = client.get("/api/indexes/shapes/items/3").json()["image"]
    assert "immutable" in client.get(listed).headers["cache-control"]


def test_smaller_pictures_keep_their_shape(client, shapes_items):
    answer = client.get("/api/indexes/shapes/pictures/3", params={"height": 20})
    assert answer.status_code == 200
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (64, 48)  # the next height is 64, and none is made larger
    assert answer.headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/api/indexes/shapes/pictures/48", 404, "There is no row 48; the index has the rows 0 to 47."),
        ("/api/indexes/shapes/pictures/-1", 404, "There is no row -1"),
        ("/api/indexes/shapes/pictures/red.jpg", 422, "`row`: Input should be a valid integer"),
        ("/api/indexes/shapes/pictures/1?height=0", 422, "`height` is 0"),
        ("/api/indexes/shapes/pictures/1?v=0123", 404, "was rebuilt"),
        ("/api/indexes/nowhere/pictures/1", 404, "There is no index 'nowhere'; this server has shapes, other."),
        ("/api/indexes/shapes/items/99", 404, "There is no row 99"),
        ("/api/indexes/shapes/answers", 422, "`q`: Field required"),
        ("/api/indexes/shapes/answers?q=", 422, "`q` is empty"),
        ("/api/indexes/shapes/pictures/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404, "There is nothing at this address"),
        ("/page/%2e%2e%2fserver.py", 404, "There is nothing at this address"),
        ("/page/server.py", 404, "The page has no such file"),
        ("/nothing", 404, "There is nothing at this address"),
        (f"{SEARCH}?q=red&index=nowhere", 404, "There is no index 'nowhere'"),
        (f"{SEARCH}?like=48", 404, "There is no row 48"),
        (f"{SEARCH}?like=red", 422, "`like` is 'red'; expected a whole number"),
        (f"{SEARCH}?like=1&like_item=a", 422, "both name an item"),
        (f"{SEARCH}?like_item=a", 404, "The index has no item 'a'"),
        (f"{SEARCH}?q=red&top=0", 422, "`top` is '0'; expected a whole number from 1 to 200."),
        (f"{SEARCH}?q=red&top=201", 422, "`top` is '201'"),
        (f"{SEARCH}?q=red&top=1e2", 422, "`top` is '1e2'"),
        (f"{SEARCH}?q=red&top=٣", 422, "`top` is"),
        (f"{SEARCH}?q=red&top=1&top=2", 422, "`top` is given twice"),
        (f"{SEARCH}?q=red&weight=nan", 422, "`weight` is 'nan'; expected a number from 0"),
        (f"{SEARCH}?q=red&weight=2", 422, "`weight` is '2'"),
        (f"{SEARCH}?q=red&tpo=2", 422, "There is no field 'tpo'.*Did you mean `top`?"),
        (f"{SEARCH}?q=red&filter.shade=x", 422, "A filter names the column 'shade'"),
        (f"{SEARCH}?q=red&filter.radius=x", 422, "'radius' with 'x', but it holds whole numbers"),
        (f"{SEARCH}?q=red&filter.path=/etc", 422, "The column 'path' is not there to filter by"),
        (f"{SEARCH}?filter.shade=x", 422, "A filter names the column 'shade'"),
        (f"{SEARCH}?not=red", 422, "`not` alone is not a query"),
        (f"{SEARCH}?q=%21%21", 422, "no word after clean-up"),
        (f"{SEARCH}?q=a%00b", 422, "a NUL character"),
        (f"{SEARCH}?q=" + "x" * 1001, 422, "`q` has 1,001 characters; a text has at most 1,000."),
    ],
    ids=lambda value: re.sub(r"\W+", "-", ascii(value))[:60],
)
def test_what_cannot_be_answered_is_a_sentence(client, caplog, path, status, sentence):
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert re.search(sentence.replace("?", r"\?"), answer.json()["error"]), answer.json()
    lines = [record.getMessage() for record in caplog.records if record.name == "cusa.serve.access"]
    assert len(lines) == 1
    assert f" {status}: " in lines[0]
    assert "\n" not in lines[0]


def test_errors_leave_the_server_as_it_was(client, searcher):
    assert rows(client.get(SEARCH, params={"q": "red", "top": 5})) == expected(searcher, Query("red"))


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header says that it has so many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("file", "status", "sentence"),
    [
        pytest.param(b"no picture at all", 415, "cannot be read as an image .it is text", id="a text"),
        pytest.param(b"", 422, "The file has zero bytes", id="nothing"),
        pytest.param(b"<svg xmlns='a'></svg>", 415, "it is an SVG drawing", id="an SVG"),
        pytest.param(b"\x89PNG\r\n\x1a\n garbage", 415, "cannot be read as an image", id="a damaged head"),
        pytest.param(png()[:-60], 415, "cannot be read as an image", id="cut off"),
        pytest.param(bomb(50_000, 50_000), 422, "50,000 x 50,000 pixels; at most 10,000", id="a bomb of pixels"),
        pytest.param(png(101, 100), 422, "101 x 100 pixels; at most 10,000 are read", id="too many pixels"),
        pytest.param(b"x" * 30_000, 413, "The upload has more than 0.0190735 MiB", id="too many bytes"),
    ],
)
def test_files_that_cannot_be_searched_with(careful, file, status, sentence):
    answer = careful.post(SEARCH, files={"file": ("../../etc/passwd.png", file)})
    assert answer.status_code == status, answer.text
    assert re.search(sentence, answer.json()["error"]), answer.text
    assert careful.post(SEARCH, files={"file": png(100, 100)}).status_code == 200


@pytest.mark.parametrize(
    ("kind", "content", "status", "sentence"),
    [
        ("application/json", b'{"q": ', 400, "not valid JSON"),
        ("application/json", b"\xff\xfe", 400, "not valid JSON"),
        ("application/json", b"[" * 9_000, 400, "not valid JSON"),
        ("application/json", b"[1]", 422, "The JSON of a search is an object"),
        ("application/json", b'{"q": {"a": 1}}', 422, "`q` is .*expected a text"),
        ("application/json", b'{"q": "a\\ud800"}', 422, "half of a character"),
        ("application/json", b'{"file": "x"}', 422, "`file` is a text; send a picture as `file` of a form"),
        ("application/json", b'{"image": "%s"}' % (b"A" * 5000), 422, "`image` is a text; send a picture as `file` of"),
        ("application/json", b'{"words": "%s"}' % (b"A" * 5000), 422, "There is no field 'words'"),
        ("application/json", b'{"q": NaN}', 400, "NaN is not JSON"),
        ("application/json", b'{"q": "red", "q": "blue"}', 400, "the key `q` is there twice"),
        ("text/plain", b"q=red", 415, "The body of a search is a form"),
        ("image/png", png(), 415, "with the picture in `file`"),
        ("multipart/form-data", b"q=red", 400, "Missing boundary"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disp", 400, "The body is not a complete form"),
        ("multipart/form-data; boundary=x", b"rubbish", 400, "The body is not a complete form"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", ascii(value))[:40] if not isinstance(value, int) else str(value),
)
def test_bodies_that_are_no_search(careful, kind, content, status, sentence):
    answer = careful.post(SEARCH, content=content, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text
    assert re.search(sentence, answer.json()["error"]), answer.text


def test_a_text_in_an_address_that_is_not_utf_8_is_refused_and_not_changed(careful):
    for address in (f"{SEARCH}?q=caf%E9", f"{SEARCH}?q=a&filter.%FF=b", f"{SEARCH}?q=%ED%A0%80"):
        for answer in (careful.get(address), careful.post(address, json={"top": 1})):
            assert answer.status_code == 400
            assert re.search(r"the byte %(E9|FF|ED) where it is not UTF-8", answer.json()["error"])
    found = careful.get(f"{SEARCH}?q=caf%C3%A9+%2B&not=&top=1").json()["query"]
    assert (found["q"], found["not"], found["top"]) == ("caf\u00e9 +", [], 1)
    assert fields_of_url("q=caf\u00e9".encode()) == [("q", "caf\u00e9")]
    assert careful.get(f"{SEARCH}?q=a&top=1_0").status_code == 422


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        pytest.param([("file", png()), ("file", png())], "Too many files", id="two pictures"),
        pytest.param([("picture", png())], "The picture of a search is in the field `file`", id="another name"),
        pytest.param([*((f"f{n}", (None, "x")) for n in range(13))], "Too many fields", id="many parts"),
    ],
)
def test_forms_with_other_parts(careful, files, sentence):
    answer = careful.post(SEARCH, files=files)
    assert answer.status_code in (400, 422)
    assert sentence in answer.json()["error"]


def test_a_text_that_is_too_long_for_a_form_or_json_too(careful):
    for answer in (
        careful.post(SEARCH, files={"q": (None, "x" * 51)}),
        careful.post(SEARCH, json={"q": "x" * 51}),
        careful.get(SEARCH, params={"q": "x" * 51}),
    ):
        assert answer.status_code == 422
        assert answer.json()["error"] == "`q` has 51 characters; a text has at most 50."


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"q": "red", "not": ["a", "b", "c"]}, "`not` is given 3 times"),
        ({"q": "red", "filter.colour": ["a", "b", "c", "d"]}, "More than 3 values to filter by"),
        ({"q": "red", "not": ["a"] * 12}, "more than 12 fields"),
    ],
    ids=["excluded texts", "filters", "fields"],
)
def test_numbers_of_fields_are_bounded(careful, fields, sentence):
    answer = careful.get(SEARCH, params=fields)
    assert answer.status_code == 422
    assert sentence in answer.json()["error"]


def test_a_picture_and_an_item_are_too_much(client):
    answer = client.post(SEARCH, files={"file": png()}, data={"like": "3"})
    assert answer.status_code == 422
    assert "`file` and `like` are both pictures" in answer.json()["error"]


def test_another_method_is_a_sentence(client):
    answer = client.put(SEARCH)
    assert answer.status_code == 405
    assert answer.json() == {"error": "This address is not asked with PUT; see /docs."}


def test_the_api_is_described_without_another_server(client):
    description = client.get("/openapi.json").json()
    assert {"/api/search", "/api/indexes", "/health", "/metrics"} <= set(description["paths"])
    names = [parameter["name"] for parameter in description["paths"][SEARCH]["get"]["parameters"]]
    assert names == ["q", "index", "top", "not", "like", "like_item", "weight", "filter.COLUMN"]
    body = description["paths"][SEARCH]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert "file" in body["schema"]["properties"]
    answer = description["components"]["schemas"]["SearchResponse"]
    assert "no word for" in answer["properties"]["unknown_texts"]["description"]
    assert "unknown_texts" not in answer["required"]
    page = client.get("/docs")
    assert "http" not in re.sub(r"http-equiv", "", page.text)
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        asset = client.get(f"/{address}")
        assert asset.status_code == 200, address
        assert asset.headers["x-content-type-options"] == "nosniff"
    assert client.get("/docs/redoc.standalone.js").status_code == 404


def test_pages_may_load_nothing_from_elsewhere_and_no_script_in_their_text(client):
    for address in ("/", "/docs", SEARCH):
        policy = client.get(address).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert re.search(r"script-src 'self'(;|$)", policy), policy
    for text in (client.get("/").text, client.get("/docs").text):
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=", text)


def test_the_pages_files_are_there(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    addresses = re.findall(r'(?:src|href)="(page/[^"#]+)"', page.text)
    assert addresses
    for address in addresses:
        answer = client.get(f"/{address}")
        assert answer.status_code == 200, address
        assert client.get(f"/{address}", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


def test_health_and_counters(shapes_index):
    with client_of(shapes_index) as client:
        client.get(SEARCH, params={"q": "red"})
        client.get(SEARCH, params={"q": "red", "top": "x"})
        health = client.get("/health").json()
        assert health["ready"] is True
        assert health["indexes"][0] == {
            "name": "shapes",
            "rows": 48,
            "fingerprint": client.indexes[0].engine.fingerprint,
            "queue": 0,
            "problem": None,
        }
        text = client.get("/metrics").text
    for line in (
        'cusa_requests_total{method="GET",route="/api/search",status="200"} 1.0',
        'cusa_requests_total{method="GET",route="/api/search",status="422"} 1.0',
        'cusa_errors_total{status="422"} 1.0',
        'cusa_batch_size_count{index="shapes"} 1.0',
        'cusa_queue_length{index="shapes"} 0.0',
        'cusa_index_rows{index="shapes"} 48.0',
        'cusa_request_seconds_count{route="/api/search"} 2.0',
    ):
        assert line in text.splitlines(), line


def test_values_that_json_does_not_have_are_null_or_text(tmp_path, shapes_index, shapes_items):
    from datetime import date

    import pyarrow as pa

    from cusa.gallery.store import Gallery, write_gallery
    from cusa.index.build import build_index

    gallery = Gallery.open(shapes_index)
    table = shapes_items.append_column("price", pa.array([float("nan")] * 48))
    table = table.append_column("day", pa.array([date(2026, 1, 2)] * 48)).append_column("raw", pa.array([b"\1"] * 48))
    write_gallery(tmp_path / "out", gallery.embeddings(), table, gallery.meta.model, gallery.meta.model_sha256)
    build_index(tmp_path / "out")
    with client_of(tmp_path / "out") as client:
        text = client.get(SEARCH, params={"q": "red", "top": 1}).text
    columns = json.loads(text, parse_constant=pytest.fail)["results"][0]["columns"]
    assert (columns["price"], columns["day"], columns["raw"]) == (None, "2026-01-02", "01")


def test_a_mistake_of_the_server_is_a_sentence_and_the_next_request_is_answered(shapes_index, monkeypatch, caplog):
    with client_of(shapes_index) as client:
        with monkeypatch.context() as broken:
            broken.setattr(client.indexes[0].engine.searcher, "query_vectors", lambda queries: 1 / 0)
            answer = client.get(SEARCH, params={"q": "red"})
        assert answer.status_code == 500
        assert answer.json() == {"error": "The server made a mistake; its log says which."}
        assert "ZeroDivisionError" in caplog.text
        assert client.get(SEARCH, params={"q": "red"}).status_code == 200


def test_a_picture_whose_file_is_gone_is_a_sentence_without_its_path(tmp_path, shapes_index, shapes_items, caplog):
    import pyarrow as pa

    from cusa.gallery.store import Gallery, write_gallery
    from cusa.index.build import build_index

    gallery = Gallery.open(shapes_index)
    place = shapes_items.column_names.index("path")
    table = shapes_items.set_column(place, "path", pa.array([str(tmp_path / "gone.jpg")] * 48))
    write_gallery(tmp_path / "out", gallery.embeddings(), table, gallery.meta.model, gallery.meta.model_sha256)
    build_index(tmp_path / "out")
    with client_of(tmp_path / "out") as client:
        answer = client.get("/api/indexes/shapes/pictures/0")
        found = client.get(SEARCH, params={"q": "red", "top": 1}).json()["results"][0]
    assert answer.status_code == 404
    assert "gone.jpg" not in answer.text
    assert "gone.jpg" in caplog.text
    assert (found["width"], found["height"]) == (None, None)
