"""The files of a model's weights: their paths, their digest, and whether they can be read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from cusa.common.files import sha256_of_file
from cusa.common.text import GUESSED_ON, stand_in
from cusa.errors import ConfigurationError, reason_of

# In the order in which transformers looks for them; an index names the files that the weights are divided into.
INDEX = ".index.json"
WEIGHT_FILES = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
# The types, as safetensors names them, of weights of 8 bits or less, which have scales beside them.
QUANTISED_TYPES = ("I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2")
LONGEST_LIST = 5


def weight_file_in(folder: Path) -> Path | None:
    """The first of WEIGHT_FILES that a folder has; None if it has none."""
    return next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)


def weight_file(name: str) -> Path | None:
    """The file or the index of a model's weights, in its folder or in the hub's cache; None if there is none."""
    from transformers.utils.hub import cached_file

    for candidate in WEIGHT_FILES:
        if path := cached_file(name, candidate, _raise_exceptions_for_missing_entries=False):
            return Path(path)
    return None


def shards(path: Path) -> list[Path]:
    """The files of the weights: those that an index names, in the order of their names, or the one file itself.

    Raises ConfigurationError if the index cannot be read, or names files that do not exist.
    """
    if not path.name.endswith(INDEX):
        return [path]
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} is not an index of weights ({type(error).__name__}: {reason_of(error)}); expected JSON with a "
            "`weight_map` from names of weights to files. Fetch it again."
        ) from None
    files = [path.parent / str(name) for name in names]
    if missing := [file.name for file in files if not file.is_file()]:
        listed = ", ".join(missing[:LONGEST_LIST]) + (", ..." if len(missing) > LONGEST_LIST else "")
        raise ConfigurationError(
            f"{path} names {len(files)} files of weights, but {len(missing)} of them do not exist: {listed}. Put them "
            "beside the index."
        )
    return files


def sha256_of_weights(path: Path) -> str:
    """The SHA-256 of a file of weights; for an index, that of the names and digests of the files that it names."""
    if not path.name.endswith(INDEX):
        return sha256_of_file(path)
    lines = [f"{shard.name} {sha256_of_file(shard)}\n" for shard in shards(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def require_readable(folder: Path) -> None:
    """Raise ConfigurationError if weights in a folder are missing, damaged, or quantised.

    Only the headers of safetensors files are read. A folder without any of WEIGHT_FILES is left to who loads it.
    """
    if (path := weight_file_in(folder)) is None:
        return
    for shard in shards(path):
        if shard.suffix == ".safetensors":
            quantised = [name for name, kind in _types(shard) if kind in QUANTISED_TYPES]
            if quantised:
                raise ConfigurationError(
                    f"{shard} holds {len(quantised)} quantised weights, for instance {quantised[0]}; they cannot be "
                    "trained or run without the program that quantised them. Give the model as it was before, in "
                    "float32, float16 or bfloat16."
                )


def _types(shard: Path) -> Iterator[tuple[str, str]]:
    """The name and the type of each weight of two dimensions or more in a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is not a mapping
                weight = file.get_slice(name)
                if len(weight.get_shape()) > 1:
                    yield name, str(weight.get_dtype())
    except (SafetensorError, OSError) as error:
        with shard.open("rb") as content:
            what = stand_in(content.read(GUESSED_ON))
        advice = "Fetch it again" if what is None else f"It {what}"
        raise ConfigurationError(f"{shard} is not a whole safetensors file ({reason_of(error)}). {advice}.") from None
