"""The names in the section `report`."""

from __future__ import annotations

import pytest

from cusa.config import load
from cusa.errors import ConfigurationError


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (
            {"reference": "contrastiv"},
            "key `report.reference` names contrastiv, which is none of the experiments and checkpoints (contrastive, "
            "csa, cusa, usa); did you mean contrastive?",
        ),
        (
            {"gallery": {"experiments": ["cusa", "theirs"]}},
            "`report.gallery.experiments` names theirs, which is none",
        ),
        ({"gallery": {"experiments": ["zzz"]}}, "usa); correct it, or leave it out."),
    ],
)
def test_a_name_that_does_not_exist_is_a_sentence(tiny_configuration, report, says):
    with pytest.raises(ConfigurationError) as error:
        load({**tiny_configuration, "report": report})
    assert says in str(error.value)


def test_experiments_that_are_switched_off_may_be_named(tiny_configuration):
    configuration = load({**tiny_configuration, "report": {"reference": "csa", "gallery": {"experiments": ["usa"]}}})
    assert configuration.experiments["csa"] is None


def test_names_that_are_there_by_default_are_not_asked_for(tiny_configuration):
    mapping = {**tiny_configuration, "experiments": {"mine": {"contrastive": {}}}}
    assert load(mapping).report.reference == "contrastive"
