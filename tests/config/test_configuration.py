"""The configuration accepts valid keys and values, and refuses all others with a sentence."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import yaml

from cusa.config import Configuration, check_files, load
from cusa.config.dataset import SECTIONS, DatasetSection
from cusa.config.models import folder_name
from cusa.config.section import Section, added_key
from cusa.errors import ConfigurationError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mapping() -> dict:
    return yaml.safe_load((ROOT / "config/config.yaml").read_text())


def changed(mapping: dict, key: str, value: object) -> dict:
    """A copy with the key `a.b.c` set."""
    mapping = copy.deepcopy(mapping)
    place = mapping
    *path, last = key.split(".")
    for part in path:
        place = place.setdefault(part, {})
    place[last] = value
    return mapping


def test_the_default_is_valid_and_has_the_four_experiments(mapping):
    configuration = load(mapping)
    assert list(configuration.active_experiments) == ["contrastive", "csa", "usa", "cusa"]
    assert configuration.dataset.name == "openmoji"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("sead", 1, "key `sead` is unknown"),
        ("train.epoch", 3, "key `train.epoch` is unknown"),
        ("train.epochs", "3", "key `train.epochs` is '3' \\(str\\): input should be a valid integer"),
        ("train.epochs", 0, "key `train.epochs` is 0 \\(int\\): input should be greater than 0"),
        ("train.lr", float("nan"), "key `train.lr` is nan"),
        ("train.precision", "fp8", "key `train.precision` is 'fp8'"),
        ("train.min_lr", 1.0, "key `train`: min_lr 1.0 is greater than lr"),
        ("train.schedule", "epoch", "warmup_steps is 20 but schedule is `epoch`"),
        ("dataset.format", "coc", "key `dataset.format`: there is no input format 'coc'; expected one of 'openmoji', "),
        ("dataset.format", 3, "key `dataset.format` is 3; expected one of 'openmoji', "),
        ("dataset.skip", ["bad_luck"], "key `dataset.skip.0` is 'bad_luck'"),
        ("teachers.text", None, "key `teachers.text` is null; expected a mapping of keys below it"),
        ("student.name", "openai/clip-vit-base-patch32", "found both of `name`.*and `towers`"),
        ("student.towers", None, "found neither of `name`.*and `towers`"),
        (
            "experiments.small",
            {"contrastive": {}, "student": {"max_tokens": 32}},
            "key `experiments.small.student`: found neither .* the student of an experiment is complete",
        ),
        ("experiments.empty", {}, "key `experiments.empty`: every loss is off"),
        ("experiments.bad", {"contrastive": {"tau": 1}}, "key `experiments.bad.contrastive.tau` is unknown"),
        (
            "experiments.bad name",
            {"contrastive": {}},
            "key `experiments.bad name`: 'bad name' \\(str\\) cannot be",
        ),
        (
            "dataset.name",
            "my data",
            "key `dataset.name`: 'my data' \\(str\\) cannot be a name; expected letters",
        ),
        ("dataset.name", "x" * 300, "key `dataset.name` is 'x{119}\\.\\.\\. \\(str\\): string should have at most 150"),
        (
            "dataset.name",
            False,
            "key `dataset.name` is False \\(bool\\): .*; YAML reads no, off, yes and on as",
        ),
        ("dataset.name", 7, "key `dataset.name` is 7 \\(int\\): .* so write text in quotation marks"),
        ("experiments", {1: {"contrastive": {}}}, "key `experiments.1` is 1 \\(int\\): input should be a valid string"),
        ("train", None, "key `train` is null; expected a mapping of keys below it, or leave it out"),
        ("train", [{"epochs": 3}], "key `train` is \\[{'epochs': 3}\\] \\(list\\); expected a mapping of keys"),
        ("dataset", "openmoji", "key `dataset` is 'openmoji' \\(str\\); expected a mapping of keys"),
        ("experiments", None, "key `experiments` is null; expected a mapping of keys"),
        ("experiments.b", {"uni_softlabel": {"temperature": "cross"}}, "cross_softlabel is off, so there is nothing"),
        (
            "experiments.b",
            {"contrastive": {"temperature": {"start": 0.1, "min": 0.5, "max": 0.1}}},
            "min 0.5 is greater than max 0.1",
        ),
        ("seeds", [1, 1], "repeats a seed"),
        ("seeds", [], "key `seeds`"),
        ("experiments.csa.train", {"epoch": 1}, "key `experiments.csa.train.epoch` is unknown"),
        ("experiments.csa.train", {"min_lr": 2.0}, "min_lr 2.0 is greater than lr 0.002"),
        ("checkpoints", {"cusa": {"file": "a", "student": "b"}}, "are names of experiments too; rename them"),
        ("checkpoints", {"theirs": {"file": "a"}}, "key `checkpoints.theirs.student` is missing"),
        ("benchmarks.more", {"itr": {}}, "more: \\['itr'\\] are benchmarks of cusa; set benchmarks.itr"),
        ("benchmarks.more", {"mine": {"file": "mine"}}, "more.mine.file is 'mine', expected the path of a Python file"),
        ("benchmarks.more", {"mine": {"file": 3}}, "more.mine.file is 3, expected the path"),
        ("dataset.format", "./no.py", "key `dataset.format`: ./no.py does not exist \\(relative paths start at "),
        ("dataset.restval", "val", "key `dataset.restval` is unknown"),
        ("captions", None, "key `captions` is null.*expected a mapping"),
        ("captions.clean", False, "key `captions.clean` is False.*'published' or 'none'"),
        ("captions.max_words", 0, "key `captions.max_words` is 0"),
        ("captions.lower", True, "key `captions.lower` is unknown"),
        ("shards.quality", 101, "key `shards.quality` is 101"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_the_key(mapping, key, value, says):
    with pytest.raises(ConfigurationError, match=says):
        load(changed(mapping, key, value))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("experiments.coco", {"contrastive": {"tau": 1}}, "key `experiments.coco.contrastive.tau` is unknown"),
        ("experiments.table", {"contrastive": {"rate": "x"}}, "key `experiments.table.contrastive.rate` is 'x'"),
        ("experiments.TemperaturePair", {}, "key `experiments.TemperaturePair`: every loss is off"),
        ("experiments.coco", {"contrastive": {}, "train": {"lr": -1}}, "key `experiments.coco.train.lr` is -1"),
        ("checkpoints", {"published": {"file": "a"}}, "key `checkpoints.published.student` is missing"),
        (
            "experiments.albef",
            {"uni_softlabel": {"temperature": {"image": {"min": 5}}}},
            "key `experiments.albef.uni_softlabel.temperature.image`: min 5",
        ),
        ("benchmarks.sts.sentence_pairs", {"literal['cross']": 3}, r"sentence_pairs.literal\['cross'\]` is 3"),
    ],
)
def test_error_keys_keep_the_names_that_users_gave(mapping, key, value, says):
    """Also names that are those of a format, or of a member of a union."""
    with pytest.raises(ConfigurationError, match=says):
        load(changed(mapping, key, value))


def test_all_problems_are_reported_together(mapping):
    broken = changed(changed(mapping, "sead", 1), "train.epochs", "x")
    with pytest.raises(ConfigurationError) as caught:
        load(broken)
    assert len(str(caught.value).splitlines()) == 2


def test_a_missing_section_is_named(mapping):
    del mapping["train"]
    with pytest.raises(ConfigurationError, match="key `train` is missing"):
        load(mapping)


def test_exponents_without_a_dot_are_numbers(mapping):
    """YAML 1.1 reads 1e-5 as a string."""
    assert load(changed(mapping, "train.lr", yaml.safe_load("1e-3"))).train.lr == 0.001


def test_null_drops_an_experiment_but_not_all(mapping):
    assert list(load(changed(mapping, "experiments.csa", None)).active_experiments) == ["contrastive", "usa", "cusa"]
    with pytest.raises(ConfigurationError, match="all are null and there is no checkpoint"):
        load({**mapping, "experiments": dict.fromkeys(mapping["experiments"])})


def test_baselines_are_not_trained(mapping):
    mapping["experiments"]["teachers"] = {"baseline": "teachers"}
    configuration = load(mapping)
    assert "teachers" not in configuration.active_experiments
    towers = configuration.student_of("teachers").towers
    assert towers.dimension is None
    assert not towers.image.trainable
    assert towers.image.folder == configuration.teachers.image.folder
    alone = load({**mapping, "experiments": {"teachers": {"baseline": "teachers"}}})
    assert list(alone.baselines) == ["teachers"]


@pytest.mark.parametrize(
    ("experiment", "sentence"),
    [
        ({"baseline": "zero_shot", "contrastive": {}}, "baseline zero_shot is not trained; leave out its losses"),
        ({"baseline": "zero_shot"}, "experiments.mine`: a pair of towers has random projections before training"),
        ({"baseline": "teachers", "student": {"name": "x"}}, "baseline teachers uses the teachers as its student"),
    ],
)
def test_impossible_baselines(mapping, experiment, sentence):
    mapping["experiments"]["mine"] = experiment
    with pytest.raises(ConfigurationError, match=sentence):
        load(mapping)


def test_a_benchmark_without_data_for_it_is_refused(mapping):
    files = dict.fromkeys(("train", "val", "test"), "x.json")
    published = {**mapping, "dataset": {"name": "p", "format": "published", "annotations": files}}
    with pytest.raises(
        ConfigurationError, match="benchmarks.eccv_caption` needs extended positives.*eccv_caption: null"
    ):
        load(published)


def test_missing_files_are_named_before_anything_runs(mapping, tmp_path):
    files = {split: str(tmp_path / f"{split}.json") for split in ("train", "val", "test")}
    Path(files["train"]).write_text("[]")
    mapping["dataset"] = {"name": "p", "format": "published", "annotations": files, "image_root": str(tmp_path / "no")}
    mapping["benchmarks"] = {"itr": {}}
    mapping["teachers"]["image"]["name"] = "./no-such-model"
    with pytest.raises(ConfigurationError) as caught:
        check_files(load(mapping))
    message = str(caught.value)
    assert [line.split("`")[1] for line in message.splitlines()] == [
        "dataset.annotations.val",
        "dataset.annotations.test",
        "dataset.image_root",
        "teachers.image.name",
    ]


def test_python_files_that_are_not_there_are_named_before_anything_runs(mapping):
    mapping["teachers"]["text"]["name"] = "letters.py"
    mapping["student"] = {"name": "~/no-such/pair.py"}
    mapping["experiments"]["mine"] = {"baseline": "zero_shot", "student": {"name": "./other.py"}}
    mapping["benchmarks"]["more"] = {"mine": {"file": "./mine.py"}, "off": None}
    with pytest.raises(ConfigurationError) as caught:
        check_files(load(mapping))
    assert [line.split("`")[1] for line in str(caught.value).splitlines()] == [
        "benchmarks.more.mine.file",
        "teachers.text.name",
        "student.name",
        "experiments.mine.student.name",
    ]


def test_a_run_depends_on_its_own_losses_only(mapping):
    before = load(mapping).run("contrastive", 23)
    more = changed(mapping, "experiments.cusa.uni_softlabel", {"rate": 0.9})
    assert load(more).run("contrastive", 23) == before
    assert load(more).run("cusa", 23) != load(mapping).run("cusa", 23)
    assert before.teachers is None


def test_null_takes_back_what_another_file_said_of_the_data(mapping):
    """Overlays are merged key by key, so a format's own keys have to be removable when the format changes."""
    assert load(changed(mapping, "dataset.restval", None)) == load(mapping)


