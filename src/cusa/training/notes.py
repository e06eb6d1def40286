"""Notes of a run about its captions, for instance that its models hardly know their words."""

from __future__ import annotations

import logging

from cusa.annotations.captions import sampled_positions
from cusa.annotations.tables import SplitTables
from cusa.common.files import read_json
from cusa.config.experiments import RunConfiguration
from cusa.config.models import TextModel
from cusa.layout import META, DatasetFolder
from cusa.student.student import Student
from cusa.teachers.token_use import MULTILINGUAL_STUDENT, token_use

log = logging.getLogger(__name__)


def notes_on_tokens(student: Student, configuration: RunConfiguration, folder: DatasetFolder) -> list[str]:
    """A sentence for each problem that the tokens of the train captions show; each is also logged as a warning.

    For the text teacher and a frozen text tower, the notes come from their extraction. A student that tokenises is
    examined here, with a sample of the captions.
    """
    notes = [
        f"{model.identity}: {warning}"
        for model in _frozen_text_models(configuration)
        for warning in read_json(folder.features("text", model.folder, "train") / META).get("warnings", [])
    ]
    backbone = student.backbone
    if backbone.tokenises:
        captions = SplitTables.open(folder, "train", captions=["caption", "cleaned"]).captions
        positions = sampled_positions(len(captions))
        texts, cleaned = (captions[name].take(positions).to_pylist() for name in ("caption", "cleaned"))
        pairs = list(zip(texts, cleaned, strict=True))
        use = token_use(pairs, len(captions), lambda some: backbone.tokenise(some)[0], backbone.vocabulary())
        log.info("tokens of the student: %s", use.sentence())
        notes += [f"student: {warning}" for warning in use.warnings(MULTILINGUAL_STUDENT).values()]
    for note in notes:
        log.warning(note)
    return notes


def _frozen_text_models(configuration: RunConfiguration) -> list[TextModel]:
    """The text teachers and a frozen text tower; a model occurs once if they share its features."""
    towers = configuration.student.towers
    models = [model for model, _ in configuration.teachers_of("text") if isinstance(model, TextModel)]
    if towers is not None and not towers.text.trainable:
        models.append(towers.text)
    return list({model.folder: model for model in models}.values())
