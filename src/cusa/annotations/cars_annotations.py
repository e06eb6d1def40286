"""cars_annos.mat of Cars-196, read in a process of its own: scipy's reader crashes at some damaged files.

python -m cusa.annotations.cars_annotations cars_annos.mat
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from cusa.errors import DataError, reason_of


def cars_annotations(path: Path) -> list[tuple[str, int]]:
    """The path of each image within the archive and its class, a number. Raises DataError for any other file."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "cusa.annotations.cars_annotations", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or ["it is damaged"]
        raise DataError(f"{path} is not the annotation file of Cars-196 ({reason[0]}).")
    return [(name, label) for name, label in json.loads(done.stdout)]


def _read(path: str) -> list[tuple[str, int]]:
    from scipy.io import loadmat

    annotations = loadmat(path, squeeze_me=True)["annotations"]
    names, labels = (annotations[field].tolist() for field in ("relative_im_path", "class"))
    return [(str(name), int(label)) for name, label in zip(names, labels, strict=True)]


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(_read(sys.argv[1])))
    except Exception as error:  # noqa: BLE001  # scipy raises errors of any class for a damaged file
        sys.exit(f"{type(error).__name__}: {reason_of(error)}")
