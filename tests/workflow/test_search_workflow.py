"""The targets `search` and `exports` of the real Snakefile: galleries, indexes and exports of small trained models."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import copy_of_results
from test_workflow import planned, snakemake, write

from cusa import load
from cusa.common.files import read_json
from cusa.gallery.store import Gallery
from cusa.index.folder import SearchIndex

RUN = "results/shapes/runs/cusa/seed23"


def searching(mapping: dict, **search: object) -> dict:
    """One experiment, whose model searches, so that one model is trained and exported."""
    experiments = {"contrastive": None, "csa": None, "usa": None}
    return {**mapping, "experiments": mapping["experiments"] | experiments, "search": {"gallery": "test"} | search}


def jobs(output: str) -> dict[str, int]:
    return {name: count for name, count in planned(output).items() if name not in ("all", "total", "search", "exports")}


@pytest.fixture(scope="module")
def searchable(tmp_path_factory, finished_workflow, tiny_configuration) -> tuple[Path, str]:
    """A run whose test pictures are searchable. Tests that change it work on a copy."""
    directory = copy_of_results(finished_workflow, tmp_path_factory.mktemp("searchable"))
    shutil.rmtree(directory / "results/shapes/runs/contrastive")
    config = write(directory, searching(tiny_configuration))
    snakemake(directory, "search", "scores", "--configfile", config)
    return directory, config


def copied(searchable: tuple[Path, str], tmp_path: Path) -> Path:
    return copy_of_results(searchable[0], tmp_path)


def test_the_test_pictures_are_searchable(searchable):
    run = searchable[0] / RUN
    index = SearchIndex.open(run / "search/test")
    assert index.rows == 8
    assert index.model == run / "exports/onnx"
    model = load(index.model)
    assert model.weights_sha256 == read_json(run / "run.json")["weights_sha256"]

    queries = [captions[0] for captions in index.items["captions"].to_pylist()]
    scores, rows = index.nearest(model.encode_text(queries), 8, None)
    images = Gallery.open(run / "gallery/test").embeddings()
    texts = load(run).encode_text(queries)
    np.testing.assert_allclose(scores, np.take_along_axis(texts @ images.T, rows, axis=1), atol=1e-4)
    assert index.picture_bytes(0)[:4] == b"\x89PNG"  # as the shards have it


def test_every_job_leaves_a_log_and_a_timing(searchable):
    data = searchable[0] / "results/shapes"
    for rule in ("collect_gallery", "export_model", "build_index"):
        assert list((data / "logs" / rule).rglob("*.log")), rule
        assert list((data / "timings" / rule).rglob("*.tsv")), rule


def test_a_second_run_does_nothing_and_the_results_can_be_moved(searchable, tmp_path):
    directory, config = searchable
    assert "Nothing to be done" in snakemake(directory, "search", "--configfile", config, "-n")
    moved = Path(shutil.copytree(directory, tmp_path / "deeper/still"))
    assert "Nothing to be done" in snakemake(moved, "search", "--configfile", config, "-n")


@pytest.mark.parametrize("with_records", [True, False])
def test_copied_results_that_have_lost_their_times_need_no_new_index(searchable, tmp_path, with_records):
    """index.faiss and duplicates.parquet are links, which have times of their own."""
    directory = copied(searchable, tmp_path)
    for number, path in enumerate(sorted((directory / "results").rglob("*"), reverse=True)):
        os.utime(path, (2e9 + number, 2e9 + number), follow_symlinks=False)
    links = [path for path in (directory / RUN / "search").rglob("*") if path.is_symlink()]
    assert len(links) == 2
    for link in links:
        os.utime(link, (1e9, 1e9), follow_symlinks=False)
    if not with_records:
        shutil.rmtree(directory / ".snakemake")
    assert "Nothing to be done" in snakemake(directory, "search", "--configfile", searchable[1], "-n")


def test_progress_names_the_run_and_an_index_of_earlier_weights_is_not_recommended(searchable, tmp_path):
    directory, config = copied(searchable, tmp_path), searchable[1]
    short = ("--configfile", config, "--quiet", "rules", "host")
    output = snakemake(directory, "search", *short, "--forcerun", "build_index")
    assert "done: build_index cusa seed23 test\n" in output
    assert f"search:     cusa serve {RUN}/search/test\n" in output
    for noise in ("Conda environments", "Singularity containers", "Rules claiming more threads", "Using shell"):
        assert noise not in output
    output = snakemake(directory, "models", *short, "--config", "train={epochs: 1}")
    assert "the runs:   results/shapes/runs has 1; cusa runs results/shapes lists them\n" in output
    assert "next:       the target `report` measures and compares them\n" in output
    assert f"search:     {RUN}/search/test: of other weights than its run has now; the target `search`" in output
    assert "cusa serve" not in output


def test_results_that_were_moved_are_searched_with_their_own_model(searchable, tmp_path):
    (copied(searchable, tmp_path / "first")).rename(tmp_path / "second")
    index_file = tmp_path / f"second/{RUN}/search/test/meta.json"
    content = index_file.read_text().replace(str(searchable[0]), str(tmp_path / "first"))  # which is not there any more
    index_file.write_text(content)
    index = SearchIndex.open(index_file.parent)
    assert index.model == tmp_path / f"second/{RUN}/exports/onnx"
    assert index.picture_bytes(0)


def test_results_without_a_search_get_one_and_nothing_is_trained_again(searchable, tiny_configuration, tmp_path):
    """The same folder before the section existed: `all` plans what is new, and the report as before."""
    directory = copied(searchable, tmp_path)
    for name in ("exports", "gallery", "search"):
        shutil.rmtree(directory / RUN / name)
    config = searchable[1]
    assert jobs(snakemake(directory, "--configfile", config, "-n")) == {
        "export_model": 1,
        "collect_gallery": 1,
        "build_index": 1,
        "render_report": 1,
    }
    without = write(directory, searching(tiny_configuration) | {"search": None})
    assert jobs(snakemake(directory, "--configfile", without, "-n")) == {"render_report": 1}


@pytest.mark.parametrize(
    ("rule", "redone"),
    [
        ("train", {"train", "embed", "evaluate_itr", "summarise", "export_model", "collect_gallery", "build_index"}),
        ("embed", {"embed", "evaluate_itr", "summarise", "collect_gallery", "build_index"}),
        ("export_model", {"export_model", "build_index"}),
        ("build_index", {"build_index"}),
    ],
)
def test_forcerun_redoes_what_depends_on_a_stage_and_nothing_else(searchable, rule, redone):
    output = snakemake(searchable[0], "search", "scores", "--configfile", searchable[1], "-n", "--forcerun", rule)
    assert set(jobs(output)) - {"scores"} == redone


@pytest.mark.slow
def test_another_index_keeps_the_old_one_until_it_is_whole(searchable, tiny_configuration, tmp_path):
    directory = copied(searchable, tmp_path)
    before = SearchIndex.open(directory / RUN / "search/test")
    config = write(directory, searching(tiny_configuration, index={"target_recall": 0.99}))
    assert jobs(snakemake(directory, "search", "--configfile", config, "-n")) == {"build_index": 1}
    # A job that fails leaves the index that was there.
    gallery = directory / RUN / "gallery/test"
    stamp = gallery.joinpath("embeddings.npy").stat()
    damaged = gallery.joinpath("embeddings.npy").read_bytes()
    gallery.joinpath("embeddings.npy").write_bytes(damaged[:-4])
    snakemake(directory, "search", "--configfile", config, check=False)
    gallery.joinpath("embeddings.npy").write_bytes(damaged)
    os.utime(gallery / "embeddings.npy", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert SearchIndex.open(directory / RUN / "search/test").fingerprint == before.fingerprint
    snakemake(directory, "search", "--configfile", config, "--rerun-incomplete")
    assert SearchIndex.open(directory / RUN / "search/test").fingerprint != before.fingerprint


@pytest.mark.slow
def test_all_splits_reuse_what_is_embedded(searchable, tiny_configuration, tmp_path):
    directory = copied(searchable, tmp_path)
    config = write(directory, searching(tiny_configuration, gallery="all"))
    plan = jobs(snakemake(directory, "search", "--configfile", config, "-n"))
    assert plan == {"embed_more": 2, "collect_gallery": 1, "build_index": 1}  # of train and val
    snakemake(directory, "search", "--configfile", config)
    index = SearchIndex.open(directory / RUN / "search/all")
    assert index.rows == 48
    assert set(index.items["split"].to_pylist()) == {"train", "val", "test"}


@pytest.mark.slow
def test_a_folder_is_embedded_in_shares_and_an_interrupted_share_continues(
    searchable, tiny_configuration, shapes, tmp_path, monkeypatch
):
    directory = copied(searchable, tmp_path)
    photos = Path(shutil.copytree(shapes / "pics", tmp_path / "my photos"))
    (photos / "broken.jpg").write_bytes(b"no picture")
    config = write(directory, searching(tiny_configuration, gallery=str(photos), parts=2, queries="run"))
    plan = jobs(snakemake(directory, "search", "--configfile", config, "-n"))
    assert plan == {"embed_gallery": 2, "join_gallery": 1, "build_index": 1}

    snakemake(directory, "search", "--configfile", config, "--until", "embed_gallery", "--notemp")
    (unfinished,) = directory.glob(f"{RUN}/gallery/*.unfinished")
    first, second = sorted(unfinished.glob("parts/*"))
    kept = first.joinpath("embeddings.npy").stat().st_mtime_ns
    shutil.rmtree(second)  # as if its job had been killed
    for share in directory.glob(f"{RUN}/gallery/*.shares/*"):
        share.unlink()
    snakemake(directory, "search", "--configfile", config, "--until", "embed_gallery", "--notemp")
    assert first.joinpath("embeddings.npy").stat().st_mtime_ns == kept
    snakemake(directory, "search", "--configfile", config)

    (index_folder,) = (path for path in (directory / RUN / "search").iterdir() if path.name != "test")
    index, model = SearchIndex.open(index_folder), load(directory / RUN)
    assert index.rows == 48
    assert index.model == directory / RUN
    gallery = Gallery.open(directory / RUN / "gallery" / index_folder.name)
    assert gallery.unreadable["item"].to_pylist() == ["broken.jpg"]
    paths = [photos / item for item in gallery.items["item"].to_pylist()]
    np.testing.assert_allclose(gallery.embeddings(), model.encode_image(paths), atol=1e-5)
    assert not unfinished.exists()
    assert "Nothing to be done" in snakemake(directory, "search", "--configfile", config, "-n")
    # In how many parts it was embedded is no reason to embed it again, and neither is the device.
    monkeypatch.setenv("CUSA_DEVICES", "x")
    other = ("--config", "search={parts: 5}", "train={gpus: 1}")
    assert "Nothing to be done" in snakemake(directory, "search", "--configfile", config, "-n", *other)


@pytest.mark.slow
def test_a_table_that_changed_is_embedded_again(searchable, tiny_configuration, shapes, tmp_path):
    """What a folder holds is not looked at by Snakemake, what a table holds is."""
    directory = copied(searchable, tmp_path)
    table = tmp_path / "list.csv"
    names = sorted(path.name for path in (shapes / "pics").iterdir())
    table.write_text("\n".join(["image,colour", *(f"{shapes}/pics/{name},{name.split('_')[0]}" for name in names[:6])]))
    config = write(directory, searching(tiny_configuration, gallery=str(table), queries="run"))
    snakemake(directory, "search", "--configfile", config)
    (folder,) = (path for path in (directory / RUN / "search").iterdir() if path.name != "test")
    assert set(SearchIndex.open(folder).items["colour"].to_pylist()) == {name.split("_")[0] for name in names[:6]}
    assert "Nothing to be done" in snakemake(directory, "search", "--configfile", config, "-n")
    with table.open("a") as rows:
        rows.write(f"\n{shapes}/pics/{names[6]},{names[6].split('_')[0]}")
    later = (directory / RUN / "gallery" / folder.name / "meta.json").stat().st_mtime + 5
    os.utime(table, (later, later))
    assert jobs(snakemake(directory, "search", "--configfile", config, "-n"))["embed_gallery"] == 1


@pytest.mark.slow
def test_exports_in_the_formats_that_are_asked_for(searchable, tiny_configuration, tmp_path):
    directory = copied(searchable, tmp_path)
    config = write(directory, searching(tiny_configuration) | {"exports": {"formats": ["onnx", "safetensors"]}})
    assert jobs(snakemake(directory, "exports", "--configfile", config, "-n")) == {"export_model": 1}
    snakemake(directory, "exports", "--configfile", config)
    models = [load(directory / RUN / path) for path in ("", "exports/onnx", "exports/safetensors")]
    assert len({model.weights_sha256 for model in models}) == 1
    texts = [model.encode_text(["a red circle"]) for model in models]
    np.testing.assert_allclose(texts[1], texts[0], atol=1e-4)
    np.testing.assert_allclose(texts[2], texts[0], atol=1e-5)


def test_shares_lease_gpus_as_other_jobs_do(tmp_path, tiny_configuration, monkeypatch, shapes):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("CUSA_DEVICES", "x,y")
    config = write(tmp_path, searching(tiny_configuration, gallery=str(shapes / "pics"), parts=3))
    wants = ("search", "--configfile", config, "-n", "-p", "--config", "train={gpus: 1}")
    output = snakemake(tmp_path, *wants)
    assert planned(output)["embed_gallery"] == 3
    job = output.split("rule embed_gallery:")[1].split("\n\n")[0]
    assert "gpu=1" in job
    assert "exec python -m cusa.devices 1 python" in job
    assert "--parts 3" in job


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ({"gallery": "no/such/folder"}, "key `search.gallery` names no/such/folder, which does not exist"),
        ({"experiments": ["nobody"]}, "key `search.experiments` names nobody"),
    ],
    ids=["gallery", "experiment"],
)
def test_a_wrong_search_is_a_sentence_before_any_job(tmp_path, tiny_configuration, search, says):
    config = write(tmp_path, tiny_configuration | {"search": search})
    output = snakemake(tmp_path, "--configfile", config, check=False)
    assert says in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()


def test_captions_and_labels_are_those_of_the_data(searchable):
    items = SearchIndex.open(searchable[0] / RUN / "search/test").items
    images = pq.read_table(searchable[0] / "results/shapes/annotations/images.parquet").to_pylist()
    assert items["image_id"].to_pylist() == [image["image_id"] for image in images if image["split"] == "test"]
    assert all(len(captions) == 2 for captions in items["captions"].to_pylist())
