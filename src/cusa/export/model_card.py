"""The model card of an exported folder: README.md with its origin, its scores and how to load it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cusa.benchmarks import outcomes_file
from cusa.common.files import atomic_file, read_json
from cusa.config.experiments import RunConfiguration
from cusa.config.losses import LossConfiguration
from cusa.config.models import MODALITIES, ImageModel, StudentSettings, TextModel, is_path
from cusa.errors import DataError
from cusa.model.exported import EXPORT, Exported
from cusa.report.statistics import metric_intervals
from cusa.report.tables import TITLES, data_title, metric_title
from cusa.runs.record import RunRecord

CARD = "README.md"
A_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# Names that the configuration knows and the hub does not, and names there.
AT_THE_HUB = {
    "all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2",
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}
LIBRARIES = {"sentence-transformers": "sentence-transformers", "onnx": "onnx", "safetensors": "cusa"}
TAGS = ["image-text-retrieval", "cusa"]
OF_SENTENCE_TRANSFORMERS = ["sentence-transformers", "sentence-similarity", "feature-extraction"]
LICENCE = "license: unknown  # fill in: that of your data set and of the base models decides"
Row = dict[str, Any]


def write_model_card(folder: Path, run: Path, record: RunRecord, about: Exported, measured: Sequence[str]) -> None:
    """Write the README.md of an exported folder. `measured` are lines about measurements of the export."""
    with atomic_file(folder / CARD) as temporary:
        image = read_json(folder / EXPORT).get("image")
        temporary.write_text(model_card(run, record, about, measured, image), encoding="utf-8")


def model_card(
    run: Path, record: RunRecord, about: Exported, measured: Sequence[str], image: Mapping[str, Any] | None = None
) -> str:
    """The text of a model card, with front matter as the Hugging Face hub reads it.

    `image` is the preprocessing of pictures, as cusa.json has it.
    """
    import jinja2

    configuration, rows = record.configuration, list(scores(run))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cusa.export", "."),
        autoescape=False,  # it is Markdown
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md.jinja").render(
        front_matter=front_matter(configuration, about, rows),
        about=about,
        configuration=configuration,
        record=record,
        students=[(_shown(model.name or ""), part) for model, part in _bases(configuration.student)],
        teachers=_teachers(configuration),
        losses=loss_lines(configuration.losses),
        scores=rows,
        protocols=list(dict.fromkeys((row["title"], row["protocol"]) for row in rows)),
        measured=measured,
        image=image,
        heads={head: record.head_used(head) for head in about.heads},
        baseline=record.selected_epoch < 0,
    )


def front_matter(configuration: RunConfiguration, about: Exported, rows: Sequence[Row]) -> str:
    """The YAML between the two lines of `---`, valid for the hub."""
    from huggingface_hub import EvalResult, ModelCardData

    names = [model.name or "" for model, _ in _bases(configuration.student)]
    named = [AT_THE_HUB.get(name, name) for name in names]
    data = ModelCardData(
        license="unknown",
        library_name=LIBRARIES[about.format],
        pipeline_tag="sentence-similarity" if about.format == "sentence-transformers" else "feature-extraction",
        tags=[*TAGS, *(OF_SENTENCE_TRANSFORMERS if about.format == "sentence-transformers" else [about.format])],
        base_model=[name for name in dict.fromkeys(named) if A_HUB_NAME.fullmatch(name)] or None,
        model_name=f"{about.experiment} on {about.dataset}",
        eval_results=[
            EvalResult(
                task_type="image-text-retrieval",
                task_name=row["title"],
                dataset_type=about.dataset,
                dataset_name=" ".join(filter(None, (about.dataset, row["data"]))),
                # The hub puts results of the same data set and configuration together, whatever their task is called.
                dataset_config=" ".join(filter(None, (row["title"], row["data"]))),
                metric_type=row["name"],
                metric_name=row["metric"],
                metric_value=round(row["value"], 4),
            )
            for row in rows
        ]
        or None,
    )
    return str(data.to_yaml()).replace("license: unknown", LICENCE, 1)


def scores(run: Path) -> Iterator[Row]:
    """A row for each metric of the run's benchmarks that its data define, with its 95 % interval if there is one."""
    for path in sorted((run / "benchmarks").glob("*.json")):
        content = read_json(path)
        outcomes = path.with_suffix(".queries.npz")
        try:
            intervals = metric_intervals(outcomes_file.load(outcomes)) if outcomes.is_file() else {}
        except DataError:  # an earlier release wrote it: the scores stand without intervals
            intervals = {}
        for name, value in content["metrics"].items():
            if value is None:
                continue
            data, _, metric = name.rpartition("/")
            yield {
                "title": TITLES.get(content["benchmark"], content["benchmark"]),
                "data": data_title(data) if data else "",  # "" is the data set itself
                "name": metric,
                "metric": metric_title(metric),
                "value": value,
                "interval": intervals.get(name),
                "sizes": content.get("sizes", {}).get(data, (content["n_queries"], content["n_gallery"])),
                "protocol": content["protocol"],
            }


def loss_lines(losses: LossConfiguration) -> list[str]:
    """The losses of the training, a line each; none for a baseline."""
    lines = []
    if (contrastive := losses.contrastive) is not None:
        lines.append(f"contrastive (InfoNCE with the right pairs as labels), rate {contrastive.rate:g}")
    if (cross := losses.cross_softlabel) is not None:
        lines.append(
            f"cross-modal soft-label alignment (CSA) to the teachers' similarities, {cross.loss}, rate {cross.rate:g}"
        )
    if (uni := losses.uni_softlabel) is not None:
        lines.append(
            f"uni-modal soft-label alignment (USA) to the teachers' similarities, {uni.loss}, rate {uni.rate:g}"
        )
    return lines


def _bases(student: StudentSettings) -> Iterator[tuple[ImageModel | TextModel | StudentSettings, str]]:
    """The models that the student was made of, and what each is in it."""
    if student.towers is None:
        yield student, "image and text encoder, trained"
        return
    for modality, tower in (("image", student.towers.image), ("text", student.towers.text)):
        yield tower, f"{modality} tower, {'trained' if tower.trainable else 'frozen'}"


def _teachers(configuration: RunConfiguration) -> Mapping[str, str]:
    if configuration.teachers is None:
        return {}
    return {modality: _mixture(configuration.teachers.mixture(modality)) for modality in MODALITIES}


def _mixture(teachers: list[tuple[ImageModel | TextModel, float]]) -> str:
    """The name of one teacher, or the names of several with their shares."""
    if len(teachers) == 1:
        return _shown(teachers[0][0].identity)
    return ", ".join(f"{share:g} {_shown(teacher.identity)}" for teacher, share in teachers)


def _shown(name: str) -> str:
    """A model's name; of a path the last part, because the others are of no use elsewhere."""
    return Path(name).name if is_path(name) else name
