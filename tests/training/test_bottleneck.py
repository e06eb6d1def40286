"""The part that is most worth a look, and the advice about it."""

from __future__ import annotations

import pytest
from training_runs import configured

from cusa.training import bottleneck as bottlenecks
from cusa.training.bottleneck import NAMES, advice, bottleneck, shares_of
from cusa.training.costs import SPEEDS
from cusa.training.profiling import StepProfile
from cusa.training.timeline import PARTS


def profile(device: str = "cpu", busy: float | None = None, mfu: float | None = None, **seconds: float) -> StepProfile:
    parts = dict.fromkeys(PARTS, 0.0) | {name.replace("_", " "): value for name, value in seconds.items()}
    speeds = dict.fromkeys(SPEEDS, 1.0) | {"mfu": mfu}
    return StepProfile(20, 8, 1, device, None, sum(parts.values()), parts, speeds, busy, None)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"image_tower": 7.0, "text_tower": 2.0}, "image tower"),
        ({"image_tower": 2.0, "text_tower": 7.0}, "text tower"),
        ({"image_tower": 7.0, "data": 1.0}, "data"),
        ({"image_tower": 7.0, "data": 0.5}, "image tower"),
        ({"image_tower": 6.0, "heads_and_loss": 3.0}, "heads and loss"),
        ({"image_tower": 6.0, "gather": 3.0, "data": 2.0}, "gather"),
        ({"image_tower": 6.0, "optimiser": 4.0}, "optimiser"),
        ({"image_tower": 6.0, "host": 4.0}, "host"),
        ({"heads_and_loss": 2.0, "optimiser": 2.0, "host": 2.0, "gather": 1.0, "data": 0.9}, "heads and loss"),
    ],
    ids=str,
)
def test_the_largest_part_over_its_share_comes_first_and_else_a_tower(seconds, expected):
    assert bottleneck(profile(**seconds)) == expected


def test_a_gpu_that_has_nothing_to_do_is_the_hosts_time():
    found = profile("NVIDIA H200", busy=0.4, image_tower=9.0, data=1.0)
    assert shares_of(found)["host"] == pytest.approx(0.5)
    assert bottleneck(found) == "host"
    assert bottleneck(profile("NVIDIA H200", busy=0.95, image_tower=9.5, data=0.5)) == "image tower"


def test_every_part_has_a_name_and_advice(tiny_configuration):
    run = configured(tiny_configuration, gather="global")
    for part in PARTS:
        sentences = list(advice(profile(**{part.replace(" ", "_"): 1.0}), run))
        assert part in NAMES
        assert sentences
        assert all(sentence.endswith(".") for sentence in sentences)


@pytest.fixture
def processor(monkeypatch):
    """Sets whether this processor has instructions for bf16 and fp16."""

    def has(them: bool) -> None:
        monkeypatch.setattr(bottlenecks, "has_instructions", lambda device, precision: precision == "fp32" or them)

    return has


def test_a_processor_without_bf16_is_not_told_to_use_it(tiny_configuration, processor):
    slow, fp32 = profile(image_tower=1.0), configured(tiny_configuration)
    for has in (True, False):
        processor(has)
        assert any("bf16" in sentence for sentence in advice(slow, fp32)) == has
    bf16 = configured(tiny_configuration, precision="bf16")
    assert next(advice(slow, bf16)) == ("train.precision: fp32 is faster: this processor has no instructions for bf16.")


def test_advice_fits_the_configuration(tiny_configuration, processor):
    processor(True)
    slow = profile(image_tower=1.0)
    assert "bf16" in next(advice(slow, configured(tiny_configuration)))
    bf16 = configured(tiny_configuration, precision="bf16")
    assert not any("bf16" in sentence for sentence in advice(slow, bf16))
    good = profile("NVIDIA H200", busy=0.99, mfu=0.55, image_tower=1.0)
    assert list(advice(good, bf16)) == ["The GPU does 55 % of what it can do at most, which is good; change nothing."]


def test_unicoms_tokens_are_named_where_they_are_read(tiny_configuration):
    slow = profile(heads_and_loss=1.0)
    unicom = {"name": "unicom", "unicom": {"model": "ViT-B/32", "features": "tokens"}}
    teachers = tiny_configuration["teachers"] | {"image": unicom}
    (only,) = advice(slow, configured(tiny_configuration | {"teachers": teachers}))
    assert "Unicom" in only
    assert not any("Unicom" in sentence for sentence in advice(slow, configured(tiny_configuration)))


def test_only_large_batches_are_told_to_become_smaller(tiny_configuration):
    slow = profile(heads_and_loss=1.0)
    assert not any("Lower" in sentence for sentence in advice(slow, configured(tiny_configuration)))
    large = configured(tiny_configuration, batch_size=2048)
    assert list(advice(slow, large)) == ["Lower train.batch_size: the comparisons grow with its square."]


def test_a_side_that_student_adapt_names_already_is_not_told_to_be_adapted(tiny_configuration):
    def told(part: str, adapt: dict) -> str:
        run = configured(tiny_configuration | {"student": tiny_configuration["student"] | {"adapt": adapt}})
        return " ".join(advice(profile(**{part: 1.0}), run))

    both = {"image": {"lora": {}}, "text": {"lora": {}}}
    trains_less, has_less_to_change = "student.adapt trains less", "student.adapt trains part"
    assert trains_less not in told("text_tower", both)
    assert "student.adapt already trains less of the text tower" in told("text_tower", both)
    assert has_less_to_change not in told("optimiser", both)
    only_image = {"image": {"lora": {}}}
    assert trains_less in told("text_tower", only_image)
    assert has_less_to_change in told("optimiser", only_image)


def test_frozen_towers_are_given_no_advice_that_cannot_be_followed(tiny_configuration):
    """Their features are read: no picture is decoded, no tower computes, and none can be trained less."""
    teachers = tiny_configuration["teachers"]
    towers = {side: model | {"trainable": False} for side, model in teachers.items()} | {"dimension": 8}
    run = configured(tiny_configuration | {"student": {"name": None, "towers": towers}}, gather="local")
    for part in PARTS:
        for sentence in advice(profile("NVIDIA H200", busy=1.0, **{part.replace(" ", "_"): 1.0}), run):
            for useless in ("student.adapt", "trainable", "compile", "decodes", "shorter_side", "captions_per_image"):
                assert useless not in sentence, (part, sentence)
