"""The plan of a configuration: runs, models, files and benchmarks, without Snakemake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cusa.config import load
from cusa.config.files import merge_onto_default
from cusa.errors import ConfigurationError
from cusa.layout import CachedFeatures
from cusa.plan import Plan


def plan(mapping: dict, **changes: object) -> Plan:
    return Plan(load({**mapping, **changes}))


def towers(mapping: dict, **trainable: bool) -> dict:
    """A pair of towers with the same models as the teachers."""
    sides = {side: {**mapping["teachers"][side], "trainable": trainable[side]} for side in ("image", "text")}
    return {"name": None, "towers": {**sides, "dimension": 8}}


def test_every_run_has_its_seeds(tiny_configuration):
    """Experiments are trained once per seed; checkpoints and baselines have one run each."""
    experiments = tiny_configuration["experiments"] | {"start": {"baseline": "zero_shot"}}
    checkpoints = {"theirs": {"file": "checkpoint_best.pth", "student": "ViT-B/32"}}
    found = plan(tiny_configuration, experiments=experiments, checkpoints=checkpoints, seeds=[1, 2])
    assert found.runs == ["contrastive", "cusa", "theirs", "start"]
    assert found.run_files("run.json") == [
        "results/shapes/runs/contrastive/seed1/run.json",
        "results/shapes/runs/contrastive/seed2/run.json",
        "results/shapes/runs/cusa/seed1/run.json",
        "results/shapes/runs/cusa/seed2/run.json",
        "results/shapes/runs/theirs/seed1/run.json",
        "results/shapes/runs/start/seed1/run.json",
    ]
    assert found.run_files()[-1] == "results/shapes/runs/start/seed1"
    assert found.score_files(".json")[0] == "results/shapes/runs/contrastive/seed1/benchmarks/itr.json"
    assert found.run_configuration("theirs").student.name == "ViT-B/32"


def test_training_reads_shards_or_the_features_of_frozen_towers(tiny_configuration):
    """Training reads train, the split that selects the epoch, and, with soft labels, the teachers' features."""
    tables = ["results/shapes/annotations/captions.parquet", "results/shapes/annotations/images.parquet"]
    found = plan(tiny_configuration)
    shards = ["results/shapes/shards/train", "results/shapes/shards/val"]
    assert found.training_inputs("contrastive") == [*tables, *shards]
    image, text = found.configuration.teachers.image.folder, found.configuration.teachers.text.folder
    teachers = [f"results/shapes/teachers/{side}/train/meta.json" for side in (f"image/{image}", f"text/{text}")]
    assert found.training_inputs("cusa") == sorted([*tables, *shards, *teachers])

    frozen = plan(tiny_configuration, student=towers(tiny_configuration, image=False, text=False))
    of_val = [path.replace("/train/", "/val/") for path in teachers]
    assert frozen.training_inputs("contrastive") == sorted([*tables, *teachers, *of_val])

    leak = {**tiny_configuration["train"], "select_on": "test_leak_as_published"}
    assert "results/shapes/shards/test" in plan(tiny_configuration, train=leak).training_inputs("contrastive")


def test_embedding_reads_what_the_data_are_stored_as(tiny_configuration, tmp_path):
    (tmp_path / "birds").mkdir()
    (tmp_path / "pairs.tsv").write_text("first\tsecond\tscore\n")
    benchmarks = {
        "itr": {},
        "eccv_caption": None,
        "image_retrieval": {"labelled_images": {"birds": str(tmp_path / "birds")}},
        "sts": {"sentence_pairs": {"pairs": str(tmp_path / "pairs.tsv")}},
    }
    student = towers(tiny_configuration, image=True, text=False)
    found = plan(tiny_configuration, student=student, benchmarks=benchmarks)
    text = found.configuration.teachers.text.folder
    assert found.embedding_inputs("cusa", "test")[2:] == [
        "results/shapes/shards/test",
        f"results/shapes/teachers/text/{text}/test/meta.json",
    ]
    assert found.embedding_inputs("cusa", "birds") == [
        "results/benchmark-data/birds/annotations/images.parquet",
        "results/benchmark-data/birds/annotations/captions.parquet",
        "results/benchmark-data/birds/shards/test",
    ]
    pairs = ["results/benchmark-data/pairs/annotations/sentence_pairs.parquet"]
    features = f"results/benchmark-data/pairs/teachers/text/{text}/sentence_pairs/meta.json"
    assert found.embedding_inputs("cusa", "pairs") == [*pairs, features]
    reads_tokens = towers(tiny_configuration, image=False, text=True)
    trainable = plan(tiny_configuration, student=reads_tokens, benchmarks=benchmarks)
    assert trainable.embedding_inputs("cusa", "pairs") == pairs
    assert found.embeddings("sts") == ["results/shapes/runs/{experiment}/seed{seed}/embeddings/pairs"]


