"""The frozen models whose features a configuration asks for: teachers, frozen towers, and the views of both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cusa.config.experiments import RunConfiguration
from cusa.config.models import ImageModel, TextModel
from cusa.config.views import ImageViews, TextViews, views_of_training
from cusa.layout import Modality


def image_models(runs: Iterable[RunConfiguration], trained: Iterable[RunConfiguration]) -> dict[str, ImageModel]:
    """Every image model whose features are cached, by the folder of its features. `trained` are those of `runs`."""
    chosen: dict[str, ImageModel] = {}
    for model in _frozen(runs, trained, "image"):
        kind = ImageViews if isinstance(model, ImageViews) else ImageModel
        plain = kind(**model.model_dump(include=set(kind.model_fields)))
        if (other := chosen.get(model.folder)) is not None:
            dtype = _widest(plain.dtype, other.dtype, "float32")
            precision = _widest(plain.precision, other.precision, "fp32")
            plain = plain.model_copy(update={"dtype": dtype, "precision": precision})
        chosen[model.folder] = plain
    return chosen


def text_models(runs: Iterable[RunConfiguration], trained: Iterable[RunConfiguration]) -> dict[str, TextModel]:
    """Every text model whose features are cached, by the folder of its features. `trained` are those of `runs`."""
    chosen: dict[str, TextModel] = {}
    for model in _frozen(runs, trained, "text"):
        kind = TextViews if isinstance(model, TextViews) else TextModel
        plain = kind(**model.model_dump(include=set(kind.model_fields)))
        if (other := chosen.get(model.folder)) is not None:
            plain = plain.model_copy(update={"dtype": _widest(plain.dtype, other.dtype, "float32")})
        chosen[model.folder] = plain
    return chosen


def _frozen(runs: Iterable[RunConfiguration], trained: Iterable[RunConfiguration], modality: Modality) -> Iterator[Any]:
    """The teachers in use, then the frozen towers of the students, then the views that their trainings read.

    A tower that is also a teacher shares the teacher's features, in the wider of the two dtypes and of the two
    precisions.
    """
    runs = list(runs)
    yield from (teacher for run in runs for teacher, _ in run.teachers_of(modality))
    towers = [getattr(run.student.towers, modality) for run in runs if run.student.towers is not None]
    yield from (tower for tower in towers if not tower.trainable)
    views = [getattr(views_of_training(run), modality) for run in trained]
    yield from (model for model in views if model is not None)


def _widest(own: Any, other: Any, widest: str) -> Any:
    return widest if widest in (own, other) else own
