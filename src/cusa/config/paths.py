"""Paths in the configuration: which keys have them, and the variables in them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cusa.errors import ConfigurationError

# Under these keys stands a path, or a mapping whose values are paths.
PATH_KEYS = frozenset(
    {
        *("file", "annotations", "image_root", "image_roots", "splits", "weights", "pmrp_files", "senteval"),
        *("cub", "cars", "sop", "inshop", "inaturalist", "labelled_images", "sentence_pairs"),
        *("train_images", "class_names", "positives"),
    }
)
VARIABLE = re.compile(r"\$(?:(\w+)|\{([^{}]*)\})")


def exists(path: str) -> bool:
    """Whether something exists under a path, with `~` expanded. A name that the file system refuses does not exist."""
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def is_path_key(keys: tuple[str, ...]) -> bool:
    """Whether a path stands under the last of `keys`, which lead to it from the top of the configuration."""
    return keys == ("search", "gallery") or bool(PATH_KEYS.intersection(keys[-2:]))


def expand_variables(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with $NAME and ${NAME} in its paths replaced by the values of environment variables.

    These are the values of PATH_KEYS, `search.gallery`, models and input formats by path, and `stream.url` if it is
    a path. A file that exists under the name as it is written keeps it. `~` stays and is expanded where files are
    opened, so that the results of earlier releases are still up to date. Raises ConfigurationError with one line for
    each variable that is not set and each `~user` whose home folder is unknown.
    """
    problems: list[str] = []
    expanded: dict[str, Any] = _expanded(mapping, (), problems)
    if problems:
        raise ConfigurationError("\n".join(problems))
    return expanded


def _expanded(value: Any, keys: tuple[str, ...], problems: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _expanded(member, (*keys, str(key)), problems) for key, member in value.items()}
    if not (isinstance(value, str) and (is_path_key(keys) or _may_be_a_path(value, keys))):
        return value
    found = list(_problems(value))
    problems += [f"Configuration key `{'.'.join(keys)}` is {value!r}, but {problem}." for problem in found]
    if found or exists(value):
        return value
    return VARIABLE.sub(lambda match: os.environ[match[1] or match[2]], value)


def _may_be_a_path(value: str, keys: tuple[str, ...]) -> bool:
    """Whether the value is a path where a name may stand as well, or a URL."""
    if keys == ("stream", "url"):
        return not re.match(r"\w+:", value)
    is_model = keys[-1] in ("name", "pretrained") and keys[0] in ("teachers", "student", "experiments")
    return is_model or keys == ("dataset", "format") or (keys[0] == "checkpoints" and keys[-1] == "student")


def _problems(path: str) -> Iterator[str]:
    if path.startswith("~"):
        try:
            Path(path).expanduser()
        except RuntimeError:
            yield f"there is no home folder for {path.split('/')[0]} here; write the path of the folder"
    if not exists(path):
        names = [match[1] or match[2] for match in VARIABLE.finditer(path)]
        for name in dict.fromkeys(name for name in names if name not in os.environ):
            yield f"the environment variable {name} is not set; set it, or write the path"
