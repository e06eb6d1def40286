"""Opens the source of an input format."""

from __future__ import annotations

from pathlib import Path

from cusa.annotations.sources.source import Source
from cusa.config.dataset import FORMATS, DatasetSection


def open_source(dataset: DatasetSection, image_folder: Path) -> Source:
    """The source for a dataset section. A format that makes images writes them into `image_folder`.

    Raises ConfigurationError if the format's module cannot be loaded (see Registry.load).
    """
    source: Source = FORMATS.load(dataset.format, "dataset.format").open_source(dataset, image_folder)
    return source
