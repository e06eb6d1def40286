"""`cusa run`: Snakemake on the workflow that comes with this library, in any folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from cusa.commands.targets import require_known_targets
from cusa.common.files import expanded, require_writable
from cusa.common.workflow_files import STARTED, found_file, workflow_folder
from cusa.config.files import DEFAULT, read_file, without_dots
from cusa.errors import ConfigurationError

HELP = (
    "All arguments go to Snakemake; `snakemake --help` explains them. All cores are used, unless --cores, --jobs, an "
    "executor or a profile says otherwise. Files and profiles that are not in the working directory are taken from the "
    "workflow: --configfile config/coco.yaml, --profile slurm."
)
PRINT_COMMAND = "--print-command"
# Options that say how much runs at once, with their short forms.
HOW_MUCH = {"--cores": "c", "--jobs": "j", "--executor": "e"}
# Options for the amount of output, with their short forms.
SCREEN = {"--quiet": "q", "--printshellcmds": "p", "--verbose": "-", "--logger": "-", "--dry-run": "n", "--dryrun": "n"}
# Without a profile: failed jobs show their logs, incomplete files are made again, and other jobs go on.
WITHOUT_PROFILE = ("--show-failed-logs", "--rerun-incomplete", "--keep-going")
WITHOUT_VALUE = "nfFkpq"  # short options of Snakemake that can stand before another one, as in -nc4
PROFILES = ("--profile", "--workflow-profile")
FILES = ("--configfile", "--configfiles")
SETTINGS = ("--config", "-C")
PROFILE_FOLDER = Path("workflow/profiles")
RECORDS = ".snakemake"
# Options of Snakemake with which it writes nothing.
SHOWING = {"--list", "--list-rules", "-l", "--list-target-rules", "--lt", "--version", "-v", "--lint"}
UNASKED = (Path("default"), Path("profiles/default"))  # profiles that Snakemake takes where none is named


def add_run(commands: Any) -> None:
    """Add `cusa run` to the list of commands, with its help. Its arguments go to `run` as they are."""
    command = commands.add_parser("run", help="run the workflow with snakemake, in any folder", epilog=HELP)
    command.add_argument(PRINT_COMMAND, action="store_true", help="print the snakemake line, and run nothing")
    command.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="any arguments of snakemake")


def run(arguments: Sequence[str]) -> None:
    """Replace this process by Snakemake, so that signals and the exit status are Snakemake's own.

    Raises ConfigurationError if Snakemake is not installed, and DataError if it could not write its records.
    """
    if find_spec("snakemake") is None:
        raise ConfigurationError("snakemake is not installed here; install cusa with its dependencies.")
    given = [argument for argument in arguments if argument != PRINT_COMMAND]
    command = snakemake_arguments(given)
    directory = Path(next(reversed(_values(given, "--directory", "d")), ""))
    if not _values(given, "--snakefile", "s"):
        require_known_targets(given, directory)
        if os.path.lexists(directory / DEFAULT):
            read_file(directory / DEFAULT)  # Snakemake reads it too, but its error messages say less
    program = _program()
    if PRINT_COMMAND in arguments:
        name = ["snakemake"] if shutil.which("snakemake") == program[0] else program
        sys.stdout.write(f"{shlex.join([*name, *command])}\n")
        return
    if SHOWING.isdisjoint(_options(given)):  # Snakemake would end with a traceback
        require_writable(directory / RECORDS, "Snakemake's records and the results are")
    if not says_how_much(given):
        sys.stderr.write(f"cusa run: no --cores given, so all cores are used ({os.cpu_count()})\n")
    os.environ[STARTED] = shlex.join(["cusa", "run", *given])
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(program[0], [*program, *command])


def _program() -> list[str]:
    """The start of the command line that runs the Snakemake of this Python."""
    script = Path(sys.executable).with_name("snakemake")
    # -P: a folder of the user's that has the name of a module must not stand in for it.
    return [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-P", "-m", "snakemake"]


def snakemake_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments of Snakemake that those of `cusa run` stand for.

    Raises ConfigurationError if a file of --configfile does not exist.
    """
    before: list[str] = []
    if not _values(arguments, "--snakefile", "s"):
        before += ["--snakefile", str(workflow_folder() / "Snakefile")]
    if not says_how_much(arguments):
        before += ["--cores", "all"]
    if not profiles_of(arguments):
        before += [*_screen(arguments), *WITHOUT_PROFILE]
    return [*before, *_with_found_files(arguments)]


