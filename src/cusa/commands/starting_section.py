"""The section `dataset` that `cusa init` writes, while it is found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cusa.commands.first_pairs import first_pairs


@dataclass
class Start:
    """The section `dataset` of a starting configuration, the reasons for it, and warnings."""

    section: dict[str, Any]
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    text: str = ""

    def lines(self) -> Iterator[str]:
        """The output of `cusa init`: each decision with its reason, the first pairs as they are read, and warnings."""
        yield from self.reasons
        yield "the first pairs as they are read:"
        yield from first_pairs(self.section, self.warnings)
        for warning in self.warnings:
            yield f"WARNING: {warning}"


@dataclass(frozen=True)
class Given:
    """The user's options about the data: the folder that image paths start from, and the encoding of text files."""

    images: str | Path | None = None
    encoding: str | None = None

    @property
    def section(self) -> dict[str, Any]:
        """The same as keys of `dataset`."""
        said = {"image_root": self.images and str(self.images), "encoding": self.encoding}
        return {key: value for key, value in said.items() if value is not None}
