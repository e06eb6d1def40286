"""What the commands `cusa check` and `cusa datasets` report, one thing at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cusa.errors import ConfigurationError


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and a sentence about it.

    `sound` says whether a run can go on with it; None where there was nothing to look at. `details` are shown below.
    """

    subject: str
    text: str
    sound: bool | None = True
    details: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The finding as it is printed."""
        mark = {True: "ok  ", False: "MEND", None: "-   "}[self.sound]
        return [
            f"{mark}  {self.subject}: {self.text}",
            *(f"      {key + ':':8} {text}" for key, text in self.details.items()),
        ]


def require_sound(findings: Sequence[Finding]) -> None:
    """Raise ConfigurationError when some finding is not sound."""
    if unsound := [finding.subject for finding in findings if finding.sound is False]:
        raise ConfigurationError(f"{len(unsound)} things have to be mended before a run: {', '.join(unsound)}.")
