"""The parser of one command: options may stand before, between and after the other arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

CONFIGURATION_FILES = "files"  # the argument of the commands that read configuration files
OF_RUN = ("--configfile", "--configfiles")  # as Snakemake calls this option


def describe(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Let `--help` of each command begin with the sentence that the list of commands has, if it has no longer text."""
    for listed in commands._choices_actions:
        command = commands.choices[listed.dest]
        if command.description is None and listed.help:
            command.description = f"{listed.help[0].upper()}{listed.help[1:]}."


class CommandParser(argparse.ArgumentParser):
    """Reads `RUN --output gallery photos` as it reads `RUN photos --output gallery`.

    argparse alone gives an argument that may be left out its default as soon as the first option comes, and does not
    know the argument then.
    """

    intermixing = False

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """The arguments, and those that are not known."""
        positionals = self._get_positional_actions()
        if self.intermixing or any(action.nargs in (argparse.PARSER, argparse.REMAINDER) for action in positionals):
            return super().parse_known_args(args, namespace)
        self.intermixing = True  # the method of argparse calls this one for each of its two rounds
        try:
            known, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self.intermixing = False
        takes_files = any(action.dest == CONFIGURATION_FILES for action in positionals)
        if takes_files and any(word.partition("=")[0] in OF_RUN for word in unknown):
            self.error(f"--configfile is an option of `cusa run`; name the files alone: `{self.prog} mine.yaml`")
        return known, unknown
