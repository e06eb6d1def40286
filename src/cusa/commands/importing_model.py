"""`cusa import-model`: a pre-trained dual encoder as a run folder, for search without training."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from cusa.common.files import atomic_folder, expanded
from cusa.config.captions import CaptionCleaning
from cusa.config.experiments import RunConfiguration
from cusa.config.losses import LossConfiguration
from cusa.config.models import StudentSettings, is_path
from cusa.config.section import validate
from cusa.config.training import Train
from cusa.errors import ConfigurationError

NO_DATA = "none"  # the data set of a model that was not trained here
EXPERIMENT = "pretrained"


def add_import_model(commands: Any) -> None:
    """Add the command to the parsers of `cusa`."""
    command = commands.add_parser(
        "import-model", help="write a pre-trained model to a run folder, to search with it without training"
    )
    command.add_argument(
        "name", help="Hugging Face name or folder of a dual encoder (CLIP, SigLIP, ...), or open_clip/ARCHITECTURE"
    )
    command.add_argument("--output", required=True, type=Path, help="run folder to write; it must not exist")
    command.add_argument("--pretrained", metavar="TAG", help="the weights of open_clip/ARCHITECTURE: a tag, or a file")
    command.add_argument("--max-tokens", type=int, metavar="N", help="texts are truncated to N tokens; default 77")
    command.set_defaults(call=_import_model)


def _import_model(arguments: argparse.Namespace) -> None:
    output = expanded(arguments.output)
    if os.path.lexists(output):
        raise ConfigurationError(f"{output} exists already; name another folder, nothing is overwritten.")
    # A run folder may be used from any working directory.
    is_here = is_path(arguments.name) or Path(arguments.name).is_dir()
    name = str(expanded(arguments.name).absolute()) if is_here else arguments.name
    given = {"name": name, "pretrained": arguments.pretrained, "max_tokens": arguments.max_tokens}
    student = validate(StudentSettings, {key: value for key, value in given.items() if value is not None}, at="student")
    import_model(student, output)
    sys.stdout.write(f"{output}: {arguments.name} as it was loaded, with no head and no training\n")
    example = shlex.join(["cusa", "embed", str(arguments.output), "PICTURES", "--output", "galleries/pictures"])
    sys.stdout.write(f"next: {example}\n")


def import_model(student: StudentSettings, folder: Path) -> None:
    """Write the run folder of a model that is used as it is loaded. Its texts are not cleaned, as in its own training.

    Raises ConfigurationError if the model cannot be loaded.
    """
    from cusa.runs.baseline import write_baseline

    configuration = RunConfiguration(
        dataset=NO_DATA,
        experiment=EXPERIMENT,
        seed=0,
        student=student,
        losses=LossConfiguration(),
        teachers=None,
        train=Train(epochs=1),
        captions=CaptionCleaning(clean="none", max_words=None),
    )
    with atomic_folder(folder) as temporary:
        write_baseline(temporary, configuration)
