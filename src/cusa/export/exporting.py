"""Exports a run folder, in one of the formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cusa.common.files import (
    atomic_folder,
    expanded,
    give_usual_permissions,
    read_json,
    require_writable,
    sha256_of_file,
    write_json,
)
from cusa.common.versions import versions
from cusa.config.losses import HeadName
from cusa.errors import ConfigurationError
from cusa.export.hub import push, require_login, require_name
from cusa.export.model_card import CARD, write_model_card
from cusa.model.exported import EXPORT, Exported, ExportFormat
from cusa.model.interface import HEADS
from cusa.model.run_model import Model, load_run
from cusa.runs.record import RUN, RunRecord


@dataclass(frozen=True)
class ExportOptions:
    """The options of an export.

    `head` None exports what the format can hold: `cross` for sentence-transformers, else every head. `int8` quantises
    the weights of onnx; `data` is the data set's folder to measure its loss on, None that of the run. `push_to_hub` is
    the name of a repository at the Hugging Face hub to upload to.
    """

    head: HeadName | None = None
    int8: bool = False
    data: Path | None = None
    push_to_hub: str | None = None


def export(run: str | Path, to: ExportFormat, output: str | Path, options: ExportOptions) -> list[str]:
    """Export the run folder `run` to the folder `output`, which must not exist; returns lines that tell what is done.

    Raises ConfigurationError if the options or the run do not allow it, and DataError if the run is damaged.
    """
    run, output = expanded(run), expanded(output)
    _check(run, to, output, options)
    record = RunRecord.read(run)
    heads = heads_of(to, options.head)
    require_writable(output)
    model = load_run(run, "cpu", "fp32")
    if model.dimension == 0:
        raise ConfigurationError(
            f"{run} is the baseline teachers: an image model and a text model that share no space, so nothing can be "
            "searched with them. Export another run."
        )
    about = Exported(
        format=to,
        weights_sha256=record.weights_sha256,
        dimension=model.dimension,
        heads=heads,
        captions=record.configuration.captions,
        shards=model.shards,
        dataset=record.configuration.dataset,
        experiment=record.configuration.experiment,
        seed=record.configuration.seed,
        versions=versions(),
    )
    with atomic_folder(output) as temporary:
        lines = _write(model, about, temporary, options)
        write_model_card(temporary, run, record, about, lines)
        record_files(temporary)
        for path in temporary.rglob("*.safetensors"):
            give_usual_permissions(path)
    lines = [*lines, f"wrote {output}; in Python: cusa.load({str(output)!r}); its model card is README.md"]
    if options.push_to_hub is not None:
        lines.append(f"uploaded to {push(output, options.push_to_hub)}; fill in the licence there")
    return lines


def record_files(folder: Path) -> None:
    """Add the SHA-256 of each file of an export to its cusa.json. The model card is the user's to change."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    digests = {name: sha256_of_file(folder / name) for name in names if name not in (EXPORT, CARD)}
    write_json(folder / EXPORT, read_json(folder / EXPORT) | {"files_sha256": digests})


def _write(model: Model, about: Exported, folder: Path, options: ExportOptions) -> list[str]:
    """Write a model to an empty folder in the format `about.format`; each format imports what it alone needs."""
    if about.format == "safetensors":
        from cusa.export.safetensors_files import write_safetensors

        return write_safetensors(model, about, folder)
    if about.format == "sentence-transformers":
        from cusa.export.sentence_transformers import write_sentence_transformers

        return write_sentence_transformers(model, about, folder)
    try:
        from cusa.export.onnx_files import write_onnx
    except ImportError as error:
        raise ConfigurationError(
            f"an export to onnx needs the package {error.name}; run pip install 'cusa[onnx]'."
        ) from None
    return write_onnx(model, about, folder, options.int8, options.data)


def heads_of(to: ExportFormat, head: HeadName | None) -> tuple[HeadName, ...]:
    """The heads that an export holds. Both are there for every run: a head that was not trained gives the features."""
    if head is not None:
        return (head,)
    return ("cross",) if to == "sentence-transformers" else HEADS


def _check(run: Path, to: ExportFormat, output: Path, options: ExportOptions) -> None:
    if (run / EXPORT).is_file():
        raise ConfigurationError(
            f"{run} is an export itself; name the run folder that it was exported from, which has {RUN}."
        )
    if output.exists():
        raise ConfigurationError(f"{output} exists already; name another folder, nothing is overwritten.")
    if (options.int8 or options.data) and to != "onnx":
        raise ConfigurationError(f"--int8 and --data are for --to onnx, but the format is {to}; leave them out.")
    if options.push_to_hub is not None:
        require_name(options.push_to_hub)
        require_login()
    if options.data is not None and not options.int8:
        raise ConfigurationError("--data is what --int8 is measured on; give --int8 too, or leave it out.")
