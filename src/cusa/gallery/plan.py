"""The plan of an unfinished gallery: plan.json in its folder. A run that continues must have the same plan."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cusa import __version__
from cusa.common.files import read_json, write_json
from cusa.common.pydantic_errors import first_problem
from cusa.errors import DataError
from cusa.gallery.store import META, PARTS, UNREADABLE, GalleryMeta, GalleryModality

PLAN = "plan.json"
END = "end.json"
SHARES = "shares"
OURS = {META, PLAN, END, PARTS, SHARES, UNREADABLE, "pictures"}
PACKAGES = ("numpy", "pillow", "torch", "transformers", "onnxruntime")
MODULES = {"pillow": "PIL"}
# The keys that must be the same in a run that continues, and their names in errors.
COMPARED = {
    "model_sha256": "the model's sha256",
    "modality": "the modality",
    "head": "the head",
    "dtype": "the dtype",
    "part_rows": "the rows of a part",
    "source": "the source",
}
CHANGED_FILES = frozenset({"items", "files", "digest", "digests", "sha256"})  # keys of a source


class Plan(BaseModel):
    """The source, the model and the settings of a gallery."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())
    model: str
    model_sha256: str
    modality: GalleryModality
    head: Literal["cross", "uni"]
    dimension: int
    dtype: Literal["float32", "float16"]
    part_rows: int
    source: dict[str, Any]
    versions: dict[str, str]

    def begin(self, folder: Path) -> GalleryMeta | None:
        """Begin or continue a gallery in `folder`. Returns its meta.json's content if it is complete already.

        Raises DataError if the folder holds something else, or a gallery of another model or source.
        """
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder} is a file, but a gallery is a folder; name another --output.")
        if (folder / META).is_file():
            from cusa.gallery.store import read_meta

            meta = read_meta(folder)
            self._require_equal(folder, meta.model_dump(mode="json") | {"part_rows": self.part_rows})
            return meta
        if (folder / PLAN).is_file():
            self._require_equal(folder, read_plan(folder).model_dump(mode="json"))
            return None
        if others := _others(folder):
            raise DataError(
                f"{folder} is not empty and holds no gallery (it has {others[0]}); name another --output, nothing is "
                "overwritten."
            )
        write_json(folder / PLAN, self.model_dump(mode="json"))
        return None

    def _require_equal(self, folder: Path, begun: dict[str, Any]) -> None:
        mine = self.model_dump(mode="json")
        for key, name in COMPARED.items():
            if mine[key] == begun[key]:
                continue
            was, now = begun[key], mine[key]
            if isinstance(now, dict):
                changed = [part for part in {**was, **now} if was.get(part) != now.get(part)]
                name = f"{name} ({', '.join(changed)})"
                if CHANGED_FILES.issuperset(changed):
                    raise DataError(
                        f"the files in {now['place']!s:.200} have changed since {folder} was begun (names, sizes, "
                        "times or content). A gallery of both would be a mixture: name another --output, or delete "
                        "that one. `cusa index --add` adds a gallery of new items to an index."
                    )
                was, now = ({part: value.get(part) for part in changed} for value in (was, now))
            raise DataError(
                f"{folder} was begun with another {name.removeprefix('the ')}: it was {was!s:.200}, now it is "
                f"{now!s:.200}. A gallery of both would be a mixture: name another --output, or delete {folder}."
            )


def _others(folder: Path) -> list[str]:
    """The names in a folder that are not part of a gallery; a killed process leaves hidden ones."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.name not in OURS and not path.name.startswith("."))


def read_plan(folder: Path) -> Plan:
    """The plan of a gallery that is not complete. Raises DataError if there is none."""
    path = folder / PLAN
    if not path.is_file():
        raise DataError(f"{path} does not exist, so there is nothing to join; embed the shares first.")
    try:
        return Plan.model_validate(read_json(path))
    except ValidationError as error:
        key, message = first_problem(error)
        raise DataError(
            f"{path} does not say what is embedded ({key}: {message}); delete {folder} and embed again."
        ) from None


def versions_in_use() -> dict[str, str]:
    """The versions of cusa, Python, and the packages that are loaded; none is imported for this."""
    loaded = [package for package in PACKAGES if MODULES.get(package, package) in sys.modules]
    return {"cusa": __version__, "python": platform.python_version(), **{name: version(name) for name in loaded}}
