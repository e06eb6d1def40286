"""Image-text retrieval with Cross-modal and Uni-modal Soft-label Alignment (CUSA, AAAI 2024).

Importing this package imports no other module; `load` imports what a model needs. docs/how-it-works.md lists the
packages in the order in which data flow through them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cusa.common.compute import Precision
    from cusa.model.interface import RetrievalModel

__version__ = "0.1.0"


def load(folder: str | Path, device: str | None = None, precision: Precision | None = None) -> RetrievalModel:
    """The model of a run folder or of an exported folder, ready to embed new items; see cusa.model.load."""
    from cusa import model

    return model.load(folder, device, precision)
