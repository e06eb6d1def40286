"""Mixtures of teachers: their similarities are weighted means, whatever the dimensions and norms of the features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cusa.config import Configuration, check_files, load
from cusa.errors import ConfigurationError
from cusa.plan import Plan
from cusa.teachers.mixture import MixedFeatures
from cusa.teachers.store import FeatureStore, write_features


def unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def store(folder: Path, features: np.ndarray) -> FeatureStore:
    write_features(folder, len(features), features.shape[1], "float16", [features], {"model": folder.name})
    return FeatureStore(folder, len(features))


def test_the_similarity_of_a_mixture_is_the_weighted_mean_of_similarities(tmp_path):
    rng = np.random.default_rng(0)
    stored = [rng.standard_normal((9, width)).astype(np.float16) * scale for width, scale in ((5, 1), (12, 30), (3, 1))]
    shares = (0.5, 0.3, 0.2)
    stores = [store(tmp_path / str(number), features) for number, features in enumerate(stored)]
    mixture = MixedFeatures(list(zip(stores, shares, strict=True)))
    assert (len(mixture), mixture.dimension) == (9, 20)
    rows = np.array([8, 0, 3, 3])
    found = mixture[rows]
    assert found.dtype == np.float32
    expected = sum(
        share * unit(features[rows]) @ unit(features[rows]).T for share, features in zip(shares, stored, strict=True)
    )
    np.testing.assert_allclose(unit(found) @ unit(found).T, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_teacher_that_says_nothing_of_a_row_leaves_it_finite(tmp_path):
    first, second = np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)
    second[1] = 0
    mixture = MixedFeatures([(store(tmp_path / "a", first), 0.6), (store(tmp_path / "b", second), 0.4)])
    found = mixture[np.arange(2)]
    assert np.isfinite(found).all()
    assert np.linalg.norm(found[1]) == pytest.approx(np.sqrt(0.6), abs=1e-6)


def configuration(tiny_configuration, **more) -> Configuration:
    return load({**tiny_configuration, "teachers": {**tiny_configuration["teachers"], "more": more}})


def test_all_teachers_of_a_mixture_are_extracted_and_read(tiny_configuration):
    plan = Plan(configuration(tiny_configuration, image=[{"name": "timm/resnet18", "share": 0.25}]))
    assert "timm--resnet18" in plan.frozen_image_models
    inputs = [path for path in plan.training_inputs("cusa") if "/teachers/image/" in path]
    assert sorted(Path(path).parts[-3] for path in inputs) == sorted(plan.frozen_image_models)
    assert not [path for path in plan.training_inputs("contrastive") if "/teachers/" in path]
    teachers = plan.configuration.run("cusa", 23).teachers
    assert [share for _, share in teachers.mixture("image")] == [0.75, 0.25]
    assert [share for _, share in teachers.mixture("text")] == [1.0]


def test_one_teacher_is_written_as_before(tiny_configuration):
    """So no old run is trained again."""
    assert "more" not in load(tiny_configuration).run("cusa", 23).as_json()
    assert load(tiny_configuration).run("cusa", 23) == configuration(tiny_configuration).run("cusa", 23)


def test_shares_leave_something_to_the_first_teacher(tiny_configuration):
    shares = [{"name": "timm/resnet18", "share": 0.6}, {"name": "timm/resnet34", "share": 0.4}]
    with pytest.raises(ConfigurationError, match=r"shares in more.image add up to 1, which leaves nothing to image"):
        configuration(tiny_configuration, image=shares)
    with pytest.raises(ConfigurationError, match=r"more.image.0.share` is 0"):
        configuration(tiny_configuration, image=[{"name": "timm/resnet18", "share": 0}])


def test_a_teacher_is_named_once(tiny_configuration, tiny_sentences):
    with pytest.raises(ConfigurationError, match=r"more.text: .* is among the text teachers twice"):
        configuration(tiny_configuration, text=[{"name": str(tiny_sentences), "share": 0.5}])


def test_a_folder_that_does_not_exist_is_named_by_its_key(tiny_configuration, tmp_path):
    chosen = configuration(tiny_configuration, image=[{"name": str(tmp_path / "none"), "share": 0.5}])
    with pytest.raises(ConfigurationError, match=r"`teachers.more.image.0.name` names .*none, which does not exist"):
        check_files(chosen)