def test_an_experiment_may_have_its_own_recipe(mapping):
    configuration = load(changed(mapping, "experiments.csa.train", {"batch_size": 7}))
    assert configuration.run("csa", 1).train.batch_size == 7
    assert configuration.run("cusa", 1).train.batch_size == 128
    assert configuration.run("csa", 1).train.epochs == configuration.train.epochs


def test_run_configurations_survive_json(mapping):
    from cusa.config.experiments import RunConfiguration
    from cusa.config.section import validate

    run = load(mapping).run("cusa", 23)
    assert validate(RunConfiguration, run.model_dump(mode="json")) == run


def test_folder_names_do_not_collide(tmp_path):
    assert folder_name("timm/resnet50") == "timm--resnet50"
    assert folder_name("/a/model") != folder_name("/b/model")
    assert folder_name("/a/model").startswith("model-")
    assert folder_name("./grid.py") == folder_name(str(Path.cwd() / "grid.py")) != folder_name("other/grid.py")
    assert folder_name("grid.py") == folder_name("./grid.py")
    assert folder_name("./grid.py").startswith("grid-")
    assert folder_name("grid/8") == "grid--8"


def _keys(model: type[Section], prefix: str = "") -> set[str]:
    """Every key path of the configuration, unions and tables included."""
    import typing

    found = set()
    for name, field in model.model_fields.items():
        found.add(name)
        stack = [field.annotation]
        while stack:
            kind = stack.pop()
            if isinstance(kind, type) and issubclass(kind, Section):
                found |= _keys(kind)
            if kind is DatasetSection:
                stack += SECTIONS.values()
            stack += typing.get_args(kind)
    return found


