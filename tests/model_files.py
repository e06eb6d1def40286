"""Folders of models as people have them: other types, several files, missing or odd weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

State = dict[str, Tensor]


def changed_weights(model: Path, folder: Path, change: Callable[[State], State]) -> Path:
    """A copy of a model's folder with another state dict."""
    shutil.copytree(model, folder)
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    return folder


def changed_json(model: Path, folder: Path, file: str, **values: object) -> Path:
    """A copy of a model's folder with other values in one of its JSON files; a value of `...` removes the key."""
    shutil.copytree(model, folder)
    content = json.loads((folder / file).read_text()) | values
    (folder / file).write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    return folder


def stored_as(model: Path, folder: Path, dtype: torch.dtype) -> Path:
    """A copy of a model as one saves it in another type: config.json says so, and every weight is rounded to it."""
    changed_weights(model, folder, lambda state: {name: tensor.to(dtype) for name, tensor in state.items()})
    content = json.loads((folder / "config.json").read_text())
    name = str(dtype).removeprefix("torch.")
    sides = {side: content[side] | {"dtype": name} for side in ("text_config", "vision_config") if side in content}
    (folder / "config.json").write_text(json.dumps(content | sides | {"dtype": name}))
    return folder


def upcast(model: Path, folder: Path) -> Path:
    """A copy of a model whose weights are the same numbers in float32."""
    return stored_as(model, folder, torch.float32)


def sharded(model: Path, folder: Path, size: str = "20KB") -> Path:
    """A copy of a model whose weights are divided into several files with an index."""
    from transformers import AutoModel

    shutil.copytree(model, folder)
    network = AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    network.save_pretrained(folder, max_shard_size=size)
    return folder


def without(*parts: str) -> Callable[[State], State]:
    """A change of a state dict that leaves out the weights whose name has one of these parts."""
    return lambda state: {name: tensor for name, tensor in state.items() if not any(part in name for part in parts)}
