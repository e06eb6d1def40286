"""The software versions that a result depends on, besides its configuration."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version

from cusa import __version__
from cusa.common.registry import loaded_versions


def changed_versions(saved: Mapping[str, str], current: Mapping[str, str]) -> list[str]:
    """`NAME was ..., is ...` for each version that differs, but for patches of Python, which compute the same."""
    return [
        f"{name} was {saved.get(name, 'not there')}, is {current.get(name, 'not there')}"
        for name in dict.fromkeys([*saved, *current])
        if _of_effect(name, saved.get(name)) != _of_effect(name, current.get(name))
    ]


def _of_effect(name: str, number: str | None) -> str | None:
    return number.rpartition(".")[0] if name == "python" and number is not None else number


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
