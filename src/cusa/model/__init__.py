"""A trained model in use: embeddings of pictures and texts that belong to no data set.

Importing this package imports no torch. `load` looks at the folder, and imports what its kind of model needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cusa.model.loading import load

if TYPE_CHECKING:
    from cusa.model.run_model import Model

__all__ = ["Model", "load"]


def __getattr__(name: str) -> Any:
    """`Model` is imported when it is asked for, because it imports torch."""
    if name == "Model":
        from cusa.model.run_model import Model

        return Model
    raise AttributeError(f"module {__name__} has no attribute {name}")