def test_config_readme_explains_every_key():
    text = (ROOT / "config/README.md").read_text()
    missing = sorted(key for key in _keys(Configuration) if f"`{key}`" not in text)
    assert not missing, f"config/README.md does not explain {missing}"


def test_config_readme_explains_no_key_that_does_not_exist():
    import re

    text = (ROOT / "config/README.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_]+)`", text, flags=re.M))
    assert documented <= _keys(Configuration), sorted(documented - _keys(Configuration))


def test_machines_are_the_same_for_all_experiments(tiny_configuration):
    experiments = {"contrastive": {"contrastive": {}, "train": {"nodes": 2}}}
    with pytest.raises(ConfigurationError, match=r"experiments.contrastive.train.nodes` is 2, but train.nodes is 1"):
        load({**tiny_configuration, "experiments": experiments}).recipe("contrastive")


def test_a_key_that_a_release_adds_changes_no_json_until_it_is_used():
    class Old(Section):
        quality: int = 95

    class New(Section):
        quality: int = 95
        lossless: bool = added_key(False, "Store the pixels without a loss.")

    assert New().as_json() == Old().as_json()
    assert json.loads(New(lossless=True).as_json()) == {"quality": 95, "lossless": True}


@pytest.mark.parametrize("key", ["batch_size", "captions_per_image"])
def test_a_value_of_no_kind_that_a_key_takes_is_one_sentence(tiny_configuration, key):
    train = {**tiny_configuration["train"], key: 0}
    with pytest.raises(ConfigurationError) as error:
        load({**tiny_configuration, "train": train})
    word = "auto" if key == "batch_size" else "all"
    assert str(error.value) == (
        f"Configuration key `train.{key}` is 0 (int): input should be greater than 0, or: input should be '{word}'."
    )


