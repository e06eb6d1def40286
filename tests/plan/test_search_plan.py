"""The plan of searches and exports: which runs, folders, options and models, without Snakemake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cusa.config import load
from cusa.plan import Plan, SearchPlan

RUNS = "results/shapes/runs"
BASELINES = {"start": {"baseline": "zero_shot"}, "teachers": {"baseline": "teachers"}}


def plan(mapping: dict, search: dict | None = None, exports: dict | None = None, **changes: object) -> SearchPlan:
    return SearchPlan(Plan(load({**mapping, "search": search, "exports": exports, **changes})))


def test_nothing_is_asked_for_by_null(tiny_configuration):
    found = plan(tiny_configuration)
    assert (found.searched_runs, found.index_files(), found.exported_runs, found.export_folders()) == ([], [], [], [])


def test_the_models_of_the_reports_gallery_search_with_the_first_seed(tiny_configuration):
    found = plan(tiny_configuration, {}, seeds=[7, 8])
    folders = [f"{RUNS}/contrastive/seed7/search/test", f"{RUNS}/cusa/seed7/search/test"]
    assert found.index_folders() == folders
    assert found.index_files() == [f"{folder}/index.faiss" for folder in folders]


def test_without_those_the_first_two_that_can_search(tiny_configuration):
    experiments = dict.fromkeys(tiny_configuration["experiments"]) | BASELINES
    found = plan(tiny_configuration, {}, experiments=experiments)
    assert found.searched_runs == ["start"]
    assert found.across_modalities == ["start"]
    named = {"a": {"contrastive": {}}, "b": {"contrastive": {}}, "c": {"contrastive": {}}}
    assert plan(tiny_configuration, {}, experiments=experiments | named).searched_runs == ["a", "b"]


def test_experiments_that_are_named(tiny_configuration):
    found = plan(
        tiny_configuration,
        {"experiments": ["start"]},
        {"experiments": ["cusa"], "formats": ["onnx", "safetensors"]},
        experiments=tiny_configuration["experiments"] | BASELINES,
    )
    assert found.index_folders() == [f"{RUNS}/start/seed23/search/test"]
    assert found.export_folders() == [f"{RUNS}/cusa/seed23/exports/onnx", f"{RUNS}/cusa/seed23/exports/safetensors"]


def test_exports_take_the_experiments_of_the_search(tiny_configuration):
    assert plan(tiny_configuration, {"experiments": ["cusa"]}, {}).exported_runs == ["cusa"]
    assert plan(tiny_configuration, None, {}).exported_runs == ["contrastive", "cusa"]


def test_a_gallery_of_splits_reads_their_embeddings_shards_and_the_tables(tiny_configuration):
    found = plan(tiny_configuration, {"gallery": "all"})
    assert found.gallery == "all"
    tables = ["results/shapes/annotations/images.parquet", "results/shapes/annotations/captions.parquet"]
    splits = ("train", "val", "test")
    assert found.split_gallery_inputs("cusa", 23, "all") == [
        *tables,
        *(f"results/shapes/shards/{split}" for split in splits),
        *(f"{RUNS}/cusa/seed23/embeddings/{split}" for split in splits),
    ]
    assert found.split_gallery_inputs("cusa", 23, "test")[2:] == [
        "results/shapes/shards/test",
        f"{RUNS}/cusa/seed23/embeddings/test",
    ]


def test_galleries_of_ones_own_have_folders_that_do_not_collide(tiny_configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("a/photos", "b/photos"):
        Path(folder).mkdir(parents=True)
    Path("list.csv").write_text("image\n")
    first, second, table = (
        plan(tiny_configuration, {"gallery": place}) for place in ("a/photos", "b/photos", "list.csv")
    )
    assert first.gallery.startswith("photos-")
    assert first.gallery != second.gallery
    assert first.gallery == plan(tiny_configuration, {"gallery": "./a/photos"}).gallery
    assert (first.own_gallery, first.own_gallery_files) == ("a/photos", [])
    assert table.own_gallery_files == ["list.csv"]
    assert table.index_folders()[0].endswith(f"search/{table.gallery}")
    odd = plan(tiny_configuration, {"gallery": "tars {new}/*.tar"}).gallery
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*-[0-9a-f]{8}", odd)  # Snakemake takes braces for wildcards


@pytest.mark.parametrize(
    ("queries", "name", "exported"),
    [
        ("auto", None, True),
        ("auto", "mine.py", False),
        ("onnx", "mine.py", True),
        ("run", None, False),
    ],
)
def test_what_embeds_queries(tiny_configuration, queries, name, exported):
    """A model of a Python file may have any tokeniser, so its queries are embedded by the run itself."""
    student = tiny_configuration["student"] if name is None else {"name": name, "towers": None}
    found = plan(tiny_configuration, {"queries": queries}, student=student)
    run = f"{RUNS}/cusa/seed23"
    assert found.query_model("cusa", 23) == (f"{run}/exports/onnx" if exported else run)
    files = [f"{run}/exports/onnx"] if exported else [f"{run}/run.json", f"{run}/best.safetensors"]
    assert found.query_model_files("cusa", 23) == files


def test_options_of_an_export(tiny_configuration):
    assert plan(tiny_configuration, {}).export_options("onnx") == []
    asked = plan(tiny_configuration, {"head": "uni"}, {"int8": True, "head": "uni"})
    assert asked.export_options("onnx") == ["--head", "uni", "--int8"]
    assert asked.export_options("sentence-transformers") == ["--head", "uni"]
    assert asked.gallery_head == "uni"
    assert asked.export_inputs("cusa", "safetensors") == []
    assert "results/shapes/shards/val" in asked.export_inputs("cusa", "onnx")  # what int8 loses is measured


def test_everything_that_is_exported(tiny_configuration):
    found = plan(tiny_configuration, {}, {"experiments": ["cusa"], "formats": ["safetensors", "onnx"]})
    assert found.exported_formats() == [("cusa", "safetensors"), ("cusa", "onnx"), ("contrastive", "onnx")]
    assert plan(tiny_configuration, {"queries": "run"}).exported_formats() == []


def test_the_settings_of_an_index_are_one_line_for_its_job(tiny_configuration):
    assert plan(tiny_configuration, {"index": {"kind": "hnsw"}}).index_json == (
        '{"kind": "hnsw", "target_recall": 0.95}'
    )
