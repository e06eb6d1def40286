"""Keys that define how or where results are computed, but do not change them: another value needs no new computation.

Keys of `train` that have no place in a run's parameters at all are OPERATIONAL in config/training.py. Checks of the
data, `dataset.check_images` and `dataset.max_pixels`, are such keys only if no image is left out for what they find.
The device of a training is such a key too, as long as the number of processes is the same: results on another device
differ only by rounding.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from cusa.config.training import OPERATIONAL

BATCH_SIZE, TRAIN = "batch_size", "train"
EXPECTED_IMAGES = "expected_images"
CHECKS = ("check_images", "max_pixels")  # which images are left out depends on them, where some are
STREAM_URL = "stream.url"  # where the shards are
PROCESSES = ("gpus", "cpu_processes", "nodes")  # of `train`


def is_operational(key: str) -> bool:
    """Whether a key, with dots, is of no effect on results: `dataset.check_images`, the `batch_size` of a teacher."""
    *above, name = key.split(".")
    if above[-1:] == [TRAIN]:
        return name in OPERATIONAL
    return name in (BATCH_SIZE, EXPECTED_IMAGES, *CHECKS) or key.endswith(STREAM_URL)


def same_result(first: str, second: str, of_train: Collection[str] | None = None) -> bool:
    """Whether two sections of a configuration, as JSON, differ in such keys only. False if either is not JSON.

    `of_train` are the only keys of `train` that are of effect; None if all others are.
    """
    try:
        one, other = ({"": _with_train(json.loads(text), of_train)} for text in (first, second))
    except ValueError:
        return False
    return next(_differences(one, other), None) is None


def _with_train(section: Any, keys: Collection[str] | None) -> Any:
    """A section with these keys of its `train` only."""
    if keys is None or not isinstance(section, dict) or TRAIN not in section:
        return section
    return section | {TRAIN: {key: value for key, value in section[TRAIN].items() if key in keys}}


def differences(saved: Mapping[str, Any], current: Mapping[str, Any], of_any_effect: bool = False) -> list[str]:
    """`key was ..., is ...` for each value of a section that differs and is of effect on the result.

    `of_any_effect` also gives those that are of none.
    """
    return list(_differences(saved, current, of_any_effect))


def _differences(saved: Any, current: Any, of_any_effect: bool = False, key: str = "") -> Iterator[str]:
    if isinstance(saved, dict) and isinstance(current, dict):
        ignored = _without_effect_here(saved, current)
        for name in dict.fromkeys([*saved, *current]):
            path = f"{key}.{name}".strip(".")
            is_of_effect = name not in ignored and (name in CHECKS or not is_operational(path))
            if of_any_effect or is_of_effect:
                yield from _differences(saved.get(name), current.get(name), of_any_effect, path)
    elif isinstance(saved, list) and isinstance(current, list) and len(saved) == len(current):
        for place, (was, now) in enumerate(zip(saved, current, strict=True)):
            yield from _differences(was, now, of_any_effect, f"{key}.{place}")
    elif saved != current:
        # Keys that a release added are left out where they have their default value.
        was, now = ("null or left out" if value is None else repr(value) for value in (saved, current))
        yield f"{key} was {was}, is {now}"


def _without_effect_here(saved: Mapping[str, Any], current: Mapping[str, Any]) -> set[str]:
    """Keys of a section that are of no effect because of its other values."""
    ignored = set()
    if not any(section.get("skip") or section.get("leave_out_of_train") for section in (saved, current)):
        ignored |= set(CHECKS)
    if (before := _processes(saved)) is not None and before == _processes(current):
        ignored |= set(PROCESSES)
    return ignored


def _processes(train: Mapping[str, Any]) -> int | None:
    """The number of processes of a training; None if this is not a section `train`."""
    if not all(isinstance(train.get(key), int) for key in PROCESSES):
        return None
    return int(train["nodes"] * (train["gpus"] or train["cpu_processes"]))
