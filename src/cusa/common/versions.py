"""The software versions that a result depends on, besides its configuration."""

from __future__ import annotations

import platform
from importlib.metadata import version

from cusa import __version__
from cusa.common.registry import loaded_versions


def versions() -> dict[str, str]:
    """Versions by name: of cusa, Python, CUDA, the packages that compute a result, and loaded plug-ins."""
    import torch

    packages = (
        "torch",
        "torchvision",
        "transformers",
        "sentence-transformers",
        "timm",
        "numpy",
        "safetensors",
    )
    return {
        "cusa": __version__,
        "python": platform.python_version(),
        "cuda": str(torch.version.cuda),
        **{package: version(package) for package in packages},
        **loaded_versions(),
    }
