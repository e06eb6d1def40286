"""Which module reads which input format."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from cusa.annotations.sources.source import Source
from cusa.config.dataset import DatasetSection

MODULES = {
    "openmoji": "cusa.annotations.sources.openmoji",
    "published": "cusa.annotations.sources.published",
    "albef": "cusa.annotations.sources.albef",
    "karpathy": "cusa.annotations.sources.karpathy",
    "coco": "cusa.annotations.sources.coco",
    "flickr30k": "cusa.annotations.sources.flickr30k",
    "table": "cusa.annotations.sources.table",
}


def open_source(dataset: DatasetSection, image_folder: Path) -> Source:
    """The source for a dataset section; `image_folder` is where a format that makes its own images puts them."""
    module: Any = import_module(MODULES[getattr(dataset, "format")])  # noqa: B009 - defined by each subclass
    source: Source = module.open_source(dataset, image_folder)
    return source
