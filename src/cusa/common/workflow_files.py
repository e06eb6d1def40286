"""Finds the workflow: Snakefile, workflow/, config/ and envs/ of a clone, or their copies in an installed package.

A wheel has them in the folder cusa/workflow_files, into which pyproject.toml copies them from the root of the
repository. A clone, and an editable installation of it, has no such folder, so the clone's own files are found.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from cusa.common.files import expanded
from cusa.errors import ConfigurationError

PACKAGE = Path(__file__).resolve().parents[1]
PACKAGED = PACKAGE / "workflow_files"
CLONE = PACKAGE.parents[1]
SCHEMA = "config/schema.json"  # of configuration files; `cusa schema --output config/schema.json` writes it
KEYS = "config/README.md"  # explains every key

STARTED = "CUSA_RUN"  # the variable with the command line that the user has started the workflow with
SNAKEFILES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")  # where Snakemake looks for one
CUSA_RUN = "cusa run"


def workflow_command(arguments: str = "") -> str:
    """The command that runs the workflow with these arguments, for sentences that say what to do.

    It is the one that the user has started: `cusa run` or `snakemake`. Outside a run of the workflow it is `snakemake`
    if that finds a Snakefile in the working directory, as in a clone, and `cusa run` elsewhere.
    """
    started = os.environ.get(STARTED)
    by_cusa = not any(map(os.path.isfile, SNAKEFILES)) if started is None else started.startswith(CUSA_RUN)
    return f"{CUSA_RUN if by_cusa else 'snakemake'} {arguments}".strip()


@cache
def workflow_folder() -> Path:
    """The folder with the Snakefile, workflow/, config/ and envs/ that belong to this library.

    Raises ConfigurationError if neither the package nor a clone around it has them.
    """
    for folder in (PACKAGED, CLONE):
        if (folder / "Snakefile").is_file() and (folder / "config").is_dir():
            return folder
    raise ConfigurationError(
        f"{PACKAGED} does not exist, and {CLONE} is not a clone of this project, so the workflow's files are missing; "
        "install cusa again, from its wheel or from a whole clone."
    )


def found_file(path: str | Path) -> Path:
    """The path itself if something is there; else the workflow's own file of this relative name, if there is one.

    So `config/coco.yaml` is found in any folder, and a file of the user's own goes first.
    """
    path = Path(path)
    own = expanded(path)
    if own.is_absolute() or own.exists():
        return path
    carried = workflow_folder() / path
    return carried if carried.exists() and carried.resolve().is_relative_to(workflow_folder()) else path


def editor_line() -> str:
    """The first line of a configuration file, with which editors that use yaml-language-server find its schema."""
    return f"# yaml-language-server: $schema={workflow_folder() / SCHEMA}\n"


def head_of_file(*comments: str) -> str:
    """The first lines of a configuration file that this project writes: that for editors, and one a comment."""
    # A line end in the name of a file would end the comment.
    shown = (line if line.isprintable() else line.encode("unicode_escape").decode("ascii") for line in comments)
    return editor_line() + "".join(f"# {line}\n" for line in shown)


def page_of_keys() -> str:
    """Where all keys are explained, for sentences such as `see ...`: a file that exists here, or a command.

    In the folder of a clone it is config/README.md, elsewhere the absolute path of this file.
    """
    for folder in (PACKAGED, CLONE):
        if (page := folder / KEYS).is_file():
            return KEYS if Path(KEYS).is_file() and page.samefile(KEYS) else str(page)
    return "`cusa schema`"


def link_library(folder: Path) -> Path:
    """Make a folder in which a link to the library is alone, and return the absolute path of that folder.

    The environments of `--sdm conda` have the library's dependencies but not the library. The folder that it is
    installed in has other packages too, of another Python, which an environment must not import.
    """
    link = folder.absolute() / PACKAGE.name
    if link.is_symlink() and link.readlink() == PACKAGE:
        return link.parent
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(f"{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(PACKAGE)
    new.replace(link)
    return link.parent