def _screen(arguments: Sequence[str]) -> list[str]:
    """A live view in a terminal and short lines elsewhere, unless the arguments choose the output.

    Plans and printed shell commands are shown completely, because users read them.
    """
    if any(_values(arguments, option, short) for option, short in SCREEN.items()):
        return []
    if sys.stderr.isatty() and find_spec("snakemake_logger_plugin_rich") is not None:
        return ["--logger", "rich"]
    return ["--quiet", "rules", "host"]


def says_how_much(arguments: Sequence[str]) -> bool:
    """Whether arguments, or a profile that they name, say how many cores or jobs there are, or who runs them."""
    if any(_values(arguments, option, short) for option, short in HOW_MUCH.items()):
        return True
    keys = {key for profile in profiles_of(arguments) for key in _keys_of_profile(profile)}
    return not keys.isdisjoint(key for option, short in HOW_MUCH.items() for key in (option[2:], short))


def profiles_of(arguments: Sequence[str]) -> list[str]:
    """The profiles that Snakemake will read, as paths or names."""
    named = [value for option in PROFILES for value in _values(arguments, option)]
    if not _values(arguments, "--profile") and (variable := os.environ.get("SNAKEMAKE_PROFILE")):
        named.append(variable)
    if not _values(arguments, "--workflow-profile"):
        named += [str(path) for path in UNASKED if path.exists()][:1]
    return [_found_profile(value) for value in named]


def _keys_of_profile(profile: str) -> Iterator[str]:
    """The keys of a profile; none if it cannot be read, because Snakemake then reports the error."""
    path = Path(profile)
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    for file in files:
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue
        if isinstance(content, dict):
            yield from map(str, content)


def _options(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments before `--`, behind which all are targets."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _values(arguments: Sequence[str], option: str, short: str = "-") -> list[str]:
    """The values that an option has in arguments, in any form that Snakemake's parser takes.

    They are --option VALUE, --option=VALUE, unique beginnings of --option, -o VALUE, -oVALUE and -nfoVALUE.
    """
    found, options = [], _options(arguments)
    for place, argument in enumerate(options):
        name, equals, value = argument.partition("=")
        is_long = len(name) > len("--x") and option.startswith(name)
        match = re.fullmatch(rf"-[{WITHOUT_VALUE}]*{short}=?(.*)", argument)
        if not (is_long or (match and not argument.startswith("--"))):
            continue
        attached = value if is_long and equals else (match[1] if match and not is_long else "")
        found.append(attached or next(iter(options[place + 1 : place + 2]), ""))
    return found


def _with_found_files(arguments: Sequence[str]) -> list[str]:
    """Arguments with the workflow's own files and profiles in the place of names that the working directory lacks."""
    options, found, reading = _options(arguments), [], ""
    for argument in options:
        name, equals, value = argument.partition("=")
        if argument.startswith("-"):
            reading = "" if equals else name  # --option=VALUE has no further values
        if (name in PROFILES or name in FILES or name in SETTINGS) and equals:
            argument = f"{name}={_found(name, value)}"
        elif not argument.startswith("-") and (reading in PROFILES or reading in FILES or reading in SETTINGS):
            argument = _found(reading, argument)
            reading = "" if reading in PROFILES else reading
        found.append(argument)
    return [*found, *arguments[len(options) :]]


def _found(option: str, value: str) -> str:
    if option in SETTINGS and "=" not in value:
        raise ConfigurationError(
            f"{option}: {value} is not KEY=VALUE, such as train.epochs=3. All words behind {option} are, up to the "
            "next option; write targets before it."
        )
    if option in SETTINGS:
        return without_dots(value)
    if option in PROFILES:
        return _found_profile(value)
    path = found_file(value)
    if not expanded(path).exists():
        raise ConfigurationError(
            f"{value} does not exist (relative paths start at {Path.cwd()}). All words behind {option} are names of "
            "files, up to the next option; write targets before it."
        )
    read_file(path)  # as above
    return str(path)


def _found_profile(name: str) -> str:
    """A profile as it is named, where Snakemake finds it; else the path of the workflow's own one of this name."""
    homes = [
        os.environ.get("XDG_CONFIG_HOME") or "~/.config",
        *os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"),
    ]
    places = [Path(), Path("profiles"), *(expanded(home) / "snakemake" for home in homes)]
    if name == "none":
        return name
    if found := next((place / name for place in places if (place / name).exists()), None):
        return str(found)
    carried = found_file(PROFILE_FOLDER / name)
    return str(carried if carried.is_absolute() else found_file(name))
