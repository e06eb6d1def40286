"""The section `student.adapt`."""

from __future__ import annotations

import pytest

from cusa.config.configuration import load
from cusa.config.models import StudentSettings
from cusa.config.section import validate
from cusa.errors import ConfigurationError

CLIP = {"name": "ViT-B/32"}
TOWERS = {
    "towers": {
        "image": {"name": "efficientnet-lite0", "trainable": False},
        "text": {"name": "all-MiniLM-L6-v2"},
        "dimension": 8,
    }
}


def test_lora_has_the_usual_defaults_and_a_student_without_adapt_has_the_json_of_before():
    student = validate(StudentSettings, CLIP | {"adapt": {"image": {"lora": {}}}})
    lora = student.adapt.image.lora
    assert (lora.rank, lora.alpha, lora.dropout, lora.modules) == (8, 16.0, 0.0, None)
    assert "adapt" not in validate(StudentSettings, CLIP).as_json()
    assert student.whole == validate(StudentSettings, CLIP)


@pytest.mark.parametrize(
    ("student", "adapt", "message"),
    [
        (CLIP, {}, "key `student.adapt`: it names neither image nor text; give one of them"),
        (CLIP, {"image": {}}, "key `student.adapt.image`: it says nothing; give lora, last_layers, names or frozen"),
        (CLIP, {"image": {"lora": {"rank": 0}}}, "key `student.adapt.image.lora.rank` is 0"),
        (CLIP, {"text": {"last_layers": -1}}, "key `student.adapt.text.last_layers` is -1"),
        (CLIP, {"text": {"lora": {"modules": []}}}, "key `student.adapt.text.lora.modules` is "),
        (CLIP, {"text": {"layers": 1}}, "key `student.adapt.text.layers` is unknown"),
        (TOWERS, {"image": {"lora": {}}}, "adapt.image is given, but towers.image.trainable is false.*leave adapt"),
    ],
    ids=["no_side", "nothing", "rank", "layers", "no_modules", "unknown", "frozen_tower"],
)
def test_what_cannot_be_is_a_sentence(tiny_configuration, student, adapt, message):
    with pytest.raises(ConfigurationError, match=message):
        load(tiny_configuration | {"student": student | {"adapt": adapt}})


def test_the_side_of_a_trainable_tower_is_adapted(tiny_configuration):
    configuration = load(tiny_configuration | {"student": TOWERS | {"adapt": {"text": {"last_layers": 1}}}})
    assert configuration.run("cusa", 23).student.adapt.text.last_layers == 1


def test_a_baseline_is_the_model_as_it_is_loaded(tiny_configuration):
    experiments = tiny_configuration["experiments"] | {"zero_shot": {"baseline": "zero_shot"}}
    student = CLIP | {"adapt": {"text": {"last_layers": 1}}}
    configuration = load(tiny_configuration | {"student": student, "experiments": experiments})
    assert configuration.run("zero_shot", 23).student.adapt is None
    assert configuration.run("cusa", 23).student.adapt is not None