def test_features_are_those_that_something_reads_each_once(tiny_configuration):
    """A frozen tower that is also the teacher is stored once, in the wider of the two types."""
    found = plan(tiny_configuration, student=towers(tiny_configuration, image=False, text=False))
    image, text = found.configuration.teachers.image.folder, found.configuration.teachers.text.folder
    stored = [features for _, features in found.stored_features]
    assert len(stored) == len(set(stored))
    assert set(stored) == {
        CachedFeatures(modality, model, split)
        for modality, model in (("image", image), ("text", text))
        for split in ("train", "val", "test")
    }
    assert found.frozen_image_models[image].dtype == found.frozen_text_models[text].dtype == "float32"
    alone = plan(tiny_configuration)
    assert [features.split for _, features in alone.stored_features] == ["train", "train"]
    assert alone.frozen_image_models[image].dtype == "float16"
    assert alone.feature_files() == [
        f"results/shapes/teachers/image/{image}/train/meta.json",
        f"results/shapes/teachers/text/{text}/train/meta.json",
    ]


def test_views_are_extracted_for_the_frozen_towers_of_runs_that_train_with_them(tiny_configuration):
    """Only of the train split, and only of the modality that is changed; each setting has a folder of its own."""
    student, experiments = towers(tiny_configuration, image=False, text=False), tiny_configuration["experiments"]
    own = {"cusa": {**experiments["cusa"], "train": {"augmentation": {"image": {"flip": True}, "views": 2}}}}
    plain = plan(tiny_configuration, student=student)
    found = plan(tiny_configuration, student=student, experiments=experiments | own)
    [(folder, views)] = [each for each in found.frozen_image_models.items() if each[0] not in plain.frozen_image_models]
    assert (views.views, views.augmentation.flip, views.dtype) == (2, True, "float32")
    assert json.loads(views.as_json())["name"] == tiny_configuration["teachers"]["image"]["name"]
    assert list(found.frozen_text_models) == list(plain.frozen_text_models)
    meta = f"results/shapes/teachers/image/{folder}/train/meta.json"
    assert set(found.feature_files()) - set(plain.feature_files()) == {meta}
    assert set(found.training_inputs("cusa")) - set(plain.training_inputs("cusa")) == {meta}
    assert found.training_inputs("contrastive") == plain.training_inputs("contrastive")
    trained = towers(tiny_configuration, image=True, text=True)
    own["cusa"]["train"]["augmentation"].pop("views")
    on_the_fly = plan(tiny_configuration, student=trained, experiments=experiments | own)
    assert on_the_fly.feature_files() == plan(tiny_configuration, student=trained).feature_files()


def test_what_is_not_scored_has_a_reason(tiny_configuration):
    """Data that do not exist are left out, and the teachers on benchmarks across modalities."""
    experiments = {**tiny_configuration["experiments"], "teachers": {"baseline": "teachers"}}
    benchmarks = {"itr": {}, "eccv_caption": None, "image_retrieval": {"cub": "no/such/place"}, "sts": None}
    found = plan(tiny_configuration, experiments=experiments, benchmarks=benchmarks)
    assert found.benchmarks == ["itr"]
    assert found.benchmarks_of("teachers") == []
    assert found.benchmarks_of("cusa") == ["itr"]
    assert found.left_out["teachers, itr"] == "The two teachers share no space, so no text finds an image."
    assert found.left_out["image_retrieval, cub"].startswith("no/such/place does not exist")


