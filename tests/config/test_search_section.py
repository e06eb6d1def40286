"""The sections `search` and `exports`: what is refused, and that leaving them out changes no other section."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from cusa.config import check_files, load, merge, read_files
from cusa.config.search import ExportFormat, IndexSettings, Search
from cusa.errors import ConfigurationError
from cusa.index.meta import KINDS
from cusa.model.exported import ExportFormat as WrittenFormat


def test_the_embedded_default_searches_all_pictures_and_exports_nothing_else():
    configuration = load(read_files([]))
    assert configuration.search == Search(gallery="all")
    assert configuration.exports is None


@pytest.mark.parametrize("overlay", ["coco.yaml", "flickr30k.yaml"])
def test_the_published_data_sets_search_their_test_pictures(overlay):
    assert read_files([Path(__file__).parents[2] / "config" / overlay])["search"] == {"gallery": "test"}


def test_both_are_off_where_a_configuration_of_ones_own_lacks_them(tiny_configuration):
    mapping = {key: value for key, value in tiny_configuration.items() if key != "search"}
    assert (load(mapping).search, load(mapping).exports) == (None, None)


def test_null_switches_them_off(tiny_configuration):
    both = {"search": {"gallery": "all"}, "exports": {"formats": ["safetensors"]}}
    mapping = merge({**tiny_configuration, **both}, {"search": None, "exports": None})
    assert (load(mapping).search, load(mapping).exports) == (None, None)


def test_no_run_depends_on_them(tiny_configuration):
    """run.json has the run's configuration: with the new sections it is the same text."""
    used = {**tiny_configuration, "search": {}, "exports": {"formats": ["onnx", "safetensors"], "int8": True}}
    assert load(used).run("cusa", 23).as_json() == load(tiny_configuration).run("cusa", 23).as_json()


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"search": {"experiments": ["cusa", "theirs"]}}, "`search.experiments` names theirs, which is none of the"),
        ({"exports": {"experiments": ["csa"]}}, "`exports.experiments` names csa, which is none of the"),
        ({"search": {"experiments": ["teachers"]}}, "the two teachers share no space, so no text finds an image"),
        ({"search": {"experiments": ["cusa", "cusa"]}}, "`search.experiments`: cusa is there twice"),
        ({"search": {"experiments": []}}, "key `search.experiments` is [] (list)"),
        ({"search": {"head": "both"}}, "key `search.head` is 'both' (str)"),
        ({"search": {"index": {"kind": "tree"}}}, "key `search.index.kind` is 'tree' (str)"),
        ({"search": {"index": {"target_recall": 1.5}}}, "key `search.index.target_recall` is 1.5 (float)"),
        ({"search": {"parts": 0}}, "key `search.parts` is 0 (int)"),
        ({"search": {"galery": "test"}}, "key `search.galery` is unknown"),
        ({"exports": {"formats": ["onnx", "onnx"]}}, "`exports.formats`: onnx is there twice"),
        ({"exports": {"formats": ["tensorrt"]}}, "key `exports.formats.0` is 'tensorrt' (str)"),
        (
            {"search": {"head": "uni"}, "exports": {"head": "cross"}},
            "`search.head` is uni, but exports.head is cross, and an export embeds the queries",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_one_sentence_with_the_key(tiny_configuration, sections, says):
    baselines = {"teachers": {"baseline": "teachers"}}
    mapping = {**tiny_configuration, "experiments": tiny_configuration["experiments"] | baselines, **sections}
    with pytest.raises(ConfigurationError) as caught:
        load(mapping)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_heads_may_differ_where_the_run_itself_embeds_the_queries(tiny_configuration):
    sections = {"search": {"head": "uni", "queries": "run"}, "exports": {"head": "cross"}}
    assert load({**tiny_configuration, **sections}).search.head == "uni"


def test_a_whole_number_is_a_share(tiny_configuration):
    assert load({**tiny_configuration, "search": {"index": {"target_recall": 1}}}).search.index.target_recall == 1.0


@pytest.mark.parametrize("place", ["photos", "photos/*.tar", "{a,b}.tar", "~/nowhere"])
def test_a_gallery_that_is_not_there_is_named_before_anything_runs(tiny_configuration, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="key `search.gallery` names") as caught:
        check_files(load({**tiny_configuration, "search": {"gallery": place}}))
    assert "does not exist" in str(caught.value) or "matches no file" in str(caught.value)


@pytest.mark.parametrize("place", ["test", "all", "./test", "photos", "tars/{0..1}.tar", "tars/*.tar"])
def test_galleries_that_are_there(tiny_configuration, place, tmp_path, monkeypatch):
    """A folder that is called as one of the words is written as a path."""
    monkeypatch.chdir(tmp_path)
    for folder in ("test", "photos", "tars"):
        Path(folder).mkdir()
    Path("tars/0.tar").touch()
    configuration = load({**tiny_configuration, "search": {"gallery": place}})
    check_files(configuration)
    assert configuration.search.is_own_gallery == (place not in ("test", "all"))


def test_every_format_that_is_written_can_be_asked_for():
    assert set(get_args(ExportFormat)) == set(get_args(WrittenFormat))


def test_every_kind_of_index_can_be_asked_for():
    assert {"auto", *KINDS} == set(get_args(IndexSettings.model_fields["kind"].annotation))
