"""Published configurations become overlays; other files are refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from published_files import published, published_yaml

from cusa.config.captions import PUBLISHED
from cusa.config.configuration import load
from cusa.config.losses import LossConfiguration
from cusa.config.section import validate
from cusa.errors import ConfigurationError
from cusa.upstream.configurations import loss_config, read_config

ROOT = Path(__file__).parents[2]


def test_cusa_is_our_default_with_shared_teacher_temperatures():
    expected = {"contrastive": {}, "cross_softlabel": {}, "uni_softlabel": {"teacher_temperature": "cross"}}
    assert loss_config(published()) == validate(LossConfiguration, expected)


def test_only_contrastive():
    assert loss_config(published(cross=False, uni=False)) == validate(LossConfiguration, {"contrastive": {}})


def test_usa_alone_keeps_its_own_temperatures():
    found = loss_config(published(cross=False))
    assert found.cross_softlabel is None
    assert found.uni_softlabel.teacher_temperature.image.start == 1.0


def test_everything_else_their_test_file_exercises():
    mapping = copy.deepcopy(published())
    mapping["cross_softlabel"] |= {
        "use_same_tau": False,
        "is_block_softlabel_tau": False,
        "the_softlabel_text_tau": 0.3,
    }
    mapping["uni_softlabel"] |= {"use_cross_softlabel_same_softlabel_tau": False, "the_softlabel_text_tau": 0.02}
    found = loss_config(mapping)
    assert not found.cross_softlabel.temperature.tied
    assert found.cross_softlabel.teacher_temperature.learned
    assert found.uni_softlabel.teacher_temperature.text.start == 0.02  # below its minimum: clamped on the first step


def test_a_key_that_is_missing_is_named():
    mapping = published()
    del mapping["contrastive"]["tau_max"]
    with pytest.raises(ConfigurationError, match="'tau_max'"):
        loss_config(mapping)


# ---------------------------------------------------------------------------------------------- configurations


def test_a_published_configuration_becomes_an_overlay(tmp_path):
    default = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    overlay = read_config(published_yaml(tmp_path, "ViT-L/14@336px", 16, 40))
    overlay = yaml.safe_load(yaml.safe_dump(overlay))
    merged = {**default, **overlay, "train": {**default["train"], **overlay["train"]}}
    run = load(merged).run("cusa", 23)
    assert run.student.name == "ViT-L/14@336px"
    assert run.captions == PUBLISHED
    assert run.losses == loss_config(published())
    train = run.train
    assert (train.epochs, train.batch_size, train.lr, train.min_lr) == (40, 16, 1e-5, 1e-6)
    assert (train.schedule, train.warmup_steps, train.weight_decay) == ("epoch", 0, 1e-4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"is_all_gather": True}, "is_all_gather is True, only False is supported"),
        ({"optimizer": {"opt": "sgd", "lr": 1.0, "weight_decay": 0.0}}, "optimizer.opt is 'sgd'"),
        ({"schedular": None}, "lacks"),
        ({"loss_config": {}}, "every loss is off"),
    ],
)
def test_configurations_that_cannot_be_taken_over(tmp_path, changes, says):
    with pytest.raises(ConfigurationError, match=says):
        read_config(published_yaml(tmp_path, **changes))


def test_configuration_files_that_are_none(tmp_path):
    (tmp_path / "a.yaml").write_text("{a: [")
    with pytest.raises(ConfigurationError, match="cannot be read as YAML"):
        read_config(tmp_path / "a.yaml")
    with pytest.raises(ConfigurationError, match="none.yaml does not exist"):
        read_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("batch_size_train: 64", "the key `batch_size_train` is there already, in line"),
        ("batch_size_valid: 0200", "YAML reads 0200 of `batch_size_valid` in base 8"),
        ("batch_size_valid: 1:30", "YAML reads 1:30 of `batch_size_valid` in base 60"),
    ],
)
def test_what_yaml_would_lose_or_change_in_a_published_file_is_told(tmp_path, line, says):
    path = published_yaml(tmp_path)
    path.write_text(f"{path.read_text()}\n{line}\n")
    with pytest.raises(ConfigurationError, match=f"{path.name}, line .*{says}"):
        read_config(path)


@pytest.mark.parametrize("rate", [float("nan"), -1.0, "fast"])
def test_a_value_that_no_training_takes_is_refused_with_the_file(tmp_path, rate):
    path = published_yaml(tmp_path, optimizer={"opt": "adamW", "lr": rate, "weight_decay": 0.0})
    with pytest.raises(ConfigurationError, match=f"{path.name} would give train a wrong value: .*`train.lr`"):
        read_config(path)


# ---------------------------------------------------------------------------------------------- features
