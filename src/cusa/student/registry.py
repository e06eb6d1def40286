"""Loads the backbone of a student by the name that the configuration gives it."""

from __future__ import annotations

from cusa.common.registry import Registry, call_part, require_folder_of_model
from cusa.config.models import OPEN_CLIP, StudentSettings
from cusa.errors import ConfigurationError, CusaError, cause_of
from cusa.student.backbones import Backbone
from cusa.student.open_clip_loading import is_open_clip_folder

DUAL_ENCODER = "cusa.student.dual_encoder"
OPEN_CLIP_MODELS = "cusa.student.open_clip_models"
STUDENTS = Registry(
    kind="student",
    group="cusa.students",
    modules={
        # The names that the paper, OpenAI's CLIP and the published configurations use.
        "ViT-B/32": DUAL_ENCODER,
        "ViT-B/16": DUAL_ENCODER,
        "ViT-L/14": DUAL_ENCODER,
        "ViT-L/14@336px": DUAL_ENCODER,
        "RN50": OPEN_CLIP_MODELS,
        "RN101": OPEN_CLIP_MODELS,
        "RN50x4": OPEN_CLIP_MODELS,
        "RN50x16": OPEN_CLIP_MODELS,
        "RN50x64": OPEN_CLIP_MODELS,
        OPEN_CLIP: OPEN_CLIP_MODELS,
    },
    needs=("backbone",),
    default=DUAL_ENCODER,
)


def load_backbone(settings: StudentSettings) -> Backbone:
    """The pre-trained backbone of a student that has a `name`, float32, on the CPU.

    Raises ConfigurationError if it cannot be loaded, or cannot read images and captions.
    """
    name = settings.name
    assert name is not None
    registered = OPEN_CLIP if is_open_clip_folder(name) else name
    build = STUDENTS.load(registered, "student.name").backbone
    try:
        backbone = call_part(build, settings)
    except CusaError:
        raise
    except Exception as error:  # libraries raise anything at files that are not as they expect
        require_folder_of_model("student.name", name)
        raise ConfigurationError(
            f"student.name {name} could not be loaded ({cause_of(error)}). {STUDENTS.meant(name)}Give the path of a "
            "folder with the model, its tokeniser and its preprocessor_config.json, or make sure that the hub can be "
            "reached."
        ) from error
    if not isinstance(backbone, Backbone):
        raise ConfigurationError(
            f"backbone of the student {name} returns {type(backbone).__name__}; expected a "
            f"{Backbone.__module__}.{Backbone.__name__}."
        )
    if backbone.image_transform is None or not backbone.tokenises:
        raise ConfigurationError(
            f"The backbone of the student {name} needs an image_transform, and `tokenises` has to be True; only a pair "
            "of towers reads cached features."
        )
    # A step of the optimiser is lost in 8 bits of mantissa, so weights are float32 whatever the type of their file.
    return backbone.float()
