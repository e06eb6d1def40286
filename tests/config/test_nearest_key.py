"""An unknown key is answered with the one that was probably meant."""

from __future__ import annotations

import pytest

from cusa.config.configuration import load
from cusa.config.files import merge, read_files
from cusa.errors import ConfigurationError


@pytest.mark.parametrize(
    ("mapping", "unknown", "meant"),
    [
        ({"sead": [1]}, "sead", "seeds"),
        ({"train": {"epoch": 3}}, "train.epoch", "epochs"),
        ({"dataset": {"val_image": 1}}, "dataset.val_image", "val_images"),
        ({"student": {"towers": {"image": {"trainabel": True}}}}, "student.towers.image.trainabel", "trainable"),
        ({"experiments": {"cusa": {"contrastve": {}}}}, "experiments.cusa.contrastve", "contrastive"),
        ({"experiments": {"cusa": {"train": {"epocs": 1}}}}, "experiments.cusa.train.epocs", "epochs"),
        ({"teachers": {"more": {"text": [{"name": "x", "dtyp": "float16"}]}}}, "teachers.more.text.0.dtyp", "dtype"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_slip_of_the_pen(mapping, unknown, meant):
    with pytest.raises(ConfigurationError) as caught:
        load(merge(read_files([]), mapping))
    assert f"Configuration key `{unknown}` is unknown; did you mean `{meant}`? config/README.md" in str(caught.value)


@pytest.mark.parametrize(
    ("mapping", "unknown", "meant"),
    [
        (
            {"train": {"augmentation": {"caption": {"views": 3}}}},
            "train.augmentation.caption.views",
            "train.augmentation.views",
        ),
        ({"train": {"views": 3}}, "train.views", "train.augmentation.views"),
        ({"min_lr": 1e-3}, "min_lr", "train.min_lr"),
        ({"teachers": {"seeds": [1]}}, "teachers.seeds", "seeds"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_key_in_a_wrong_place(mapping, unknown, meant):
    with pytest.raises(ConfigurationError) as caught:
        load(merge(read_files([]), mapping))
    assert f"Configuration key `{unknown}` is unknown; did you mean `{meant}`? config/README.md" in str(caught.value)


def test_no_key_is_suggested_that_is_not_like_it():
    with pytest.raises(ConfigurationError, match=r"`train.zzz` is unknown; see config/README.md for the keys"):
        load(merge(read_files([]), {"train": {"zzz": 1}}))
    with pytest.raises(ConfigurationError, match=r"`shards.batch_size` is unknown; see config/README.md for the keys"):
        load(merge(read_files([]), {"shards": {"batch_size": 1}}))  # several sections have one
