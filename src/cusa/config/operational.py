"""Keys that say how something is computed, not what comes out: another value is no reason to compute it again.

Those of `train` are in config/training.py. `dataset.check_images` is one of them only where no image is left out for
what the check finds: pictures that cannot be read are found by decoding them, and so are near copies.
"""

from __future__ import annotations

import json
from typing import Any

CHECK_IMAGES, BATCH_SIZE, TRAIN = "check_images", "batch_size", "train"


def is_operational(key: str) -> bool:
    """Whether a key, with dots, is of no effect on results: `dataset.check_images`, the `batch_size` of a teacher."""
    *above, name = key.split(".")
    return name == CHECK_IMAGES or (name == BATCH_SIZE and above[-1:] != [TRAIN])


def same_result(first: str, second: str) -> bool:
    """Whether two sections of a configuration, as JSON, differ in such keys only. False if either is no JSON."""
    try:
        return bool(_relevant(json.loads(first)) == _relevant(json.loads(second)))
    except ValueError:
        return False


def _relevant(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        parts = {name: (f"{key}.{name}".lstrip("."), part) for name, part in value.items()}
        leaves_out = bool(value.get("skip") or value.get("leave_out_of_train"))
        return {
            name: _relevant(part, path)
            for name, (path, part) in parts.items()
            if not is_operational(path) or (name == CHECK_IMAGES and leaves_out)
        }
    return [_relevant(part, key) for part in value] if isinstance(value, list) else value