def test_emoji_without_skin_tones_have_no_split_and_no_benchmark_of_them():
    """The groups are one key; no other has to be set for it."""
    found = Plan(load(merge_onto_default({"dataset": {"groups": ["food_drink"]}})))
    assert found.splits == ["train", "val", "test"]
    assert "image_retrieval" not in found.benchmarks
    assert found.left_out["image_retrieval, variants"].startswith("only the emoji of people_body have skin tones")
    every = Plan(load(merge_onto_default({})))
    assert "variants" in every.splits
    assert "image_retrieval" in every.benchmarks
    assert every.left_out == {}


def test_the_gallery_and_the_reference_are_runs_that_are_made(tiny_configuration):
    gallery = {"gallery": {"experiments": ["cusa", "csa"]}, "reference": "csa"}
    found = plan(tiny_configuration, report=gallery, experiments={**tiny_configuration["experiments"], "csa": None})
    assert (found.gallery_runs, found.reference, found.gallery_data) == (["cusa"], None, ["test"])
    assert plan(tiny_configuration).reference == "contrastive"


def test_the_largest_job_counts_gpus(tiny_configuration):
    train, experiments = tiny_configuration["train"], tiny_configuration["experiments"]
    assert plan(tiny_configuration).gpus_of_largest_job == 0
    assert plan(tiny_configuration, train={**train, "gpus": 2}).gpus_of_largest_job == 2
    larger = experiments | {"cusa": {**experiments["cusa"], "train": {"gpus": 4}}}
    assert plan(tiny_configuration, experiments=larger).gpus_of_largest_job == 4


def test_a_benchmark_that_does_not_exist_is_a_sentence(tiny_configuration):
    benchmarks = {**tiny_configuration["benchmarks"], "more": {"no_such": {}}}
    with pytest.raises(ConfigurationError, match="no_such"):
        plan(tiny_configuration, benchmarks=benchmarks).check()


BENCHMARK = """
from cusa.config.benchmarks import BenchmarkSection
ACROSS_MODALITIES = True
class SETTINGS(BenchmarkSection):
    depth: int = 1
def data(provides, settings):
    return ("test",)
def check(folder, settings):
    return None
evaluate = print
"""


def test_python_files_are_inputs_of_what_uses_them(tiny_configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(BENCHMARK)
    benchmarks = {**tiny_configuration["benchmarks"], "more": {"depths": {"file": "./mine.py", "depth": 2}}}
    teachers = {**tiny_configuration["teachers"], "image": {"name": "./grid.py"}}
    experiments = {**tiny_configuration["experiments"], "teachers": {"baseline": "teachers"}}
    changes = {"benchmarks": benchmarks, "teachers": teachers, "student": {"name": "~/pair.py"}}
    found = plan(tiny_configuration, **changes, experiments=experiments)
    assert found.settings["depths"].depth == 2
    assert found.data_of["depths"] == ("test",)
    assert found.checked_benchmarks == ["depths"]
    assert found.left_out["teachers, depths"]
    assert found.benchmark_files("depths") == ["mine.py"]
    assert found.benchmark_files("itr") == []
    assert json.loads(found.settings_json("depths"))["file"] == "mine.py"
    assert "file" not in json.loads(found.settings_json("itr"))
    pair = str(Path("~/pair.py").expanduser())
    assert pair in found.training_inputs("cusa")
    assert found.student_files("cusa") == [pair]
    assert found.student_files("teachers") == ["grid.py"]
    [teacher] = found.frozen_image_models.values()
    assert teacher.python_files == ["grid.py"]


def test_the_settings_of_a_benchmark_in_a_file_are_checked(tiny_configuration, tmp_path):
    (tmp_path / "mine.py").write_text(BENCHMARK)
    wrong = {"more": {"depths": {"file": str(tmp_path / "mine.py"), "depths": 2}}}
    with pytest.raises(ConfigurationError, match=r"key `benchmarks.more.depths.depths` is unknown"):
        plan(tiny_configuration, benchmarks={**tiny_configuration["benchmarks"], **wrong}).check()


def test_paths_are_relative_to_where_snakemake_runs(tiny_configuration):
    assert plan(tiny_configuration).folder.root == Path("results/shapes")
