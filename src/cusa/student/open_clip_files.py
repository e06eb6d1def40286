"""Files of weights for open_clip: what it would not read, or would read as something else, is told before or after."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from torch import Tensor, nn

from cusa.common.files import read_tensors
from cusa.common.tensor_files import why_no_tensors
from cusa.errors import DataError
from cusa.teachers.state_dicts import examples, require_plain, state_dict_of

log = logging.getLogger(__name__)

SAFETENSORS = ".safetensors"
NUMPY = (".npz", ".npy")  # weights of JAX, which open_clip translates
UNDER, PREFIX = "state_dict", "module."  # that open_clip takes away


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """The names and the shapes of the weights in a file.

    Raises DataError if it holds something else, has them where open_clip does not look, or has them in a kind of
    numbers that no model is trained from.
    """
    if path.suffix in NUMPY:
        return {}
    content: Any = _safetensors(path) if path.suffix == SAFETENSORS else read_tensors(path, mapped=is_zipfile(path))
    found = content.get(UNDER, content) if isinstance(content, Mapping) else content
    if (state := state_dict_of(found, str(path))) is None:
        raise DataError(f"{path} holds no state dict, a mapping of names to tensors, alone or under `{UNDER}`.")
    require_plain(state, str(path))
    if _without_prefix(found) != state.keys():
        raise DataError(
            f"{path} has its weights where open_clip does not look, which is the file itself or `{UNDER}`, with names "
            f"that may begin with `{PREFIX}`; save them as torch.save({{'{UNDER}': weights}}, FILE), without other "
            "prefixes."
        )
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a whole safetensors file ({why_no_tensors(path, error)})") from None


def _without_prefix(state: Mapping[str, Any]) -> set[str]:
    """The names of weights as open_clip takes them."""
    names = list(state)
    return {name.removeprefix(PREFIX) for name in names} if names[0].startswith(PREFIX) else set(names)


def warn_of_resized(path: Path, shapes: Mapping[str, tuple[int, ...]], model: nn.Module) -> None:
    """Log weights that open_clip has resized: it interpolates positions of patches, and cuts or extends those of words.

    `shapes` are those in the file.
    """
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if tensor.ndim > 1}
    resized = [name for name, shape in shapes.items() if own.get(name, shape) != shape]
    if resized:
        log.warning(
            "%s: %s have another shape than in the architecture, and open_clip has resized them: %s is %s in the file "
            "and %s here. Take the architecture that belongs to the weights unless you want that",
            path,
            examples(resized, len(shapes)),
            resized[0],
            list(shapes[resized[0]]),
            list(own[resized[0]]),
        )
