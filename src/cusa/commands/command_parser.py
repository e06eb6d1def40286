"""The parser of one command: options may stand before, between and after the other arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


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
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.intermixing = False
