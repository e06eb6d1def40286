"""The paper's figures beside one's own."""

from __future__ import annotations

from cusa.benchmarks.published_results import figures
from cusa.config import RunConfiguration, validate
from cusa.config.interpolation import Interpolation


def configuration(name, cross=None, uni=None):
    towers = {"image": {"name": "an image model"}, "text": {"name": "a text model"}} if name is None else None
    return validate(
        RunConfiguration,
        {
            "dataset": "d",
            "experiment": "e",
            "seed": 1,
            "student": {"name": name, "towers": towers},
            "losses": {"contrastive": {}, "cross_softlabel": cross, "uni_softlabel": uni},
            "teachers": None,
            "train": {"epochs": 1},
        },
    )


def test_published_figures_are_of_the_same_student_and_losses():
    wanted = {"t2i_r1": ("coco_5k", "t2i_r1"), "cub/r1": ("image_retrieval_r1", "cub"), "x": ("coco_5k", "no such")}
    cusa = figures(configuration("openai/clip-vit-base-patch32", {}, {}), wanted)
    assert cusa == {"t2i_r1": 44.2, "cub/r1": 49.7}
    assert figures(configuration("ViT-L/14@336px"), wanted) == {"t2i_r1": 51.6, "cub/r1": 58.3}
    assert figures(configuration("ViT-B/16", {}, {}), wanted) == {}
    assert figures(configuration(None), wanted) == {}


def test_weights_between_before_and_after_a_training_have_no_published_figures():
    found = configuration("openai/clip-vit-base-patch32", {}, {})
    between = found.model_copy(update={"interpolate": Interpolation(experiment="cusa")})
    assert figures(found, {"t2i_r1": ("coco_5k", "t2i_r1")})
    assert figures(between, {"t2i_r1": ("coco_5k", "t2i_r1")}) == {}
