"""The findings that the commands `cusa check` and `cusa datasets` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cusa.errors import ConfigurationError


@dataclass(frozen=True)
class Finding:
    """One thing that was checked, and a sentence about it.

    `sound` is true if a run can use it, false if the user has to fix it, and None if there was nothing to check.
    `doubtful` marks a sound thing that the user should check, because results may be worse than necessary.
    `details` are printed below the sentence, a line each.
    """

    subject: str
    text: str
    sound: bool | None = True
    details: Mapping[str, str] = field(default_factory=dict)
    doubtful: bool = False

    def lines(self) -> list[str]:
        """The lines to print."""
        mark = "WARN" if self.sound and self.doubtful else {True: "ok  ", False: "FIX ", None: "-   "}[self.sound]
        return [
            f"{mark}  {self.subject}: {self.text}",
            *(f"      {key + ':':8} {text}" for key, text in self.details.items()),
        ]


def require_sound(findings: Sequence[Finding]) -> None:
    """Raise ConfigurationError that names the findings that are not sound, if there are any."""
    if unsound := [finding.subject for finding in findings if finding.sound is False]:
        raise ConfigurationError(
            f"{len(unsound)} of {len(findings)} checks failed: {', '.join(unsound)}; see the lines marked FIX."
        )