def refused(mapping, **changes) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load({**mapping, **{key: mapping.get(key, {}) | value for key, value in changes.items()}})
    return str(raised.value)


@pytest.mark.parametrize("gather", ["local", "global"])
def test_a_batch_of_one_pair_teaches_nothing(tiny_configuration, gather):
    train = {"batch_size": 1, "gather": gather}
    said = refused(tiny_configuration, train=train)
    assert "`train.batch_size` (experiment contrastive) is 1, but every loss compares a pair with the others" in said
    together = tiny_configuration["train"] | train | {"cpu_processes": 2}
    if gather == "global":
        load({**tiny_configuration, "train": together})


def test_numbers_that_overflow_are_refused_with_the_largest_one(tiny_configuration):
    with pytest.raises(ConfigurationError, match=r"`seeds.0` is 18446744073709551616 .*less than or equal to 9223"):
        load({**tiny_configuration, "seeds": [2**64]})
    said = refused(tiny_configuration, train={"epochs": 10**30, "warmup_steps": 10**30, "schedule": "step"})
    assert "`train.epochs` is 1000000000000000000000000000000 (int): input should be less than" in said
    assert "`train.warmup_steps` is" in said
    said = refused(tiny_configuration, extraction={"parts": 10**9})
    assert "`extraction.parts` is 1000000000 (int): input should be less than or equal to 10000" in said


def test_a_gallery_that_no_browser_shows_is_refused(tiny_configuration):
    said = refused(tiny_configuration, report={"gallery": {"top": 10_000}})
    assert "`report.gallery`: (text_queries 12 + image_queries 6) x top 10000 x 2 experiments are 360,000" in said


@pytest.mark.parametrize("loss", ["cross_softlabel", "uni_softlabel"])
def test_a_part_of_a_temperature_keeps_the_rest_as_published(tiny_configuration, loss):
    def temperature(written):
        experiments = {"a": {"contrastive": {}, loss: {"temperature": written}}}
        losses = load({**tiny_configuration, "experiments": experiments, "report": {}}).experiments["a"].losses
        return getattr(losses, loss).temperature.model_dump()

    published = temperature({})
    assert temperature({"image": {"start": 0.3}}) == published | {"image": published["image"] | {"start": 0.3}}
    assert temperature({"tied": not published["tied"]}) == published | {"tied": not published["tied"]}


def test_a_wrong_part_of_a_temperature_is_one_sentence(tiny_configuration):
    experiments = {"a": {"uni_softlabel": {"temperature": {"image": {"starts": 0.3}}}}}
    with pytest.raises(ConfigurationError) as raised:
        load({**tiny_configuration, "experiments": experiments})
    assert str(raised.value).splitlines() == [
        "Configuration key `experiments.a.uni_softlabel.temperature.image.starts` is unknown; did you mean `start`? "
        "config/README.md has all keys."
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"search": {"experiments": ["contrastiv"]}},
        {"exports": {"experiments": ["contrastiv"]}},
        {"sweep": {"experiment": "contrastiv", "space": {"train.lr": [0.1]}}},
        {"experiments": {"contrastive": {"contrastive": {}}, "x": {"interpolate": {"experiment": "contrastiv"}}}},
        {"report": {"reference": "contrastiv"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_mistyped_experiment_is_answered_with_the_near_one(tiny_configuration, changes):
    with pytest.raises(ConfigurationError, match=r"did you mean contrastive\?"):
        load({**tiny_configuration, **changes})
